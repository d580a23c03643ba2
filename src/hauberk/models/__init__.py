"""Networks made of layers; every builder keeps the call that made the network in ``module.spec``."""

from hauberk.models.lip_convnet import lip_convnet
from hauberk.models.resnet import resnet18
from hauberk.models.small_cnn import small_cnn

__all__ = ["lip_convnet", "resnet18", "small_cnn"]
