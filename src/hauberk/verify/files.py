"""The files of a run: they are read without trust, and compared with the hashes that run.json keeps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hauberk.reading import inside, json_object, sha256, yaml_file
from hauberk.records import Part, content_hash, file_name, merge, read_parts
from hauberk.verify import claims
from hauberk.verify.verdict import MALFORMED, Verdict, one_line


@dataclass(frozen=True)
class Files:
    """The content of a run directory, as far as it can be read.

    Args:
        path: the directory.
        recipe: the content of recipe.yaml.
        info: the content of run.json.
        config: the content of config.json; empty if there is none.
        parts: the records.
        problems: one sentence for each file that cannot be read.
    """

    path: Path
    recipe: Mapping[str, Any]
    info: Mapping[str, Any]
    config: Mapping[str, Any]
    parts: tuple[Part, ...]
    problems: tuple[str, ...]


def open_run(run: Path) -> Files:
    """Read a run directory; a file that cannot be read gives a problem, and not an error."""
    problems: list[str] = []
    recipe = _mapping(run / "recipe.yaml", problems)
    info = _mapping(run / "run.json", problems)
    config_file = inside(run, "checkpoints") / "config.json"
    config = _mapping(config_file, problems) if config_file.exists() else {}
    parts, damaged = read_records(inside(run, "records"))
    return Files(run, recipe, info, config, parts, (*problems, *damaged))


def read_records(folder: Path) -> tuple[tuple[Part, ...], list[str]]:
    """The records of a folder, each once, and a problem for each file that cannot be read or contradicts another."""
    found: dict[str, Part] = {}
    problems = []
    for path in sorted(folder.glob("*.parquet")):
        try:
            parts = read_parts(path)
            if path.name != file_name(parts):
                problems.append(f"{path.name}: its name is not that of its content")
            for part in parts:
                (found[part.key],) = merge([found.get(part.key, part), part])
        except MALFORMED as error:
            problems.append(f"{path.name} cannot be read ({one_line(error)})")
    return tuple(found.values()), problems


def _mapping(path: Path, problems: list[str]) -> Mapping[str, Any]:
    try:
        plain = inside(path.parent, path.name)
        found = yaml_file(plain, links=False) if path.suffix == ".yaml" else json_object(plain)
        if not isinstance(found, dict):
            raise ValueError("it is no mapping")
    except MALFORMED as error:
        problems.append(f"{path.name} cannot be read ({one_line(error)})")
        return {}
    return found


def verify_hashes(run: Path) -> Verdict:
    """Compare recipe, configuration and records with the hashes kept in ``run.json``."""
    return hash_verdict(open_run(run))


def hash_verdict(found: Files) -> Verdict:
    """The verdict on the files of an opened run, compared with the hashes that the run keeps."""
    problems: list[str] = []
    hashes = found.info.get("hashes")
    kept = hashes.get("records", {}) if isinstance(hashes, dict) else {}
    if not isinstance(kept, dict):
        kept, problems = {}, [*problems, "run.json keeps no list of records"]
    files = {p.name: p for p in sorted((found.path / "records").glob("*.parquet"))}
    problems += [f"{name} is missing" for name in kept if name not in files]
    problems += [f"{name} is not listed in run.json" for name in files if name not in kept]
    changed = {n for n, p in files.items() if n in kept and sha256(p) != kept[n]}
    problems += [f"{name} has changed since it was written" for name in sorted(changed)]
    problems += [p for p in found.problems if p.split()[0].rstrip(":") not in changed]  # the others are named already
    problems += _described_problems(found)
    trusted = [claims.ORIGIN, claims.CIRCUMSTANCES]
    unhashed = [name for name in ("recipe", "config") if getattr(found, name) and name not in (hashes or {})]
    trusted += [f"{_FILES[name]}: run.json keeps no hash of it" for name in unhashed]
    return Verdict(
        str(found.info.get("predictor", "")), "hashes", len(files), tuple(problems), (claims.HASHES,), tuple(trusted)
    )


_FILES = {"recipe": "recipe.yaml", "config": "config.json"}


def _described_problems(found: Files) -> Iterator[str]:
    hashes = found.info.get("hashes")
    for name, file in _FILES.items():
        content, kept = getattr(found, name), hashes.get(name) if isinstance(hashes, dict) else None
        if kept is not None and content and content_hash(content) != kept:
            yield f"{file} has changed since it was written"
