"""A model's name and structure change with all that its answers depend on, and with nothing else."""

from __future__ import annotations

import copy
import functools
import importlib
import math
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hauberk import registry
from hauberk.classifier import predictor_name
from hauberk.defences.mixed import MixedClassifier
from hauberk.defences.smoothed import smoothed
from hauberk.identity import structure
from hauberk.models.small_cnn import small_cnn
from hauberk.noises import Gaussian

SCALE = 2.0


def doubled(values: Tensor) -> Tensor:
    return values * SCALE


class Net(nn.Module):
    """Reaches for everything that an identity has to see."""

    def __init__(self, slope: float = 0.1, hook: Callable[[Tensor], Tensor] | None = None, **more: object) -> None:
        super().__init__()
        self.slope, self.hook, self.more = slope, hook, more
        self.register_buffer("shift", torch.zeros(1), persistent=False)
        self.layer = nn.Linear(4, 2)

    def forward(self, images: Tensor) -> Tensor:
        values: Tensor = doubled(nn.functional.leaky_relu(self.layer(images.flatten(1)), self.slope))
        return values if self.hook is None else self.hook(values)


def net(**settings: object) -> Net:
    torch.manual_seed(0)
    return Net(**settings).eval()  # type: ignore[arg-type]


def closing_over(factor: float) -> Callable[[Tensor], Tensor]:
    return lambda values: values * factor


def defaulting(factor: float) -> Callable[[Tensor], Tensor]:
    def scaled(values: Tensor, by: float = factor) -> Tensor:
        return values * by

    return scaled


def linear(seed: int) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(4, 2)


class Slotted:
    __slots__ = ("value",)

    def __init__(self, value: float) -> None:
        self.value = value


class Private:
    __slots__ = ("__factor",)

    def __init__(self, factor: float) -> None:
        self.__factor = factor


PAIRS = {
    "a number": ({"slope": 0.1}, {"slope": 0.2}),
    "a number in a dict in a list": ({"a": [{"b": 1.0}]}, {"a": [{"b": 2.0}]}),
    "the order of a dict": ({"a": {"x": 1, "y": 2}}, {"a": {"y": 2, "x": 1}}),
    "the order of a list": ({"a": [1, 2]}, {"a": [2, 1]}),
    "a set": ({"a": {"x", "y"}}, {"a": {"x", "z"}}),
    "a string": ({"a": "mean"}, {"a": "max"}),
    "a closure": ({"hook": closing_over(1.0)}, {"hook": closing_over(2.0)}),
    "a default argument": ({"hook": defaulting(1.0)}, {"hook": defaulting(2.0)}),
    "a partial": ({"hook": functools.partial(torch.mul, other=1.0)}, {"hook": functools.partial(torch.mul, other=2.0)}),
    "another function": ({"hook": torch.sin}, {"hook": torch.cos}),
    "a bound method": ({"hook": Slotted(1.0).__init__}, {"hook": Slotted(2.0).__init__}),
    "nets in a list": ({"a": [linear(0)]}, {"a": [linear(1)]}),
    "nets in a dict": ({"a": {"x": linear(0)}}, {"a": {"x": linear(1)}}),
    "a tensor": ({"a": torch.zeros(2)}, {"a": torch.ones(2)}),
    "the type of a tensor": ({"a": torch.zeros(2)}, {"a": torch.zeros(2, dtype=torch.float64)}),
    "an array": ({"a": np.zeros(2)}, {"a": np.ones(2)}),
    "the shape of an array": ({"a": np.zeros(2)}, {"a": np.zeros((1, 2))}),
    "an object with slots": ({"a": Slotted(1.0)}, {"a": Slotted(2.0)}),
    "a namespace": ({"a": SimpleNamespace(x=1)}, {"a": SimpleNamespace(x=2)}),
    "a private slot": ({"a": Private(1.0)}, {"a": Private(2.0)}),
    "a view of bytes": ({"a": memoryview(b"1")}, {"a": memoryview(b"2")}),
    "the seed of a generator": ({"a": torch.Generator().manual_seed(1)}, {"a": torch.Generator().manual_seed(2)}),
    "minus zero": ({"a": 0.0}, {"a": -0.0}),
    "a whole number": ({"a": 1}, {"a": 1.0}),
}


