"""``build(spec(x)) == x`` for every registered class, two levels deep, and errors that name the nearest word."""

import inspect
import json
from typing import Any

import pytest
import torch
from torch import nn

from hauberk import layers, registry
from hauberk.attacks import (
    APGD,
    DDN,
    EOT,
    FAB,
    FGSM,
    FMN,
    NFGSM,
    PGD,
    AutoAttack,
    CarliniWagner,
    DeepFool,
    EOTSweep,
    FriendlyPGD,
    OnGrid,
    Square,
    Towards,
)
from hauberk.attacks.part import PartAttack
from hauberk.attacks.transfer import Transfer
from hauberk.certificates import (
    Affinity,
    DerandomisedSplitting,
    ExpectedLogits,
    LipschitzCertificate,
    MixedCertificate,
    MMCert,
    RandomVote,
    SmoothingCertificate,
    TopK,
)
from hauberk.certificates.local_lipschitz import LocalLipschitz
from hauberk.classifier import weights_hash
from hauberk.defences.adaptive_mixed import AlphaDown
from hauberk.defences.bottom_class import BottomMargin
from hauberk.defences.detector import DetectorJoint
from hauberk.errors import HauberkError
from hauberk.evaluation import hessian, metrics, minimum, repeated
from hauberk.executors import Inline, Processes, Ray
from hauberk.noises import Gaussian, Splitting, Uniform
from hauberk.objectives.adaptive_smoothing import AdaptiveSmoothing
from hauberk.objectives.alp import ALP
from hauberk.objectives.ard import ARD
from hauberk.objectives.attacked_divergence import AttackedDivergence
from hauberk.objectives.certificate_regularisation import CertificateRegularisation
from hauberk.objectives.consistency import Consistency
from hauberk.objectives.curvature import Curvature
from hauberk.objectives.customised_adversarial import CustomisedAdversarial
from hauberk.objectives.cutmix import CutMix
from hauberk.objectives.denoising import Denoising
from hauberk.objectives.detector import Detector
from hauberk.objectives.diffusion import Diffusion
from hauberk.objectives.distillation import Distillation
from hauberk.objectives.emma import EMMA
from hauberk.objectives.epochwise_adversarial import EpochwiseAdversarial
from hauberk.objectives.free_adversarial import FreeAdversarial
from hauberk.objectives.friendly_adversarial import FriendlyAdversarial
from hauberk.objectives.gaussian_augmentation import GaussianAugmentation
from hauberk.objectives.gloro import GloRo
from hauberk.objectives.guided_denoising import GuidedDenoising
from hauberk.objectives.hkr import HKR
from hauberk.objectives.iaat import IAAT
from hauberk.objectives.logit_annealing import LogitAnnealing
from hauberk.objectives.macer import MACER
from hauberk.objectives.mart import MART
from hauberk.objectives.noisy_adversarial import NoisyAdversarial
from hauberk.objectives.pgd_adversarial import PGDAdversarial
from hauberk.objectives.ramp import Ramp
from hauberk.objectives.semidefinite_dual import SemidefiniteDual
from hauberk.objectives.smooth_adv import SmoothAdv
from hauberk.objectives.smoothed_consistency import SmoothedConsistency
from hauberk.objectives.stability import Stability
from hauberk.objectives.standard import Standard
from hauberk.objectives.terms import Terms
from hauberk.objectives.trades import TRADES
from hauberk.objectives.triplet import Triplet
from hauberk.objectives.view_divergence import ViewDivergence
from hauberk.threats import L1, L2, Linf

