"""The gate: what is walked is what its types say, what is not walked is a function of one image."""

import importlib
import math
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from hauberk import sources
from hauberk.batch import Batch
from hauberk.certificates import LipschitzCertificate, LocalLipschitz, MixedCertificate, SmoothingCertificate
from hauberk.certificates.evidence import OfMix, on_record
from hauberk.certificates.frozen import FrozenLipschitz
from hauberk.certificates.gate import winners
from hauberk.classifier import check_separate, decide
from hauberk.defences.adaptive_mixed import AdaptiveMixedClassifier
from hauberk.defences.detector import DetectedClassifier
from hauberk.defences.locally_biased import GradientMixed
from hauberk.defences.mixed import MixedClassifier
from hauberk.defences.mixed_nuts import MixedNuts
from hauberk.defences.smoothed import SmoothedClassifier
from hauberk.errors import HauberkError
from hauberk.evaluation.alpha_path import mix_records
from hauberk.evaluation.keys import Setting
from hauberk.evaluation.work import Work
from hauberk.layers import AOLLinear, BjorckLinear, MaxMin
from hauberk.layers.bound import Bound
from hauberk.layers.cpl import PotentialLinear
from hauberk.layers.walkable import bent, is_house
from hauberk.noises import Gaussian
from hauberk.threats import L2

VOTES = SmoothingCertificate(Gaussian(0.25), n0=20, n=100, alpha=0.01)
WALKED = LipschitzCertificate()
MIX = MixedCertificate()


def batch(count: int = 3, images: Tensor | None = None) -> Batch:
    if images is None:
        images = torch.rand(count, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    return Batch(images, torch.zeros(len(images), dtype=torch.int64), torch.arange(len(images)))


def net(*layers: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), *(layers or (AOLLinear(4, 4), MaxMin())), nn.Linear(4, 2)).eval()


def mix(accurate: nn.Module | None = None, alpha: float = 0.9) -> MixedClassifier:
    return MixedClassifier(accurate or net(), net(), alpha, 1.0, 30.0).eval()


# --- kind 1: the mix that is deployed is the mix that is certified ---------------------------------------------


class InPlace(nn.Module):
    """Turns its images around where they are."""

    def __init__(self) -> None:
        super().__init__()
        self.net = net()

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.net(images.neg_().add_(1.0))
        return logits


def test_bases_get_copies_of_their_images() -> None:
    base, plain, images = InPlace().eval(), net(), batch().images
    taps = ("net.0", "net.1"), ("0", "1")
    mixing = lambda first, second: first[0].sum(1)  # noqa: E731
    adaptive = AdaptiveMixedClassifier(base, plain, nn.Identity(), *taps, alpha_min=0.6, alpha_max=0.9).eval()
    adaptive.mixing.forward = mixing  # type: ignore[method-assign, assignment]
    three = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).eval()
    for model in (
        mix(base), adaptive, GradientMixed(base, plain, 1.0, "gradient", "logits", "l2").eval(),
        GradientMixed(base, plain, 1.0, "constant", "probabilities", "l2").eval(),
    ):  # fmt: skip
        before = images.clone()
        with torch.no_grad():
            first, second = model(images), model(images)
        assert torch.equal(images, before)
        assert torch.equal(first, second)
    nuts = MixedNuts(three, nn.Sequential(nn.ReLU(inplace=True), three).eval(), 0.7, 1.0, 0.0, 2.0, 3, 0.8).eval()
    shifted = images - 0.5
    before = shifted.clone()
    nuts(shifted)
    assert torch.equal(shifted, before)
    decide(base, batch(images=images))
    assert torch.equal(images, batch().images)


class Stubborn(MixedClassifier):
    def forward(self, images: Tensor) -> Tensor:
        return self._accurate(images)


class OtherHalf(MixedClassifier):
    def _robust(self, images: Tensor) -> Tensor:
        return -super()._robust(images)


class OtherAlpha(MixedClassifier):
    least_alpha = 0.99  # type: ignore[assignment]


class OtherCall(MixedClassifier):
    def __call__(self, images: Tensor) -> Tensor:
        return -super().__call__(images)


class Looks(nn.Module):
    """Neither a mix nor a subclass, though it says so."""

    __class__ = MixedClassifier  # type: ignore[assignment]


