import torch
from torch import nn

from hauberk.training.ema import EMA


class Point(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3, dtype=torch.float64))
        self.register_buffer("statistic", torch.zeros(2, dtype=torch.float64))
        self.register_buffer("count", torch.tensor(0))


def test_average_is_the_weighted_sum_of_the_trajectory():
    live = Point()
    ema = EMA(live, decay=0.5)
    values = [1.0, -2.0, 4.0, 8.0, 3.0, 5.0, -1.0, 2.0, 6.0, 7.0, 0.5, 9.0]
    for i, value in enumerate(values):
        live.weight.data.fill_(value)
        live.statistic.fill_(-value)
        live.count.fill_(i)
        ema.after_step(live)
    # written out: x_T = sum_t (1 - d_t) prod_{s > t} d_s * v_t, with d_t = min(1/2, (1 + t)/(10 + t)), start at 0
    decays = [min(0.5, (1 + t) / (10 + t)) for t in range(len(values))]
    expected = 0.0
    for t, value in enumerate(values):
        later = 1.0
        for d in decays[t + 1 :]:
            later *= d
        expected += (1 - decays[t]) * later * value
    assert decays[0] == 0.1 and decays[-1] == 0.5
    torch.testing.assert_close(ema.model.weight.data, torch.full((3,), expected, dtype=torch.float64))
    torch.testing.assert_close(ema.model.statistic, torch.full((2,), -expected, dtype=torch.float64))
    assert int(ema.model.count) == len(values) - 1


def test_a_constant_model_is_left_exactly_as_it_is():
    live = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    ema = EMA(live, decay=0.999)
    for _ in range(50):
        ema.after_step(live)
    for own, value in zip(ema.model.state_dict().values(), live.state_dict().values(), strict=True):
        assert torch.equal(own, value)


def test_the_shadow_is_apart_and_in_eval_mode():
    live = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    live.train()
    ema = EMA(live, 0.9)
    live[0].weight.data.fill_(7.0)
    assert not bool((ema.model[0].weight == 7.0).any())
    assert not any(m.training for m in ema.model.modules())
    assert not any(p.requires_grad for p in ema.model.parameters())


def test_it_goes_on_from_its_state():
    torch.manual_seed(0)
    live = nn.Linear(2, 2)
    first = EMA(live, 0.9)
    for _ in range(3):
        live.weight.data.normal_()
        first.after_step(live)
    second = EMA(live, 0.9)
    second.load_state_dict(first.state_dict())
    live.weight.data.normal_()
    first.after_step(live)
    second.after_step(live)
    assert torch.equal(first.model.weight, second.model.weight)
