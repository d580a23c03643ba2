"""Noise distributions of randomised smoothing: one family a file, with the certified radius that it gives."""

from hauberk.noises.base import Noise
from hauberk.noises.gaussian import Gaussian
from hauberk.noises.grid_gaussian import GridGaussian
from hauberk.noises.laplace import Laplace
from hauberk.noises.uniform import Uniform

__all__ = ["Gaussian", "GridGaussian", "Laplace", "Noise", "Uniform"]