@pytest.mark.parametrize("kind", [Stubborn, OtherHalf, OtherAlpha, OtherCall])
def test_a_mix_is_of_exactly_a_known_type(kind: type[MixedClassifier]) -> None:
    with pytest.raises(HauberkError, match="expected exactly MixedClassifier"):
        MIX(kind(net(), net(), 0.9, 1.0, 30.0).eval(), batch())


def test_what_only_looks_like_a_mix_is_none() -> None:
    with pytest.raises(HauberkError, match="expected exactly MixedClassifier"):
        MIX(Looks().eval(), batch())
    changed = net()
    changed.__class__ = type("Turned", (nn.Sequential,), {"forward": lambda self, x: -nn.Sequential.forward(self, x)})
    with pytest.raises(HauberkError, match=r"nothing is known|not an nn\.Sequential"):
        WALKED(changed, batch())


def hook(model: MixedClassifier) -> None:
    model.register_forward_hook(lambda module, inputs, output: -output)


def pre_hook(model: MixedClassifier) -> None:
    model.register_forward_pre_hook(lambda module, inputs: (1.0 - inputs[0],))


def replaced(model: MixedClassifier) -> None:
    model.forward = lambda images: -mix()(images)  # type: ignore[method-assign]


def half_replaced(model: MixedClassifier) -> None:
    model._robust = lambda images: -model.robust(images)  # type: ignore[method-assign]


def not_a_weight(model: MixedClassifier) -> None:
    model.alpha = 1.5


def not_a_number(model: MixedClassifier) -> None:
    model.alpha = math.nan


def turned_scale(model: MixedClassifier) -> None:
    model.robust_scale = -30.0


def weight_that_varies(model: MixedClassifier) -> None:
    model.alpha = torch.tensor(0.9)  # type: ignore[assignment]


@pytest.mark.parametrize(
    "deform",
    [hook, pre_hook, replaced, half_replaced, not_a_weight, not_a_number, turned_scale, weight_that_varies],
)
def test_a_mix_that_was_changed_is_refused(deform: Callable[[MixedClassifier], None]) -> None:
    model = mix()
    assert bool((MIX(model, batch()).radius > 0).any())
    deform(model)
    with pytest.raises(HauberkError):
        MIX(model, batch())


def test_the_alpha_path_passes_the_gate_too(tmp_path) -> None:
    model, setting = mix(), Setting("none", "test", ("a", "b"))
    hook(model)
    with pytest.raises(HauberkError, match="forward hook"):
        mix_records(model, batch(), MIX, [0.1], setting, Work(tmp_path))


