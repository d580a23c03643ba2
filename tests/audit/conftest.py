"""Runs to forge, and a forger who signs again whatever he changed."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml

import hauberk
from hauberk.attacks import APGD, FGSM, AutoAttack
from hauberk.certificates import SmoothingCertificate
from hauberk.certificates.votes import blocks
from hauberk.evaluation.indicators import LIMITS
from hauberk.evaluation.voting import DRAWN
from hauberk.noises import Gaussian
from hauberk.recipes import Evaluation
from hauberk.records import MEASURED, Part, content_hash, part, read, write
from hauberk.threats import L2
from hauberk.verbs import mix as mixing
from hauberk.verify.plans import plan_key, ranges

SUITE = AutoAttack(L2(0.5), version="custom", attacks=(FGSM(L2(0.5)), APGD(L2(0.5), steps=3)))
VOTES = SmoothingCertificate(Gaussian(0.12), n0=20, n=200, alpha=0.01)


@pytest.fixture(scope="session")
def rich_run(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with every kind of record: Lipschitz, votes, an attack, a suite of two stages, a diagnosis."""
    path = Path(shutil.copytree(tiny_run, tmp_path_factory.mktemp("rich") / "tiny"))
    target = hauberk.subject(path)
    plan = Evaluation(images=32, tile=16, gallery=32)
    hauberk.attack(target, [SUITE], plan)
    hauberk.certify(target, [VOTES], plan)
    (attack,) = (
        p for p in map(read, sorted((path / "records").glob("attack-*"))) if p.unit["method"]["name"] == "fgsm"
    )
    method = {"name": "diagnosis", "attack": dict(attack.unit["method"])}
    unit = {k: v for k, v in attack.unit.items() if k not in ("suite", "stage")} | {"method": method}
    facts = {k: v for k, v in attack.facts.items() if k in ("dataset", "split", "classes", "shape")}
    values = dict.fromkeys(LIMITS, 0.0) | {"single_step": 0.04, "binarisation": 1.0}
    verdicts = ["questionable" if name == "single_step" else "sound" for name in values]
    checks = {
        "id": range(len(values)), "check": list(values), "value": list(values.values()), "verdict": verdicts,
        "threshold": [LIMITS[name][0] for name in values], "reason": list(values), "images": [30] * len(values),
    }  # fmt: skip
    write(path / "records", part("diagnosis", unit, facts, checks))
    Forger(path).sign()
    return path


