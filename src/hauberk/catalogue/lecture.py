"""The lecture *Defense strategies* (Neacșu & Vasilescu 2025): method, page, test and erratum of each item.

Nothing here imports a method.  ``hauberk list lecture`` prints it.
"""

from __future__ import annotations

from typing import NamedTuple

PAGES = (
    "metrics", "naive_defences", "adversarial_training", "friendly", "robust_overfitting", "curvature", "trades",
    "triplet", "consistency", "certified", "smoothing", "macer", "spectral_norm", "gnp", "gloro", "splines", "mmcert",
)  # fmt: skip


class Item(NamedTuple):
    """One formula, algorithm or figure of the lecture.

    Args:
        name: of the item.
        slide: the title of its slide.
        methods: registered names, as ``hauberk explain`` knows them.
        number: of the page of the companion, from 1.
        test: a file under tests/ that proves it.
        erratum: what is wrong or missing on the slide, or an empty string.
    """

    name: str
    slide: str
    methods: tuple[str, ...]
    number: int
    test: str
    erratum: str = ""

    @property
    def page(self) -> str:
        """The page of the companion, from the root of the project."""
        return f"examples/lecture/plot_{self.number:02d}_{PAGES[self.number - 1]}.py"

    def row(self) -> dict[str, str]:
        """What a table shows."""
        return {
            "item": self.name, "slide": self.slide, "method": ", ".join(self.methods), "page": self.page,
            "test": f"tests/{self.test}", "erratum": self.erratum,
        }  # fmt: skip


_METRICS = (
    Item(
        "attack success rate, Eq. 1", "Robustness Quantification",
        ("attack_success_rate", "attack_success_rate_lecture"), 1, "evaluation/test_metrics.py",
        "It also counts images that were wrong before the attack.",
    ),
    Item(
        "robust accuracy, Eq. 2", "Robustness Quantification", ("robust_accuracy", "robust_error"), 1,
        "evaluation/test_metrics.py", "1 - ASR holds only for the ASR over all images.",
    ),
    Item(
        "average perturbation, Eq. 3", "Robustness Quantification", ("mean_perturbation", "mean_perturbation_lecture"),
        1, "evaluation/test_metrics.py", "It divides by all images, so that a weaker attack gets a smaller value.",
    ),
    Item(
        "certified robust accuracy, Eq. 4", "Robustness Quantification", ("certified_accuracy",), 1,
        "evaluation/test_metrics.py",
    ),
    Item(
        "certified radius, Eq. 5", "Robustness Quantification", ("lipschitz", "smoothing"), 1,
        "certificates/test_base.py",
        "The set is empty where the class is wrong, which is 0 here; what is reported is a lower bound.",
    ),
    Item(
        "average certified radius, Eq. 6", "Robustness Quantification", ("average_certified_radius",), 1,
        "evaluation/test_metrics.py", "With smoothing it is the radius of the vote g, not of f.",
    ),
)  # fmt: skip

_NAIVE = (
    Item(
        "pre-processing before a classifier", "Pre-processing as a defense", ("part",), 2, "defences/test_purified.py",
        "Such a defence is to be attacked as a whole, and falls.",
    ),
    Item(
        "total variation minimisation, Eq. 7", "Input transform", ("total_variation",), 2,
        "defences/test_total_variation.py",
        "X is a random mask of dropped pixels, and the squared distance is minimised; the slide says neither.",
    ),
    Item(
        "high-level representation guided denoiser", "Some examples", ("guided_denoiser", "guided_denoising", "dunet"),
        2, "objectives/test_guided_denoising.py",
    ),
    Item("random resizing and padding", "Random Transforms", ("resize_pad", "eot"), 2, "defences/test_resize_pad.py"),
    Item(
        "diffusion purification", "Adversarial Purification", ("diffusion_purification", "diffusion"), 2,
        "defences/test_diffusion_purification.py", "The paper uses diffusion of pixels, not Stable Diffusion.",
    ),
)  # fmt: skip

