"""Checks of what comes from outside, images, labels and a model's answers: what was expected, what came, what to do."""

from __future__ import annotations

from itertools import chain

import numpy as np
import torch
from torch import Tensor, nn

from hauberk.batch import Batch
from hauberk.errors import HauberkError, first_line, own_line


def check_images(images: Tensor) -> None:
    """Raise unless the images are float32 or float64 of shape (B, C, H, W) in [0, 1] without NaN."""
    _check_tensor("images", images)
    if images.dim() != 4 or 0 in images.shape[1:]:
        raise HauberkError(
            f"expected images of shape (B, C, H, W), got {tuple(images.shape)}",
            "add a batch or channel axis: images[None]",
        )
    if images.dtype not in (torch.float32, torch.float64):
        narrow = images.is_floating_point()
        raise HauberkError(
            f"expected float32 images in [0, 1], got {images.dtype}",
            "convert: images.float()" if narrow else "convert: images.float() / 255",
        )
    if len(images) == 0:
        raise HauberkError("there are no images", "check the option --images and that the split is not empty")
    if bool(images.isnan().any()):
        raise HauberkError("the images hold NaN", "check how they were loaded")
    low, high = float(images.min()), float(images.max())
    if low < 0.0 or high > 1.0:
        raise HauberkError(
            f"expected images in [0, 1], got values in [{low:.4g}, {high:.4g}]",
            "divide 8-bit images by 255; put normalisation inside the model (hauberk.classifier.Normalize)",
        )


def _check_tensor(name: str, value: object) -> None:
    if not isinstance(value, Tensor):
        array = isinstance(value, np.ndarray)
        raise HauberkError(
            f"expected {name} in a torch tensor, got {type(value).__module__}.{type(value).__qualname__}",
            f"convert: torch.from_numpy({name})" if array else f"convert: torch.as_tensor({name})",
        )


def _check_whole(name: str, values: Tensor, rows: int) -> None:
    """Raise unless these are int64 of shape (rows,)."""
    _check_tensor(name, values)
    if values.shape == (rows,) and values.dtype == torch.int64:
        return
    hint = f"convert: {name}.long().flatten()"
    if values.dim() == 2 and values.shape[0] == rows and values.shape[1] > 1:
        hint = f"one-hot {name} become classes by {name}.argmax(1)"
    elif values.numel() != rows:
        hint = f"give one of the {name} for each of the {rows} images"
    raise HauberkError(
        f"expected int64 {name} of shape ({rows},), got {values.dtype} of shape {tuple(values.shape)}", hint
    )


def check_batch(batch: Batch) -> None:
    """Raise unless this is a ``Batch`` with images, labels and ids of the same number, whatever the labels say."""
    if not isinstance(batch, Batch):
        raise HauberkError(f"expected a Batch, got {type(batch).__name__}", "make one: Batch(images, labels, ids)")
    check_images(batch.images)
    _check_whole("labels", batch.labels, len(batch.images))
    _check_whole("ids", batch.ids, len(batch.images))


def check_labels(labels: Tensor, num_classes: int, rows: int) -> None:
    """Raise unless the labels are int64 of shape (rows,) in 0..num_classes-1."""
    _check_whole("labels", labels, rows)
    if rows and (int(labels.min()) < 0 or int(labels.max()) >= num_classes):
        raise HauberkError(
            f"expected labels in 0..{num_classes - 1}, got {int(labels.min())}..{int(labels.max())}",
            "count classes from 0 and check that the model has one logit for each class",
        )


def check_classes(outputs: int, num_classes: int) -> None:
    """Raise if a model has fewer outputs than the data has classes."""
    if outputs < num_classes:
        raise HauberkError(
            f"the model has {outputs} outputs, the data has {num_classes} classes",
            "use the data that the model was trained on, or a model with one logit for each class",
        )


def check_output(logits: Tensor, rows: int, dtype: torch.dtype | None = None) -> None:
    """Raise unless this is one floating-point tensor of shape (rows, K) with K >= 2, of that dtype."""
    if not isinstance(logits, Tensor):
        raise HauberkError(
            f"expected logits of shape ({rows}, K), the model returned {_shown(logits)}",
            "return one tensor of logits, shape (B, K)",
        )
    if logits.layout != torch.strided or logits.is_quantized or logits.is_meta:
        kind = "a meta tensor" if logits.is_meta else _kept(logits)
        raise HauberkError(f"expected logits in a plain tensor, got {kind}", "return logits.to_dense(), on the CPU")
    if logits.dim() != 2 or len(logits) != rows or logits.shape[1] < 2:
        raise HauberkError(
            f"expected logits of shape ({rows}, K) with K >= 2, got {tuple(logits.shape)}",
            "return one tensor of logits, shape (B, K); a binary classifier returns two columns",
        )
    if not logits.is_floating_point() or dtype not in (None, logits.dtype):
        wanted = dtype or torch.float32
        raise HauberkError(
            f"expected logits of {wanted}, like the images, got {logits.dtype}",
            f"return logits.to({wanted}); weights of another precision take model.to({wanted})",
        )


