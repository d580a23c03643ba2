r"""Learnable linear splines
==========================

ReLU limits what a 1-Lipschitz network can express.  The lecture's third deterministic defence (slides *Certified
Deterministic Defenses (3)*) learns the activation instead.  Neuron :math:`n` of layer :math:`\ell` has

.. math:: \sigma_{\ell,n}(x) = b_{1,\ell,n} + b_{2,\ell,n}\,x
          + \sum_{k=1}^{K_{\ell,n}} a_{k,\ell,n}\,\mathrm{ReLU}(x - \tau_{k,\ell,n}) .

Hauberk has it as the layer ``LinearSpline``.  The layer does not store :math:`a` and :math:`b`.  It stores values
:math:`c_k` at equally spaced knots, from which the lecture's form follows.

Source: Ducotterd et al. 2024.
"""

# %%
# Two forms of one function
# -------------------------
# A spline is straight between its knots :math:`t_k`, which are :math:`T` apart.  Its slope is
# :math:`(c_{k+1} - c_k) / T`, and :math:`a_k` is the change of the slope at a knot.  The code writes the lecture's sum
# out and compares it with the layer.
#
# **Erratum.** Nothing in the slide's formula bounds the slope, so that the activation is not 1-Lipschitz by itself.
# The slope of the sum right of :math:`j` knots is :math:`b_2 + a_1 + \dots + a_j`, and all of these must lie in
# :math:`[-1, 1]`.  The layer clips the differences :math:`c_{k+1} - c_k` to :math:`[-T, T]` in every forward pass and
# keeps the mean of the :math:`c_k`.

import torch
from torch import Tensor, nn

from hauberk import plots
from hauberk.layers.bjorck import BjorckLinear
from hauberk.layers.lipschitz import walk
from hauberk.layers.splines import LinearSpline, spline_variation

torch.set_num_threads(1)
torch.manual_seed(0)
spline = LinearSpline(1, knots=9, reach=1.0, start="identity")
free = spline.get_parameter("parametrizations.coefficients.original")
with torch.no_grad():
    free.add_(0.3 * torch.randn(9))  # slopes of any size
x = torch.linspace(-1.5, 1.5, 301)[:, None]
with torch.no_grad():
    ours = spline(x)[:, 0]
    b1, b2, a, tau = (part[0] for part in spline.as_relu())
by_hand = b1 + b2 * x[:, 0] + (a * (x - tau).relu()).sum(1)
assert torch.allclose(ours, by_hand, atol=1e-5)
slopes = b2 + torch.cat([torch.zeros(1), a.cumsum(0)])
print("slopes after the projection:", ", ".join(f"{float(s):+.2f}" for s in slopes))
assert float(slopes.abs().max()) <= 1 + 1e-5
before = free.detach().diff() / spline.spacing
print("slopes of the free values:  ", ", ".join(f"{float(s):+.2f}" for s in before))
assert float(before.abs().max()) > 1
assert torch.allclose(spline.coefficients.mean(), free.mean(), atol=1e-6)
knots = torch.linspace(-1, 1, 9)
inside = range(50, 251, 5)  # of the 301 points, those in [-1, 1]
rows = [{"x": float(x[k, 0]), "sigma(x)": float(ours[k]), "what": "the layer"} for k in inside]
rows += [
    {"x": float(u), "sigma(x)": float(v), "what": "its free values"} for u, v in zip(knots, free.detach(), strict=True)
]
plots.figure(plots.curves(rows, "x", "sigma(x)", "what"))

# %%
# A function that ReLU cannot reach
# ---------------------------------
# The zigzag below has slopes of 1 and -1 alone.  Three networks of two orthogonal hidden layers are trained on it: with
# ReLU, with splines that start as ReLU, and with splines that start as MaxMin does, half of them as :math:`|x|`.  All
# of them are 1-Lipschitz by construction.


def zigzag(points: Tensor) -> Tensor:
    """A wave of slopes +1 and -1."""
    return ((points + 1) % 1.0 - 0.5).abs() - 0.25


