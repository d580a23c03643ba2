"""Files that hold a computation: called as they were saved, in rows that they take, and never without trust."""

import copy
import io
import pickle
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

from hauberk.classifier import check_mode, predictor_name
from hauberk.errors import HauberkError
from hauberk.models.onnx_file import OnnxFile
from hauberk.models.program_file import ExportedFile, TorchScriptFile
from hauberk.models.source import open_source
from hauberk.trust import trusting

from ..onnx_net import linear

IMAGES = torch.rand(5, 1, 4, 4, generator=torch.Generator().manual_seed(0))


def net(*more: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), *more, nn.Flatten(), nn.Linear(12, 4)).eval()


def traced(model: nn.Module) -> bytes:
    found = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(model, IMAGES, check_trace=False), found)  # type: ignore[no-untyped-call]
    return found.getvalue()


@pytest.fixture(scope="module")
def exported() -> bytes:
    found = io.BytesIO()
    torch.export.save(torch.export.export(net(), (IMAGES[:2],)), found)  # type: ignore[no-untyped-call]
    return found.getvalue()


def test_torchscript_answers_as_the_model_it_was_made_of() -> None:
    file = TorchScriptFile(traced(net()), "net.pt")
    images = IMAGES.clone().requires_grad_(True)
    assert torch.allclose(file(images), net()(IMAGES), atol=1e-6)
    (gradient,) = torch.autograd.grad(file(images).sum(), images)
    assert float(gradient.abs().min()) > 0


def test_an_export_of_two_rows_takes_five(exported: bytes) -> None:
    file = ExportedFile(exported, "net.pt2")
    assert file.shape == (2, 1, 4, 4)
    assert torch.allclose(file(IMAGES), net()(IMAGES), atol=1e-6)
    assert len(file(IMAGES[:1])) == 1


def test_the_content_names_the_model_and_copies_answer_alike(exported: bytes) -> None:
    file = ExportedFile(exported, "net.pt2")
    file(IMAGES)
    for other in (copy.deepcopy(file), pickle.loads(pickle.dumps(file)), ExportedFile(exported, "net.pt2")):
        assert predictor_name(other) == predictor_name(file)
        assert torch.equal(other(IMAGES), file(IMAGES))
    one, two = TorchScriptFile(traced(net()), "a.pt"), TorchScriptFile(traced(net(nn.Tanh())), "a.pt")
    assert predictor_name(one) != predictor_name(two)


@pytest.mark.parametrize(
    ("layer", "said"),
    [(nn.Dropout(0.5), "different answers to the same images"), (nn.BatchNorm2d(3), "depends on the other images")],
)
def test_a_file_saved_in_train_mode_shows_by_its_answers(layer: nn.Module, said: str) -> None:
    check_mode(TorchScriptFile(traced(net(layer)), "net.pt"), IMAGES)
    with pytest.raises(HauberkError, match=said) as raised:
        check_mode(TorchScriptFile(traced(net(layer).train()), "net.pt"), IMAGES)
    assert "model.eval()" in raised.value.hint


def test_a_program_is_opened_by_trust_alone(exported: bytes, tmp_path: Path) -> None:
    files = {"script.pt": traced(net()), "script.ts": traced(net()), "net.pt2": exported, "net.pt": exported}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(HauberkError, match="runs only if you trust it"):
            open_source(str(tmp_path / name))
        with trusting(everything=True):
            assert open_source(str(tmp_path / name)).model(IMAGES).shape == (5, 4)


def test_a_damaged_program(tmp_path: Path) -> None:
    for kind in (TorchScriptFile, ExportedFile):
        with pytest.raises(HauberkError, match=r"net.x cannot be loaded"):
            kind(b"nothing", "net.x")(IMAGES)


# --- ONNX -------------------------------------------------------------------------------------------------------------


def dense() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(16, 4)


def test_onnx_answers_as_the_model_it_was_made_of() -> None:
    pytest.importorskip("onnxruntime")
    expected = dense()(IMAGES.flatten(1))
    for shape in (["rows", 1, 4, 4], [2, 1, 4, 4], [1, 1, 4, 4]):
        file = OnnxFile(linear(dense(), shape), "net.onnx")
        assert torch.allclose(file(IMAGES), expected, atol=1e-6)
        assert torch.equal(copy.deepcopy(file)(IMAGES), file(IMAGES))
    assert not file(IMAGES.clone().requires_grad_(True)).requires_grad


def test_an_onnx_file_with_the_channels_last_gets_them_so() -> None:
    pytest.importorskip("onnxruntime")
    colour = torch.rand(2, 3, 4, 4)
    torch.manual_seed(0)
    layer = nn.Linear(48, 4)
    file = OnnxFile(linear(layer, ["rows", 4, 4, 3]), "net.onnx")
    assert file.shape == (None, 3, 4, 4)
    assert torch.allclose(file(colour), layer(colour.permute(0, 2, 3, 1).flatten(1)), atol=1e-6)


def test_an_onnx_file_of_another_form() -> None:
    pytest.importorskip("onnxruntime")
    shape = ["rows", 1, 4, 4]
    for content, said in (
        (b"nothing", "cannot be loaded by onnxruntime"),
        (linear(dense(), shape, outputs=("scores", "features")), "gives 2 outputs"),
        (linear(dense(), ["rows", 16]), "expected one float tensor"),
    ):
        with pytest.raises(HauberkError, match=said):
            OnnxFile(content, "net.onnx")(IMAGES)
    named = OnnxFile(linear(dense(), shape, outputs=("logits", "features")), "net.onnx")
    assert named(IMAGES).shape == (5, 4)


def test_an_onnx_file_that_ends_in_a_softmax_gives_logits_up_to_a_constant(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    (tmp_path / "net.onnx").write_bytes(linear(dense(), ["rows", 1, 4, 4], softmax=True))
    found = open_source(str(tmp_path / "net.onnx"))
    expected = dense()(IMAGES.flatten(1)).log_softmax(1)
    assert torch.allclose(found.model(IMAGES), expected, atol=1e-5)
    assert any("probabilities" in remark for remark in found.remarks)
    (tmp_path / "net.onnx").write_bytes(linear(dense(), ["rows", 1, 4, 4]))
    assert len(open_source(str(tmp_path / "net.onnx")).remarks) == 1