@pytest.mark.parametrize(("one", "other"), PAIRS.values(), ids=PAIRS)
def test_another_value_is_another_structure(one: dict[str, object], other: dict[str, object]) -> None:
    assert structure(net(**one)) == structure(net(**one)) != structure(net(**other))
    assert predictor_name(net(**one)) == predictor_name(net(**one)) != predictor_name(net(**other))


def patch_instance(model: Net) -> None:
    model.forward = lambda images: -Net.forward(model, images)  # type: ignore[method-assign]


def patch_layer(model: Net) -> None:
    model.layer.forward = lambda values: values[:, :2]  # type: ignore[method-assign]


def hook(model: Net) -> None:
    model.register_forward_hook(lambda _, __, output: -output)


def pre_hook(model: Net) -> None:
    model.layer.register_forward_pre_hook(lambda _, inputs: (-inputs[0],))


def buffer(model: Net) -> None:
    model.shift += 1.0


CHANGES = [patch_instance, patch_layer, hook, pre_hook, buffer]


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_afterwards_is_seen(change: Callable[[Net], None]) -> None:
    model = net()
    before = predictor_name(model)
    change(model)
    assert predictor_name(model) != before


def test_patches_of_class_module_and_torch_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {predictor_name(net())}
    for target, name, value in (
        (Net, "forward", lambda self, images: self.layer(images.flatten(1))),
        (sys.modules[__name__], "doubled", lambda values: values * 3.0),
        (sys.modules[__name__], "SCALE", 5.0),
        (nn.functional, "leaky_relu", lambda values, _: values),
        (nn.Linear, "forward", lambda self, values: values[:, :2]),
        (torch.Tensor, "flatten", lambda values, _: values.reshape(len(values), -1)),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(target, name, value)
            names.add(predictor_name(net()))
    assert len(names) == 7
    assert predictor_name(net()) in names


VARIABLE: ContextVar[float] = ContextVar("factor", default=1.0)
LOCAL = threading.local()
LOCAL.factor = 1.0


class Above(type):
    factor = 1.0


class Below(metaclass=Above):
    __factor__ = 1.0


# how a function finds a number, and how the number changes
HIDDEN: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[pytest.MonkeyPatch], object]]] = {
    "the environment": (
        lambda x: x * float(os.environ.get("FACTOR_OF_A_TEST", "1")), lambda m: m.setenv("FACTOR_OF_A_TEST", "2"),
    ),
    "the environment, asked otherwise": (
        lambda x: x * float(os.getenv("FACTOR_OF_A_TEST", "1")), lambda m: m.setenv("FACTOR_OF_A_TEST", "2"),
    ),
    "a global by its text": (lambda x: x * globals()["SCALE"], lambda m: m.setitem(globals(), "SCALE", 3.0)),
    "an attribute by its text": (lambda x: x * getattr(Below, "__factor__"),  # noqa: B009
                                 lambda m: m.setattr(Below, "__factor__", 2.0)),
    "a module by its text": (lambda x: importlib.import_module("stub_of_a_test").scaled(x),
                             lambda m: m.setattr(sys.modules["stub_of_a_test"], "scaled", lambda x: 2 * x)),
    "a metaclass": (lambda x: x * Below.factor, lambda m: m.setattr(Above, "factor", 2.0)),
    "a context variable": (lambda x: x * VARIABLE.get(), lambda m: VARIABLE.set(2.0)),
    "a value of the thread": (lambda x: x * LOCAL.factor, lambda m: m.setattr(LOCAL, "factor", 2.0)),
    "another function of torch": (torch.relu, lambda m: m.setattr(nn.functional, "relu", nn.functional.silu)),
    "another built-in function of torch": (torch.relu, lambda m: m.setattr(torch, "relu", torch.tanh)),
    "a method that its parent has": (torch.relu, lambda m: m.setattr(torch.Tensor, "relu", torch.Tensor.abs)),
}  # fmt: skip


@pytest.mark.parametrize(("hook", "change"), HIDDEN.values(), ids=HIDDEN)
def test_what_code_finds_by_a_text_or_far_away_is_seen(hook, change, monkeypatch: pytest.MonkeyPatch) -> None:
    stub = ModuleType("stub_of_a_test")
    stub.scaled = doubled  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "stub_of_a_test", stub)
    model = net(hook=hook)
    before = predictor_name(model)
    assert predictor_name(model) == before
    change(monkeypatch)
    assert predictor_name(model) != before


