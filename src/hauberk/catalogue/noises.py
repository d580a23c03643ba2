"""Noise distributions of randomised smoothing."""

from hauberk.catalogue.entry import Family

FAMILY = Family("noise")

FAMILY.add(
    "gaussian", "hauberk.noises.gaussian:Gaussian", "isotropic Gaussian noise, sigma a pixel",
    "Cohen et al. 2019, Theorem 1", norm="L2",
)  # fmt: skip
FAMILY.add(
    "gaussian_linf", "hauberk.noises.gaussian_linf:GaussianLinf",
    "isotropic Gaussian noise on images of so many values", "Cohen et al. 2019; Yang et al. 2020", norm="Linf",
)  # fmt: skip
FAMILY.add(
    "grid_gaussian", "hauberk.noises.grid_gaussian:GridGaussian",
    "Gaussian noise on the grid of 8-bit images, added as integers", "Voracek & Hein 2023", norm="L2",
)  # fmt: skip
FAMILY.add(
    "laplace", "hauberk.noises.laplace:Laplace", "independent Laplace noise, sigma a pixel",
    "Teng et al. 2020, Theorem 1", norm="L1",
)  # fmt: skip
FAMILY.add(
    "uniform", "hauberk.noises.uniform:Uniform", "independent uniform noise, sigma a pixel",
    "Yang et al. 2020, Table 1", norm="L1",
)  # fmt: skip
FAMILY.add(
    "splitting", "hauberk.noises.splitting:Splitting",
    "the base is told the interval of length 2 lambda that holds a pixel, with random ends",
    "Levine & Feizi 2021, Theorem 1", norm="L1",
)  # fmt: skip
FAMILY.add(
    "uniform_in_box", "hauberk.noises.in_box:UniformInBox",
    "uniform noise against attackers who stay in the pixel box: larger radii beyond 1",
    "Voracek & Hein 2023", norm="L1",
)  # fmt: skip
FAMILY.add(
    "splitting_in_box", "hauberk.noises.in_box:SplittingInBox",
    "splitting noise against attackers who stay in the pixel box: larger radii beyond 1",
    "Levine & Feizi 2021; Voracek & Hein 2023", norm="L1",
)  # fmt: skip
FAMILY.add(
    "ablation", "hauberk.noises.ablation:Ablation", "of each modality all but a random sub-sample is set to 0",
    "Levine & Feizi 2020; Wang et al. 2024", norm="elements",
)  # fmt: skip
