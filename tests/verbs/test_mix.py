"""Mixes chosen on validation data: the promise is what the chosen mix does there; test data is never chosen on."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import special

import hauberk
from hauberk import registry, subjects, trust
from hauberk.attacks import APGD, AutoAttack, PartAttack
from hauberk.classifier import logits_of, weights_hash
from hauberk.defences import MixedClassifier
from hauberk.defences.adaptive_mixed import AdaptiveMixedClassifier, AlphaDown
from hauberk.errors import HauberkError
from hauberk.recipes import Evaluation
from hauberk.records import read_all
from hauberk.runs import Run
from hauberk.subjects import Subject
from hauberk.threats import Linf
from hauberk.verbs import mix as mixing

Typed = Callable[..., tuple[int, str]]
VALIDATION = Evaluation(split="val", images=48)
ATTACK = APGD(Linf(0.05), steps=5)


@pytest.fixture(scope="module")
def pair(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Subject, Subject]:
    """The tiny net, and the same with other weights."""
    robust = hauberk.subject(tiny_run)
    path = tmp_path_factory.mktemp("accurate") / "run"
    other = Run.create(path, robust.run.recipe)
    model = registry.build(registry.spec(robust.model))
    torch.manual_seed(1)
    model.load_state_dict({k: v + 0.02 * torch.randn_like(v) if v.is_floating_point() else v
                           for k, v in robust.model.state_dict().items()})  # fmt: skip
    other.save_model(model.eval(), {"dataset": robust.run.recipe["data"], "classes": list(robust.dataset.classes)})
    other.update(hashes={"weights": weights_hash(model)})
    return hauberk.subject(path), robust


@pytest.fixture(scope="module")
def logits(pair: tuple[Subject, Subject], tmp_path_factory: pytest.TempPathFactory) -> mixing.Logits:
    return mixing.gather(*pair, ATTACK, VALIDATION, folder=tmp_path_factory.mktemp("logits"))


def test_logits_are_those_of_the_models_and_asked_once(
    pair: tuple[Subject, Subject], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = mixing.gather(*pair, ATTACK, VALIDATION, folder=tmp_path)
    batch = hauberk.evaluation_batch(pair[0].dataset, "val", 48, "hashed")
    assert np.array_equal(found.labels, batch.labels.numpy())
    assert np.array_equal(found.robust, logits_of(pair[1].model, batch).double().numpy())
    # what the attack left right is what it says itself
    direct = ATTACK(pair[1].model, batch)
    margins = np.sort(found.robust_attacked, 1)[:, -1] - found.robust_attacked[np.arange(48), found.labels]
    assert np.array_equal(margins == 0.0, (direct.probability_margin > 0).numpy())
    probabilities = special.softmax(found.robust_attacked, 1)
    rivals = np.where(np.arange(10) == found.labels[:, None], -1.0, probabilities).max(1)
    least = probabilities[np.arange(48), found.labels] - rivals
    np.testing.assert_allclose(least, direct.probability_margin.numpy(), atol=1e-5)
    monkeypatch.setattr(mixing, "_asked", None)  # a second call does not come here
    again = mixing.gather(*pair, ATTACK, VALIDATION, folder=tmp_path)
    assert np.array_equal(again.accurate_attacked, found.accurate_attacked)


def test_nothing_is_chosen_on_test_data(pair: tuple[Subject, Subject], tmp_path: Path) -> None:
    with pytest.raises(HauberkError, match="test data"):
        mixing.gather(*pair, ATTACK, Evaluation(split="test", images=8), folder=tmp_path)


def test_images_that_a_model_was_trained_on_do_not_calibrate(
    pair: tuple[Subject, Subject], tmp_path: Path
) -> None:
    data = pair[0].dataset
    swapped = replace(data, train=replace(data.val, name="train"), val=replace(data.train, name="val"))
    other = replace(pair[0], dataset=swapped)
    with pytest.raises(HauberkError, match="was trained on"):
        mixing.gather(other, pair[1], ATTACK, VALIDATION, folder=tmp_path)


@pytest.mark.parametrize("kind", ["alpha", "scales"])
def test_the_promise_is_what_the_mix_does(
    kind: str, pair: tuple[Subject, Subject], logits: mixing.Logits, tmp_path: Path
) -> None:
    reach = float((logits.robust.argmax(1) == logits.labels).mean())
    kept = float((logits.robust_attacked.argmax(1) == logits.labels).mean())
    wish = {"clean": reach} if kind == "alpha" else {"robust": max(0.5 * kept, 1 / 48)}
    how, promise = mixing.choose(logits, kind, **wish)
    run = mixing.mix(*pair, how, tmp_path / "mix", Evaluation(images=16))
    model = run.load_model()
    assert isinstance(model, MixedClassifier)
    batch = hauberk.evaluation_batch(pair[0].dataset, "val", 48, "hashed")
    right = (logits_of(model, batch).argmax(1) == batch.labels).float().mean()
    assert float(right) == pytest.approx(promise.clean_accuracy.value)
    assert len(read_all(run.records, "mix")) == 1


def test_nuts_is_written_and_loaded(
    pair: tuple[Subject, Subject], logits: mixing.Logits, tmp_path: Path
) -> None:
    how, promise = mixing.choose(logits, "nuts", keep=0.5)
    run = mixing.mix(*pair, how, tmp_path / "mix", Evaluation(images=16))
    model = run.load_model()
    assert weights_hash(model) == run.info["hashes"]["weights"]
    batch = hauberk.evaluation_batch(pair[0].dataset, "val", 48, "hashed")
    right = (logits_of(model, batch).argmax(1) == batch.labels).double().mean()
    assert float(right) == pytest.approx(promise.clean_accuracy.value)
    assert not read_all(run.records, "mix")  # it has no path: its weight belongs to its map


def _other(folder: Path) -> Path:
    """Images of another size."""
    images = np.random.default_rng(0).random((20, 1, 6, 6), dtype=np.float32)
    np.savez(folder / "other.npz", images=images, labels=np.arange(20) % 2)
    return folder / "other.npz"


def test_a_mixing_network_is_chosen_on_the_part_that_is_asked_for(
    pair: tuple[Subject, Subject], tmp_path: Path
) -> None:
    names = [n for n, _ in pair[1].model.named_children()][:2]
    spec = {"name": "adaptive_mixed", "accurate_taps": names, "robust_taps": names, "widths": [4, 4, 4],
            "alpha_min": 0.0, "alpha_max": 1.0}  # fmt: skip
    network = mixing.mix(*pair, spec, tmp_path / "network", Evaluation(images=16)).path
    part = {"name": "calibrated", "of": dict(pair[0].recipe["data"]), "images": 60}
    found = subjects.judged_on(hauberk.subject(network), part)
    assert found.dataset.calibration is not None and found.recipe["data"] == part
    assert len(found.dataset.val) == 60 and Run.open(network).recipe["data"] == part["of"]
    run = mixing.narrow(found, 0.2, 0.4, tmp_path / "narrow")
    assert run.recipe["data"] == part and hauberk.subject(run.path).dataset.calibration == found.dataset.calibration
    with pytest.raises(HauberkError, match="the data differ from that"):
        subjects.judged_on(hauberk.subject(network), {"name": "npz", "file": str(_other(tmp_path))})


def test_a_wish_that_the_kind_does_not_take_is_said_before_the_attacks(typed: Typed, tmp_path: Path) -> None:
    code, said = typed("mix", "--network", str(tmp_path / "none"), "--keep", "92%")
    assert code == 1 and "range needs one target: a clean accuracy" in said and "--clean" in said


def test_a_mixing_network_is_narrowed(pair: tuple[Subject, Subject], tmp_path: Path) -> None:
    spec = {"accurate_taps": ["3", "6"], "robust_taps": ["3", "6"], "widths": [4, 4, 4], "alpha_min": 0.0}
    names = [n for n, _ in pair[1].model.named_children()]
    taps = [names[0], names[1]]
    spec |= {"accurate_taps": taps, "robust_taps": taps, "alpha_max": 1.0, "name": "adaptive_mixed"}
    spec |= {"accurate_scale": 20.0}
    network = hauberk.subject(mixing.mix(*pair, spec, tmp_path / "network", Evaluation(images=16)).path)
    bases = mixing.bases(network)
    found = mixing.gather(*bases, ATTACK, VALIDATION, network, tmp_path)
    reach = 0.8 * float((found.robust.argmax(1) == found.labels).mean())
    assert mixing.scales_of(network) == (20.0, 1.0)
    how, promise = mixing.choose(found, "range", clean=reach, scales=mixing.scales_of(network), width=0.2)
    run = mixing.narrow(network, how["alpha_min"], how["alpha_max"], tmp_path / "narrow")
    model = run.load_model()
    assert isinstance(model, AdaptiveMixedClassifier)
    assert (model.alpha, model.alpha_max) == (how["alpha_min"], how["alpha_max"])
    assert weights_hash(model.mixing) == weights_hash(network.model.mixing)
    batch = hauberk.evaluation_batch(pair[0].dataset, "val", 48, "hashed")
    right = (logits_of(model, batch).argmax(1) == batch.labels).double().mean()
    assert float(right) == pytest.approx(promise.clean_accuracy.value)
    # it is attacked as what it is
    planned = hauberk.suite(hauberk.subject(run.path), Linf(0.05))
    assert isinstance(planned[0], AutoAttack)
    assert planned[0].losses == (AlphaDown(),)
    assert {a.part for a in planned if isinstance(a, PartAttack)} == {"accurate", "robust", "gray_box"}


def test_logits_of_another_attack_or_of_other_images_are_asked_anew(
    pair: tuple[Subject, Subject], tmp_path: Path
) -> None:
    plan = Evaluation(split="val", images=16)
    weak, strong = (mixing.gather(*pair, APGD(Linf(eps), steps=3), plan, folder=tmp_path) for eps in (0.002, 0.2))
    assert not np.array_equal(weak.robust_attacked, strong.robust_attacked)
    assert np.array_equal(weak.robust, strong.robust)
    few = mixing.gather(*pair, APGD(Linf(0.002), steps=3), Evaluation(split="val", images=8), folder=tmp_path)
    assert len(few.labels) == 8
    assert len(list(tmp_path.glob("logits-*"))) == 3
    assert len(list(tmp_path.glob("fingerprint-*"))) == 2  # one of each model


def made_up(n: int = 60, k: int = 4) -> mixing.Logits:
    """A sharp accurate model and a dull robust one."""
    rng = np.random.default_rng(5)
    labels = rng.integers(k, size=n)
    tables = [rng.normal(size=(n, k)) * size for size in (3.0, 1.0, 3.0, 1.0)]
    for table, lead in zip(tables, (5.0, 1.0, -4.0, 0.8), strict=True):
        table[np.arange(n), labels] += lead
    return mixing.Logits(labels, *tables, rng.random(n), rng.random(n))


@pytest.mark.parametrize("kind", ["alpha", "scales", "nuts"])
def test_a_share_to_keep_is_that_share_of_the_accuracy_under_attack(kind: str) -> None:
    logits = made_up()
    base = float((logits.robust_attacked.argmax(1) == logits.labels).mean())
    share, accuracy = (mixing.choose(logits, kind, **wish)[0] for wish in ({"keep": 0.5}, {"robust": 0.5 * base}))
    assert share == accuracy
    assert mixing.choose(logits, kind, robust=0.9 * base)[0] != share
    with pytest.raises(HauberkError, match=f"has {base:.4g}"):
        mixing.choose(logits, kind, robust=0.5 * (1.0 + base))


@pytest.mark.parametrize("kind", ["clean", "robust", "range"])
def test_a_choice_is_made_for_the_scaled_logits(kind: str) -> None:
    logits, sharp, hot = made_up(), 0.3, 2.5
    if kind == "range":
        how, promise = mixing.choose(logits, "range", clean=0.75, scales=(sharp, hot), width=0.2)
        alpha = (how["alpha_min"] + 0.2 * logits.clean_sigmoids)[:, None]
    else:
        how, promise = mixing.choose(logits, "alpha", **{kind: 0.75 if kind == "clean" else 0.5}, scales=(sharp, hot))
        assert (how["accurate_scale"], how["robust_scale"]) == (sharp, hot)
        alpha = how["alpha"]
    g, h = special.softmax(sharp * logits.accurate, 1), special.softmax(hot * logits.robust, 1)
    worst = np.sort(special.softmax(hot * logits.robust_attacked, 1), 1)
    if kind == "robust":  # half of the images keep more than (1 - alpha) / alpha, and at a smaller weight fewer do
        right = logits.robust_attacked.argmax(1) == logits.labels
        lead = np.where(right, worst[:, -1] - worst[:, -2], -1.0)
        assert 0.5 <= promise.estimated_robust_accuracy.value == (lead > (1 - alpha) / alpha).mean()
        assert (lead > (1 - alpha + 1e-6) / (alpha - 1e-6)).mean() < 0.5
    else:  # the largest weight that is good enough
        mix = (1 - alpha) * g + alpha * h
        assert 0.75 <= promise.clean_accuracy.value == (mix.argmax(1) == logits.labels).mean()
        more = (1 - alpha - 2e-6) * g + (alpha + 2e-6) * h
        assert (more.argmax(1) == logits.labels).mean() < 0.75


def test_the_verdict_is_on_the_pair_in_its_order() -> None:
    logits = made_up()
    found = mixing.mixability(logits)
    first, second = (z.argmax(1) == logits.labels for z in (logits.accurate, logits.robust))
    assert found.correctable.value == pytest.approx((first & ~second).mean())
    assert (first & ~second).sum() > (second & ~first).sum()

    def lead(table: np.ndarray, chosen: np.ndarray) -> float:
        top = np.sort(special.softmax(table, 1), 1)
        return float(np.median((top[:, -1] - top[:, -2])[chosen]))

    still, broken = (z.argmax(1) == logits.labels for z in (logits.robust_attacked, logits.accurate_attacked))
    assert found.robust.attacked_right.median.value == pytest.approx(lead(logits.robust_attacked, still))
    assert found.accurate.attacked_wrong.median.value == pytest.approx(lead(logits.accurate_attacked, ~broken))


def test_wishes_that_do_not_fit(logits: mixing.Logits, pair: tuple[Subject, Subject]) -> None:
    for kind, wish in (("alpha", {}), ("alpha", {"clean": 0.5, "robust": 0.5}), ("nuts", {"clean": 0.5})):
        with pytest.raises(HauberkError, match="one target"):
            mixing.choose(logits, kind, **wish)
    with pytest.raises(HauberkError, match="not a mixing network"):
        mixing.bases(pair[0])


def test_a_model_of_ones_own_is_a_base(
    pair: tuple[Subject, Subject], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = pair[1].dataset.input_shape
    (tmp_path / "theirs.py").write_text(
        "import torch\nfrom torch import nn\n\ndef build():\n    torch.manual_seed(3)\n"
        f"    return nn.Sequential(nn.Flatten(), nn.Linear({shape[0] * shape[1] * shape[2]}, 10))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("theirs", None)
    own = hauberk.subject("theirs:build", tmp_path / "own", "digits")
    run = mixing.mix(own, pair[1], mixing.Mixture(0.5), tmp_path / "mix", Evaluation(images=16))
    batch = hauberk.evaluation_batch(pair[1].dataset, "val", 8, "hashed")
    with trust.trusting("theirs:build"):
        model = run.load_model()
    assert torch.equal(logits_of(model.accurate, batch), logits_of(own.model, batch))
