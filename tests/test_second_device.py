"""Attacks and votes on a second device that is a fake: the same bits, and no tensor on the wrong one.

Its tensors hold tensors of the CPU and say to be elsewhere.  As on a GPU, an operation on tensors of both is an error,
and only what is moved can be read by numpy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

import hauberk
from hauberk import attacks, devices, randomness
from hauberk.attacks import APGD, DDN, FAB, FGSM, FMN, PGD, AutoAttack, DeepFool, Square
from hauberk.audit import audit
from hauberk.batch import Batch
from hauberk.certificates import LipschitzCertificate, SmoothingCertificate
from hauberk.certificates.local_lipschitz import LocalLipschitz
from hauberk.classifier import Normalize
from hauberk.defences import MixedClassifier, SmoothedClassifier
from hauberk.evaluation.keys import Setting
from hauberk.evaluation.units import attack_records, certificate_records
from hauberk.evaluation.work import Work
from hauberk.noises import Gaussian
from hauberk.recipes import Plan
from hauberk.records import Part, read_all
from hauberk.threats import L1, L2, Linf

THERE = torch.device("lazy", 0)  # a kind of device that torch knows, and for which it has no kernels here


class Far(Tensor):
    """A tensor of the second device."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> Far:
        layout = {"strides": held.stride(), "storage_offset": held.storage_offset()}
        made: Far = Tensor._make_wrapper_subclass(cls, held.shape, dtype=held.dtype, device=THERE, **layout)
        made.held = held
        return made

    def tolist(self) -> Any:
        return self.held.tolist()

    def numpy(self, **_: Any) -> Any:
        raise TypeError("can't convert a tensor of the second device to numpy")

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {})


def far(device: Any) -> bool:
    return device is not None and torch.device(device).type == THERE.type


