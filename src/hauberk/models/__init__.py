"""Networks; every builder keeps the call that built the network in ``module.spec``."""

from hauberk.models.cnn_6c2f import cnn_6c2f
from hauberk.models.li_resnet import li_resnet
from hauberk.models.lip_convnet import lip_convnet
from hauberk.models.lip_convnet_n import lip_convnet_n
from hauberk.models.lip_mlp import lip_mlp
from hauberk.models.lip_mlp_n import lip_mlp_n
from hauberk.models.lip_resnet import lip_resnet
from hauberk.models.one_hidden_layer import one_hidden_layer
from hauberk.models.resnet import resnet18
from hauberk.models.small_cnn import small_cnn

__all__ = [
    "cnn_6c2f",
    "li_resnet",
    "lip_convnet",
    "lip_convnet_n",
    "lip_mlp",
    "lip_mlp_n",
    "lip_resnet",
    "one_hidden_layer",
    "resnet18",
    "small_cnn",
]