SMOOTHING = SmoothingCertificate(Gaussian(0.5), n0=10, n=200, alpha=0.01)
EXAMPLES: dict[str, list[Any]] = {
    "inline": [Inline()],
    "processes": [Processes(), Processes(workers=3, threads=2)],
    "ray": [Ray(), Ray(address="auto", workers=8, cpus=2, gpus=0.5)],
    "linf": [Linf(8 / 255)],
    "l2": [L2(0.5)],
    "l1": [L1(12.0)],
    "fgsm": [FGSM(L1(2.0)), FGSM(Linf(0.1), loss="margin")],
    "pgd": [
        PGD(Linf(8 / 255)),
        PGD(L2(0.5), "kl", steps=3, step_size=0.1, restarts=2, random_start=False, targeted=True),
    ],
    "apgd": [
        APGD(L2(0.5)),
        APGD(Linf(0.1), "margin", steps=7, restarts=3, early_stop=False, eot=4),
        APGD(L1(12.0), "dlr", targets=5, shrinking=True),
        APGD(Linf(0.1), DetectorJoint(weight=0.3)),
    ],
    "detector_joint": [DetectorJoint(), DetectorJoint(weight=0.3)],
    "bottom_margin": [BottomMargin()],
    "alpha_down": [AlphaDown(), AlphaDown(weight=0.3, base="dlr")],
    "n_fgsm": [NFGSM(Linf(8 / 255)), NFGSM(Linf(0.1), noise=1.0)],
    "friendly_adversarial": [
        FriendlyAdversarial(PGDAdversarial(FriendlyPGD(Linf(0.1)))),
        FriendlyAdversarial(TRADES(FriendlyPGD(L2(0.5), "kl", tau=1)), raises=(0.2, 0.4)),
    ],
    "customised_adversarial": [
        CustomisedAdversarial(PGD(Linf(8 / 255))),
        CustomisedAdversarial(PGD(L2(0.5)), eta=0.1, smoothing=1.0, concentration=2, falls=True, margin=1.0, kappa=5),
    ],
    "epochwise_adversarial": [EpochwiseAdversarial(PGD(Linf(0.1))), EpochwiseAdversarial(PGD(L2(0.5)), 3, 0.5, 0.0)],
    "friendly_pgd": [FriendlyPGD(Linf(8 / 255), tau=1), FriendlyPGD(L2(0.5), steps=3)],
    "fab": [FAB(Linf(8 / 255)), FAB(L1(12.0), targets=9, restarts=2, early_stop=True)],
    "square": [Square(Linf(8 / 255)), Square(L2(0.5), queries=100, p_init=0.3)],
    "on_grid": [OnGrid(Linf(0.1)), OnGrid(L2(0.5), attack=DDN(L2(0.5)), white=65535)],
    "towards": [Towards(Linf(0.1)), Towards(L2(0.5), attack=OnGrid(L2(0.5)), target=3)],
    "eot": [EOT(Linf(0.1)), EOT(L2(0.5), attack=PGD(L2(0.5)), draws=5, mean="logits", fixed=True, votes=7, tries=50)],
    "eot_sweep": [EOTSweep(Linf(0.1)), EOTSweep(L2(0.5), draws=(1, 20), steps=(5, 10), least=1, restarts=5)],
    "ddn": [DDN(L2(0.5)), DDN(L2(0.5), steps=20, quantise=256)],
    "fmn": [FMN(L1(12.0)), FMN(Linf(0.1), steps=7, gamma=0.1)],
    "deepfool": [DeepFool(L2(0.5)), DeepFool(Linf(0.1), steps=3, overshoot=0.1)],
    "carlini_wagner": [CarliniWagner(L2(0.5)), CarliniWagner(L2(0.5), steps=5)],
    "transfer": [Transfer(Linf(0.1), source="runs/x", attack=PGD(Linf(0.1)))],
    "part": [PartAttack(Linf(0.1), part="gray_box", attack=APGD(Linf(0.1), AlphaDown()))],
    "autoattack": [
        AutoAttack(Linf(8 / 255)),
        AutoAttack(L2(0.5), version="custom", attacks=(APGD(L2(0.5)), DDN(L2(0.5))), losses=(DetectorJoint(),)),
    ],
    "lipschitz": [LipschitzCertificate()],
    "top_k": [TopK(), TopK("linf", 2)],
    "affinity": [Affinity(sets=((0, 1), (2, 3, 4))), Affinity("l1", ((0, 2),))],
    "smoothing": [SMOOTHING],
    "derandomised_splitting": [DerandomisedSplitting(221), DerandomisedSplitting(9, 4, "grid")],
    "random_vote": [RandomVote(), RandomVote(n0=5, n=40, alpha=0.01, norm="linf")],
    "expected_logits": [ExpectedLogits(1.0), ExpectedLogits(2.0, 5, 40, 0.01, "l1", "hoeffding")],
    "mmcert": [
        MMCert("columns", (8, 8), (4, 4), (8, 8)),
        MMCert("channels", (4, 4), (3, 1), (3, 5), n=50, rule="anytime"),
    ],
    "local_lipschitz": [LocalLipschitz(Linf(8 / 255)), LocalLipschitz(L2(0.5), steps=3, restarts=2)],
    "mixed_margin": [
        MixedCertificate(),
        MixedCertificate(SMOOTHING, "theorem_a1"),
        MixedCertificate(LocalLipschitz(Linf(0.1)), "theorem_3_5"),
    ],
    "standard": [Standard(), Standard(label_smoothing=0.1)],
    "gaussian_augmentation": [GaussianAugmentation(Gaussian(0.25)), GaussianAugmentation(Splitting(0.5))],
    "noisy_adversarial": [NoisyAdversarial(Gaussian(0.25)), NoisyAdversarial(Gaussian(0.5), PGD(Linf(0.1)), 0.5)],
    "macer": [MACER(Gaussian(0.25)), MACER(Gaussian(1.0), copies=4, start=0.5)],
    "smooth_adv": [SmoothAdv(PGD(L2(1.0), steps=2), Gaussian(0.5)), SmoothAdv(PGD(L2(0.5)), Uniform(0.5), 1, 0.1)],
    "smoothed_consistency": [SmoothedConsistency(Gaussian(0.25)), SmoothedConsistency(Uniform(0.25), 3, 5.0, 0.0)],
    "stability": [Stability(Gaussian(0.25)), Stability(Uniform(0.25), weight=1.0)],
    "diffusion": [Diffusion()],
    "guided_denoising": [GuidedDenoising(PGD(Linf(0.1))), GuidedDenoising(APGD(L2(0.3), steps=4), "feature")],
    "denoising": [Denoising(), Denoising(mse=0.0, stability=1.0)],
    "pgd_adversarial": [PGDAdversarial(PGD(Linf(8 / 255), steps=2)), PGDAdversarial(APGD(L2(0.3), steps=4), 0.5)],
    "detector": [Detector(PGD(Linf(0.1), steps=5, loss=DetectorJoint()))],
    "adaptive_smoothing": [
        AdaptiveSmoothing(Linf(0.1)),
        AdaptiveSmoothing(L2(0.5), "A", steps=3, budgets=(0.5, 1.0), weights=(0.1, 0.2), groups=2, ce=0.5, bce=1.0),
    ],
    "trades": [TRADES(PGD(L2(0.25), "kl", steps=2), beta=3.0, divergence="ce", detach_target=True)],
    "certificate_regularisation": [CertificateRegularisation(), CertificateRegularisation(gamma=0.2)],
    "gloro": [
        GloRo(eps=36 / 255, lipschitz="walk"),
        GloRo(eps=Ramp(0.0, 0.2, 0.5), top_k=3),
        GloRo(eps=0.1, affinity=((0, 1), (1, 2))),
    ],
    "emma": [EMMA(), EMMA(eps=0.3, least=1.0, lipschitz="walk")],
    "semidefinite_dual": [SemidefiniteDual(), SemidefiniteDual(weight=0.02)],
    "logit_annealing": [LogitAnnealing(), LogitAnnealing(eps=0.1, power=2.0)],
    "hkr": [HKR(), HKR(alpha=0.5, margin=0.2, soft=True)],
    "iaat": [IAAT(Linf(8 / 255)), IAAT(L2(0.5), steps=3, warmup=1, gamma=0.1, beta=0.2, least_step=0.05)],
    "consistency": [Consistency(PGD(Linf(0.1))), Consistency(FGSM(Linf(0.1)), weight=2.0, temperature=1.0)],
    "ard": [
        ARD(PGD(Linf(0.1)), teacher="runs/x"),
        ARD(PGD(Linf(0.1)), weights="00", temperature=5.0, weight=0.5, teacher="runs/x"),
    ],
    "terms": [Terms(Standard(), (Curvature(2.0), AttackedDivergence(PGD(Linf(0.1), "kl"))), 0.5)],
    "curvature": [Curvature(), Curvature(1.0, "gaussian", 0.2)],
    "attacked_divergence": [AttackedDivergence(PGD(Linf(0.1), "kl"), 3.0, "ce", detach_target=True)],
    "triplet": [
        Triplet(PGD(Linf(0.1))),
        Triplet(PGD(Linf(0.1)), 1.0, 0.1, 0.0, "squared", absolute=True, second_positive=True, layer="3"),
    ],
    "distillation": [Distillation(teacher="runs/x"), Distillation(PGD(Linf(0.1)), weight=0.1, teacher="runs/x")],
    "alp": [ALP(PGD(Linf(0.1))), ALP(PGD(L2(0.5)), weight=1.0, clean_fraction=0.0)],
    "mart": [MART(PGD(Linf(0.1))), MART(PGD(L2(0.5)), weight=6.0)],
    "cutmix": [CutMix(Standard()), CutMix(TRADES(PGD(Linf(0.1), "kl")), 20)],
    "view_divergence": [ViewDivergence(), ViewDivergence(PGD(Linf(0.1)), 2.0, 1.0)],
    "free_adversarial": [FreeAdversarial(Linf(8 / 255)), FreeAdversarial(L2(0.5), replays=4, step_size=0.2)],
}
TASK = {"input_shape": (1, 8, 8), "num_classes": 3, "mean": (0.4,), "std": (0.3,)}
MODELS = {
    "small_cnn": {"widths": (4, 6), "strides": (1, 2), "batch_norm": False},
    "resnet18": {"width": 4},
    "lip_convnet": {"widths": (4, 6), "depth": 1, "hidden": 8},
    "lip_convnet_n": {"width": 2, "activation": "householder2", "last": "orthogonal"},
    "li_resnet": {"width": 4, "depth": 1, "hidden": 8},
    "cnn_6c2f": {"scale": 0.1},
    "lip_mlp": {"widths": (8, 6)},
    "lip_mlp_n": {"widths": (8, 6), "layer": "sll"},
    "lip_resnet": {"layer": "cpl", "widths": (4, 16), "depth": 1, "pool": 2},
    "one_hidden_layer": {"hidden": 6},
    "hycas_net": {"widths": (4, 6), "strides": (1, 2), "noise": None},
    "dunet": {"channels": 1, "widths": (4, 6), "blocks": 1},
    "dncnn": {"channels": 1, "width": 4, "depth": 3, "batch_norm": False},
}