def fit(activation: str, steps: int = 600) -> nn.Sequential:
    """A 1-Lipschitz network of orthogonal layers and one kind of activation, trained on the zigzag."""
    torch.manual_seed(0)

    def bend() -> nn.Module:
        if activation == "ReLU":
            return nn.ReLU()
        return LinearSpline(16, knots=21, reach=1.0, start="relu" if activation == "spline from ReLU" else "maxmin")

    net = nn.Sequential(BjorckLinear(1, 16), bend(), BjorckLinear(16, 16), bend(), BjorckLinear(16, 1))
    groups = [
        {"params": [p for name, p in net.named_parameters() if "coefficients" not in name], "lr": 1e-2},
        {"params": [p for name, p in net.named_parameters() if "coefficients" in name], "lr": 2e-3},
    ]
    optimizer = torch.optim.Adam([group for group in groups if group["params"]])
    points = torch.linspace(-1, 1, 201)[:, None]
    for _ in range(steps):
        loss = (net(points) - zigzag(points)).square().mean() + 1e-6 * spline_variation(net)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    return net.eval()


points = torch.linspace(-1, 1, 201)[:, None]
nets = {name: fit(name) for name in ("ReLU", "spline from ReLU", "spline from MaxMin")}
rows = [{"x": float(u), "f(x)": float(v), "net": "the zigzag"} for u, v in zip(points, zigzag(points), strict=True)]
errors = {}
for name, net in nets.items():
    with torch.no_grad():
        found = net(points)
    assert walk(net, (1,)).total().value <= 1 + 1e-4
    errors[name] = float((found - zigzag(points)).square().mean().sqrt())
    print(f"{name:18} root mean square error {errors[name]:.4f}")
    rows += [{"x": float(u), "f(x)": float(v), "net": name} for u, v in zip(points, found, strict=True)]
assert max(errors["spline from ReLU"], errors["spline from MaxMin"]) < errors["ReLU"] / 2
plots.figure(plots.curves(rows, "x", "f(x)", "net"))

# %%
# A learned activation
# --------------------
# This is the lecture's figure: activations of single neurons after training.  They began as ReLU or as :math:`|x|` and
# have become something else.  A penalty on the total bend, :math:`\sum_k |a_k|`, keeps them simple; the paper calls it
# second-order total variation.

shown = nets["spline from ReLU"][1]
assert isinstance(shown, LinearSpline)
grid = torch.linspace(-1, 1, 201)[:, None].expand(-1, 16)
with torch.no_grad():
    values = shown(grid)
    bends = shown.as_relu().a.abs().sum(1)
    started = LinearSpline(16, knots=21, start="relu")(grid)
assert torch.allclose(bends.sum(), shown.tv2(), rtol=1e-4)
moved = (values - started).abs().amax(0).argsort(descending=True)[:4].tolist()
assert float((values - started).abs().max()) > 0.05
rows = [
    {"x": float(grid[k, 0]), "sigma(x)": float(values[k, n]), "neuron": f"neuron {n + 1}"}
    for n in moved
    for k in range(len(grid))
]
print(f"total bend of the layer {float(bends.sum()):.2f}; of ReLU it is 1 a neuron, {16:.2f}")
plots.figure(plots.curves(rows, "x", "sigma(x)", "neuron"))

# %%
# What a spline does not do
# -------------------------
# A spline has slopes of less than 1 in absolute value wherever training makes them so.  Unlike MaxMin it does not keep
# the norm of gradients.  ``hauberk list models`` has both kinds: ``lip_mlp`` with MaxMin, and ``lip_mlp_n``, with
# ``layer: spline``, with splines.

slopes = values.diff(dim=0) / (grid[1, 0] - grid[0, 0])
share = float((slopes.abs() < 0.99).float().mean())
print(f"share of [-1, 1] where a neuron's slope is below 0.99: {share:.2f}")
assert float(slopes.abs().max()) <= 1 + 1e-3
assert share > 0.1
