"""Images drawn from a Gaussian for each class, fitted to the training split: the simplest generator."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from scipy.linalg import eigh
from torch import nn

from hauberk.data.dataset import Dataset
from hauberk.data.generation import Check, replaced
from hauberk.data.provenance import Provenance
from hauberk.data.streamed import in_memory
from hauberk.errors import HauberkError
from hauberk.randomness import stream

Floats = NDArray[np.float64]


def gaussian_generator(
    of: Dataset,
    images: Annotated[int, Field(ge=1, le=10_000_000)],
    components: Annotated[int, Field(ge=1, le=65_536)] | None = None,
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0,
    judge: nn.Module | None = None,
    least: Annotated[float, Field(ge=0, le=1)] = 0.8,
    keep: Annotated[float, Field(gt=0, le=1)] = 1.0,
) -> Dataset:
    r"""A data set whose training images are drawn from one Gaussian for each class.

    .. math:: x = \mathrm{clip}_{[0,1]}(\mu_k + A_k z), \qquad z \sim N(0, I), \qquad A_k A_k^T = S_k

    with mean and covariance of the n training images of class k, :math:`S_k = \frac1{n-1} \sum_i (x_i - \mu_k)
    (x_i - \mu_k)^T`, and pixels rounded to bytes.  With ``components: r`` :math:`A_k` spans the r principal axes of
    largest variance alone.  Without it :math:`A_k z` is the sum of the centred images, each times a normal number and
    :math:`1/\sqrt{n-1}`, which has the same law and needs no decomposition.

    The j-th image is of class j mod K, and a larger number of images begins with every smaller one.

    Args:
        of: the data set; only its training split is fitted.
        images: how many to draw.
        components: r; None for all of them.
        seed: of the draws.
        judge: a classifier that has learnt from real images, for example ``{name: run, path: runs/demo_standard}``.
        least: the share of labels that it has to agree with.
        keep: the share of each class that it is surest of, which is kept.

    Raises:
        HauberkError: if a class has fewer than two training images, or as ``generation.replaced``.

    Source: Gowal et al. 2021, Section 5 (class-conditional Gaussian fit); of the mix with real images, Section 4.
    """
    pixels = in_memory(of.train.images)
    if pixels.dtype != torch.uint8:
        raise HauberkError(f"{of.name} has 16-bit images", "the Gaussian generator needs 8-bit images")
    found = torch.empty((images, *of.input_shape), dtype=torch.uint8)
    for k in range(of.num_classes):
        own = pixels[of.train.labels == k].flatten(1).numpy() / 255.0
        if len(own) < 2:
            raise HauberkError(
                f"class {of.classes[k]} of {of.name} has {len(own)} training images",
                "give at least two images of each class",
            )
        mean, root = fitted(own, components)
        rows = len(range(k, images, of.num_classes))
        draws = stream(seed, k, "gaussian generator").standard_normal((rows, len(root)))
        drawn = np.rint((mean + draws @ root).clip(0.0, 1.0) * 255.0).astype(np.uint8)
        found[k :: of.num_classes] = torch.from_numpy(drawn).reshape(-1, *of.input_shape)
    settings = {"components": components, "seed": seed, "images": images}
    known = Provenance("gaussian", "train", conditional=True, settings=settings)
    labels = torch.arange(images) % of.num_classes
    return replaced(of, found, labels, known, Check(judge=judge, least=least, keep=keep))


def fitted(points: Floats, components: int | None) -> tuple[Floats, Floats]:
    r"""Mean, shape (d,), and a root R of the covariance, :math:`R^T R = S`, shape (r, d), of n points (n, d)."""
    mean = points.mean(0)
    centred = (points - mean) / np.sqrt(len(points) - 1)
    if components is None or components >= min(centred.shape):
        return mean, centred
    size = centred.shape[1]
    variances, axes = eigh(centred.T @ centred, subset_by_index=(size - components, size - 1))
    axes *= np.sign(axes[np.abs(axes).argmax(0), range(components)])  # an axis and its opposite are one
    return mean, np.sqrt(variances.clip(0.0))[:, None] * axes.T
