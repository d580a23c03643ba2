"""The boundary in Python: images, labels, models and answers of another kind are one sentence, never a traceback."""

import sys
import types
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hauberk.attacks import APGD, FAB, PGD, Attack, AutoAttack, Square
from hauberk.batch import Batch
from hauberk.boundary import check_batch, check_gradient, check_uncompiled
from hauberk.capabilities import Random
from hauberk.certificates import LipschitzCertificate
from hauberk.certificates.smoothing import SmoothingCertificate
from hauberk.classifier import check_classifier, check_separate, decide
from hauberk.defences.mixed_nuts import MixedNuts
from hauberk.defences.smoothed import noisy_votes
from hauberk.draws import is_random
from hauberk.errors import HauberkError
from hauberk.evaluation.lipschitz_report import lipschitz_report
from hauberk.evaluation.preflight import preflight
from hauberk.layers import DrawMean
from hauberk.models.own import own
from hauberk.noises import Gaussian
from hauberk.randomness import Draw
from hauberk.threats import L2, Linf

IMAGES, LABELS, IDS = torch.rand(4, 1, 4, 4), torch.arange(4) % 3, torch.arange(4)
CALLS: dict[str, Callable[[nn.Module, Batch], object]] = {
    "attack": PGD(Linf(0.1), steps=1),
    "autoattack": AutoAttack(L2(0.1), version="custom", attacks=(APGD(L2(0.1), steps=1),)),
    "certificate": LipschitzCertificate(),
    "smoothing": SmoothingCertificate(Gaussian(0.1), n0=4, n=20, alpha=0.1),
}


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval()


