"""A model in an ONNX file, computed by onnxruntime: logits, and no gradients."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from hauberk.capabilities import ScoresOnly, Traits
from hauberk.errors import HauberkError, reason
from hauberk.models.program_file import Call, ProgramFile

REMARK = (
    "The model is an ONNX file, computed by onnxruntime on the CPU: it gives no gradients, so only attacks by scores "
    "are run. An attack that follows gradients of the model it was made from may break many images that these leave."
)
SOFTMAX = "The file gives probabilities; their logarithms, which decide alike, are taken for logits."
NEAR = 1e-4  # of 1, which probabilities sum to
FLOATS = {"tensor(float)": torch.float32, "tensor(double)": torch.float64, "tensor(float16)": torch.float16}


class OnnxFile(ScoresOnly, ProgramFile):
    """The classifier of an ``.onnx`` file, which onnxruntime computes.

    A file that declares its images with the channels last gets them in that form.  One that gives probabilities on
    noise of its own size is followed by a logarithm, so that differences of the outputs are differences of logits.
    """

    traits = Traits(declared=False)

    def loaded(self) -> tuple[Call, tuple[int | None, ...]]:
        """The session's one input and one output."""
        runtime = _runtime()
        settings = runtime.SessionOptions()
        settings.intra_op_num_threads, settings.log_severity_level = torch.get_num_threads(), 3
        content = self.content.cpu().numpy().tobytes()
        try:
            session = runtime.InferenceSession(content, settings, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors have no common class
            raise HauberkError(
                f"{self._name} cannot be loaded by onnxruntime {runtime.__version__}: {reason(error)}",
                "check it with onnx.checker; put weights that are in a second file into it: onnx.save(model, path)",
            ) from error
        taken, given = self._only_input(session), self._output(session)
        shape = tuple(n if isinstance(n, int) and n > 0 else None for n in taken.shape)
        last = len(shape) == 4 and shape[3] in (1, 3) and shape[1] not in (1, 3)
        dtype = FLOATS[taken.type]

        def call(images: Tensor) -> Tensor:
            held = (images.permute(0, 2, 3, 1) if last else images).detach().to(dtype).contiguous()
            (answer,) = session.run([given], {taken.name: held.numpy()})
            return torch.from_numpy(answer).to(images.dtype)

        size = (shape[0], shape[3], shape[1], shape[2]) if last else shape
        return (partial(_logarithm, call) if _gives_probabilities(call, size) else call), size

    @property
    def softmax(self) -> bool:
        """Whether the file gives probabilities."""
        return isinstance(self._called()[0], partial)

    def _only_input(self, session: Any) -> Any:
        known = {node.name for node in session.get_overridable_initializers()}
        inputs = [node for node in session.get_inputs() if node.name not in known]
        if len(inputs) != 1 or inputs[0].type not in FLOATS or len(inputs[0].shape) != 4:
            seen = ", ".join(f"{node.name}: {node.type} {node.shape}" for node in inputs)
            raise HauberkError(
                f"{self._name} takes {seen}, expected one float tensor of images, shape (B, C, H, W)",
                "export a model that takes only images in [0, 1], with its preprocessing inside",
            )
        return inputs[0]

    def _output(self, session: Any) -> str:
        names = [node.name for node in session.get_outputs()]
        if len(names) != 1 and "logits" not in names:
            raise HauberkError(
                f"{self._name} gives {len(names)} outputs ({', '.join(names)})", "export only the logits, shape (B, K)"
            )
        return names[0] if len(names) == 1 else "logits"


def _logarithm(call: Call, images: Tensor) -> Tensor:
    answer: Tensor = call(images)
    return answer.clamp_min(torch.finfo(answer.dtype).tiny).log()


def _gives_probabilities(call: Call, size: tuple[int | None, ...]) -> bool:
    """Whether rows are non-negative and sum to 1 on noise; of a file that takes any size nothing is known."""
    rows, *rest = size
    if None in rest:
        return False
    shape = (rows or 2, *(n or 1 for n in rest))
    noise = torch.rand(shape, generator=torch.Generator().manual_seed(0))  # on the CPU: onnxruntime is there
    try:
        answer = call(noise)
    except Exception:  # whatever onnxruntime raises: the first call says it
        return False
    return answer.dim() == 2 and bool((answer >= 0).all()) and bool((answer.sum(1) - 1).abs().max() < NEAR)


def _runtime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise HauberkError("an .onnx file needs onnxruntime", "install it: pip install 'hauberk[onnx]'") from error
    return onnxruntime

