"""Noise distributions of randomised smoothing: one family a file, with the certified radius that it gives."""

from hauberk.noises.base import Noise
from hauberk.noises.gaussian import Gaussian
from hauberk.noises.laplace import Laplace
from hauberk.noises.uniform import Uniform

__all__ = ["Gaussian", "Laplace", "Noise", "Uniform"]
