import pytest
import torch
from torch import nn

from hauberk.training.config import Training
from hauberk.training.optimizers import optimizer


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_decay_acts_on_matrices_alone(name):
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 2))
    made = optimizer(model, Training(optimizer=name, weight_decay=0.5, lr=0.1))
    for parameter in model.parameters():
        parameter.data.fill_(1.0)
        parameter.grad = torch.zeros_like(parameter)
    made.step()
    for parameter in model.parameters():
        wanted = 1.0 - 0.1 * 0.5 * (1.9 if name == "sgd" else 1.0) if parameter.dim() > 1 else 1.0
        torch.testing.assert_close(parameter.data, torch.full_like(parameter, wanted))


def test_frozen_parameters_are_left_out():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].requires_grad_(False)
    made = optimizer(model, Training())
    assert sum(len(group["params"]) for group in made.param_groups) == 2
