"""The mixing network: its blocks, how features of two models meet, and the standardised output."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from hauberk.errors import HauberkError
from hauberk.models.mixing_net import MixingNetwork, PreActivationBlock, concatenated


def features(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def network(**settings: object) -> MixingNetwork:
    torch.manual_seed(0)
    return MixingNetwork(**({"first_channels": 5, "second_channels": 7, "widths": (4, 6), "blocks": 2, "momentum": 0.1}
                            | settings))  # fmt: skip


FIRST = (features(9, 2, 8, 8), features(9, 3, 8, 8, seed=1))
SECOND = (features(9, 3, 4, 4, seed=2), features(9, 4, 4, 4, seed=3))


def scores_and_output(net: MixingNetwork) -> tuple[np.ndarray, np.ndarray]:
    """The scalar before the output's norm, and what comes out."""
    seen: list[Tensor] = []
    handle = net.head.register_forward_hook(lambda _module, _inputs, z: seen.append(z))
    with torch.no_grad():
        found = net(FIRST, SECOND)
    handle.remove()
    return seen[0][:, 0].double().numpy(), found.double().numpy()


# --- the output ----------------------------------------------------------------------------------------------------


def test_in_training_the_score_is_clipped_and_standardised_by_its_batch() -> None:
    net = network().train()
    z, found = scores_and_output(net)
    clipped = np.clip(z, z.mean() - 0.6 * z.std(), z.mean() + 0.6 * z.std())
    assert (clipped != z).any()
    np.testing.assert_allclose(found, (clipped - clipped.mean()) / np.sqrt(clipped.var() + 1e-5), atol=1e-5)
    assert float(net.norm.running_mean) == pytest.approx(0.1 * clipped.mean(), rel=1e-4)
    assert float(net.norm.running_var) == pytest.approx(0.9 + 0.1 * clipped.var(ddof=1), rel=1e-4)


def test_in_eval_mode_nothing_is_clipped_and_the_running_statistics_count() -> None:
    net = network().eval()
    net.norm.running_mean.fill_(0.05)
    net.norm.running_var.fill_(1e-4)
    z, found = scores_and_output(net)
    np.testing.assert_allclose(found, (z - 0.05) / np.sqrt(1e-4 + 1e-5), rtol=1e-4, atol=1e-5)
    alone = torch.cat([net([f[i : i + 1] for f in FIRST], [s[i : i + 1] for s in SECOND]) for i in range(9)])
    torch.testing.assert_close(alone, net(FIRST, SECOND), atol=1e-5, rtol=1e-4)


def test_it_cannot_give_every_image_the_same_answer() -> None:
    net = network().train()
    assert not list(net.norm.parameters())
    with torch.no_grad():
        net.head.weight.mul_(1e3)
    assert abs(float(net(FIRST, SECOND).mean().detach())) < 1e-5


# --- what comes in -------------------------------------------------------------------------------------------------


def test_maps_meet_at_the_smallest_size() -> None:
    wide, high = features(2, 1, 4, 2), features(2, 3, 2, 6, seed=1)
    found = concatenated([wide, high])
    assert found.shape == (2, 4, 2, 2)
    np.testing.assert_allclose(found[:, :1].numpy(), wide.numpy().reshape(2, 1, 2, 2, 2).mean(3), atol=1e-6)
    np.testing.assert_allclose(found[:, 1:].numpy(), high.numpy().reshape(2, 3, 2, 2, 3).mean(4), atol=1e-6)
    same = features(2, 1, 2, 6)
    assert torch.equal(concatenated([same, high]), torch.cat([same, high], 1))


def test_flat_features_are_maps_of_one_place() -> None:
    flat, maps = features(2, 3), features(2, 1, 4, 4)
    found = concatenated([flat, maps])
    assert found.shape == (2, 4, 1, 1)
    torch.testing.assert_close(found[:, :, 0, 0], torch.cat([flat, maps.mean((2, 3))], 1))
    with pytest.raises(HauberkError, match=r"\(B, F\) or \(B, C, H, W\), got \(2, 3, 4\)"):
        concatenated([features(2, 3, 4)])


def test_the_second_features_join_after_the_first_stage_through_a_1x1_convolution() -> None:
    net = network(widths=(4,), blocks=1).eval()
    with torch.no_grad():
        entered = net.entry(torch.cat(FIRST, 1))
        joined = entered + torch.einsum("oc,bchw->bohw", net.join.weight[:, :, 0, 0], torch.cat(SECOND, 1))
        expected = functional.relu(joined / np.sqrt(1 + 1e-5)).mean((2, 3)) @ net.head.weight[0]
        torch.testing.assert_close(net(FIRST, SECOND), expected / np.sqrt(1 + 1e-5), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_second_features_of_any_size_fit(size: int) -> None:
    net = network().eval()
    assert net(FIRST, [features(9, 3, size, size), features(9, 4, size, size)]).shape == (9,)


def test_every_feature_counts() -> None:
    leaves = [part.clone().requires_grad_(True) for part in (*FIRST, *SECOND)]
    gradients = torch.autograd.grad(network().eval()(leaves[:2], leaves[2:]).sum(), leaves)
    assert all(bool(g.abs().sum() > 0) for g in gradients)


# --- the blocks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("channels", "stride"), [(3, 1), (3, 2), (5, 1)])
def test_a_block_is_its_formula(channels: int, stride: int) -> None:
    torch.manual_seed(1)
    block = PreActivationBlock(3, channels, stride).eval()
    x = features(2, 3, 5, 4)
    first, second = (m.weight for m in block.branch if isinstance(m, nn.Conv2d))
    scale = (1 + 1e-5) ** -0.5
    with torch.no_grad():
        active = functional.relu(scale * x)
        inner = functional.relu(scale * functional.conv2d(active, first, stride=stride, padding=1))
        plain = x if block.shortcut is None else functional.conv2d(active, block.shortcut.weight, stride=stride)
        torch.testing.assert_close(block(x), plain + functional.conv2d(inner, second, padding=1), atol=1e-5, rtol=1e-4)
    assert (block.shortcut is None) == (channels == 3 and stride == 1)


@pytest.mark.parametrize("settings", [{"widths": ()}, {"blocks": 0}])
def test_a_network_without_layers_is_refused(settings: dict[str, object]) -> None:
    with pytest.raises(HauberkError, match="at least one width"):
        network(**settings)
