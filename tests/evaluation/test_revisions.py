"""A method whose answers change raises its revision: the answers on a fixed net are pinned to the revision they had.

``HAUBERK_PIN=1 pytest tests/evaluation/test_revisions.py`` writes the pins again; it refuses a changed answer under an
old revision.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from hauberk.attacks import (
    APGD,
    DDN,
    FAB,
    FGSM,
    FMN,
    NFGSM,
    PGD,
    Attack,
    AutoAttack,
    CarliniWagner,
    DeepFool,
    FriendlyPGD,
    PartAttack,
    Square,
)
from hauberk.batch import Batch
from hauberk.certificates import (
    Certificate,
    DerandomisedSplitting,
    LipschitzCertificate,
    MixedCertificate,
    SmoothingCertificate,
)
from hauberk.certificates.local_lipschitz import LocalLipschitz
from hauberk.defences import MixedClassifier
from hauberk.evaluation.keys import revisions
from hauberk.noises import Gaussian
from hauberk.threats import L1, L2, Linf

PINS = Path(__file__).with_name("revisions.json")
NEAR = {"rtol": 0.02, "atol": 1e-4}  # rounding on another processor moves an answer by less

METHODS: dict[str, Attack | Certificate] = {
    "fgsm": FGSM(Linf(0.06)),
    "fgsm l1": FGSM(L1(0.5)),
    "n_fgsm": NFGSM(Linf(0.06)),
    "pgd": PGD(L2(0.2), steps=4),
    "pgd l1": PGD(L1(0.5), steps=4),
    "friendly_pgd": FriendlyPGD(Linf(0.06), steps=4),
    "apgd": APGD(Linf(0.06), steps=6),
    "apgd l1": APGD(L1(0.5), steps=6),
    "apgd dlr": APGD(L2(0.2), "dlr", steps=6),
    "fab": FAB(L2(0.2), steps=4, early_stop=False),
    "square": Square(Linf(0.06), queries=12),
    "ddn": DDN(L2(0.2), steps=8, early_stop=False),
    "fmn": FMN(L2(0.2), steps=8, early_stop=False),
    "deepfool": DeepFool(L2(0.2), steps=4, early_stop=False),
    "carlini_wagner": CarliniWagner(L2(0.2), steps=8, early_stop=False),
    "part": PartAttack(Linf(0.06), part="robust", attack=APGD(Linf(0.06), steps=4)),
    "autoattack": AutoAttack(
        Linf(0.06), version="custom", attacks=(PGD(Linf(0.06), steps=2), APGD(Linf(0.06), steps=4))
    ),
    "lipschitz": LipschitzCertificate(),
    "lipschitz linf": LipschitzCertificate(norm="linf"),
    "smoothing": SmoothingCertificate(Gaussian(0.25), n0=20, n=200),
    "derandomised_splitting": DerandomisedSplitting(90),
    "local_lipschitz": LocalLipschitz(L2(0.05), steps=3),
    "mixed_margin": MixedCertificate(LipschitzCertificate()),
    "mixed_margin 3.5": MixedCertificate(LipschitzCertificate(), "theorem_3_5"),
}


def net(phase: float) -> nn.Module:
    """Weights from a formula, so that no generator matters."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3))
    with torch.no_grad():
        for number, p in enumerate(model.parameters()):
            p.copy_(torch.sin(phase + number + 1.7 * torch.arange(p.numel())).reshape(p.shape) / p.shape[-1] ** 0.5)
    return model.eval()


IMAGES = 0.5 + 0.4 * torch.sin(0.9 * torch.arange(8 * 12.0)).reshape(8, 3, 2, 2)


def centred(phase: float) -> nn.Module:
    """The same with every class about as likely on the images."""
    model = net(phase)
    with torch.no_grad():
        model[3].bias -= model(IMAGES).mean(0)  # type: ignore[index, operator]
    return model


def answers(method: Attack | Certificate) -> dict[str, list[float]]:
    model: nn.Module = centred(0.0)
    if isinstance(method, PartAttack | MixedCertificate):
        model = MixedClassifier(centred(1.0), centred(0.0), 0.9, 1.0, 20.0).eval()
    with torch.no_grad():
        labels = model(IMAGES).argmax(1)
    batch = Batch(IMAGES, labels, torch.arange(8))
    if isinstance(method, Certificate):
        found = method(model, batch, seed=1, tile=8)
        return {"prediction": found.prediction.tolist(), "radius": found.radius.tolist()}
    done = method(model, batch, seed=1, tile=8)
    columns = {"success": done.success, "margin": done.logit_margin, "nearest": done.nearest, "forwards": done.forwards}
    return {key: value.double().nan_to_num(posinf=-1.0).tolist() for key, value in columns.items()}


def alike(one: dict[str, list[float]], other: dict[str, list[float]]) -> bool:
    return set(one) == set(other) and all(np.allclose(one[k], other[k], **NEAR, equal_nan=True) for k in one)


@pytest.mark.parametrize("name", METHODS)
def test_answers_belong_to_the_revision_that_they_are_pinned_to(name: str) -> None:
    pins: dict[str, Any] = json.loads(PINS.read_text()) if PINS.exists() else {}
    now = {"revisions": revisions(METHODS[name]), "answers": answers(METHODS[name])}
    pinned = pins.get(name)
    same = pinned is not None and alike(pinned["answers"], now["answers"])
    if pinned is not None and not same:
        assert pinned["revisions"] != now["revisions"], f"the answers of {name} changed: raise its revision, and pin it"
    if os.environ.get("HAUBERK_PIN"):
        PINS.write_text(json.dumps(pins | {name: now}, indent=1, sort_keys=True) + "\n")
        return
    assert pinned is not None and same, f"pin {name}: HAUBERK_PIN=1 pytest {Path(__file__).name}"
    assert pinned["revisions"] == now["revisions"], f"the revision of {name} was raised: pin it"


def test_a_changed_answer_is_seen() -> None:
    found = answers(METHODS["lipschitz"])
    assert alike(found, found)
    assert not alike(found, found | {"radius": [1.05 * r for r in found["radius"]]})


def test_revisions_reach_into_a_method_and_name_foreign_code() -> None:
    class Mine(PGD):
        pass

    inner = revisions(METHODS["mixed_margin"])
    assert inner == {"machinery": 3, "MixedCertificate": MixedCertificate.revision,
                     "LipschitzCertificate": LipschitzCertificate.revision}  # fmt: skip
    assert set(revisions(METHODS["autoattack"])) >= {"AutoAttack", "PGD", "APGD"}
    assert isinstance(revisions(Mine(Linf(0.1)))["Mine"], str)
