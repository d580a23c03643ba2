"""Forged bundles, each signed again so that its hashes agree: found by the files, by the data, or by the weights.

What is found later than by the files stands among the claims that the files take on trust.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hauberk import audit
from hauberk.verify import claims, ledger, verify_run

Row = dict[str, Any]
Forger = Any  # see conftest.py
Forgery = Callable[[Forger], Any]
FILES: dict[str, tuple[str, Forgery]] = {}
DATA: dict[str, tuple[str, Forgery, str]] = {}
WEIGHTS: dict[str, tuple[str, Forgery, str]] = {}
ACCEPTED: dict[str, tuple[str, Forgery, str]] = {}


def each(change: Callable[[Row], Any]) -> Callable[[list[Row]], None]:
    """Change every row by itself."""

    def changed(rows: list[Row]) -> None:
        for row in rows:
            change(row)

    return changed


def one(change: Callable[[Row], Any], which: Callable[[Row], bool] = lambda row: True) -> Callable[[list[Row]], None]:
    """Change the first row of its kind in each record."""

    def changed(rows: list[Row]) -> None:
        for row in [r for r in rows if which(r)][:1]:
            change(row)

    return changed


def put(**values: Any) -> Callable[[Row], None]:
    return lambda row: row.update(values)


def survivor(row: Row) -> bool:
    return not row["success"]


def broken(row: Row) -> bool:
    return bool(row["success"]) and row["clean_prediction"] == row["label"]


def unit(**values: Any) -> Callable[[Row, Row], None]:
    return lambda unit, facts: unit.update(values)


def facts(**values: Any) -> Callable[[Row, Row], None]:
    return lambda unit, facts: facts.update(values)


def evidence(change: Callable[[Row], None]) -> Callable[[Row], None]:
    def changed(row: Row) -> None:
        found = json.loads(row["evidence"])
        change(found)
        row["evidence"] = json.dumps(found)

    return changed


def in_files(name: str, forgery: Forgery, run: str = "rich") -> None:
    FILES[name] = (run, forgery)


# --- the set ------------------------------------------------------------------------------------------------------

with_others = lambda rows: [*rows, *({**r, "id": r["id"] + 10**6} for r in rows)]  # noqa: E731
certified = lambda rows: [r for r in rows if r["radius"] >= 0.25]  # noqa: E731
in_files("certificates below 0.25 removed", lambda f: f.change("certificate", "lipschitz", rows=certified))
in_files(
    "broken rows removed", lambda f: f.change("attack", "apgd", rows=lambda rs: [r for r in rs if not r["success"]])
)
in_files("one row removed", lambda f: f.change("certificate", "smoothing", rows=lambda rs: rs[1:]))
in_files("a unit removed", lambda f: f.change("certificate", "lipschitz", rows=lambda rs: [], only_first=True))
in_files("rows of a mix removed", lambda f: f.change("mix", rows=lambda rs: rs[::2]), "mixed")
in_files(
    "ids invented",
    lambda f: f.change("certificate", "lipschitz", rows=lambda rs: [*rs, *({**r, "id": r["id"] + 10**6} for r in rs)]),
)
in_files(
    "attacked ids invented",
    lambda f: f.change(
        "attack", "fgsm", rows=lambda rs: [*rs, *({**r, "id": r["id"] + 10**6} for r in rs if not r["success"])]
    ),
)
in_files(
    "a negative id",
    lambda f: f.change("certificate", "lipschitz", rows=lambda rs: [{**rs[0], "id": -5}, *rs[1:]], plan=True),
)
in_files("an id twice", lambda f: f.change("certificate", "lipschitz", rows=lambda rs: [rs[0], *rs], plan=True))
in_files("rows in another order", lambda f: f.change("certificate", "lipschitz", rows=lambda rs: rs[::-1], plan=True))

# --- labels and classes ---------------------------------------------------------------------------------------------

in_files("null labels", lambda f: f.change("certificate", "lipschitz", rows=each(put(label=None))))
in_files("class 99", lambda f: f.change("certificate", "lipschitz", rows=each(put(label=99))))
in_files("a negative label", lambda f: f.change("attack", "apgd", rows=one(put(label=-1))))
in_files("a prediction out of range", lambda f: f.change("certificate", "lipschitz", rows=one(put(prediction=10))))
in_files("no prediction at all", lambda f: f.change("attack", "apgd", rows=one(put(prediction=None))))
in_files(
    "labels set to predictions in one evaluation",
    lambda f: f.change("certificate", "lipschitz", rows=each(lambda r: r.update(label=max(0, r["prediction"])))),
)
in_files(
    "labels of a mix set to predictions",
    lambda f: f.change("mix", rows=each(lambda r: r.update(label=r["robust_prediction"]))),
    "mixed",
)
in_files("fewer classes", lambda f: f.change("certificate", "lipschitz", head=facts(classes=["a", "b"])))

# --- facts ----------------------------------------------------------------------------------------------------------

in_files("another data set", lambda f: f.change("certificate", "lipschitz", head=facts(dataset="imagenet")))
in_files(
    "another data set everywhere",
    lambda f: [f.change(kind, head=facts(dataset="imagenet")) for kind in ("certificate", "attack", "diagnosis")],
)
in_files("an unknown split", lambda f: f.change("certificate", "lipschitz", head=facts(split="holdout")))
in_files(
    "a split that the recipe does not plan", lambda f: f.change("certificate", "lipschitz", head=facts(split="val"))
)
in_files("another seed", lambda f: f.change("attack", "apgd", head=unit(seed=7)))
in_files("another norm", lambda f: f.change("certificate", "lipschitz", head=facts(norm="linf")))
in_files("a norm that the mix does not prove", lambda f: f.change("mix", head=facts(norm="linf")), "mixed")
in_files("proof for votes", lambda f: f.change("certificate", "smoothing", head=facts(proof="deterministic")))
in_files("no failure probability", lambda f: f.change("certificate", "smoothing", head=facts(failure_probability=0.0)))
in_files(
    "another sigma",
    lambda f: f.change(
        "certificate", "smoothing",
        head=lambda u, x: [d.update(noise={"name": "gaussian", "sigma": 0.5}) for d in (u["method"], x["shared"])],
    ),
)
in_files(
    "fewer draws on record", lambda f: f.change("certificate", "smoothing", head=lambda u, x: x["shared"].update(n=20))
)
in_files(
    "a smaller alpha of the votes",
    lambda f: f.change("certificate", "smoothing", head=lambda u, x: x["shared"].update(alpha=1e-6)),
)
in_files("a larger budget", lambda f: f.change("attack", "apgd", head=lambda u, x: u["threat"].update(eps=1.0)))
in_files(
    "a budget that is no number",
    lambda f: f.change(
        "attack",
        "apgd",
        head=lambda u, x: [u["threat"].update(eps=float("nan")), u["method"]["threat"].update(eps=float("nan"))],
    ),
)
in_files(
    "another model's name",
    lambda f: f.change("certificate", "lipschitz", head=unit(predictor="better[0123456789abcdef]")),
)
in_files("other weights", lambda f: f.change("attack", "apgd", head=unit(weights="0" * 16)))
in_files("another shape", lambda f: f.change("attack", "apgd", head=facts(shape=[3, 32, 32])))
in_files(
    "an unknown certificate",
    lambda f: f.change("certificate", "lipschitz", head=lambda u, x: u["method"].update(name="trust")),
)
in_files("alpha of a mix", lambda f: f.change("mix", head=facts(alpha=0.95)), "mixed")
in_files(
    "alpha of a mix's evidence",
    lambda f: f.change("mix", head=lambda u, x: x["shared"].update(mix_alpha=0.95)),
    "mixed",
)
in_files(
    "radii of a mix", lambda f: f.change("mix", head=lambda u, x: x.update(eps=[e / 2 for e in x["eps"]])), "mixed"
)
in_files(
    "scales in the name of a mix",
    lambda f: f.change("mix", head=lambda u, x: u.update(predictor=u["predictor"].replace("1.0/10.0", "1.0/20.0"))),
    "mixed",
)
in_files("models of a mix", lambda f: f.change("mix", head=facts(robust="better[0123456789abcdef]")), "mixed")
in_files(
    "alpha of a mix in the recipe", lambda f: f.edit("recipe.yaml", lambda r: r["model"].update(alpha=0.95)), "mixed"
)

# --- rows -----------------------------------------------------------------------------------------------------------

in_files(
    "a radius",
    lambda f: f.change("certificate", "lipschitz", rows=each(lambda r: r.update(radius=2 * r["radius"] + 0.1))),
)
in_files("an infinite radius", lambda f: f.change("certificate", "lipschitz", rows=one(put(radius=float("inf")))))
in_files(
    "logits x5 beside an attack",
    lambda f: f.change(
        "certificate",
        "lipschitz",
        rows=each(
            lambda r: [
                evidence(lambda e: e.update(logits=[5 * z for z in e["logits"]], rounding=0.0))(r),
                r.update(radius=5 * r["radius"]),
            ]
        ),
    ),
)
in_files(
    "negative votes",
    lambda f: f.change("certificate", "smoothing", rows=one(evidence(lambda e: e["counts0"].__setitem__(0, -1)))),
)
in_files("success taken back", lambda f: f.change("attack", "apgd", rows=each(put(success=False))))
in_files(
    "success and prediction taken back",
    lambda f: f.change(
        "attack",
        "apgd",
        rows=each(lambda r: r.update(success=r["clean_prediction"] != r["label"], prediction=r["label"])),
    ),
)
in_files(
    "a survivor against its margins",
    lambda f: f.change(
        "attack",
        "apgd",
        rows=each(
            lambda r: broken(r) and r.update(success=False, prediction=r["label"], nearest=None, stopped="steps")
        ),
    ),
)
in_files(
    "margins made positive",
    lambda f: f.change(
        "attack",
        "apgd",
        rows=each(
            lambda r: r.update(logit_margin=abs(r["logit_margin"]), probability_margin=abs(r["probability_margin"]))
        ),
    ),
)
in_files(
    "a larger margin of a survivor",
    lambda f: f.change("attack", "apgd", rows=one(put(probability_margin=0.999), survivor)),
)
in_files(
    "a larger logit margin of a survivor",
    lambda f: f.change("attack", "apgd", rows=one(put(logit_margin=99.0), survivor)),
)
in_files(
    "a point outside the threat", lambda f: f.change("attack", "apgd", rows=one(put(distance=0.6, nearest=0.6), broken))
)
in_files("a distance that is negative", lambda f: f.change("attack", "apgd", rows=one(put(distance=-0.1))))
in_files("a distance that is no number", lambda f: f.change("attack", "apgd", rows=one(put(distance=float("nan")))))
in_files("no forward passes", lambda f: f.change("attack", "apgd", rows=each(put(forwards=0))))
in_files(
    "another decision at the image",
    lambda f: f.change("attack", "fgsm", rows=one(lambda r: r.update(clean_prediction=(r["label"] + 1) % 10))),
)
in_files(
    "other probabilities at the point",
    lambda f: f.change("attack", "apgd", rows=one(lambda r: r.update(probabilities=r["probabilities"][::-1]))),
)
in_files(
    "success inside a certified radius",
    lambda f: f.change(
        "certificate",
        "lipschitz",
        rows=each(
            lambda r: [
                evidence(lambda e: e.update(logits=[9 * z for z in e["logits"]]))(r),
                r.update(radius=9 * r["radius"]),
            ]
        ),
    ),
)
in_files("an interval of a mix", lambda f: f.change("mix", rows=each(put(alpha_low=-1.0, alpha_high=2.0))), "mixed")
in_files(
    "certified weights of a mix",
    lambda f: f.change("mix", rows=each(lambda r: r.update(certified_alpha=[0.5] * len(r["certified_alpha"])))),
    "mixed",
)
in_files(
    "logits of a mix",
    lambda f: f.change("mix", rows=each(lambda r: r.update(robust_logits=[2 * z for z in r["robust_logits"]]))),
    "mixed",
)
in_files(
    "a mix's certificate",
    lambda f: f.change("certificate", rows=each(lambda r: r.update(radius=r["radius"] + 0.2))),
    "mixed",
)

# --- stages, units, diagnoses, pictures, files ------------------------------------------------------------------------

apgd_stage = lambda f: [(p, x) for p, x in f.parts("attack", "apgd") if "suite" in x.unit]  # noqa: E731
in_files("the last stage dropped", lambda f: [[p.unlink() for p, _ in apgd_stage(f)], f.sign()])
in_files("the first stage dropped", lambda f: f.change("attack", "fgsm", rows=lambda rs: []))
in_files(
    "survivors of a stage made up",
    lambda f: f.change("attack", "fgsm", rows=lambda rs: [{**r, "success": True} if survivor(r) else r for r in rs]),
)
in_files("a stage of another number", lambda f: f.change("attack", "fgsm", head=unit(stage=5)))
in_files(
    "a unit twice",
    lambda f: [
        f.change("certificate", "smoothing", only_first=True, head=None, rows=None),
        [
            shutil.copy(p, p.with_name(p.name.replace(".parquet", "-2.parquet")))
            for p, _ in f.parts("certificate", "smoothing")
        ],
        f.sign(),
    ],
)
in_files(
    "an evaluation twice with other facts",
    lambda f: [f.change("certificate", "lipschitz", only_first=True, head=lambda u, x: x["shared"].update(layers=[]))],
)
in_files("a verdict of a diagnosis", lambda f: f.change("diagnosis", rows=each(put(verdict="sound"))))
in_files(
    "a limit of a diagnosis",
    lambda f: f.change("diagnosis", rows=each(lambda r: r.update(verdict="sound", threshold=9.0))),
)
in_files("an unknown check", lambda f: f.change("diagnosis", rows=one(put(check="vibes"))))
in_files(
    "a kept point that is the image",
    lambda f: f.change(
        "attack", "apgd", rows=each(lambda r: r["distance"] > 0 and r["image"] and r.update(adversarial=r["image"]))
    ),
)
in_files(
    "a kept point far away",
    lambda f: f.change(
        "attack",
        "apgd",
        rows=each(lambda r: r["image"] and r.update(adversarial=np.ones(64, dtype=np.float32).tobytes())),
    ),
)
in_files(
    "a kept picture cut short",
    lambda f: f.change("attack", "apgd", rows=each(lambda r: r["image"] and r.update(image=r["image"][:8]))),
)
in_files(
    "kept pixels outside the box",
    lambda f: f.change(
        "attack", "apgd", rows=each(lambda r: r["image"] and r.update(image=np.full(64, 2, dtype=np.float32).tobytes()))
    ),
)
in_files("a changed configuration", lambda f: f.edit("checkpoints/config.json", lambda c: c["spec"].update(hidden=64)))
in_files(
    "classes of the configuration",
    lambda f: f.edit("checkpoints/config.json", lambda c: c["facts"].update(classes=list("abcdefghij"))),
)
in_files(
    "weights of the configuration", lambda f: f.edit("checkpoints/config.json", lambda c: c.update(weights="0" * 16))
)
in_files("data of the recipe", lambda f: f.edit("recipe.yaml", lambda r: r.update(data={"name": "mnist"})))
in_files("model of the recipe", lambda f: f.edit("recipe.yaml", lambda r: r["model"].update(hidden=64)))
in_files("predictor of the run", lambda f: f.sign(predictor="better[0123456789abcdef]"))

in_files("a stage of no suite", lambda f: f.change("attack", "apgd", head=unit(stage=1), only_first=True))
in_files("only survivors of a stage of no suite", lambda f: [
    without_suite(f), f.change("attack", "apgd", head=unit(stage=1), rows=lambda rs: [r for r in rs if survivor(r)]),
])  # fmt: skip
in_files("a check left out", lambda f: f.change("diagnosis", rows=lambda rs: numbered(rs, lambda r: r["id"] != 10)))
in_files("a check twice", lambda f: f.change("diagnosis", rows=lambda rs: [*rs, {**rs[0], "id": len(rs)}]))
in_files("a random model without draws", lambda f: [
    without_suite(f), f.change("attack", "apgd", head=facts(stochastic=True), rows=each(taken_back)),
])  # fmt: skip
in_files("random in words", lambda f: f.change("attack", "apgd", head=facts(stochastic="yes")))
in_files("an evaluation gone and its plan left", lambda f: [
    plans := f.info["plans"], [p.unlink() for p, _ in f.parts("certificate", "smoothing")], f.sign(),
    (f.path / "run.json").write_text(json.dumps(f.info | {"plans": plans})),
])  # fmt: skip


# what the check says that is meant, where others find the same forgery
SAID = {
    "a negative id": "an id is missing or negative",
    "class 99": "label is missing or none of",
    "a negative label": "label is missing or none of",
    "a prediction out of range": "prediction is missing or none of",
    "an unknown split": "its split is 'holdout'",
    "other weights": "its weights are",
    "a larger budget": "its method is in the threat",
    "alpha of a mix in the recipe": "its predictor has alpha",
    "success taken back": "success contradicts",
    "a survivor against its margins": "a misclassified point was seen, and no success",
    "other probabilities at the point": "the largest probability is not the prediction",
    "a kept picture cut short": "is not of shape",
    "logits x5 beside an attack": "the certificate's logits are not those",
    "a stage of another number": "it has no stage 5",
    "labels of a mix set to predictions": "two labels in the records",
    "a limit of a diagnosis": "its threshold is",
    "a stage of no suite": "it is a stage of no suite",
    "a check left out": "it is missing",
    "a check twice": "more than once",
    "a random model without draws": "a misclassified point was seen, and no success",
    "an evaluation gone and its plan left": "have no record",
}


def without_suite(f: Forger) -> None:
    for path, part in f.parts("attack"):
        if "suite" in part.unit:
            path.unlink()


def numbered(rows: list[Row], kept: Callable[[Row], bool]) -> list[Row]:
    """Some of the checks, as if there were no others."""
    return [{**row, "id": number} for number, row in enumerate(r for r in rows if kept(r))]


def taken_back(row: Row) -> None:
    """A broken row told as a survivor, its margins and probabilities left as they are."""
    if broken(row):
        row.update(success=False, prediction=row["label"], nearest=float("inf"), stopped="steps", image=None,
                   adversarial=None)  # fmt: skip


# --- seen with the data -----------------------------------------------------------------------------------------------


def everywhere(f: Forger, change: Callable[[list[Row]], Any]) -> None:
    for kind in ("certificate", "attack"):
        f.change(kind, rows=change, plan=True)


DATA |= {
    "easy samples planned": (
        "rich",
        lambda f: (
            f.change("certificate", "lipschitz", rows=certified, plan=True)
            or f.edit("recipe.yaml", lambda r: r["evaluation"].pop("images"))
        ),
        claims.SELECTION,
    ),
    "invented samples planned": (
        "rich",
        lambda f: (
            f.change("certificate", "smoothing", rows=with_others, plan=True)
            or f.count_again()
        ),
        claims.SELECTION,
    ),
    "labels set to predictions everywhere": (
        "mixed",
        lambda f: (
            [
                f.change(
                    "mix",
                    rows=each(
                        lambda r: r.update(
                            label=(r["label"] + 1) % 10,
                            alpha_low=None,
                            alpha_high=None,
                            certified_alpha=[None] * len(r["certified_alpha"]),
                        )
                    ),
                )
            ]
            and [p.unlink() for k in ("attack", "certificate") for p, _ in f.parts(k)]
            and f.sign()
        ),
        claims.LABELS,
    ),
    "labels of certificates alone": (
        "rich",
        lambda f: [
            [p.unlink() for p, _ in f.parts("attack")],
            f.change("certificate", rows=each(lambda r: r.update(label=(r["label"] + 1) % 10))),
        ],
        claims.LABELS,
    ),
    "hash of the images": (
        "rich", lambda f: f.change("certificate", "lipschitz", head=unit(data="0" * 16), only_first=True),
        claims.LABELS,
    ),
    "hash of attacked images": (
        "rich", lambda f: f.change("attack", "apgd", head=unit(data="0" * 16), only_first=True), claims.LABELS,
    ),
    "names of the classes": (
        "rich",
        lambda f: (
            [f.change(k, head=facts(classes=list("abcdefghij"))) for k in ("certificate", "attack", "diagnosis")]
            and f.edit("checkpoints/config.json", lambda c: c["facts"].update(classes=list("abcdefghij")))
        ),
        claims.LABELS,
    ),
    "kept images replaced": (
        "rich",
        lambda f: f.change(
            "attack",
            rows=each(
                lambda r: (
                    r["image"]
                    and r.update(
                        image=(np.frombuffer(r["image"], np.float32) * 0).tobytes(),
                        adversarial=_at(r["distance"]),
                        distance=r["distance"],
                    )
                )
            ),
        ),
        claims.LABELS,
    ),
}


def _at(distance: float) -> bytes:
    """A point of a black image at a distance."""
    point = np.zeros(64, dtype=np.float32)
    point[0] = distance
    return point.tobytes()


# --- seen with the weights ---


def without_attacks(f: Forger) -> None:
    for path, _ in f.parts("attack"):
        path.unlink()


def stronger_logits(f: Forger) -> None:
    without_attacks(f)
    f.change(
        "certificate",
        "lipschitz",
        rows=each(
            lambda r: [
                evidence(lambda e: e.update(logits=[5 * z for z in e["logits"]], rounding=0.0))(r),
                r.update(radius=_radius(f, r)),
            ]
        ),
    )


def one_stronger_row(f: Forger) -> None:
    """One row of 48, above 1 %."""
    without_attacks(f)
    f.change(
        "certificate",
        "lipschitz",
        only_first=True,
        rows=one(
            lambda r: [
                evidence(lambda e: e.update(logits=[2 * z for z in e["logits"]], rounding=0.0))(r),
                r.update(radius=_radius(f, r)),
            ]
        ),
    )


def smaller_constants(f: Forger) -> None:
    shrunk = lambda u, x: x["shared"].update(pairwise=[[k / 3 for k in line] for line in x["shared"]["pairwise"]])  # noqa: E731
    without_attacks(f)
    f.change("certificate", "lipschitz", head=shrunk)
    f.change("certificate", "lipschitz", rows=each(lambda r: r.update(radius=_radius(f, r))))


def _radius(f: Forger, row: Row) -> float:
    from hauberk.verify import lipschitz

    (_, part) = f.parts("certificate", "lipschitz")[-1]
    top, radius = lipschitz(json.loads(row["evidence"]), part.facts["shared"])
    return radius * (1 - 1e-10) if top >= 0 else 0.0


def made_up_votes(f: Forger) -> None:
    from hauberk.verify import smoothing

    shared = f.parts("certificate", "smoothing")[0][1].facts["shared"]

    def won(row: Row) -> None:
        found = json.loads(row["evidence"])
        top = row["label"]
        found["counts0"] = [20 if c == top else 0 for c in range(10)]
        found["counts"] = [200 if c == top else 0 for c in range(10)]
        radius = smoothing(found, shared)[1] * (1 - 1e-10)
        row.update(evidence=json.dumps(found), prediction=top, radius=radius)

    f.change("certificate", "smoothing", rows=each(lambda r: r["radius"] < 0.25 and won(r)))


def made_up_survivors(f: Forger) -> None:
    """Every broken row told as a survivor, with probabilities, margins and points to match."""
    for path, part in f.parts("attack"):
        if "suite" in part.unit:
            path.unlink()

    def told(row: Row) -> None:
        own = row["clean_probabilities"][row["label"]]
        rival = max(p for c, p in enumerate(row["clean_probabilities"]) if c != row["label"])
        row.update(
            success=False,
            prediction=row["label"],
            nearest=float("inf"),
            stopped="steps",
            forwards=7,
            backwards=6,
            probabilities=row["clean_probabilities"],
            probability_margin=0.5 * (own - rival),
            logit_margin=1e-4,
            image=None,
            adversarial=None,
        )

    f.change("attack", "apgd", rows=each(lambda r: broken(r) and told(r)))


def another_point(f: Forger) -> None:
    """Kept points that are as far away, and misclassified only on record."""

    def moved(row: Row) -> None:
        image = np.frombuffer(row["image"], dtype=np.float32)
        point = image.copy()
        dark = np.flatnonzero(image == 0.0)[0]
        point[dark] = row["distance"]
        row.update(adversarial=point.tobytes())

    f.change("attack", "fgsm", rows=each(lambda r: r["image"] and broken(r) and moved(r)))


def stronger_mix(f: Forger) -> None:
    """Logits of the accurate model that were never measured, and an interval to match."""
    for kind in ("attack", "certificate"):
        for path, _ in f.parts(kind):
            path.unlink()

    def told(row: Row) -> None:
        row.update(accurate_logits=row["robust_logits"], accurate_prediction=row["robust_prediction"])
        right = row["robust_prediction"] == row["label"]
        row.update(alpha_low=-1.0 if right else None, alpha_high=2.0 if right else None)

    f.change("mix", rows=each(told))


def alone(f: Forger, kind: str) -> None:
    """Leave no other kind of record."""
    for other in {"attack", "certificate", "mix"} - {kind}:
        for path, _ in f.parts(other):
            path.unlink()


def smaller_constants_of_a_mix(f: Forger) -> None:
    """The weights on record are then larger than needed, which the files alone cannot blame."""
    alone(f, "mix")
    f.change(
        "mix",
        head=lambda u, x: x["shared"].update(pairwise=[[k / 3 for k in line] for line in x["shared"]["pairwise"]]),
    )


def shifted_logits(f: Forger) -> None:
    """Class, gaps and radius stay as they were."""
    f.change("certificate", "lipschitz", rows=each(evidence(lambda e: e.update(logits=[z + 1.0 for z in e["logits"]]))))


def in_its_own_way(f: Forger, **fact: bool) -> None:
    """Nothing is held against the decisions of such a model; draws are invented where it is said to be random."""

    def told(row: Row) -> None:
        taken_back(row)
        if "stochastic" in fact:
            row.update(clean_draws=[row["clean_prediction"]] * 3, draws=[row["prediction"]] * 3)

    without_suite(f)
    f.change("attack", "apgd", head=facts(**fact), rows=each(told))


in_files("votes made up, their records left", made_up_votes)
in_files("seed of votes, their records left", lambda f: f.change("certificate", "smoothing", head=unit(seed=5)))
in_files("twice as many votes, their records left", lambda f: many_votes(f))

WEIGHTS |= {
    "a decision of its own": ("rich", lambda f: in_its_own_way(f, decides=True), claims.OWN),
    "a random model": ("rich", lambda f: in_its_own_way(f, stochastic=True), claims.OWN),
    "another structure": (
        "rich", lambda f: f.change("certificate", head=unit(structure="0" * 16)) or f.count_again(), claims.MODEL
    ),
    "another precision": (
        "rich", lambda f: f.change("certificate", head=unit(dtype="float64")) or f.count_again(), claims.MODEL
    ),
    "a mix's Lipschitz constants made up": ("mixed", smaller_constants_of_a_mix, claims.EVIDENCE),
    "logits shifted": ("rich", shifted_logits, claims.EVIDENCE),
    "logits x5": ("rich", stronger_logits, claims.EVIDENCE),
    "logits x2 of one row": ("rich", one_stronger_row, claims.EVIDENCE),
    "smaller Lipschitz constants": ("rich", smaller_constants, claims.EVIDENCE),
    "votes made up": ("rich", lambda f: made_up_votes(f) or f.count_again(), claims.EVIDENCE),
    "survivors made up": ("rich", made_up_survivors, claims.SURVIVORS),
    "kept points made up": ("rich", another_point, claims.POINTS),
    "a mix's accurate logits made up": ("mixed", stronger_mix, claims.EVIDENCE),
}

ACCEPTED |= {
    "timings": ("rich", lambda f: f.sign(timings={"train_seconds": 0.1}), claims.CIRCUMSTANCES),
    "machine": ("rich", lambda f: f.sign(environment={"cpu": "abacus"}), claims.CIRCUMSTANCES),
    "values of a diagnosis": (
        "rich",
        lambda f: f.change(
            "diagnosis",
            rows=each(lambda r: r.update(verdict="sound", value=1.0 if r["check"] == "binarisation" else 0.0)),
        ),
        claims.VALUES,
    ),
    "an evaluation left out": (
        "rich",
        lambda f: [[p.unlink() for p, x in f.parts("attack")], f.sign()],
        "the recipe plans the attack apgd, and there is no record of it",
    ),
    "an evaluation that no recipe plans left out": (
        "rich", lambda f: [[p.unlink() for p, _ in f.parts("certificate", "smoothing")], f.sign()], claims.OMITTED,
    ),
    "revisions of the code": (
        "rich", lambda f: f.change("certificate", "lipschitz", head=unit(revisions={"machinery": 0})), claims.REVISIONS,
    ),
    "seed of votes": (
        "rich",
        lambda f: f.change("certificate", "smoothing", head=unit(seed=5)) or f.count_again(),
        claims.CIRCUMSTANCES,
    ),
    "twice as many votes": ("rich", lambda f: many_votes(f) or f.count_again(), claims.VOTES),
}


def many_votes(f: Forger) -> None:
    """The same shares of twice as many votes, which prove more."""
    from hauberk.verify import smoothing

    f.change(
        "certificate", "smoothing", head=lambda u, x: [u["method"].update(n=400), x["shared"].update(n=400)]
    )
    shared = f.parts("certificate", "smoothing")[0][1].facts["shared"]

    def told(row: Row) -> None:
        evidence(lambda e: e.update(counts=[2 * votes for votes in e["counts"]]))(row)
        top, radius = smoothing(json.loads(row["evidence"]), shared)
        row.update(prediction=top, radius=radius * (1 - 1e-10))

    f.change("certificate", "smoothing", rows=each(told))


def plain(name: str) -> str:
    """A name that a command line takes as one word."""
    return name.replace(" ", "_")


@pytest.fixture
def forge(rich_run: Path, mixed_run: Path, forger: Any, tmp_path: Path) -> Callable[[str, Forgery], Path]:
    def forged(run: str, forgery: Forgery) -> Path:
        path = Path(shutil.copytree({"rich": rich_run, "mixed": mixed_run}[run], tmp_path / run))
        forgery(forger(path))
        return path

    return forged


def problems(verdicts: list[Any]) -> list[str]:
    return [p for v in verdicts for p in v.problems]


def test_honest_runs_pass(rich_run: Path, mixed_run: Path) -> None:
    for run in (rich_run, mixed_run):
        for weights in (False, True):
            assert problems(audit.audit(run, weights, None, 3)) == []


def test_there_are_enough_forgeries() -> None:
    assert len(FILES) + len(DATA) + len(WEIGHTS) >= 50


@pytest.mark.parametrize("name", FILES, ids=plain)
def test_the_files_show_it(name: str, forge: Callable[[str, Forgery], Path]) -> None:
    found = problems(verify_run(forge(*FILES[name])))
    assert any(SAID.get(name, "") in problem for problem in found)
    hashes = ("has changed since", "is not listed in run.json", ".parquet is missing")
    assert not any(sentence in p for p in found for sentence in hashes)


@pytest.mark.parametrize("name", DATA, ids=plain)
def test_the_data_shows_it(name: str, forge: Callable[[str, Forgery], Path]) -> None:
    run, forgery, claim = DATA[name]
    path = forge(run, forgery)
    files = verify_run(path)
    assert problems(files) == []
    assert claim in ledger(files)[1]
    assert problems(audit.audit(path))


def test_the_data_names_what_was_invented(forge: Callable[[str, Forgery], Path]) -> None:
    run, forgery, _ = DATA["invented samples planned"]
    assert any("not in the test split" in problem for problem in problems(audit.audit(forge(run, forgery))))


@pytest.mark.parametrize("name", WEIGHTS, ids=plain)
def test_the_weights_show_it(name: str, forge: Callable[[str, Forgery], Path]) -> None:
    run, forgery, claim = WEIGHTS[name]
    path = forge(run, forgery)
    files = audit.audit(path)
    assert problems(files) == []
    assert claim in ledger(files)[1]
    assert problems(audit.audit(path, True, None, 5))


@pytest.mark.parametrize("name", ACCEPTED, ids=plain)
def test_what_is_accepted_was_taken_on_trust(name: str, forge: Callable[[str, Forgery], Path]) -> None:
    run, forgery, claim = ACCEPTED[name]
    verdicts = audit.audit(forge(run, forgery), True, None, 5)
    assert problems(verdicts) == []
    assert any(told.startswith(claim) for told in ledger(verdicts)[1])
