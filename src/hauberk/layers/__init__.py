"""Layers with a known Lipschitz constant, and the walk that bounds a model made of them."""

from hauberk.layers.activations import BetaAbs, FullSort, GroupSort, MaxMin, NActivation
from hauberk.layers.aol import AlmostOrthogonal, AOLConv2d, AOLLinear, UnitRowLinear, UnitRows
from hauberk.layers.bcop import BCOPConv2d
from hauberk.layers.bjorck import Bjorck, BjorckLinear
from hauberk.layers.bound import Bound, BoundedLayer
from hauberk.layers.cayley import Cayley, CayleyConv2d, CayleyLinear
from hauberk.layers.gram import gram_bound, power_iteration, unfolding_bound
from hauberk.layers.householder import Householder1, Householder2, HouseholderActivation
from hauberk.layers.lipschitz import LayerBound, ModelBounds, layer_bounds, model_bound, pairwise_bounds, walk
from hauberk.layers.lot import LOTConv2d
from hauberk.layers.norms import conv_norm, linear_norm
from hauberk.layers.padding import PadToMultiple
from hauberk.layers.pooling import GlobalAveragePool, L2NormPool2d, ScaledAvgPool2d
from hauberk.layers.shape import BatchCentring, Centring, PadChannels, TruncateChannels
from hauberk.layers.soc import SOCConv2d, series_bound
from hauberk.layers.splines import LinearSpline, ReLUForm, spline_variation

__all__ = [
    "AOLConv2d",
    "AOLLinear",
    "AlmostOrthogonal",
    "BCOPConv2d",
    "BatchCentring",
    "BetaAbs",
    "Bjorck",
    "BjorckLinear",
    "Bound",
    "BoundedLayer",
    "Cayley",
    "CayleyConv2d",
    "CayleyLinear",
    "Centring",
    "FullSort",
    "GlobalAveragePool",
    "GroupSort",
    "Householder1",
    "Householder2",
    "HouseholderActivation",
    "L2NormPool2d",
    "LOTConv2d",
    "LayerBound",
    "LinearSpline",
    "MaxMin",
    "ModelBounds",
    "NActivation",
    "PadChannels",
    "PadToMultiple",
    "ReLUForm",
    "SOCConv2d",
    "ScaledAvgPool2d",
    "TruncateChannels",
    "UnitRowLinear",
    "UnitRows",
    "conv_norm",
    "gram_bound",
    "layer_bounds",
    "linear_norm",
    "model_bound",
    "pairwise_bounds",
    "power_iteration",
    "series_bound",
    "spline_variation",
    "unfolding_bound",
    "walk",
]