def check_logits(logits: Tensor, rows: int, dtype: torch.dtype | None = None) -> None:
    """Raise unless these are logits of shape (rows, K) with K >= 2, of that dtype, without NaN, no probabilities."""
    check_output(logits, rows, dtype)
    if bool(logits.isnan().any()):
        raise HauberkError("the model returned NaN", "check its weights and its input scale")
    if bool(logits.max(1).values.isinf().any()):
        raise HauberkError(
            "the model returned infinite logits, which have no probabilities", "check its weights and its input scale"
        )
    sums = logits.sum(1)
    if bool((logits >= 0).all()) and bool((sums - 1).abs().max() < 1e-4):
        raise HauberkError(
            "expected logits, got probabilities (rows are non-negative and sum to 1)",
            "remove the final softmax: it hides gradients from attacks; or return log-probabilities",
        )


def _shown(value: object) -> str:
    """What a model returned instead of a tensor."""
    if isinstance(value, dict):
        return f"a dict with the keys {', '.join(map(repr, list(value)[:4]))}"
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of {len(value)}"
    return type(value).__name__


def check_weights(model: nn.Module) -> None:
    """Raise if the state of the model is not all plain tensors: it could be neither named nor followed by gradients."""
    for name, value in model.state_dict().items():
        if not isinstance(value, Tensor) or value.is_quantized or value.is_sparse:
            raise HauberkError(
                f"the model keeps {name} as {_kept(value)}, which has no gradient and cannot be identified in records",
                "use the model as it was before quantisation, with plain float32 weights",
            )


def _kept(value: object) -> str:
    if isinstance(value, Tensor):
        return "a quantised tensor" if value.is_quantized else "a sparse tensor"
    return f"{type(value).__name__}, not as a tensor"


def check_uncompiled(model: nn.Module) -> None:
    """Raise if a part of the model is compiled by torch.jit, so that its layers cannot be seen one by one."""
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise HauberkError(
                f"{name or 'the model'} is compiled by torch.jit, and its layers cannot be bounded one by one",
                "certify the model that it was compiled from",
            )


# --- the calls of a model ----------------------------------------------------------------------------------------


def called(model: nn.Module, images: Tensor) -> Tensor:
    """What a model says of images, (B, K): it may work in place, and write its next answer over this one."""
    logits: Tensor = model(images.clone())
    return logits.clone() if isinstance(logits, Tensor) else logits


@torch.no_grad()
def answer(model: nn.Module, images: Tensor) -> Tensor:
    """What a model says of images, shape (B, K) where it keeps the contract.

    Raises:
        HauberkError: if the model fails; the message names the line of the user's own code, and the likely reason.
    """
    try:
        return called(model, images)
    except HauberkError:
        raise
    except (Exception, SystemExit) as error:
        where = own_line(error)
        what = f"the model fails on images of shape {'x'.join(map(str, images.shape))}"
        said = f"{where}: {first_line(error)}" if where else first_line(error)
        raise HauberkError(f"{what}: {said}", likely(model, images)) from error


def no_gradient() -> HauberkError:
    """The error of an attack that follows gradients where there are none."""
    return HauberkError(
        "the model gives no gradient to its images: its forward pass cuts the graph (detach, numpy, no_grad, "
        "inference_mode, or a quantised layer)",
        "attack it without gradients (--attack square), or declare Traits(gradient='none') with a surrogate that has "
        "one",
    )


def check_gradient(model: nn.Module, images: Tensor) -> None:
    """Raise if the model's answers cannot be followed back to the images."""
    leaf = images[:1].clone().requires_grad_(True)
    with torch.enable_grad():
        value = called(model, leaf).sum()
    if not value.requires_grad or torch.autograd.grad(value, leaf, allow_unused=True)[0] is None:
        raise no_gradient()


def likely(model: nn.Module, images: Tensor) -> str:
    """The likely reason why a model fails on images: another device, another precision, other channels or sizes."""
    tensors = [*chain(model.parameters(), model.buffers())]
    devices = sorted({str(t.device) for t in tensors} - {str(images.device)})
    if devices == ["meta"]:
        return "its weights are on the meta device and have no values: build it on the CPU and load them"
    if devices:
        return f"its weights are on {devices[0]}, the images on {images.device}: model.to('{images.device}')"
    precisions = sorted({str(t.dtype) for t in tensors if t.is_floating_point()} - {str(images.dtype)})
    if precisions:
        return f"its weights are {precisions[0]}, the images {images.dtype}: model.to({images.dtype})"
    first = next((m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)), None)
    if isinstance(first, nn.Conv2d) and first.in_channels != images.shape[1]:
        said = f"its first convolution takes {first.in_channels} channels, the images have {images.shape[1]}"
        turned = first.in_channels == images.shape[3]
        other = "use data with as many channels, or convert in forward"
        return f"{said}: {'images.permute(0, 3, 1, 2)' if turned else other}"
    if isinstance(first, nn.Linear) and first.in_features != images[0].numel():
        values = images[0].numel()
        return f"its first dense layer takes {first.in_features} values, an image has {values}: use images of its size"
    return f"call it on such images yourself: model(torch.rand({', '.join(map(str, images.shape))}))"