def plain(description: Any) -> Any:
    """As a file would give it back."""
    return json.loads(json.dumps(description))


def test_every_registered_class_has_an_example() -> None:
    for kind in ("threat", "loss", "attack", "certificate", "objective"):
        for entry in registry.entries(kind):
            assert entry.name in EXAMPLES, f"add an example of {entry.name}"
    # the model of a run and a factory's have weights of their own: tests/verbs/test_mix.py; diffusers is an extra
    others = {"run", "own", "one_step_diffusion", "diffusion_unet", "diffusion_mlp"}
    assert {e.name for e in registry.entries("model")} == set(MODELS) | others


@pytest.mark.parametrize("name", EXAMPLES)
def test_build_inverts_spec(name: str) -> None:
    for example in EXAMPLES[name]:
        description = plain(registry.spec(example))
        assert description["name"] == name
        again = registry.build(description)
        assert again == example
        assert type(again) is type(example)
        assert registry.spec(again) == registry.spec(example)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("settings", ["default", "own"])
def test_models_are_rebuilt_from_their_spec(name: str, settings: str) -> None:
    chosen = MODELS[name] if settings == "own" or name == "resnet18" else {}
    model = registry.build({"name": name, **chosen}, "model", **TASK)
    again = registry.build(plain(registry.spec(model)))
    assert registry.spec(again) == registry.spec(model)
    assert {k: (v.shape, v.dtype) for k, v in again.state_dict().items()} == {
        k: (v.shape, v.dtype) for k, v in model.state_dict().items()
    }


