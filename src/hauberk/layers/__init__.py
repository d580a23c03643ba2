"""Layers with a known Lipschitz constant, and the walk that bounds a model made of them."""

from hauberk.layers.activations import MaxMin
from hauberk.layers.aol import AlmostOrthogonal, AOLConv2d, AOLLinear, UnitRowLinear, UnitRows
from hauberk.layers.bound import Bound, BoundedLayer
from hauberk.layers.lipschitz import LayerBound, ModelBounds, layer_bounds, model_bound, pairwise_bounds, walk
from hauberk.layers.norms import conv_norm, linear_norm
from hauberk.layers.padding import PadToMultiple

__all__ = [
    "AOLConv2d",
    "AOLLinear",
    "AlmostOrthogonal",
    "Bound",
    "BoundedLayer",
    "LayerBound",
    "MaxMin",
    "ModelBounds",
    "PadToMultiple",
    "UnitRowLinear",
    "UnitRows",
    "conv_norm",
    "layer_bounds",
    "linear_norm",
    "model_bound",
    "pairwise_bounds",
    "walk",
]