class Then(nn.Module):
    """A net with something behind it."""

    def __init__(self, after: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.base, self.after = net(), after
        self.eval()

    def forward(self, images: Tensor) -> object:
        return self.after(self.base(images))


BATCHES = {
    "numpy": (lambda: Batch(IMAGES.numpy(), LABELS, IDS), "numpy.ndarray", "torch.from_numpy"),
    "a list": (lambda: Batch(IMAGES.tolist(), LABELS, IDS), "builtins.list", "torch.as_tensor"),
    "bytes": (lambda: Batch((255 * IMAGES).byte(), LABELS, IDS), "torch.uint8", "images.float() / 255"),
    "half": (lambda: Batch(IMAGES.half(), LABELS, IDS), "torch.float16", "images.float()"),
    "brain": (lambda: Batch(IMAGES.bfloat16(), LABELS, IDS), "torch.bfloat16", "images.float()"),
    "0..255": (lambda: Batch(255 * IMAGES, LABELS, IDS), "in [0, 1], got values", "divide 8-bit images by 255"),
    "NaN": (lambda: Batch(IMAGES * float("nan"), LABELS, IDS), "NaN", "loaded"),
    "one image": (lambda: Batch(IMAGES[0], LABELS, IDS), "(B, C, H, W)", "images[None]"),
    "no image": (lambda: Batch(IMAGES[:0], LABELS[:0], IDS[:0]), "there are no images", "--images"),
    "one-hot": (lambda: Batch(IMAGES, torch.eye(3)[LABELS], IDS), "of shape (4, 3)", "labels.argmax(1)"),
    "column": (lambda: Batch(IMAGES, LABELS[:, None], IDS), "of shape (4, 1)", "flatten()"),
    "short labels": (lambda: Batch(IMAGES, LABELS.int(), IDS), "torch.int32", "labels.long()"),
    "labels of numpy": (lambda: Batch(IMAGES, np.arange(4), IDS), "labels in a torch tensor", "torch.from_numpy"),
    "too few labels": (lambda: Batch(IMAGES, LABELS[:3], IDS), "of shape (3,)", "each of the 4 images"),
    "too few ids": (lambda: Batch(IMAGES, LABELS, IDS[:2]), "int64 ids", "each of the 4 images"),
    "a pair": (lambda: (IMAGES, LABELS), "expected a Batch, got tuple", "Batch(images, labels, ids)"),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", BATCHES)
def test_a_batch_of_another_kind(name: str, call: str) -> None:
    make, message, hint = BATCHES[name]
    with pytest.raises(HauberkError) as said:
        CALLS[call](net(), make())
    assert message in said.value.message
    assert hint in said.value.hint


ANSWERS = {
    "tuple": (lambda z: (z, z), "a tuple of 2", "return one tensor of logits"),
    "dict": (lambda z: {"logits": z}, "a dict with the keys 'logits'", "return one tensor of logits"),
    "none": (lambda z: None, "NoneType", "return one tensor of logits"),
    "classes": (lambda z: z.argmax(1), "got (4,)", "return one tensor of logits"),
    "double": (lambda z: z.double(), "got torch.float64", "logits.to(torch.float32)"),
    "half": (lambda z: z.half(), "got torch.float16", "logits.to(torch.float32)"),
    "sparse": (lambda z: z.to_sparse(), "got a sparse tensor", "logits.to_dense()"),
    "meta": (lambda z: z.to("meta"), "got a meta tensor", "on the CPU"),
    "infinite": (lambda z: z / z.abs() * torch.inf, "infinite logits", "check its weights"),
    "nothing left": (lambda z: z - torch.inf, "infinite logits", "check its weights"),
    "whole": (lambda z: (9 * z).long(), "got torch.int64", "logits.to(torch.float32)"),
}


@pytest.mark.parametrize("call", ["attack", "autoattack"])
@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_of_another_kind(name: str, call: str) -> None:
    after, message, hint = ANSWERS[name]
    with pytest.raises(HauberkError) as said:
        CALLS[call](Then(after), Batch(IMAGES, LABELS, IDS))
    assert message in said.value.message
    assert hint in said.value.hint


@pytest.mark.parametrize("attack", [PGD(Linf(0.1), steps=1), APGD(L2(0.1), steps=1)], ids=["pgd", "apgd"])
def test_a_gradient_that_is_cut(attack: Attack) -> None:
    model, batch = Then(lambda z: z.detach()), Batch(IMAGES, net()(IMAGES).argmax(1), IDS)
    with pytest.raises(HauberkError, match="gives no gradient"):
        attack(model, batch)
    for cut in (model, Then(lambda z: z.detach() + model.base[1].bias)):
        with pytest.raises(HauberkError, match="gives no gradient"):
            check_gradient(cut, IMAGES)
    with torch.inference_mode(), pytest.raises(HauberkError, match="gives no gradient"):
        attack(net(), batch)


def test_weights_that_are_no_tensors() -> None:
    model = net()
    state = model.state_dict
    vars(model)["state_dict"] = lambda *a, **k: state(*a, **k) | {"packed": (1, 2)}
    with pytest.raises(HauberkError, match="keeps packed as tuple"):
        check_classifier(model, Batch(IMAGES, LABELS, IDS))


def test_a_compiled_model_has_no_layers_to_bound() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        model = torch.jit.script(net())
    with pytest.raises(HauberkError, match="is compiled by"):
        check_uncompiled(nn.Sequential(model))
    with pytest.raises(HauberkError, match="is compiled by"):
        lipschitz_report(model, IMAGES)
    assert PGD(Linf(0.1), steps=1)(model, Batch(IMAGES, LABELS, IDS)).success.shape == (4,)


def test_a_traced_model_is_not_walked() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        model = torch.jit.trace(net(), IMAGES)
    with pytest.raises(HauberkError, match="is compiled by"):
        LipschitzCertificate()(model, Batch(IMAGES, LABELS, IDS))


def test_a_class_that_is_ruled_out_may_be_infinitely_unlikely() -> None:
    masked = Then(lambda z: torch.cat([z, torch.full_like(z[:, :1], -torch.inf)], 1))
    check_classifier(masked, Batch(IMAGES, LABELS, IDS))


def test_a_function_is_no_model() -> None:
    with pytest.raises(HauberkError, match="expected a torch"):
        PGD(Linf(0.1), steps=1)(lambda x: x, Batch(IMAGES, LABELS, IDS))  # type: ignore[arg-type]


def test_a_batch_that_fits_is_taken() -> None:
    check_batch(Batch(IMAGES, LABELS + 900, IDS - 5))  # what the labels mean is the model's matter
    check_batch(Batch(IMAGES.double(), LABELS, IDS))


class Hollow(nn.Module):
    def __init__(self) -> None:
        pass


class Mute(nn.Sequential):
    def eval(self) -> None:  # type: ignore[override]
        self.train(False)


def test_a_module_without_the_inside_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("made_up")
    module.hollow, module.mute = Hollow, lambda: Mute(net())  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "made_up", module)
    with pytest.raises(HauberkError, match=r"Hollow that is not initialised.*\n.*super"):
        own("made_up:hollow")
    mute = own("made_up:mute")
    assert isinstance(mute, Mute) and not mute.training


def test_a_model_is_its_own_factory(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("made_up")
    module.model = net()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "made_up", module)
    assert own("made_up:model") is module.model


class InPlace(nn.Module):
    """Centres the images where they are."""

    def __init__(self) -> None:
        super().__init__()
        self.base = net()
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.base(images.sub_(0.5))
        return logits


class Reusing(InPlace):
    """Writes every answer that needs no gradient into the same memory, as engines for inference do."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = torch.zeros(64, 3)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.base(images - 0.5)
        if logits.requires_grad:
            return logits
        self.memory[: len(logits)] = logits
        return self.memory[: len(logits)]


class Centred(InPlace):
    """The same function without tricks."""

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.base(images - 0.5)
        return logits


@pytest.mark.parametrize("model", [InPlace(), Reusing()], ids=["in_place", "reusing"])
@pytest.mark.parametrize(
    "attack",
    [PGD(Linf(0.05), steps=2), PGD(Linf(0.05), steps=2, eot=3), Square(Linf(0.05), queries=4, eot=2),
     FAB(L2(0.3), steps=2)],
    ids=["pgd", "pgd_of_draws", "square_of_draws", "fab"],
)  # fmt: skip
def test_a_model_may_use_memory_again(model: nn.Module, attack: Attack) -> None:
    images = torch.rand(40, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    batch = Batch(images, Centred()(images).argmax(1), torch.arange(40))
    kept, found, plain = images.clone(), attack(model, batch, tile=16), attack(Centred(), batch, tile=16)
    for name in ("adversarial", "success", "clean_probabilities", "probabilities", "logit_margin"):
        assert torch.equal(getattr(found, name), getattr(plain, name)), name
    assert torch.equal(images, kept)
    assert torch.equal(decide(model, batch, tile=16), batch.labels)
    assert all(finding.good for finding in preflight(model, batch, 16, 3) if finding.name != "accuracy")


class Voter(Random):
    """A random net, each draw of which writes into the memory of the others where that is allowed."""

    def __init__(self, base: Centred) -> None:
        super().__init__()
        self.base = base
        self.eval()

    def draw(self, key: Draw) -> nn.Module:
        return Shifted(self.base, key)


class Shifted(nn.Module):
    """One draw of it: noise that all rows share."""

    def __init__(self, base: nn.Module, key: Draw) -> None:
        super().__init__()
        self.base, self.key = base, key

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.base(images + 0.5 * self.key.shared(images).normal(*images.shape[1:]))
        return logits


def together(first: Centred | Reusing, second: Centred | Reusing) -> list[Tensor]:
    """What is computed from several answers."""
    second.base = nn.Sequential(nn.Flatten(), nn.Linear(16, 3, bias=False))
    nn.init.eye_(second.base[1].weight)
    return [
        noisy_votes(Voter(first), IMAGES[0], Gaussian(0.5), 60, (0, 0, "votes"), 8),
        DrawMean(Voter(first), 5).eval()(IMAGES),
        MixedNuts(first, second, 0.5, 2.0, 0.0, 1.0, 3, 0.85).eval()(IMAGES),
    ]


@torch.no_grad()
def test_answers_held_together_share_no_memory() -> None:
    first, second = Reusing(), Reusing()
    second.memory = first.memory
    for shared, plain in zip(together(first, second), together(Centred(), Centred()), strict=True):
        assert torch.equal(shared, plain)


def test_a_random_model_is_seen_in_memory_that_it_uses_again() -> None:
    class Tossed(Reusing):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images + 0.1 * torch.randn_like(images))

    assert is_random(Tossed(), IMAGES)
    assert not is_random(InPlace(), IMAGES.clone())
    with pytest.raises(HauberkError, match="depends on the other images"):
        check_separate(Crowd(0), IMAGES)


class Crowd(Reusing):
    """Looks at the other images where there are more than so many."""

    def __init__(self, quiet: int) -> None:
        super().__init__()
        self.quiet = quiet

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images - images.mean(0) if len(images) > self.quiet else images)


def test_a_crowd_is_seen_in_tiles_of_the_size_that_is_used() -> None:
    model = Crowd(20)
    check_separate(model, IMAGES)
    with pytest.raises(HauberkError, match="depends on the other images"):
        check_separate(model, IMAGES, 32)
    (rows,) = (f for f in preflight(model, Batch(torch.rand(32, 1, 4, 4), torch.arange(32) % 3, torch.arange(32)), 32)
               if f.name == "rows")  # fmt: skip
    assert not rows.good


class Two(InPlace):
    """Another function where gradients are wanted."""

    def __init__(self, other: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.other = other

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.base(images)
        return self.other(logits) if logits.requires_grad else logits


def test_an_attack_follows_the_function_that_is_judged() -> None:
    batch = Batch(IMAGES, LABELS, IDS)
    for other in (lambda z: 0 * z, lambda z: z + torch.tensor([2.0, -2.0, 0.0]), lambda z: z.sign()):
        with pytest.raises(HauberkError, match="answers otherwise where gradients are wanted"):
            PGD(Linf(0.1), steps=1)(Two(other), batch)
        (said,) = (f for f in preflight(Two(other), batch) if f.name == "input gradient")
        assert not said.good and "answers otherwise" in said.text
    check_classifier(Two(lambda z: z * (1 + 1e-4)), batch)  # another kernel rounds otherwise
    check_classifier(Two(lambda z: z.bfloat16().float()), batch)
    random = Then(lambda z: z + torch.randn_like(z))
    check_classifier(random, batch)
    cut = Then(lambda z: torch.from_numpy(z.numpy()))
    check_classifier(cut, batch)  # an attack by scores is possible