def test_defences_are_rebuilt_with_their_bases() -> None:
    base = registry.build({"name": "small_cnn", **MODELS["small_cnn"]}, **TASK)
    other = registry.build({"name": "lip_convnet", **MODELS["lip_convnet"]}, **TASK)
    mix = registry.build("mixed", accurate=base, robust=other, alpha=0.8, robust_scale=3.0)
    vote = registry.build("smoothed", base=mix, noise=Gaussian(0.25), bank=3, votes=20, alpha=0.01)
    again = registry.build(plain(registry.spec(vote)))
    again.load_state_dict(vote.state_dict())
    assert registry.spec(again) == registry.spec(vote)
    assert weights_hash(again) == weights_hash(vote)
    images = torch.rand(2, 1, 8, 8)
    assert torch.equal(again.eval()(images), vote.eval()(images))


def test_threats_have_a_shorthand_and_numbers_a_fraction() -> None:
    assert registry.build("linf:8/255") == Linf(8 / 255)
    assert registry.build("L2:0.5") == L2(0.5)
    assert registry.build({"name": "pgd", "threat": "linf:8/255", "step_size": "2/255"}) == PGD(
        Linf(8 / 255), step_size=2 / 255
    )
    for text in ("eight", "1/0", "1/x"):
        with pytest.raises(HauberkError, match="expected a number"):
            registry.number(text)