class Overflow(nn.Module):
    """Not a number where the first pixel is bright."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, images: Tensor) -> Tensor:
        first = images.flatten(1)[:, :2]
        return torch.where(first[:, :1] > 0.5, self.value, first)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 3e38])
def test_an_accurate_model_that_overflows_abstains_at_the_image_and_breaks_nothing_near_it(value: float) -> None:
    model = MixedClassifier(Overflow(value).eval(), net(), 0.9, 10.0, 30.0).eval()
    images = torch.full((1, 1, 2, 2), 0.45)
    bright = batch(images=images + 0.1)
    assert MIX(model, bright).radius.tolist() == [0.0]
    assert MIX(model, bright).prediction.tolist() == [-1]
    found = MIX(model, batch(images=images))
    assert float(found.radius[0]) > 0.06
    near = images.clone()
    near[0, 0, 0, 0] = 0.505
    assert decide(model, batch(images=near)).tolist() == found.prediction.tolist()
    votes = MixedCertificate(VOTES)
    assert votes(model, bright).prediction.tolist() == [-1]


def test_only_a_finite_and_strictly_largest_logit_wins() -> None:
    rows = [[1.0, 2.0], [2.0, 2.0], [math.inf, 0.0], [0.0, -math.inf], [math.nan, 0.0]]
    assert winners(torch.tensor(rows)).tolist() == [1, -1, -1, -1, -1]


def test_a_tie_of_the_mix_in_float32_abstains() -> None:
    # the robust model is sure by less than float32 can see beside the accurate model's opinion
    tie, robust = (nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).eval() for _ in range(2))
    with torch.no_grad():
        for layer, bias in ((tie[1], 0.0), (robust[1], 1e-9)):
            layer.weight.zero_()
            layer.bias.copy_(torch.tensor([bias, 0.0]))
        robust[1].weight[0, 0] = 1e-12
    model = MixedClassifier(tie, robust, 1.0 - 1e-12, 1.0, 1.0).eval()
    assert MIX(model, batch()).prediction.tolist() == [-1] * 3
    assert WALKED(robust, batch()).prediction.tolist() == [0] * 3  # a bias alone float32 does see


@pytest.mark.parametrize("certificate", [MIX, MixedCertificate(VOTES), MixedCertificate(LocalLipschitz(L2(0.1)))])
def test_what_the_deployed_mix_says_is_on_record(certificate: MixedCertificate) -> None:
    rows, shared = on_record(certificate.gather(mix(), batch(), 0, 16))
    assert all(row["mix_deployed"] in (0, 1) for row in rows)
    for row in rows:
        if certificate.decision(OfMix.read(row, shared)) >= 0:
            assert certificate.decision(OfMix.read({**row, "mix_deployed": -1}, shared)) == -1


# --- kind 3: what is computed is what was walked -----------------------------------------------------------------


class Tempered(BjorckLinear):
    """Another map with its own bound, which inherits ``export`` from a class that computes something else."""

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features) / 10

    def lipschitz_bound(self, input_shape, norm="l2") -> Bound:  # type: ignore[no-untyped-def]
        bound = super().lipschitz_bound(input_shape, norm)
        return Bound(bound.value / 10 * (1 + 1e-9), bound.method, False)


def test_an_inherited_export_is_not_used_where_the_function_is_another() -> None:
    model, data = net(Tempered(4, 4)), batch()
    rows, _ = on_record(WALKED.gather(model, data, 0, 16))
    with torch.no_grad():
        logits = model(data.images)
    assert torch.allclose(torch.tensor([row["logits"] for row in rows]).float(), logits, atol=1e-5)


def with_property(layer: nn.Module, name: str) -> nn.Module:
    """A layer of a subclass that puts a property in the place of a tensor."""
    bent = property(lambda self: 3 * torch.eye(4) if name == "weight" else torch.ones(4))
    layer.__class__ = type("Bent", (type(layer),), {name: bent})
    return layer


class BentGetter(AOLLinear):
    def __getattr__(self, name: str) -> object:
        found = super().__getattr__(name)
        return 3 * found if name == "bias" else found


class BentHelper(PotentialLinear):
    """Its own map and bound, and a size of what is summed inside that belongs to another map."""

    def forward(self, features: Tensor) -> Tensor:
        return 1e9 * features - (1e9 - 1) * features

    def lipschitz_bound(self, input_shape, norm="l2") -> Bound:  # type: ignore[no-untyped-def]
        return Bound(1.0, "claimed", False)


class BentCall(MaxMin):
    def __call__(self, features: Tensor) -> Tensor:
        return 3 * super().__call__(features)


class BentCopy(nn.Identity):
    def __deepcopy__(self, memo: object) -> nn.Module:
        return nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        return 3 * features

    def lipschitz_bound(self, input_shape, norm="l2") -> Bound:  # type: ignore[no-untyped-def]
        return Bound(3.0, "claimed", False)


class Mixin:
    def forward(self, features: Tensor) -> Tensor:
        return 3 * features


class Mixed(Mixin, AOLLinear):
    pass


class Elsewhere(nn.ReLU, AOLLinear):
    """Its forward is torch's own, of another class."""

    def __init__(self) -> None:
        AOLLinear.__init__(self, 4, 4)
        self.inplace = False


