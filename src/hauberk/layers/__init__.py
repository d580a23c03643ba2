"""Layers with a known Lipschitz constant, and the walk that bounds a model made of them."""

from hauberk.layers.activations import BetaAbs, FullSort, GroupSort, MaxMin, NActivation
from hauberk.layers.aol import AlmostOrthogonal, AOLConv2d, AOLLinear
from hauberk.layers.attention_noise import AttentionNoise
from hauberk.layers.bcop import BCOPConv2d
from hauberk.layers.bjorck import Bjorck, BjorckLinear
from hauberk.layers.bound import Bound, BoundedLayer
from hauberk.layers.bro import BROConv2d, BROLinear
from hauberk.layers.cayley import Cayley, CayleyConv2d, CayleyLinear
from hauberk.layers.cpl import CPLConv2d, CPLLinear
from hauberk.layers.draw_mean import DrawMean
from hauberk.layers.export import exported
from hauberk.layers.gate import ConvexGate
from hauberk.layers.gram import gram_bound, power_iteration
from hauberk.layers.householder import Householder1, Householder2, HouseholderActivation
from hauberk.layers.hycas import HyCASConv2d, HyCASSettings
from hauberk.layers.li_resnet import LiResConv2d
from hauberk.layers.lipschitz import LayerBound, ModelBounds, layer_bounds, model_bound, pairwise_bounds, walk
from hauberk.layers.lot import LOTConv2d
from hauberk.layers.low_pass import LowPass
from hauberk.layers.noise_injection import NoiseInjection
from hauberk.layers.norms import conv_norm, linear_norm
from hauberk.layers.one_hidden_layer import OneHiddenLayer
from hauberk.layers.pooling import GlobalAveragePool, L2NormPool2d, ScaledAvgPool2d
from hauberk.layers.random_filters import FixedConv2d, RandomFilters2d, frozen_filters, orthogonal_mix
from hauberk.layers.residual import AffineResidual, Concatenation, ConvexResidual
from hauberk.layers.sandwich import SandwichConv2d, SandwichLinear
from hauberk.layers.shape import BatchCentring, Centring, PadChannels, PadToMultiple, TruncateChannels
from hauberk.layers.sll import SLLConv2d, SLLLinear
from hauberk.layers.soc import SOCConv2d, series_bound
from hauberk.layers.spectral import (
    SpectralScaling,
    normalise_spectral,
    project_spectral,
    spectral_norm_factor,
    upper_norm,
)
from hauberk.layers.splines import LinearSpline, ReLUForm, spline_variation
from hauberk.layers.unit_rows import UnitRowLinear, UnitRows

__all__ = [
    "AOLConv2d",
    "AOLLinear",
    "AffineResidual",
    "AlmostOrthogonal",
    "AttentionNoise",
    "BCOPConv2d",
    "BROConv2d",
    "BROLinear",
    "BatchCentring",
    "BetaAbs",
    "Bjorck",
    "BjorckLinear",
    "Bound",
    "BoundedLayer",
    "CPLConv2d",
    "CPLLinear",
    "Cayley",
    "CayleyConv2d",
    "CayleyLinear",
    "Centring",
    "Concatenation",
    "ConvexGate",
    "ConvexResidual",
    "DrawMean",
    "FixedConv2d",
    "FullSort",
    "GlobalAveragePool",
    "GroupSort",
    "Householder1",
    "Householder2",
    "HouseholderActivation",
    "HyCASConv2d",
    "HyCASSettings",
    "L2NormPool2d",
    "LOTConv2d",
    "LayerBound",
    "LiResConv2d",
    "LinearSpline",
    "LowPass",
    "MaxMin",
    "ModelBounds",
    "NActivation",
    "NoiseInjection",
    "OneHiddenLayer",
    "PadChannels",
    "PadToMultiple",
    "RandomFilters2d",
    "ReLUForm",
    "SLLConv2d",
    "SLLLinear",
    "SOCConv2d",
    "SandwichConv2d",
    "SandwichLinear",
    "ScaledAvgPool2d",
    "SpectralScaling",
    "TruncateChannels",
    "UnitRowLinear",
    "UnitRows",
    "conv_norm",
    "exported",
    "frozen_filters",
    "gram_bound",
    "layer_bounds",
    "linear_norm",
    "model_bound",
    "normalise_spectral",
    "orthogonal_mix",
    "pairwise_bounds",
    "power_iteration",
    "project_spectral",
    "series_bound",
    "spectral_norm_factor",
    "spline_variation",
    "upper_norm",
    "walk",
]