@pytest.mark.parametrize(
    ("description", "words"),
    [
        ({"name": "pdg", "threat": "linf:0.1"}, "did you mean 'pgd'"),
        ({"name": "pgd", "threat": "linf:0.1", "setps": 3}, "did you mean 'steps'"),
        ({"name": "pgd", "threat": "linf:0.1", "steps": 0}, "steps"),
        ({"name": "pgd", "threat": "linf:0.1", "loss": "drl"}, "loss"),
        ({"name": "ddn", "threat": "l1:3"}, "not in l1"),
        ({"name": "mixed_margin", "base": {"name": "mixed_margin"}}, "cannot be mixed_margin again"),
        ({"name": "smoothing"}, "sigma or noise is missing"),
        ({"name": "smoothing", "noise": "guassian:0.25"}, "did you mean 'gaussian'"),
        ({"name": "pgd", "threat": "lnif:0.1"}, "did you mean 'linf'"),
        ({"name": "smoothing", "sigma": 1, "noise": "laplace:1"}, "give noise alone"),
        ({"steps": 3}, "needs a 'name'"),
    ],
)
def test_mistakes_are_named(description: dict[str, Any], words: str) -> None:
    with pytest.raises(HauberkError) as caught:
        registry.build(description)
    assert words in str(caught.value)


def test_the_wrong_family_is_an_error() -> None:
    with pytest.raises(HauberkError, match="no attack called 'trades'"):
        registry.build("trades", "attack")


def test_a_third_party_registers_its_own_and_a_taken_name_is_refused() -> None:
    with pytest.raises(HauberkError, match="already registered"):
        registry.register("attack", "pgd", "elsewhere:PGD", "another")
    with pytest.raises(HauberkError, match="has no spec"):
        registry.spec(nn.Linear(2, 2))


def test_every_entry_can_be_imported() -> None:
    for entry in registry.entries():
        assert callable(entry.load()), entry.name


NORMS = {"l1": "L1", "l2": "L2", "linf": "Linf", "elements": "elements"}


@pytest.mark.parametrize("entry", registry.entries("attack"), ids=lambda entry: entry.name)
def test_an_attack_has_the_norms_that_its_entry_names(entry: registry.Entry) -> None:
    assert entry.facts["norms"] == " ".join(NORMS[norm] for norm in entry.load().norms)


@pytest.mark.parametrize("entry", registry.entries("certificate"), ids=lambda entry: entry.name)
def test_a_certificate_has_the_norm_and_the_proof_that_its_entry_names(entry: registry.Entry) -> None:
    """As far as they belong to the class and not to what it is made of."""
    kind, norm = entry.load().kind, entry.load().norm
    assert entry.facts["proof"] == (kind if isinstance(kind, str) else "that of the base")
    if isinstance(norm, str):
        assert NORMS[norm] in entry.facts["norm"].split()
    else:
        assert entry.facts["norm"].startswith("that of the ")


@pytest.mark.parametrize("entry", registry.entries("defence"), ids=lambda entry: entry.name)
def test_the_certificate_that_a_defence_names_is_one(entry: registry.Entry) -> None:
    if "proof" in entry.facts:
        assert registry.entry(entry.facts["proof"], "certificate")


def test_every_layer_with_a_bound_and_every_metric_is_listed() -> None:
    known = [getattr(layers, name) for name in layers.__all__]
    bounded = {c for c in known if isinstance(c, type) and issubclass(c, nn.Module) and hasattr(c, "lipschitz_bound")}
    assert bounded <= {entry.load() for entry in registry.entries("layer")}
    public = {
        name
        for module in (metrics, minimum, repeated, hessian)
        for name, value in vars(module).items()
        if not name.startswith("_") and inspect.isfunction(value) and value.__module__ == module.__name__
    }
    beside = {"worst_case", "confidence_gaps", "nearest_of", "lanczos"}
    assert {entry.name for entry in registry.entries("metric")} == public - beside


@pytest.mark.parametrize("entry", registry.entries("bound"), ids=lambda entry: entry.name)
def test_every_bound_is_explained_and_says_what_it_needs(entry: registry.Entry) -> None:
    text = inspect.getdoc(entry.load()) or ""
    assert entry.name == entry.path.rpartition(":")[2]
    assert len(text) > 60


@pytest.mark.parametrize("name", ["MaxMin", "accuracy", "gram_bound"])
def test_what_is_only_listed_is_no_part_of_a_description(name: str) -> None:
    with pytest.raises(HauberkError, match="which a description cannot name"):
        registry.build(name)
    with pytest.raises(HauberkError, match="which a description cannot name"):
        registry.build({"name": "mixed", "accurate": {"name": name}, "robust": {"name": name}, "alpha": 0.5})


def test_a_misspelt_short_form_is_named_and_a_threat_without_a_budget_gets_an_example() -> None:
    with pytest.raises(HauberkError) as caught:
        registry.check({"name": "smoothing", "sgma": 0.25}, "certificate")
    assert "sigma" in caught.value.hint
    with pytest.raises(HauberkError, match="for example linf:8/255"):
        registry.check("linf", "threat")