_ADVERSARIAL = (
    Item(
        "min-max problem", "Adversarial Training (AT)", ("pgd_adversarial", "pgd"), 3,
        "objectives/test_pgd_adversarial.py", "The label y is one of the classes, not a real number.",
    ),
    Item(
        "general algorithm, steps 1 to 3", "AT General Algorithm", ("epochwise_adversarial",), 3,
        "objectives/test_epochwise_adversarial.py",
        "Madry et al. attack the present net in every step, and train on attacked images alone.",
    ),
    Item(
        "friendly adversarial training", "Problems of conventional AT (1)", ("friendly_adversarial",), 4,
        "objectives/test_friendly_adversarial.py",
        "Its attack is not the weakest: it stops tau steps after the first error.",
    ),
    Item(
        "PGD-K-tau, figure of the features", "Problems of conventional AT (1)", ("friendly_pgd",), 4,
        "attacks/test_friendly_pgd.py",
    ),
    Item(
        "minimal perturbations, DDN and FMN", "Problems of conventional AT (1)", ("ddn", "fmn"), 4,
        "attacks/test_ddn.py",
    ),
    Item(
        "customised adversarial training", "Problems of conventional AT (2)", ("customised_adversarial",), 3,
        "objectives/test_customised_adversarial.py",
        "The least eps with an attack that succeeds is meant; an argmin of a truth value is not defined.",
    ),
    Item(
        "four decision boundaries, figure", "Problems of conventional AT (2)",
        ("standard", "pgd_adversarial", "customised_adversarial"), 3, "objectives/test_customised_adversarial.py",
    ),
    Item(
        "robust overfitting", "AT + Fake Data", ("pgd_adversarial", "robust_accuracy"), 5,
        "training/test_validation.py",
    ),
    Item(
        "unconditional fake data", "AT + Fake Data", ("generated", "diffusion"), 5, "data/test_generation.py",
        "Generated images are mixed with the real ones; they do not replace them.",
    ),
    Item(
        "conditional fake data", "AT + Fake Data", ("gaussian_generator", "generated"), 5,
        "data/test_gaussian_generator.py", "z is a vector from N(0, I), not a number from N(0, 1).",
    ),
)  # fmt: skip

_REGULARISATION = (
    Item(
        "a loss and a regulariser", "Regularization Training", ("terms",), 6, "objectives/test_terms.py",
        "For triplets and consistency the loss beside it is that of attacked images.",
    ),
    Item(
        "curvature regularisation", "Regularization Training (1)", ("curvature",), 6, "objectives/test_curvature.py",
        "z is the sign of the gradient divided by its own length, not the gradient divided by the loss.",
    ),
    Item(
        "loss landscape, figure", "Regularization Training (1)", ("hessian_eigenvalues",), 6,
        "evaluation/test_hessian.py",
    ),
    Item(
        "natural and boundary error", "Regularization Training (2)", ("boundary_error", "robust_error"), 7,
        "evaluation/test_metrics.py",
    ),
    Item(
        "TRADES", "Regularization Training (2)", ("trades", "attacked_divergence"), 7, "objectives/test_trades.py",
        "The paper has the divergence KL(f(x) || f(x')), and the ball of a norm.",
    ),
    Item(
        "triplet loss, TLA", "Regularization Training (3)", ("triplet",), 8, "objectives/test_triplet.py",
        "The absolute value in D calls opposite features near.",
    ),
    Item("TLA with norm regularisation", "Regularization Training (3)", ("triplet",), 8, "objectives/test_triplet.py"),
    Item(
        "consistency", "Regularization Training (4)", ("consistency", "view_divergence"), 9,
        "objectives/test_consistency.py", "The second argument is T2(x) + delta2; the slide prints the first twice.",
    ),
    Item(
        "sharpened softmax of temperature tau", "Regularization Training (4)", ("consistency", "view_divergence"), 9,
        "objectives/test_consistency.py",
    ),
)  # fmt: skip

_PROBABILISTIC = (
    Item(
        "smoothed classifier g", "Certified Probabilistic Defenses (1)", ("smoothed", "gaussian"), 11,
        "defences/test_smoothed.py",
    ),
    Item(
        "radius of randomized smoothing", "Certified Probabilistic Defenses (1)", ("smoothing", "gaussian"), 11,
        "noises/test_gaussian.py",
        "The integral of Phi ends at x, not at 0; and g keeps its class in the ball, not f.",
    ),
    Item(
        "prediction by a binomial test", "Certified Probabilistic Defenses (1)", ("smoothed",), 11,
        "defences/test_smoothed.py", "The test has two sides: the p-value is twice the printed sum.",
    ),
    Item(
        "certification by N samples", "Certified Probabilistic Defenses (1)", ("smoothing", "clopper_pearson_lower"),
        11, "certificates/test_smoothing.py",
        "The class needs a sample of its own; it abstains where the bound of p_A is at most 1/2, and p_B = 1 - p_A.",
    ),
    Item(
        "noises of all shapes and sizes", "Certified Probabilistic Defenses (1)", ("laplace", "uniform", "splitting"),
        11, "noises/test_uniform.py",
    ),
    Item(
        "training under noise", "Certified Probabilistic Defenses (1)", ("gaussian_augmentation",), 11,
        "objectives/test_gaussian_augmentation.py",
    ),
    Item(
        "certified accuracy for several sigma, figure", "Certified Probabilistic Defenses (1)",
        ("certified_accuracy", "smoothing"), 11, "evaluation/test_metrics.py",
    ),
    Item(
        "MACER", "Certified Probabilistic Defenses (2)", ("macer",), 12, "objectives/test_smoothing_objectives.py",
        "The log of the mean is meant, not the mean of the logs; and sigma / 2 is multiplied twice.",
    ),
)  # fmt: skip

