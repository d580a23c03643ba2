"""Top-k guarantees: by hand, exact on linear classifiers, never broken by sampling, closed where nothing is known."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import optimize

from hauberk.batch import Batch
from hauberk.certificates import LipschitzCertificate
from hauberk.certificates.evidence import LogitMargins, on_record
from hauberk.certificates.top_k import (
    affinity_radius,
    relaxed_guarantees,
    relaxed_top_k_radius,
    stays_in_top_k,
    top_k_radii,
    top_k_radius,
)
from hauberk.conformance import LinearOracle
from hauberk.errors import HauberkError
from hauberk.layers import AOLConv2d, AOLLinear, MaxMin, UnitRowLinear
from hauberk.objectives.gloro import margins

read = LogitMargins.read
SHARED = {"pairwise": [[0, 1, 4, 2], [1, 0, 2, 1], [4, 2, 0, 1], [2, 1, 1, 0]]}
ROW = {"logits": [5.0, 4.0, 1.0, 0.5]}


class Linear:
    """A linear classifier whose evidence is exact."""

    def __init__(self, classes: int, size: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.w, self.b, self.x = rng.normal(size=(classes, size)), 0.3 * rng.normal(size=classes), rng.normal(size=size)
        self.row = {"logits": self.at(self.x).tolist()}
        self.shared = {"pairwise": np.linalg.norm(self.w[:, None] - self.w[None], axis=2).tolist()}
        self.order = np.argsort(-np.asarray(self.row["logits"]))

    def at(self, points: np.ndarray) -> np.ndarray:
        return points @ self.w.T + self.b

    def distance(self, ahead: list[tuple[int, int]]) -> float:
        """To the nearest point where i is level with j or ahead of it for all pairs (i, j): a quadratic programme."""
        a = np.array([self.w[i] - self.w[j] for i, j in ahead])
        c = np.array([self.at(self.x)[j] - self.at(self.x)[i] for i, j in ahead])
        # the least |d| with A d >= c is A' u for the u >= 0 that minimises |A' u|^2 / 2 - c u
        u = optimize.minimize(
            lambda u: 0.5 * (a.T @ u) @ (a.T @ u) - c @ u, np.ones(len(c)), jac=lambda u: a @ (a.T @ u) - c,
            bounds=[(0, None)] * len(c), method="L-BFGS-B", options={"ftol": 1e-16, "gtol": 1e-12, "maxiter": 5000},
        ).x  # fmt: skip
        return float(np.linalg.norm(a.T @ u))


def sphere(count: int, size: int, seed: int) -> np.ndarray:
    directions = np.random.default_rng(seed).normal(size=(count, size))
    return directions / np.linalg.norm(directions, axis=1, keepdims=True)


# --- by hand ---------------------------------------------------------------------------------------------------


def test_by_hand() -> None:
    assert top_k_radius(read(ROW, SHARED), 1) == pytest.approx(1.0)  # min(1/1, 4/4, 4.5/2)
    assert top_k_radius(read(ROW, SHARED), 2) == pytest.approx(1.0)  # min(4/4, 4.5/2, 3/2, 3.5/1)
    assert top_k_radius(read(ROW, SHARED), 3) == pytest.approx(0.5)  # min(4.5/2, 3.5/1, 0.5/1)
    assert top_k_radii(read(ROW, SHARED), 3) == [top_k_radius(read(ROW, SHARED), k) for k in (1, 2, 3)]
    other = {"logits": [5.0, 4.9, 1.0, 0.5]}
    assert [round(r, 9) for r in top_k_radii(read(other, SHARED), 3)] == [0.1, 1.0, 0.5]
    assert relaxed_top_k_radius(read(other, SHARED), 1) == pytest.approx(0.1)
    assert relaxed_top_k_radius(read(other, SHARED), 3) == pytest.approx(1.0)
    assert relaxed_guarantees(read(other, SHARED), 0.4, 3) == [2, 3]
    assert relaxed_guarantees(read(other, SHARED), 0.05, 2) == [1, 2]
    assert relaxed_guarantees(read(other, SHARED), 2.0, 3) == []


def test_a_class_leaves_when_k_rivals_have_come_up() -> None:
    # class 1 against 0: ahead already; against 2: 3/2; against 3: 3.5/1
    assert [round(stays_in_top_k(read(ROW, SHARED), 1, k), 9) for k in (1, 2, 3)] == [0.0, 1.5, 3.5]
    assert [round(stays_in_top_k(read(ROW, SHARED), 3, k), 9) for k in (1, 2, 3)] == [0.0, 0.0, 0.0]
    assert stays_in_top_k(read(ROW, SHARED), 0, 1) == LipschitzCertificate().radius(read(ROW, SHARED))


def test_affinity_by_hand() -> None:
    other = {"logits": [5.0, 4.9, 1.0, 0.5]}
    assert affinity_radius(read(other, SHARED), [(0, 1), (2, 3)]) == pytest.approx(1.0)  # {0, 1} stays, and is one kind
    assert affinity_radius(read(other, SHARED), [(0, 2), (1, 3)]) == pytest.approx(0.1)  # only {0} is
    assert affinity_radius(read(other, SHARED), [(1, 2, 3)]) == 0.0  # the predicted class belongs to none
    assert affinity_radius(read(other, SHARED), [[0, 1, 2, 3]]) == pytest.approx(1.0)  # the set of all says no more
    assert affinity_radius(read(other, SHARED), [{0, 1, 2}, {0, 3}]) == pytest.approx(1.0)


# --- exact on linear classifiers -------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [2, 3, 6, 10])
def test_the_radius_of_a_linear_classifier_is_the_true_one(classes: int) -> None:
    for seed in range(6):
        model = Linear(classes, 5, seed)
        for k in range(1, classes):
            members, rest = model.order[:k], model.order[k:]
            true = min(model.distance([(i, j)]) for i in rest for j in members)
            found = top_k_radius(read(model.row, model.shared), k)
            assert true * (1 - 1e-6) < found <= true * (1 + 1e-6)
            # at the nearest border, and just beyond it, the set is another one
            i, j = min(itertools.product(rest, members), key=lambda p: model.distance([p]))
            step = model.w[i] - model.w[j]
            beyond = model.x + 1.0001 * true * step / np.linalg.norm(step)
            assert set(np.argsort(-model.at(beyond))[:k]) != set(members)


@pytest.mark.parametrize("seed", range(6))
def test_sampling_finds_no_other_set_within_the_radius(seed: int) -> None:
    model = Linear(6, 3, seed)
    directions = sphere(4000, 3, seed)
    for k in range(1, 6):
        radius = top_k_radius(read(model.row, model.shared), k)
        logits = model.at(model.x + radius * (1 - 1e-9) * directions)
        sets = np.sort(np.argsort(-logits, axis=1)[:, :k], axis=1)
        assert (sets == np.sort(model.order[:k])).all()
        if radius > 0:  # and a larger ball holds another one
            logits = model.at(model.x + 1.2 * radius * directions)
            assert not (np.sort(np.argsort(-logits, axis=1)[:, :k], axis=1) == np.sort(model.order[:k])).all()


@pytest.mark.parametrize("seed", range(6))
def test_a_class_stays_by_enumeration_of_the_rivals_that_push_it_out(seed: int) -> None:
    """The true distance is the least over all sets of k rivals of that to a cone; the radius is never above it."""
    model = Linear(5, 4, seed)
    tight = 0
    for label, k in itertools.product(range(5), range(1, 5)):
        found = stays_in_top_k(read(model.row, model.shared), label, k)
        if label not in model.order[:k]:
            assert found == 0.0
            continue
        rivals = [i for i in range(5) if i != label]
        true = min(model.distance([(i, label) for i in s]) for s in itertools.combinations(rivals, k))
        assert 0.0 < found <= true * (1 + 1e-5)
        assert found >= top_k_radius(read(model.row, model.shared), k) * (1 - 1e-12)
        tight += found > true * (1 - 1e-5)
        if k == 1:
            assert found == pytest.approx(true, rel=1e-5)
    assert tight >= 1


def test_with_one_class_it_is_the_lipschitz_certificate() -> None:
    oracle = LinearOracle.random((1, 3, 3), 4, seed=1)
    rows, shared = on_record(LipschitzCertificate().gather(oracle.layers, oracle.batch(20), 0, 16))
    for row in rows:
        seen = read(row, shared)
        assert top_k_radius(seen, 1) == pytest.approx(LipschitzCertificate().radius(seen), rel=1e-12)


def test_a_network_keeps_its_sets_under_sampling() -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        AOLConv2d(1, 4, 2), MaxMin(), torch.nn.Flatten(), AOLLinear(4, 6), MaxMin(), UnitRowLinear(6, 5)
    ).eval()
    images = torch.rand(12, 1, 2, 2)
    batch = Batch(images, torch.zeros(12).long(), torch.arange(12))
    rows, shared = on_record(LipschitzCertificate().gather(net, batch, 0, 16))
    exact, directions = net.double(), torch.as_tensor(sphere(1500, 4, 3))
    certified = 0
    for row, image in zip(rows, images, strict=True):
        order = np.argsort(-np.asarray(row["logits"]))
        for k in range(1, 5):
            radius = top_k_radius(read(row, shared), k)
            certified += radius > 0.01
            moved = image.double().flatten() + radius * directions
            with torch.no_grad():
                near = exact(moved.reshape(-1, 1, 2, 2)).argsort(1, descending=True)[:, :k].sort(1).values
            assert (near.numpy() == np.sort(order[:k])).all()
    assert certified >= 20


def test_training_and_certificate_agree_about_the_margins() -> None:
    """m_k > 0 at eps exactly where the radius of k exceeds eps."""
    for seed in range(5):
        model = Linear(6, 4, seed)
        radii = np.array(top_k_radii(read(model.row, model.shared), 5))
        for eps in (0.05, 0.2, 0.6):
            found = margins(
                torch.tensor([model.row["logits"]]).double(), torch.tensor(model.shared["pairwise"]).double(), eps, 5
            )
            assert ((found[0].numpy() > 0) == (radii > eps)).all()


# --- what is not known -----------------------------------------------------------------------------------------


def test_ties_at_the_border_of_a_set_give_nothing_and_within_it_are_no_matter() -> None:
    row = {"logits": [3.0, 3.0, 1.0, 1.0]}
    assert top_k_radii(read(row, SHARED), 3) == [0.0, pytest.approx(0.5), 0.0]
    assert stays_in_top_k(read(row, SHARED), 0, 1) == 0.0
    assert stays_in_top_k(read(row, SHARED), 0, 2) == pytest.approx(0.5)  # after 1, level already, comes 2 at 2/4
    assert stays_in_top_k(read(row, SHARED), 2, 3) == 0.0
    assert affinity_radius(read(row, SHARED), [(0,), (1,)]) == 0.0
    assert top_k_radii(read({"logits": [1.0] * 4}, SHARED), 3) == [0.0] * 3


@pytest.mark.parametrize(
    "row",
    [
        {"logits": [math.nan, 4.0, 1.0, 0.5]}, {"logits": [5.0, 4.0, math.nan, 0.5]},
        {"logits": [math.inf, 4.0, 1.0, 0.5]}, {"logits": [5.0, 4.0, 1.0, -math.inf]},
        {"logits": [5.0, 4.0, 1.0, 0.5], "deployed": 1},
    ],
)  # fmt: skip
def test_nan_infinity_and_another_decision_give_nothing(row) -> None:
    assert top_k_radii(read(row, SHARED), 3) == [0.0] * 3
    assert relaxed_guarantees(read(row, SHARED), 0.0, 3) == []
    assert affinity_radius(read(row, SHARED), [(0, 1, 2, 3)]) == 0.0
    assert [stays_in_top_k(read(row, SHARED), y, k) for y in range(4) for k in (1, 2, 3)] == [0.0] * 12


@pytest.mark.parametrize("bad", [math.nan, -1.0])
def test_a_speed_that_is_no_number_counts_as_level(bad: float) -> None:
    shared = {"pairwise": [[0, bad, 4, 2], [bad, 0, 2, 1], [4, 2, 0, 1], [2, 1, 1, 0]]}
    assert top_k_radii(read(ROW, shared), 3) == [0.0, pytest.approx(1.0), pytest.approx(0.5)]
    assert [round(stays_in_top_k(read(ROW, shared), 0, k), 9) for k in (1, 2, 3)] == [0.0, 1.0, 2.25]
    for nothing in (math.nan, -1.0, math.inf):
        broken = {"pairwise": [[nothing] * 4] * 4}
        assert top_k_radii(read(ROW, broken), 3) == [0.0] * 3
        assert [stays_in_top_k(read(ROW, broken), 0, k) for k in (1, 2, 3)] == [0.0] * 3


def test_huge_logits_overflow_to_nothing() -> None:
    assert stays_in_top_k(read({"logits": [1.7e308, -1.7e308, -1.7e308]}, {"pairwise": np.ones((3, 3))}), 0, 1) == 0.0
    row = {"logits": [1.7e308, -1.7e308, -1.7e308, -1.7e308]}
    odd = {"pairwise": [[0.0, math.inf, 1.0], [math.inf, 0.0, 1.0], [1.0, 1.0, 0.0]]}  # inf / inf is no distance
    assert stays_in_top_k(read({"logits": [1.7e308, -1.7e308, 0.0]}, odd), 0, 1) == 0.0
    assert [stays_in_top_k(read(row, SHARED), 0, k) for k in (1, 2, 3)] == [0.0] * 3
    assert top_k_radii(read(row, SHARED), 3) == [0.0] * 3


def test_rivals_that_never_move() -> None:
    shared = {"pairwise": [[0, 0, 1], [0, 0, 1], [1, 1, 0]]}
    assert top_k_radius(read({"logits": [3.0, 2.0, 1.0]}, shared), 1) == pytest.approx(2.0)
    assert top_k_radius(read({"logits": [3.0, 3.0, 1.0]}, shared), 1) == 0.0
    assert stays_in_top_k(read({"logits": [3.0, 2.0, 1.0]}, shared), 0, 2) == pytest.approx(2.0)  # never, so 2 at least
    assert top_k_radii(read({"logits": [3.0, 2.0, 1.0]}, {"pairwise": [[0.0] * 3] * 3}), 2) == [0.0, 0.0]


@pytest.mark.parametrize("bias", [0.0, 1e3, 1e6, 1e9])
def test_large_biases_do_not_round_a_radius_up(bias: float) -> None:
    for gap in np.geomspace(1e-7, 3e-6, 40):
        logits = [bias + 2.0, bias + gap, bias]
        shared = {"pairwise": [[0.0, 1.0, 1.0], [1.0, 0.0, 1.0], [1.0, 1.0, 0.0]]}
        assert top_k_radius(read({"logits": logits}, shared), 2) <= gap
        assert stays_in_top_k(read({"logits": logits}, shared), 1, 2) <= gap
        if bias <= 1e3:
            assert top_k_radius(read({"logits": logits}, shared), 2) > 0.9 * gap


def test_radii_are_rounded_down() -> None:
    for a, b in itertools.product((0.1, 1 / 3, 0.7, 3.0), (0.3, 1.1, 7.0)):
        row, shared = {"logits": [a, 0.0, -9.0]}, {"pairwise": [[0, b, b], [b, 0, b], [b, b, 0]]}
        assert a / b * (1 - 1e-9) < top_k_radius(read(row, shared), 1) < a / b
        assert a / b * (1 - 1e-9) < stays_in_top_k(read(row, shared), 0, 1) < a / b


@pytest.mark.parametrize("k", [0, 4, -1])
def test_k_is_checked(k: int) -> None:
    for method in (top_k_radius, top_k_radii, relaxed_top_k_radius):
        with pytest.raises(HauberkError, match=r"1\.\.3"):
            method(read(ROW, SHARED), k)
    with pytest.raises(HauberkError, match=r"1\.\.3"):
        stays_in_top_k(read(ROW, SHARED), 0, k)


def test_classes_are_checked() -> None:
    for label in (-1, 4):
        with pytest.raises(HauberkError, match=r"0\.\.3"):
            stays_in_top_k(read(ROW, SHARED), label, 1)
    for sets in ([], [(0, 4)], [(-1,)]):
        with pytest.raises(HauberkError, match="sets of classes"):
            affinity_radius(read(ROW, SHARED), sets)
    assert affinity_radius(read(ROW, SHARED), [()]) == 0.0