def test_classes_of_an_installed_package_are_seen_when_they_are_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "site-packages" / "installed_for_a_test"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("class Factor:\n    value = 1.0\n    def of(self): return self.value\n")
    monkeypatch.syspath_prepend(str(folder.parent))
    package = importlib.import_module("installed_for_a_test")
    model = net(a=package.Factor())
    names = {predictor_name(model)}
    monkeypatch.setattr(package.Factor, "value", 2.0)
    names.add(predictor_name(model))
    monkeypatch.setattr(package.Factor, "of", lambda self: 3.0)
    names.add(predictor_name(model))
    assert len(names) == 3


class Scripted(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1) * self.factor


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_constants_and_attributes_of_compiled_models_are_seen() -> None:
    traced = [torch.jit.trace(nn.Sequential(Scripted(f)).eval(), torch.rand(2, 4)) for f in (1.0, 2.0, 1.0)]
    assert predictor_name(traced[0]) == predictor_name(traced[2]) != predictor_name(traced[1])
    model = torch.jit.script(nn.Sequential(Scripted(1.0)).eval())
    before = predictor_name(model)
    assert predictor_name(torch.jit.script(nn.Sequential(Scripted(1.0)).eval())) == before
    model[0].factor = 2.0
    assert predictor_name(model) != before


def test_what_does_not_matter_does_not_count() -> None:
    model = net(a=[linear(0)])
    name = predictor_name(model)
    assert predictor_name(copy.deepcopy(model)) == name
    model.train().requires_grad_(False)
    model.layer.register_full_backward_hook  # noqa: B018 - only looked at
    assert predictor_name(model) == name
    model(torch.rand(1, 1, 2, 2))
    assert predictor_name(model) == name


def test_cycles_and_odd_things_end() -> None:
    loop: list[object] = []
    loop.append(loop)
    for odd in (loop, math.nan, sys, open, iter([]), np.random.default_rng(0), torch.Generator(), Exception("x"), int):
        assert structure(net(a=odd)) == structure(net(a=odd))


def task() -> dict[str, object]:
    return {"input_shape": (1, 8, 8), "num_classes": 3, "mean": (0.5,), "std": (0.5,)}


def test_a_registered_net_is_its_spec_until_somebody_changes_it() -> None:
    torch.manual_seed(0)
    model = small_cnn(**task())  # type: ignore[arg-type]
    again = registry.build(model.spec)  # type: ignore[arg-type]
    again.load_state_dict(model.state_dict())
    name = predictor_name(model)
    assert predictor_name(again) == name and structure(again) == structure(model)
    norm = next(m for m in again.modules() if isinstance(m, nn.BatchNorm2d))
    norm.eps = 1.0
    assert predictor_name(again) != name
    norm.eps = 1e-5
    assert predictor_name(again) == name
    again.register_forward_hook(lambda _, __, output: -output)
    assert predictor_name(again) != name


def test_a_class_that_was_patched_before_a_registered_net_was_built_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    plain = predictor_name(small_cnn(**task()))  # type: ignore[arg-type]
    monkeypatch.setattr(nn.BatchNorm2d, "forward", lambda _, values: -values)
    torch.manual_seed(0)
    assert predictor_name(small_cnn(**task())) != plain  # type: ignore[arg-type]


def test_wrappers_carry_the_identity_of_their_bases() -> None:
    for wrap in (
        lambda base: MixedClassifier(base, linear_net(), 0.5, 1.0, 1.0),
        lambda base: MixedClassifier(linear_net(), base, 0.5, 1.0, 1.0),
        lambda base: smoothed(base, Gaussian(0.25)),
    ):
        names = set()
        for slope in (0.1, 0.2):
            base = net(slope=slope)
            base.spec = {"name": "own", "source": "nowhere:net"}
            model = wrap(base)
            names |= {predictor_name(model), structure(model)}
        assert len(names) == 4


def linear_net() -> nn.Module:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).eval()
    model.spec = {"name": "own", "source": "nowhere:other"}  # type: ignore[assignment]
    return model


