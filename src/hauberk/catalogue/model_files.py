"""The endings of files that hold a model, by what stands in them."""

from __future__ import annotations

CHECKPOINTS = (".pt", ".pth", ".ckpt", ".bin", ".tar", ".safetensors")
PROGRAMS = (".pt", ".pth", ".pt2", ".ts")  # TorchScript and torch.export
ONNX = ".onnx"
FILES = tuple(dict.fromkeys((*CHECKPOINTS, *PROGRAMS, ONNX)))
KNOWN = (
    f"a run directory, module:factory, or a file: weights ({', '.join(CHECKPOINTS)}) with --arch, a program of "
    f"TorchScript or torch.export ({', '.join(PROGRAMS)}), or {ONNX}"
)