@pytest.mark.parametrize(
    "make",
    [
        lambda: with_property(AOLLinear(4, 4), "weight"), lambda: with_property(BjorckLinear(4, 4), "bias"),
        lambda: with_property(nn.Linear(4, 4), "weight"), lambda: BentGetter(4, 4), lambda: BentHelper(4), BentCall,
        BentCopy, lambda: Mixed(4, 4), Elsewhere,
    ],
)  # fmt: skip
def test_subclasses_that_bend_what_they_inherit_are_refused(make: Callable[[], nn.Module]) -> None:
    with pytest.raises(HauberkError, match=r"inherits the bound|changes how modules work|no Lipschitz bound"):
        WALKED(net(make()), batch())


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (nn.Linear, "forward"), (nn.Module, "__call__"), (nn.Module, "__getattr__"), (MaxMin, "forward"),
        (AOLLinear, "forward"), (MixedClassifier, "forward"), (MixedClassifier, "least_alpha"),
        (nn.Sequential, "forward"), (parametrize.ParametrizationList, "forward"), (nn.Flatten, "forward"),
    ],
    ids=lambda v: getattr(v, "__name__", v),
)  # fmt: skip
def test_patched_classes_are_refused(owner: type, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, kept = mix(), getattr(owner, name)

    def patch(self: nn.Module, *given: object) -> object:
        return kept(self, *given)

    with monkeypatch.context() as patched:
        patched.setattr(owner, name, property(lambda self: 0.9) if name == "least_alpha" else patch)
        with pytest.raises(HauberkError, match="replaced methods"):
            MIX(model, batch())
    assert bool((MIX(model, batch()).radius > 0).any())


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("hauberk.defences.mixed", "mix_log_probabilities"), ("hauberk.defences.mixed", "opinion"),
        ("hauberk.layers.aol", "plain_linear"), ("hauberk.layers.activations", "check_channels"),
        ("torch.nn.functional", "relu"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("how", [lambda f: lambda *given: f(*given), lambda f: type("Callable", (), {"__call__": f})()])
def test_patched_modules_are_refused(module: str, name: str, how, monkeypatch: pytest.MonkeyPatch) -> None:
    room = importlib.import_module(module)
    monkeypatch.setattr(room, name, how(getattr(room, name)))
    with pytest.raises(HauberkError, match="replaced functions"):
        MIX(mix(), batch())


def test_a_function_under_another_functions_name_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    room = importlib.import_module("hauberk.defences.mixed")
    monkeypatch.setattr(room, "opinion", room.mixed)
    with pytest.raises(HauberkError, match="replaced functions"):
        MIX(mix(), batch())
    monkeypatch.undo()
    monkeypatch.setattr(nn.ReLU, "forward", nn.Tanh.forward)
    with pytest.raises(HauberkError, match="replaced methods"):
        WALKED(net(nn.ReLU()), batch())


def opinion(logits: Tensor) -> Tensor:
    """Has the name of the library's own function, and is another one."""
    return -logits


def test_a_function_of_the_same_name_from_elsewhere_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.import_module("hauberk.defences.mixed"), "opinion", opinion)
    with pytest.raises(HauberkError, match="replaced functions"):
        MIX(mix(), batch())


TIMES = torch.mul
OTHER = {
    "a function of the user's": (torch, "relu", lambda values: TIMES(values, 3.0)),
    "a tensor's operator": (torch.Tensor, "__add__", lambda values, other: TIMES(values, other)),
    "a tensor's method, which its parent has": (torch.Tensor, "relu", lambda values: TIMES(values, 3.0)),
    "an object that can be called": (torch.linalg, "qr", nn.Identity()),
    "another function of torch": (nn.functional, "relu", nn.functional.silu),
    "another built-in function of torch": (torch, "tanh", torch.sinh),
    "another transform of torch": (torch.fft, "rfft2", torch.fft.fft2),
    "a property": (torch.Tensor, "mT", property(lambda values: values)),
}


@pytest.mark.parametrize(("space", "name", "value"), OTHER.values(), ids=OTHER)
def test_what_stands_in_the_place_of_torchs_functions_is_seen(
    space: object, name: str, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, data = net(nn.Linear(4, 4), nn.ReLU()), batch()
    monkeypatch.setattr(space, name, value)
    with pytest.raises(HauberkError, match=f"torch has replaced functions: .*{name}"):
        WALKED(model, data)


def test_code_of_the_users_own_that_torch_held_before_hauberk_came_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    early = {space: dict(vars(space)) for space in sources.SPACES}
    early[torch]["relu"] = lambda values: 3.0 * values
    monkeypatch.setattr(sources, "_AS_IMPORTED", early)
    monkeypatch.setattr(torch, "relu", early[torch]["relu"])
    assert [name for _, name, _ in sources.replaced_in_torch()] == ["relu"]


def test_what_computes_no_answer_may_be_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    model = net(nn.Linear(4, 4), nn.ReLU())
    expected = WALKED(model, batch()).radius
    monkeypatch.setattr(torch, "load", lambda *given: None)
    monkeypatch.setattr(torch.Tensor, "__repr__", lambda values: "a tensor")
    monkeypatch.setattr(torch.Tensor, "picture", property(lambda values: values), raising=False)
    with torch.device("cpu"):
        assert torch.equal(WALKED(model, batch()).radius, expected)


class Louder(TorchFunctionMode):
    def __torch_function__(self, function, types, given=(), named=None):
        return function(*given, **(named or {}))


class Lower(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, given=(), named=None):
        return function(*given, **(named or {}))


@pytest.mark.parametrize("mode", [Louder, Lower])
def test_a_mode_that_sees_every_function_of_torch_is_refused(mode: type) -> None:
    model, data = net(), batch()
    with mode(), pytest.raises(HauberkError, match=f"a torch mode is active .*{mode.__name__}"):
        WALKED(model, data)


def test_a_smoothed_classifier_with_a_patched_module_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.import_module("hauberk.defences.smoothed"), "noisy_votes", lambda *given: None)
    with pytest.raises(HauberkError, match="replaced functions"):
        VOTES(SmoothedClassifier(net(), Gaussian(0.25), 4, 100, 0.001).eval(), batch())


def test_a_class_is_the_librarys_only_if_it_is_found_there() -> None:
    assert is_house(AOLLinear)
    assert not is_house(type("AOLLinear", (nn.Module,), {"__module__": "hauberk.layers.aol"}))


def test_what_a_subclass_changes_is_found_by_what_its_parent_has_and_reads() -> None:
    later = type("Later", (AOLLinear,), {})
    layer = later(4, 4)
    later.bias = property(lambda self: 3 * torch.ones(4))
    assert bent(layer, AOLLinear) == ["bias"]
    with pytest.raises(HauberkError, match="inherits the bound"):
        WALKED(net(layer), batch())
    reads = type("Reads", (AOLLinear,), {"__getattribute__": lambda self, name: object.__getattribute__(self, name)})
    assert bent(reads(4, 4), AOLLinear) == ["__getattribute__"]
    assert bent(type("Named", (AOLLinear,), {"extra": 3, "extra_repr": lambda self: ""})(4, 4), AOLLinear) == []


class Noise(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight + 0.1 * torch.randn_like(weight)


class Seldom(nn.Module):
    """Draws a number each time, and seldom uses it."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight + float(torch.rand(()) > 0.99999)


class Counted(nn.Module):
    calls = 0

    def forward(self, weight: Tensor) -> Tensor:
        self.calls += 1
        return weight * (1 + self.calls % 2)


class Halved(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight / 2


class Own(nn.Module):
    """Draws from a generator that nobody else sees."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = torch.Generator()

    def forward(self, weight: Tensor) -> Tensor:
        return weight + 0.1 * torch.rand(weight.shape, generator=self.generator)


class PatchedScaling(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_forward_hook(lambda module, inputs, output: 2 * output)

    def forward(self, weight: Tensor) -> Tensor:
        return weight


def with_parametrisation(made: nn.Module) -> nn.Sequential:
    model = net(nn.Linear(4, 4))
    parametrize.register_parametrization(model[1], "weight", made, unsafe=True)
    return model.eval()


RANDOM = [Noise(), Seldom(), Counted(), Own(), PatchedScaling()]


@pytest.mark.parametrize("made", RANDOM, ids=lambda m: type(m).__name__)
def test_random_and_changing_parametrisations_are_refused(made: nn.Module) -> None:
    with pytest.raises(HauberkError, match=r"random or changing|forward hook"):
        WALKED(with_parametrisation(made), batch())
    with pytest.raises(HauberkError, match=r"random or changing|forward hook"):
        FrozenLipschitz(with_parametrisation(made), (1, 2, 2))


def test_parametrisations_of_ones_own_that_stay_are_welcome() -> None:
    assert bool((WALKED(with_parametrisation(Halved()), batch()).radius > 0).any())


def test_a_class_made_by_parametrize_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    model = net()
    monkeypatch.setattr(type(model[1]), "forward", lambda self, x: 3 * x, raising=False)
    with pytest.raises(HauberkError):
        WALKED(model, batch())
    monkeypatch.undo()
    monkeypatch.setattr(type(model[1]), "weight", property(lambda self: 3 * torch.eye(4)))
    with pytest.raises(HauberkError):
        WALKED(model, batch())


def test_cached_weights_are_refused() -> None:
    with parametrize.cached(), pytest.raises(HauberkError, match="cached"):
        WALKED(net(), batch())


class Wrapped(torch.Tensor):
    """A tensor class of its own."""


def test_tensors_of_another_class_and_hidden_weights_are_refused() -> None:
    model = net()
    model[3].weight = nn.Parameter(model[3].weight.detach().as_subclass(Wrapped))  # type: ignore[arg-type]
    with pytest.raises(HauberkError, match="tensor class"):
        WALKED(model, batch())
    model = net()
    vars(model[3])["bias"] = torch.ones(2)
    with pytest.raises(HauberkError, match="hides its bias"):
        WALKED(model, batch())


# --- harmless deformations ---------------------------------------------------------------------------------------


def plain() -> nn.Sequential:
    return net(nn.Linear(4, 4), nn.ReLU())


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("how", ["weight_norm", "spectral_norm", "prune", "prune twice", "dropout", "shared", "new"])
def test_harmless_deformations_keep_their_radius(how: str) -> None:
    model, data = plain(), batch()
    layer = model[1]
    if how == "weight_norm":
        nn.utils.weight_norm(layer)
    elif how == "spectral_norm":
        nn.utils.spectral_norm(layer)
        model.train()(data.images)
        model.eval()
    elif how.startswith("prune"):
        prune.l1_unstructured(layer, "weight", 0.25)
        if how.endswith("twice"):
            prune.random_unstructured(layer, "weight", 2)
    elif how == "dropout":
        model.insert(3, nn.Dropout(0.5).eval())
    elif how == "shared":
        model.insert(3, layer)
    else:
        nn.utils.parametrizations.weight_norm(layer)
    model.eval()
    found = WALKED(model, data)
    model(data.images)
    same = net(nn.Linear(4, 4), nn.ReLU(), *([nn.Linear(4, 4)] if how == "shared" else []))
    last = model[-1]
    with torch.no_grad():
        for own in same[1:-1]:
            if isinstance(own, nn.Linear):
                own.weight.copy_(layer.weight)
                own.bias.copy_(layer.bias)
        same[-1].load_state_dict(last.state_dict())
    assert bool((found.radius > 0).any())
    assert torch.allclose(found.radius, WALKED(same, data).radius, rtol=1e-6)
    if how != "shared" and not how.startswith(("spectral", "new")):
        assert bool(layer._forward_pre_hooks) == (how != "dropout")  # the model itself is as it was


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("how", ["weight_norm", "prune"])
def test_a_weight_that_a_hook_has_yet_to_make_is_made(how: str) -> None:
    """What was made at the last call is old once the numbers behind it have changed."""
    model = plain()
    if how == "weight_norm":
        nn.utils.weight_norm(model[1])
    else:
        prune.l1_unstructured(model[1], "weight", 0.25)
    with torch.no_grad():
        (model[1].weight_g if how == "weight_norm" else model[1].weight_orig).mul_(10.0)
    found = WALKED(model, batch())
    model(batch().images)
    assert torch.equal(found.radius, WALKED(model, batch()).radius)
    assert bool((found.prediction >= 0).all())


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_hook_that_pretends_to_be_torchs_is_refused() -> None:
    model = plain()
    nn.utils.weight_norm(model[1])

    class Pretender(type(next(iter(model[1]._forward_pre_hooks.values())))):  # type: ignore[misc]
        def __call__(self, module: nn.Module, inputs: object) -> None:
            module.weight = 3 * torch.eye(4)

    model[1]._forward_pre_hooks[next(iter(model[1]._forward_pre_hooks))] = Pretender("weight", 0)
    with pytest.raises(HauberkError, match="forward hook"):
        WALKED(model, batch())


# --- kind 4: each row by itself, and the same again ------------------------------------------------------------


class Box(nn.Module):
    """Two logits of a number for each image."""

    def __init__(self, value: Callable[[Tensor], Tensor], offset: float = 0.0) -> None:
        super().__init__()
        self.value, self.offset = value, offset

    def forward(self, images: Tensor) -> Tensor:
        score = self.value(images.flatten(1))
        return torch.stack([50 * (score - 0.5), -50 * (score - 0.5)], 1) + self.offset


def threshold(x: Tensor) -> Tensor:
    return torch.where(x.max() > 1.2, x.mean(), x[:, 0])


def counter() -> Callable[[Tensor], Tensor]:
    calls = [0]

    def value(x: Tensor) -> Tensor:
        calls[0] += 1
        return x[:, 0] * (-1 if calls[0] % 3 == 0 else 1)

    return value


MIXING: dict[str, Callable[[], nn.Module]] = {
    "mean": lambda: Box(lambda x: x[:, 0].mean().expand(len(x))),
    "mean behind an offset": lambda: Box(lambda x: x[:, 0].mean().expand(len(x)), 1e5),
    "mean of all, a little": lambda: Box(lambda x: x[:, 0] + 1e-4 * x.mean()),
    "max over the batch": lambda: Box(lambda x: x[:, 0] - x[:, 0].max()),
    "sorted over the batch": lambda: Box(lambda x: x.sort(0).values[:, 0]),
    "cumulative sum": lambda: Box(lambda x: x.cumsum(0)[:, 0]),
    "only the last row": lambda: Box(lambda x: x[:, 0] + x[-1, 1]),
    "only the first row": lambda: Box(lambda x: x[:, 0] + x[0, 1]),
    "the row before": lambda: Box(lambda x: x[:, 0] + x.roll(1, 0)[:, 1]),
    "above a threshold": lambda: Box(threshold),
    "median": lambda: Box(lambda x: x[:, 0] - x.median()),
    "its own row number": lambda: Box(lambda x: x[:, 0] + 0.1 * torch.arange(len(x))),
    "batch size": lambda: Box(lambda x: x[:, 0] if len(x) > 8 else 1 - x[:, 0]),
    "an odd batch size": lambda: Box(lambda x: x[:, 0] if len(x) % 2 == 0 else 1 - x[:, 0]),
    "batch norm of its own batch": lambda: nn.Sequential(
        nn.Flatten(), nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 2)
    ),
    "functional batch norm": lambda: Box(lambda x: nn.functional.batch_norm(x, None, None, training=True)[:, 0]),
    "one scale for the batch": lambda: Box(lambda x: (x / x.abs().max())[:, 0]),
}
CHANGING: dict[str, Callable[[], nn.Module]] = {
    "dropout": lambda: Box(lambda x: nn.functional.dropout(x, 0.5, training=True)[:, 0]),
    "seldom random": lambda: Box(lambda x: x[:, 0] + float(torch.rand(()) > 0.99999)),
    "a counter": lambda: Box(counter()),
    "noise": lambda: Box(lambda x: x[:, 0] + 1e-6 * torch.randn(len(x))),
}


class Inside(nn.Module):
    """A wrapper that keeps its net where no list of modules shows it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.hidden = [model.eval()]

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.hidden[0](images)
        return logits


@pytest.mark.parametrize("hidden", [False, True], ids=["open", "wrapped"])
@pytest.mark.parametrize("name", [*MIXING, *CHANGING])
def test_black_boxes_that_are_no_function_of_one_image_are_refused(name: str, hidden: bool) -> None:
    model = (MIXING | CHANGING)[name]().eval()
    model = Inside(model).eval() if hidden else model
    with pytest.raises(HauberkError, match=r"the base .*(batch|place|how many|draws|two calls)"):
        VOTES(SmoothedClassifier(model, Gaussian(0.25), 4, 100, 0.001).eval(), batch())
    if name != "above a threshold":  # which images alone never exceed
        with pytest.raises(HauberkError, match=r"the accurate model .*(batch|place|how many|draws|two calls)"):
            MIX(mix(model), batch())


class Remade(nn.Module):
    """Computes its weight at each call, as a new parameter or where the old one is."""

    def __init__(self, anew: bool) -> None:
        super().__init__()
        self.anew, self.layer, self.source = anew, nn.Linear(4, 2), torch.randn(2, 4)

    def forward(self, images: Tensor) -> Tensor:
        if self.anew:
            self.layer.weight = nn.Parameter(self.source.sign())
        else:
            with torch.no_grad():
                self.layer.weight.copy_(self.source.sign())
        logits: Tensor = self.layer(images.flatten(1))
        return logits


@pytest.mark.parametrize(
    "value",
    [
        lambda x: x[:, 0] * (-1 if torch.is_grad_enabled() else 1),
        lambda x: 1 - x[:, 0] if x.requires_grad else x[:, 0],
        lambda x: x[:, 1] if torch.is_grad_enabled() else x[:, 0].detach(),
    ],
    ids=["mode", "images", "another pixel"],
)
def test_a_black_box_that_answers_otherwise_where_gradients_are_wanted_is_refused(value) -> None:
    with pytest.raises(HauberkError, match="whether gradients are wanted"):
        VOTES(Box(value).eval(), batch())


def without_gradients() -> nn.Module:
    with torch.inference_mode():
        return net(nn.Linear(4, 4))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_black_box_may_do_what_it_likes_with_one_image() -> None:
    hooked = net()
    hooked.register_forward_hook(lambda module, inputs, output: output.flip(1))
    normed = nn.Sequential(nn.InstanceNorm2d(1, affine=True), nn.Flatten(), nn.Linear(4, 2)).eval()
    pruned = plain()
    prune.l1_unstructured(pruned[1], "weight", 0.25)
    honest = [
        net(), hooked, normed, pruned, InPlace().eval(), Inside(net()).eval(),
        nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2)).eval(),
        Box(lambda x: x.sort(1).values[:, 0]).eval(), Box(lambda x: x[:, 0], 1e5).eval(), torch.jit.script(plain()),
        Remade(True).eval(), Remade(False).eval(), without_gradients(),
        nn.utils.spectral_norm(nn.Linear(4, 2), "weight"),
    ]  # fmt: skip
    honest[-1] = nn.Sequential(nn.Flatten(), honest[-1]).eval()
    for base in honest:
        VOTES(base, batch())
        MIX(mix(base), batch())
        check_separate(base, batch().images)


def test_a_change_while_votes_are_counted_is_seen() -> None:
    calls = [0]

    def late(x: Tensor) -> Tensor:
        calls[0] += len(x) == 64
        return x[:, 0] * (-1 if calls[0] > 60 else 1)

    with pytest.raises(HauberkError, match="different answers to the same images"):
        SmoothingCertificate(Gaussian(0.25), n0=100, n=10_000)(Box(late).eval(), batch())


class Statistics(nn.Module):
    """Keeps a mean of what it saw, also in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, images: Tensor) -> Tensor:
        self.mean.mul_(0.999999).add_(1e-9 * images.mean())
        return images.flatten(1)[:, :2].round()


def test_statistics_that_go_on_in_eval_mode_are_refused() -> None:
    with pytest.raises(HauberkError, match=r"buffers at every call|two calls|batch"):
        VOTES(Statistics().eval(), batch())


def test_parts_that_decide_otherwise_than_by_logits_are_refused() -> None:
    guarded = DetectedClassifier(net(), nn.Linear(4, 1), "1", 0.0).eval()
    with pytest.raises(HauberkError, match="has a decision rule of its own"):
        VOTES(guarded, batch())
    with pytest.raises(HauberkError, match="has a decision rule of its own"):
        MIX(mix(guarded), batch())
    with pytest.raises(HauberkError, match="has a decision rule of its own"):
        WALKED(guarded, batch())


@pytest.mark.parametrize("offset", [0.0, 1e5])
def test_no_offset_blinds_the_check_before_an_attack(offset: float) -> None:
    model = Box(lambda x: x[:, 0].mean().expand(len(x)), offset).eval()
    symmetric = torch.cat([batch().images, 1.0 - batch().images])  # their mean stays when they are turned
    for images in (symmetric, symmetric[:1]):
        with pytest.raises(HauberkError, match="other images of the batch"):
            check_separate(model, images)


@pytest.fixture(autouse=True)
def _same_weights() -> Iterator[None]:
    torch.manual_seed(0)
    yield