_LIPSCHITZ = (
    Item(
        "Lipschitz constant L_pq", "Certified Deterministic Defenses (1)", ("lipschitz",), 13,
        "layers/test_lipschitz.py",
    ),
    Item(
        "hinge regularisation and optimal transport", "Certified Deterministic Defenses (1)", ("hkr",), 14,
        "objectives/test_hkr.py",
    ),
    Item(
        "product of norms", "Certified Deterministic Defenses (1)", ("lipschitz", "linear_norm"), 13,
        "layers/test_lipschitz.py",
    ),
    Item(
        "norm of a convolution by reshaping", "Certified Deterministic Defenses (1)", ("conv_norm",), 13,
        "layers/test_spectral.py", "It is no upper bound: it is short by up to the square root of h w.",
    ),
    Item(
        "norm of a convolution by FFT", "Certified Deterministic Defenses (1)", ("conv_norm",), 13,
        "layers/test_norms.py",
        "At each frequency the largest singular value counts, on a grid that covers the padded image.",
    ),
    Item(
        "spectral normalisation", "Certified Deterministic Defenses (1)", ("gram_bound",), 13,
        "layers/test_spectral.py",
    ),
    Item(
        "power and Gram iteration", "Certified Deterministic Defenses (1)", ("power_iteration", "gram_bound"), 13,
        "layers/test_gram.py",
        "Power iteration approaches the norm from below, so that it proves nothing.",
    ),
    Item(
        "constants of the logits L^j", "Certified Deterministic Defenses (1)", ("pairwise_bounds", "UnitRowLinear"), 13,
        "layers/test_unit_rows.py", "Where the layer is W x, the constant of logit j is that of a row of W.",
    ),
    Item(
        "GroupSort and FullSort", "Certified Deterministic Defenses (1)", ("MaxMin", "GroupSort", "FullSort"), 14,
        "layers/test_activations.py",
    ),
    Item(
        "Bjorck iteration", "Certified Deterministic Defenses (1)", ("BjorckLinear",), 14, "layers/test_bjorck.py",
        "It converges only from weights that have been scaled to a norm below the root of 3.",
    ),
)  # fmt: skip

_GLOBAL = (
    Item(
        "local and global robustness", "Certified Deterministic Defenses (2)", ("bottom_class", "lipschitz"), 15,
        "defences/test_bottom_class.py",
    ),
    Item(
        "bottom band between two classes, figure", "Certified Deterministic Defenses (2)", ("bottom_class",), 15,
        "defences/test_bottom_class.py",
    ),
    Item(
        "bottom logit", "Certified Deterministic Defenses (2)", ("gloro", "lipschitz"), 15,
        "objectives/test_gloro.py", "K_i + K_y is valid, but the constant of the difference f_y - f_i is smaller.",
    ),
    Item(
        "training of GloRo nets", "Certified Deterministic Defenses (2)", ("gloro", "emma"), 15,
        "objectives/test_gloro.py", "What it counts is right and certified at the points given, not at all x.",
    ),
    Item(
        "top-k robustness, figure", "Certified Deterministic Defenses (2)", ("top_k", "affinity"), 15,
        "certificates/test_top_k.py",
    ),
    Item(
        "learnable linear spline", "Certified Deterministic Defenses (3)", ("LinearSpline", "lip_mlp_n"), 16,
        "layers/test_splines.py", "Nothing in the sum bounds its slopes; the layer projects them to [-1, 1].",
    ),
)  # fmt: skip

_CERTIFIED = (
    Item(
        "certified margin m(eps, theta)", "Why \"certified\"?", ("lipschitz",), 10, "certificates/test_lipschitz.py",
    ),
    Item(
        "first certified defence", "Why \"certified\"?", ("one_hidden_layer", "OneHiddenLayer", "semidefinite_dual"),
        10, "layers/test_one_hidden_layer.py",
    ),
    *_PROBABILISTIC, *_LIPSCHITZ, *_GLOBAL,
    Item(
        "sub-samples of several modalities", "Extending to Multi-modal inputs", ("ablation", "mmcert"), 17,
        "noises/test_ablation.py", "What is certified is the vote over sub-samples, not f.",
    ),
    Item(
        "certificate of several modalities", "Extending to Multi-modal inputs", ("mmcert",), 17,
        "certificates/test_mmcert.py",
        "k' is a misprint for k, e_i = n_i where elements are added, and a tie is not certified.",
    ),
    Item(
        "segmentation", "Extending to Multi-modal inputs", ("mmcert",), 17, "certificates/test_segmentation.py",
    ),
)  # fmt: skip

ITEMS: tuple[Item, ...] = (*_METRICS, *_NAIVE, *_ADVERSARIAL, *_REGULARISATION, *_CERTIFIED)
