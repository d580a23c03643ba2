"""Bounds that certificates and intervals rest on: of probabilities, of means and of operator norms."""

from hauberk.catalogue.entry import Family

FAMILY = Family("bound")

FAMILY.add(
    "wilson", "hauberk.statistics:wilson", "the interval of a share that every accuracy is shown with", "Wilson 1927",
)  # fmt: skip
FAMILY.add(
    "clopper_pearson_lower", "hauberk.statistics:clopper_pearson_lower",
    "the exact lower bound of a probability from votes", "Clopper & Pearson 1934",
)  # fmt: skip
FAMILY.add(
    "clopper_pearson_upper", "hauberk.statistics:clopper_pearson_upper",
    "the exact upper bound of a probability from votes", "Clopper & Pearson 1934",
)  # fmt: skip
FAMILY.add(
    "randomised_lower", "hauberk.confidence:randomised_lower",
    "a lower bound of a probability that fails with alpha exactly, by one public uniform number",
    "Stevens 1950; Voracek 2024",
)  # fmt: skip
FAMILY.add(
    "anytime_lower", "hauberk.statistics:anytime_lower",
    "a lower bound of a probability that holds at every number of votes at once", "Ville 1939; Robbins 1970",
)  # fmt: skip
FAMILY.add(
    "hoeffding_lower", "hauberk.confidence:hoeffding_lower", "a lower bound of the mean of bounded values",
    "Hoeffding 1963, Theorem 2",
)  # fmt: skip
FAMILY.add(
    "bernstein_lower", "hauberk.confidence:bernstein_lower",
    "a lower bound of the mean of bounded values that knows their variance", "Maurer & Pontil 2009, Theorem 4",
)  # fmt: skip
FAMILY.add(
    "linear_norm", "hauberk.layers.norms:linear_norm", "the largest factor by which a matrix lengthens a vector",
)  # fmt: skip
FAMILY.add(
    "conv_norm", "hauberk.layers.norms:conv_norm", "the norm of a convolution as it is computed, from its spectrum",
    "Sedghi et al. 2019; Senderovich et al. 2022",
)  # fmt: skip
FAMILY.add(
    "gram_bound", "hauberk.layers.gram:gram_bound", "an upper bound of the largest singular value at every step",
    "Delattre et al. 2023, Algorithm 1",
)  # fmt: skip
FAMILY.add(
    "power_iteration", "hauberk.layers.gram:power_iteration",
    "an estimate of the largest singular value from below, which proves nothing", "lecture, slide on spectral norms",
)  # fmt: skip
FAMILY.add(
    "series_bound", "hauberk.layers.soc:series_bound", "how much a cut exponential series of SOC may lengthen a vector",
    "Singla & Feizi 2021",
)  # fmt: skip
FAMILY.add(
    "pairwise_bounds", "hauberk.layers.lipschitz:pairwise_bounds",
    "the Lipschitz constant of the difference of each two logits", "Tsuzuku et al. 2018",
)  # fmt: skip