def computed(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Compute on what is held, and say where the result is."""
    given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
    theirs, ours = [t for t in given if isinstance(t, Far)], [t for t in given if not isinstance(t, Far) and t.dim()]
    name, wanted = func.overloadpacket.__name__, kwargs.get("device")
    if name.startswith(("index", "_index")):  # places may be on the CPU, and nothing else
        ours = [t for t in ours if not (isinstance(args[0], Far) and t.dtype in (torch.int64, torch.bool))]
    if theirs and ours and name not in ("_to_copy", "copy_"):
        raise RuntimeError(f"{name}: tensors are on two devices")
    kwargs = kwargs | ({"device": torch.device("cpu")} if far(wanted) else {})
    held_args, held_kwargs = tree_map(lambda t: t.held if isinstance(t, Far) else t, (args, kwargs))
    there, back = far(wanted) if wanted is not None else bool(theirs), {id(t.held): t for t in theirs}

    def said(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return back.get(id(value)) if id(value) in back else Far(value) if there else value

    return tree_map(said, func(*held_args, **held_kwargs))


class Operations(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {})


class Literals(TorchFunctionMode):
    """What torch makes of Python's numbers goes around its dispatcher."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = dict(kwargs or {})
        if func in (torch.tensor, torch.as_tensor) and far(named.get("device")):
            return func(*args, **named | {"device": "cpu"}).to(THERE)
        if func is Tensor.new_tensor and isinstance(args[0], Far):
            return torch.tensor(*args[1:], **{"dtype": args[0].dtype} | named).to(THERE)
        return func(*args, **named)


class SameNumbers:
    """A sample's stream on the second device: the CPU's, so that results can be compared."""

    def __init__(self, seed: int, sample_id: int, purpose: str, device: torch.device) -> None:
        self._stream, self._device = randomness.stream(seed, sample_id, purpose), device

    def random(self, shape: Any, dtype: Any) -> Tensor:
        return torch.from_numpy(self._stream.random(shape, dtype=np.float32)).to(self._device)

    def standard_normal(self, shape: Any, dtype: Any) -> Tensor:
        return torch.from_numpy(self._stream.standard_normal(shape, dtype=np.float32)).to(self._device)


@pytest.fixture
def second(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Inside, ``auto`` is the second device."""
    monkeypatch.setattr(randomness, "DeviceStream", SameNumbers)
    monkeypatch.setattr(devices, "resolved", lambda name: torch.device("cpu") if name == "cpu" else THERE)
    with Literals(), Operations():
        yield


SETTING = Setting("noise", "test", ("a", "b", "c"), tile=8, gallery=2)
VOTES = SmoothingCertificate(Gaussian(0.1), n0=8, n=32, alpha=0.01)
Job = Callable[[nn.Module, Work], list[Part]]


def net() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)]
    return nn.Sequential(Normalize([0.5], [0.3]), *layers).eval()


class Noisy(nn.Module):
    """A random model: it adds noise from torch's own generator."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.inner(images)
        return logits + 0.05 * torch.randn_like(logits)


def images() -> Batch:
    pixels = torch.rand(12, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    labels = [2, 2, 0, 2, 2, 1, 2, 2, 2, 0, 2, 2]
    return Batch(pixels, torch.tensor(labels), torch.arange(12))


def attacked(attack: attacks.Attack, model: Callable[[nn.Module], nn.Module] = lambda m: m) -> Job:
    return lambda m, work: attack_records(model(m).eval(), images(), attack, SETTING, work)


def suite(threat: L1 | L2 | Linf) -> AutoAttack:
    parts = (
        FGSM(threat), PGD(threat, steps=2, restarts=2), APGD(threat, steps=4),
        APGD(threat, steps=4, loss="dlr", targets=2), FAB(threat, steps=3), Square(threat, queries=20),
    )  # fmt: skip
    return AutoAttack(threat, version="custom", attacks=parts)


JOBS: dict[str, Job] = {
    "Linf": attacked(suite(Linf(0.003))),
    "L2": attacked(suite(L2(0.02))),
    "L1": attacked(suite(L1(0.1))),
    "DDN": attacked(DDN(L2(0.2), steps=4)),
    "FMN": attacked(FMN(L2(0.2), steps=4)),
    "DeepFool": attacked(DeepFool(L2(0.2), steps=3)),
    "random": attacked(PGD(L2(0.2), steps=2, eot=3), Noisy),
    "mix": attacked(PGD(L2(0.2), steps=2), lambda m: MixedClassifier(m, m, 0.5, 1.0, 2.0)),
    "smoothed": attacked(FGSM(L2(0.2)), lambda m: SmoothedClassifier(m, Gaussian(0.1), bank=4, votes=32, alpha=0.01)),
    "votes": lambda m, work: certificate_records(m, images(), VOTES, SETTING, work),
    "estimate": lambda m, work: certificate_records(m, images(), LocalLipschitz(Linf(0.01), steps=2), SETTING, work),
}


@pytest.mark.parametrize("name", JOBS)
def test_the_same_rows_on_a_second_device(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    torch.set_num_threads(1)
    here = JOBS[name](net(), Work(tmp_path / "here"))
    request.getfixturevalue("second")
    model = net()
    devices.place(model)
    there = JOBS[name](model, Work(tmp_path / "there"))
    assert [p.table for p in there] == [p.table for p in here]
    assert all(p.unit["device"] == "lazy" and "device" not in q.unit for p, q in zip(there, here, strict=True))


def test_two_devices_do_not_mix(second: None) -> None:
    one, other = torch.zeros(3), torch.zeros(3).to(THERE)
    for mixed in (lambda: one + other, lambda: one[other.long()], lambda: torch.cat([one, other])):
        with pytest.raises(RuntimeError, match="two devices"):
            mixed()
    with pytest.raises(TypeError, match="numpy"):
        np.asarray(other.numpy())
    assert torch.equal((other + 1.0).cpu(), one + 1.0)
    assert other[one.long()].device == THERE




# --- with a GPU: pytest -m gpu -----------------------------------------------------------------------------------

gpu = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")]


@pytest.mark.parametrize("name", JOBS, ids=str)
@pytest.mark.parametrize("gpu", [pytest.param(None, marks=gpu)], ids=["gpu"])
def test_the_same_verdicts_on_a_gpu(name: str, gpu: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the CPU's random numbers; rounding may move a verdict that hangs on the last bits, and no more than one."""
    here = JOBS[name](net(), Work(tmp_path / "here"))
    monkeypatch.setattr(randomness, "DeviceStream", SameNumbers)
    model = net()
    devices.place(model, "cuda")
    there = JOBS[name](model, Work(tmp_path / "there"))
    assert all(p.unit["device"] == "cuda" for p in there)
    column = "success" if here[0].kind == "attack" else "prediction"
    wrong = [dict(zip(p.column("id").tolist(), p.column(column).tolist(), strict=True)) for p in (here[0], there[0])]
    if name != "random":  # whose own noise is the GPU's
        assert sum(wrong[0][i] != wrong[1][i] for i in wrong[0]) <= 1


@pytest.mark.parametrize("gpu", [pytest.param(None, marks=gpu)], ids=["gpu"])
def test_every_verb_on_a_gpu(gpu: None, tmp_path: Path) -> None:
    text = (
        "{name: a, data: {name: digits}, model: {name: lip_convnet, widths: [4], depth: 1, hidden: 8}, "
        "objective: {name: pgd_adversarial, attack: {name: pgd, threat: 'l2:0.5', steps: 2}}, "
        "training: {epochs: 1, steps_per_epoch: 2}}"
    )
    (tmp_path / "a.yaml").write_text(text)
    run = hauberk.train(hauberk.read_recipe(tmp_path / "a.yaml"), tmp_path / "run", device="cuda")
    target, plan = hauberk.subject(run.path), Plan(images=16, tile=8, device="cuda")
    threat = L2(0.5)
    hauberk.attack(target, hauberk.suite(target, threat), plan)
    hauberk.certify(target, [LipschitzCertificate(), VOTES], plan)
    hauberk.diagnose(target, PGD(threat, steps=3), plan)
    assert hauberk.check(target, threat, device="cuda").speed is not None
    places = {(p.kind, p.unit["method"]["name"]): p.unit.get("device") for p in read_all(run.records)}
    assert places["certificate", "lipschitz"] is None
    assert places["certificate", "smoothing"] == places["attack", "apgd"] == places["diagnosis", "diagnosis"] == "cuda"
    assert not [problem for verdict in audit(run.path, weights=True, rows=8, seed=0) for problem in verdict.problems]
