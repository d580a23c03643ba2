"""Data: sets in three splits, augmentation on tensors, and the order in which training sees them.

The loaders live in modules of their own and are reached by name: ``load({"name": "cifar10"})``.
"""

from hauberk.data.augment import Augmentation, cutout, random_crop, random_flip
from hauberk.data.dataset import Dataset, load
from hauberk.data.multilabel import MultiLabelDataset, MultiLabelSplit
from hauberk.data.sampler import epoch_batches
from hauberk.data.split import Selection, Split

__all__ = [
    "Augmentation",
    "Dataset",
    "MultiLabelDataset",
    "MultiLabelSplit",
    "Selection",
    "Split",
    "cutout",
    "epoch_batches",
    "load",
    "random_crop",
    "random_flip",
]
