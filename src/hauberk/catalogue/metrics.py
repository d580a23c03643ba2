"""What is computed from records."""

from hauberk.catalogue.entry import Family

FAMILY = Family("metric")

FAMILY.add("accuracy", "hauberk.evaluation.metrics:accuracy", "the share of images that are classified right")
FAMILY.add(
    "robust_accuracy", "hauberk.evaluation.metrics:robust_accuracy",
    "the share that is right on the image and under every attack",
)  # fmt: skip
FAMILY.add(
    "robust_error", "hauberk.evaluation.metrics:robust_error", "one less the robust accuracy",
    "lecture, slide on metrics",
)  # fmt: skip
FAMILY.add(
    "boundary_error", "hauberk.evaluation.metrics:boundary_error",
    "the share that is right on the image and broken by some attack; with the natural error the robust error",
    "Zhang et al. 2019, Eq. 1",
)  # fmt: skip
FAMILY.add(
    "attack_success_rate", "hauberk.evaluation.metrics:attack_success_rate",
    "of the images that were right, the share that an attack breaks",
)  # fmt: skip
FAMILY.add(
    "attack_success_rate_lecture", "hauberk.evaluation.metrics:attack_success_rate_lecture",
    "the share of all images that an attack breaks, as printed", "lecture, slide on metrics",
)  # fmt: skip
FAMILY.add(
    "eps50", "hauberk.evaluation.minimum:eps50",
    "the budget within which half of the images that are right are broken, by minimum-norm attacks",
)  # fmt: skip
FAMILY.add(
    "certified_accuracy", "hauberk.evaluation.metrics:certified_accuracy",
    "the share that is right with a radius of at least eps", "Cohen et al. 2019",
)  # fmt: skip
FAMILY.add(
    "average_certified_radius", "hauberk.evaluation.metrics:average_certified_radius",
    "the mean radius, zero where the class is wrong", "Zhai et al. 2020",
)  # fmt: skip
FAMILY.add(
    "mean_perturbation", "hauberk.evaluation.metrics:mean_perturbation",
    "the mean distance of the points that break an image",
)  # fmt: skip
FAMILY.add(
    "mean_perturbation_lecture", "hauberk.evaluation.metrics:mean_perturbation_lecture",
    "the mean distance over all successes, as printed", "lecture, slide on metrics",
)  # fmt: skip
FAMILY.add(
    "median_perturbation", "hauberk.evaluation.metrics:median_perturbation",
    "the median distance of the points that break an image",
)  # fmt: skip
FAMILY.add(
    "median_distance", "hauberk.evaluation.metrics:median_distance",
    "the median distance to the nearest misclassified point",
)  # fmt: skip
FAMILY.add(
    "robust_accuracy_curve", "hauberk.evaluation.metrics:robust_accuracy_curve",
    "robust accuracy against the budget, from minimum-norm attacks",
)  # fmt: skip
FAMILY.add(
    "hessian_eigenvalues", "hauberk.evaluation.hessian:hessian_eigenvalues",
    "the largest eigenvalues of the loss's Hessian in the image, of a model and its images",
    "Moosavi-Dezfooli et al. 2019, Section 3",
)  # fmt: skip
FAMILY.add(
    "confidence_gap", "hauberk.evaluation.metrics:confidence_gap",
    "how much surer a model is where it is right than where it is wrong", "Bai et al. 2024",
)  # fmt: skip
FAMILY.add(
    "either_right", "hauberk.evaluation.metrics:either_right",
    "the share that the accurate or the robust model has right",
)  # fmt: skip
FAMILY.add(
    "repeated_accuracy", "hauberk.evaluation.repeated:repeated_accuracy",
    "the chance that a random model is right in all of N tries of one point", "Lucas et al. 2023",
)  # fmt: skip
FAMILY.add(
    "random_accuracy", "hauberk.evaluation.metrics:random_accuracy", "the accuracy of a random model over its draws",
)  # fmt: skip