def test_a_mix_with_a_hook_or_of_another_class_has_a_name_of_its_own() -> None:
    class Other(MixedClassifier):
        pass

    plain = predictor_name(MixedClassifier(linear_net(), net(), 0.5, 1.0, 1.0))
    assert plain.startswith("mixed(alpha=0.5, ")
    hooked = MixedClassifier(linear_net(), net(), 0.5, 1.0, 1.0)
    hooked.register_forward_hook(lambda _, __, output: -output)
    assert len({plain, predictor_name(hooked), predictor_name(Other(linear_net(), net(), 0.5, 1.0, 1.0))}) == 3


# --- source, in files of the user's ---------------------------------------------------------------------------------

FILES = {
    "mine.py": """
        import torch
        from torch import nn
        import helper
        from helper import scale
        FACTOR = 1.0
        class Mine(nn.Module):
            names = {"b", "a", "c"}
            def __init__(self, slope):
                super().__init__()
                self.layer, self.slope = nn.Linear(4, 2), slope
            def forward(self, images):
                from lazily import late
                return late(scale(self.layer(images.flatten(1)))) * FACTOR
        def build():
            torch.manual_seed(0)
            return Mine(0.1).eval()
        """,
    "helper.py": """
        import deeper
        def scale(values):
            return deeper.same(values)
        """,
    "deeper.py": "def same(values):\n    return values\n",
    "lazily.py": "def late(values):\n    return values\n",
    "unrelated.py": "VALUE = 1\n",
}
EDITS = {
    "forward": ("mine.py", "images.flatten(1)", "1 - images.flatten(1)"),
    "a constant of the module": ("mine.py", "FACTOR = 1.0", "FACTOR = -1.0"),
    "build": ("mine.py", "Mine(0.1)", "Mine(0.2)"),
    "a class attribute": ("mine.py", '"b", "a", "c"', '"b", "a"'),
    "a helper": ("helper.py", "deeper.same(values)", "-deeper.same(values)"),
    "a helper of the helper": ("deeper.py", "return values", "return -values"),
    "a module imported inside a function": ("lazily.py", "return values", "return -values"),
}
ASK = """
from hauberk.classifier import predictor_name
from hauberk.models.own import own
print(predictor_name(own("mine:build")))
"""


def names_in_processes(folder: Path, *seeds: str) -> list[str]:
    """The model's name in fresh processes, each with another order of sets."""
    started = [
        subprocess.Popen([sys.executable, "-c", ASK], cwd=folder, stdout=subprocess.PIPE, text=True,
                         env={"PYTHONPATH": ":".join([str(folder), *sys.path]), "PYTHONHASHSEED": seed})
        for seed in seeds
    ]  # fmt: skip
    return [process.communicate()[0].strip() for process in started]


def write_files(folder: Path) -> None:
    for name, text in FILES.items():
        (folder / name).write_text(textwrap.dedent(text))


def test_the_name_is_the_same_in_every_process_and_folder(tmp_path: Path) -> None:
    found = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_files(tmp_path / name)
        (tmp_path / name / "unrelated.py").write_text(f"VALUE = {name!r}\n")
        found += names_in_processes(tmp_path / name, "1" if name == "one" else "2")
    assert found[0].startswith("own[") and len(set(found)) == 1


def test_every_edit_of_the_source_changes_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    write_files(tmp_path)

    def name() -> str:
        for module in ("mine", "helper", "deeper", "lazily"):
            sys.modules.pop(module, None)
        importlib.invalidate_caches()
        return predictor_name(importlib.import_module("hauberk.models.own").own("mine:build"))

    names = [name(), name()]
    assert names[0] == names[1]
    for file, old, new in EDITS.values():
        path = tmp_path / file
        text = path.read_text()
        assert text.count(old) == 1
        path.write_text(text.replace(old, new))
        names.append(name())
        path.write_text(text)
    assert len(set(names)) == len(EDITS) + 1
    assert name() == names[0]


def test_code_that_was_edited_after_it_was_imported_is_not_taken_for_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    write_files(tmp_path)
    for module in ("mine", "helper", "deeper", "lazily"):
        sys.modules.pop(module, None)
    own = importlib.import_module("hauberk.models.own").own
    before = own("mine:build")
    text = (tmp_path / "mine.py").read_text()
    (tmp_path / "mine.py").write_text(text.replace("images.flatten(1)", "1 - images.flatten(1)"))
    stale = predictor_name(before)
    for module in ("mine", "helper", "deeper", "lazily"):
        sys.modules.pop(module, None)
    assert predictor_name(own("mine:build")) != stale
