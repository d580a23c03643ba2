"""Classifiers made of classifiers."""

from hauberk.catalogue.entry import Family

FAMILY = Family("defence")

FAMILY.add(
    "mixed", "hauberk.defences.mixed:mixed", "probabilities of an accurate and a robust model, mixed",
    "Bai et al. 2024, Eq. 5", proof="mixed_margin",
)  # fmt: skip
FAMILY.add(
    "adaptive_mixed", "hauberk.defences.adaptive_mixed:adaptive_mixed",
    "two models mixed with a weight that a network chooses for each image", "Bai et al. 2024, Section 4",
    proof="mixed_margin",
)  # fmt: skip
FAMILY.add(
    "mixed_nuts", "hauberk.defences.mixed_nuts:mixed_nuts",
    "a one-hot accurate model mixed with the bent logits of a robust one", "Bai et al. 2024 (MixedNUTS)",
)  # fmt: skip
FAMILY.add(
    "smoothed", "hauberk.defences.smoothed:smoothed", "the majority vote under noise",
    "Cohen et al. 2019, Eq. 1", short={"sigma": ("noise", "gaussian")}, proof="smoothing",
)  # fmt: skip
FAMILY.add(
    "frozen_ensemble", "hauberk.defences.frozen_ensemble:frozen_ensemble",
    "the mean logits of a random model over fixed public draws", proof="lipschitz",
)  # fmt: skip
FAMILY.add(
    "derandomised", "hauberk.defences.derandomised:derandomised",
    "the vote over all splits of an image of 8 bits, without randomness", "Levine & Feizi 2021, Theorem 2",
    proof="derandomised_splitting",
)  # fmt: skip
FAMILY.add(
    "denoised", "hauberk.defences.denoised:denoised", "a classifier with a denoiser before it, to be smoothed",
    "Salman et al. 2020; Carlini et al. 2023",
)  # fmt: skip
FAMILY.add(
    "polled", "hauberk.defences.polled:polled",
    "a random model with a stated rule: a single draw, the majority, or the mean logits of N draws",
)  # fmt: skip
FAMILY.add(
    "detected", "hauberk.defences.detector:detected", "a classifier with a head that rejects attacks",
    "Metzen et al. 2017",
)  # fmt: skip
FAMILY.add(
    "bottom_class", "hauberk.defences.bottom_class:bottom_class",
    "a Lipschitz net that abstains where its class is not proved within eps", "Leino et al. 2021", proof="lipschitz",
)  # fmt: skip
FAMILY.add(
    "gradient_mixed", "hauberk.defences.locally_biased:gradient_mixed",
    "two models mixed class by class, weighted by the lengths of their gradients", "Bai et al. 2024, Eq. 4",
)  # fmt: skip
FAMILY.add(
    "locally_biased", "hauberk.defences.locally_biased:locally_biased",
    "a model moved towards the class that a direction oracle names",
    "Anderson & Sojoudi 2022; Bai et al. 2024, Eq. 1-3",
)  # fmt: skip
FAMILY.add(
    "nearest_neighbour", "hauberk.defences.nearest_neighbour:nearest_neighbour",
    "the class of the nearest stored image", "Cover & Hart 1967",
)  # fmt: skip
FAMILY.add("resized", "hauberk.defences.resized:resized", "a classifier that sees its images at another size")
FAMILY.add(
    "total_variation", "hauberk.defences.total_variation:total_variation",
    "pixels dropped at random and filled in again with the least total variation", "Guo et al. 2018",
)  # fmt: skip
FAMILY.add(
    "resize_pad", "hauberk.defences.resize_pad:resize_pad",
    "images resized to a random size and padded at a random place", "Xie et al. 2018",
)  # fmt: skip
FAMILY.add(
    "guided_denoiser", "hauberk.defences.guided_denoiser:guided_denoiser",
    "a frozen classifier behind a denoiser that is trained against attacks", "Liao et al. 2018",
)  # fmt: skip
FAMILY.add(
    "diffusion_purification", "hauberk.defences.diffusion_purification:diffusion_purification",
    "noise, and the way back of a diffusion model, before a classifier", "Nie et al. 2022",
)  # fmt: skip
