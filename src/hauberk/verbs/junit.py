"""Findings as a JUnit file, which every service that runs tests can show."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from hauberk.comparison.requirement import Finding
from hauberk.storage import atomic_write


def write(path: Path, suite: str, findings: Sequence[Finding]) -> None:
    """One test for each finding: a failure is a failure, and what cannot be told is an error.

    Args:
        path: the file.
        suite: its name.
        findings: from ``gate``.
    """
    counts = {kind: str(sum(f.verdict == verdict for f in findings))
              for kind, verdict in (("failures", "fail"), ("errors", "cannot tell"))}  # fmt: skip
    whole = {"tests": str(len(findings)), **counts, "skipped": "0", "time": "0"}
    root = ElementTree.Element("testsuites", whole)
    group = ElementTree.SubElement(root, "testsuite", {"name": _allowed(suite), **whole})
    for finding in findings:
        case = ElementTree.SubElement(group, "testcase", {
            "classname": _allowed(suite), "name": _allowed(finding.name), "time": "0",
        })  # fmt: skip
        if finding.verdict == "pass":
            ElementTree.SubElement(case, "system-out").text = _allowed(finding.reason)
            continue
        kind = "failure" if finding.verdict == "fail" else "error"
        ElementTree.SubElement(case, kind, {"message": _allowed(finding.reason), "type": finding.verdict})
    ElementTree.indent(root)
    atomic_write(path, ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))


def _allowed(text: str) -> str:
    """Text without what XML does not allow."""
    return "".join(c if unicodedata.category(c) not in ("Cc", "Cs", "Cn") else " " for c in text)
