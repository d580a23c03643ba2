"""The origin of a page's numbers: runs, machines, records and verified claims, each fact once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hauberk.report import words
from hauberk.report.collect import RunFacts
from hauberk.verify import Verdict, ledger

# facts that are shown elsewhere, or once for all runs
APART = ("lipschitz", "plans", "environment", "environments", "hashes", "notes", "stopped")


@dataclass(frozen=True)
class Shared:
    """A fact that holds for several runs or verbs."""

    said: str
    whose: str


@dataclass(frozen=True)
class Provenance:
    """The facts at the end of a page.

    Args:
        runs: the runs as ``run_summary`` gives them.
        rest: the other facts of each run, beside its recipe, machine and records.
        machines: each machine once, with the runs and verbs that used it.
        checked: claims that were verified, with the runs.
        trusted: claims that are taken on trust, with the runs.
    """

    runs: tuple[dict[str, Any], ...]
    rest: tuple[Mapping[str, Any], ...]
    machines: tuple[Shared, ...]
    checked: tuple[Shared, ...]
    trusted: tuple[Shared, ...]

    @property
    def problems(self) -> int:
        """How many claims of the records are wrong."""
        return sum(len(run["verified"]["problems"]) for run in self.runs)


def provenance(runs: Sequence[RunFacts]) -> Provenance:
    """All facts about these runs at the end of the page."""
    found = [run_summary(run) for run in runs]
    said = [(_machine(env), f"{run.name} ({verb})") for run in runs for verb, env in _environments(run)]
    return Provenance(
        runs=tuple(found),
        rest=tuple({k: v for k, v in run.info.items() if k not in APART} for run in runs),
        machines=_shared(said, len(said)),
        checked=_shared([(c, r["name"]) for r in found for c in r["verified"]["checked"]], len(runs)),
        trusted=_shared([(c, r["name"]) for r in found for c in r["verified"]["trusted"]], len(runs)),
    )


def run_summary(run: RunFacts) -> dict[str, Any]:
    """A run as plain values: recipe, facts, records, and the checks of its files without data and weights."""
    checked, trusted = ledger(run.verdicts)
    return {
        "name": run.name,
        "recipe": dict(run.recipe),
        "info": {k: v for k, v in run.info.items() if k not in ("lipschitz", "plans")},
        "verified": {"problems": _problems(run.verdicts), "checked": checked, "trusted": trusted},
        "records": [
            {
                "kind": p.kind,
                "key": p.key,
                "rows": p.table.num_rows,
                "method": p.unit["method"]["name"],
                "threat": words.budget(p.unit["threat"]["name"], p.unit["threat"]["eps"]) if p.kind == "attack" else "",
                "seed": p.unit["seed"],
                "data": p.unit.get("data", "joined"),
            }
            for p in run.parts
        ],
    }


def _problems(verdicts: Sequence[Verdict]) -> list[str]:
    return [p for v in verdicts for p in v.problems]


def _environments(run: RunFacts) -> list[tuple[str, Mapping[str, Any]]]:
    later = run.info.get("environments", {})
    return [("run", run.info["environment"]), *later.items()] if "environment" in run.info else [*later.items()]


def _machine(environment: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in environment.items())


def _shared(said: Sequence[tuple[str, str]], everyone: int) -> tuple[Shared, ...]:
    """Each sentence once, with the names of all its sources, or with the word ``all``."""
    known: dict[str, list[str]] = {}
    for sentence, whose in said:
        known.setdefault(sentence, []).append(whose)
    return tuple(Shared(s, "all" if len(w) == everyone > 1 else ", ".join(w)) for s, w in known.items())
