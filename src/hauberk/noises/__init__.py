"""Random steps of smoothing: noise distributions, one family in each file, with radii, and ablation."""

from hauberk.noises.ablation import Ablation
from hauberk.noises.base import Noise, RandomStep
from hauberk.noises.gaussian import Gaussian
from hauberk.noises.gaussian_linf import GaussianLinf
from hauberk.noises.grid_gaussian import GridGaussian
from hauberk.noises.in_box import SplittingInBox, UniformInBox
from hauberk.noises.laplace import Laplace
from hauberk.noises.splitting import Splitting
from hauberk.noises.uniform import Uniform

__all__ = [
    "Ablation",
    "Gaussian",
    "GaussianLinf",
    "GridGaussian",
    "Laplace",
    "Noise",
    "RandomStep",
    "Splitting",
    "SplittingInBox",
    "Uniform",
    "UniformInBox",
]
