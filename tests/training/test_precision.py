import torch
from torch import nn

from hauberk.cli import options
from hauberk.training import precision
from hauberk.training.precision import Bfloat16


def test_inside_is_bfloat16_and_outside_is_float32():
    inner = nn.Linear(4, 3)
    seen = []
    inner.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    images = torch.rand(2, 4, requires_grad=True)
    logits = Bfloat16(inner)(images)
    logits.sum().backward()
    assert seen == [torch.bfloat16]
    assert logits.dtype == inner.weight.dtype == inner.weight.grad.dtype == images.grad.dtype == torch.float32


def test_it_shares_the_weights_and_the_mode():
    inner = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    view = Bfloat16(inner)
    view.eval()
    assert not inner.training
    assert next(view.parameters()) is next(inner.parameters())


def test_a_machine_without_units_for_a_precision_is_told(monkeypatch, capsys):
    assert 0.0 < precision.bfloat16_over_float32("cpu") < 1e4
    said = {}
    for times in (1.5, 9.0):
        monkeypatch.setattr(precision, "bfloat16_over_float32", lambda where, times=times: times)
        for asked in ("float32", "bfloat16"):
            options.check_speed(asked, "cpu")
            said[times, asked] = " ".join(capsys.readouterr().err.split())
    assert [key for key, text in said.items() if text] == [(9.0, "bfloat16")]
    assert "9 times as long as float32" in said[9.0, "bfloat16"]