@pytest.fixture(scope="session")
def mixed_run(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mix with its alpha path, a certificate and an attack."""
    subject = hauberk.subject(tiny_run)
    plan = Evaluation(images=16, tile=16, gallery=2)
    how = mixing.Mixture(0.8, robust_scale=10.0)
    run = mixing.mix(subject, subject, how, tmp_path_factory.mktemp("mixed") / "mix", plan)
    target = hauberk.subject(run.path)
    certificate = hauberk.default_certificate(target)
    assert certificate is not None
    hauberk.certify(target, [certificate], plan)
    hauberk.attack(target, [APGD(L2(0.25), steps=3)], plan)
    return run.path


@dataclass
class Forger:
    """Changes a run and signs it again, so that every hash and every name agrees."""

    path: Path

    @property
    def info(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.path / "run.json").read_text())
        return found

    def sign(self, **changes: Any) -> None:
        """Hash everything again, and change run.json; plans of what is no longer there go."""
        info = self.info | changes
        parts = [p for kind in MEASURED for _, p in self.parts(kind) if "predictor" in p.unit]
        left = {plan_key(p.kind, p.unit, p.facts) for p in parts}
        info["plans"] = {key: ids for key, ids in info.get("plans", {}).items() if key in left}
        files = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in (self.path / "records").glob("*.parquet")}
        hashes = info["hashes"] | {"records": files}
        if (self.path / "recipe.yaml").exists():
            hashes["recipe"] = content_hash(yaml.safe_load((self.path / "recipe.yaml").read_text()))
        config = self.path / "checkpoints" / "config.json"
        if config.exists():
            hashes["config"] = content_hash(json.loads(config.read_text()))
        (self.path / "run.json").write_text(json.dumps(info | {"hashes": hashes}))

    def parts(self, kind: str, name: str | None = None) -> list[tuple[Path, Part]]:
        """Records of a kind and method, by stage and samples: their names are hashes, whose order says nothing."""
        found = [(p, read(p)) for p in (self.path / "records").glob(f"{kind}-*.parquet")]
        named = [(p, part) for p, part in found if name is None or part.unit["method"]["name"] == name]
        return sorted(named, key=lambda pair: (pair[1].unit.get("stage", -1), pair[1].column("id").tolist()))

    def change(
        self, kind: str, name: str | None = None, *, rows: Callable[[list[dict[str, Any]]], Any] | None = None,
        head: Callable[[dict[str, Any], dict[str, Any]], None] | None = None, plan: bool = False,
        only_first: bool = False,
    ) -> None:  # fmt: skip
        """Change rows, or unit and facts, of all records of a kind and method; with ``plan``, the plan as well.

        Rows are changed over all records of one evaluation together, and put back where they came from.
        """
        found = self.parts(kind, name)[: 1 if only_first else None]
        assert found
        plans = self.info.get("plans", {})
        planned: dict[str, list[int]] = {}
        for path, item in found:
            unit, facts = json.loads(json.dumps([dict(item.unit), dict(item.facts)]))
            table = item.table.to_pylist()
            if rows is not None:
                changed = rows(table)
                table = table if changed is None else changed
            if head is not None:
                head(unit, facts)
            path.unlink()
            if table:
                new = pa.Table.from_pylist(table, schema=item.table.schema)
                write(self.path / "records", Part(item.kind, unit, facts, new))
            before, key = plan_key(kind, item.unit, item.facts), plan_key(kind, unit, facts)
            if plan and unit.get("stage", 0) == 0:
                planned.setdefault(key, []).extend(row["id"] for row in table)
            elif before in plans:
                plans[key] = plans[before]
        self.sign(plans=plans | {key: ranges(ids) for key, ids in planned.items()})

    def count_again(self) -> None:
        """Votes and plans that the certificates add up to: a forger who changes every file to match."""
        old = [pair for kind in ("votes", "plan") for pair in self.parts(kind)]
        like = next(item for _, item in old if item.kind == "votes")
        for path, _ in old:
            path.unlink()
        for path, proof in self.parts("certificate", "smoothing"):
            shared = proof.facts["shared"]
            names = like.unit.keys() & proof.unit.keys() - {"predictor", "method", "revisions"}
            unit = {**like.unit, **{k: proof.unit[k] for k in names}}
            drawn = {k: unit[k] for k in DRAWN if k in unit} | {"noise": shared["noise"]}
            about = {**drawn, "dataset": proof.facts["dataset"], "split": proof.facts["split"]}
            asked = {name: [shared[name]] for name in ("n0", "n", "alpha", "rule", "rival")}
            plan = part("plan", about, {}, {"id": [0], "noise": [json.dumps(shared["noise"])], **asked})
            write(self.path / "records", plan)
            path.unlink()
            facts = {**proof.facts, "votes": plan.key}
            write(self.path / "records", Part("certificate", proof.unit, facts, proof.table))
            rows = [(row["id"], json.loads(row["evidence"])) for row in proof.table.to_pylist()]
            for purpose, total in (("counts0", shared["n0"]), ("counts", shared["n"])):
                left = {i: list(seen[purpose]) for i, seen in rows}
                for block in blocks(purpose, total):  # type: ignore[arg-type]
                    told = {"purpose": purpose, "start": block.start, "stop": block.stop}
                    counts = [_take(left[i], block.stop - block.start) for i, _ in rows]
                    columns = {name: [value] * len(rows) for name, value in told.items()}
                    columns |= {"id": [i for i, _ in rows], "counts": counts}
                    write(self.path / "records", part("votes", unit | told, like.facts, columns))
        self.sign()

    def edit(self, name: str, change: Callable[[dict[str, Any]], None]) -> None:
        """Change recipe.yaml or checkpoints/config.json, and sign."""
        path = self.path / name
        content = yaml.safe_load(path.read_text())
        change(content)
        path.write_text(yaml.safe_dump(content) if path.suffix == ".yaml" else json.dumps(content))
        self.sign()


@pytest.fixture(scope="session")
def forger() -> type[Forger]:
    """The class that changes a run."""
    return Forger


def _take(counts: list[int], most: int) -> list[int]:
    """As many votes as a block holds, taken off the counts."""
    taken = []
    for k, count in enumerate(counts):
        taken.append(min(count, most - sum(taken)))
        counts[k] -= taken[-1]
    return taken
