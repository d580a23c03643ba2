r"""Lipschitz bounds: spectral norm, power and Gram iteration
=========================================================

The lecture's first deterministic defence (slides *Certified Deterministic Defenses (1)*) bounds how far the output
moves,

.. math:: \|f_\theta(x + \delta) - f_\theta(x)\|_p \le L_{p,q}\,\|\delta\|_q, \qquad
          L_{2,2} \le \prod_{i=1}^m \|W_i\|_{2,2},

for a feed-forward network of :math:`m` layers whose activations are 1-Lipschitz.  The page asks how the norm of a
convolution is found, how it is imposed, and what a single logit needs.  Hauberk walks a network layer by layer
(``hauberk.layers.lipschitz.walk``), and the certificate ``lipschitz`` divides margins by what it finds.

Sources: Tsuzuku et al. 2018; Delattre et al. 2023 (Gram iteration); Singla et al. 2022 (logits).
"""

# %%
# The norm of a convolution, from its definition
# ----------------------------------------------
# A convolution is a linear map.  For a small image it can be written as a matrix, column by column, and the largest
# singular value of that matrix is the truth that every method on this page is held against.

import torch
from torch import Tensor, nn
from torch.nn import functional

from hauberk import plots
from hauberk.certificates import LipschitzCertificate
from hauberk.data import load
from hauberk.evaluation.metrics import accuracy, certified_accuracy
from hauberk.layers.activations import MaxMin
from hauberk.layers.gram import gram_bound, power_iteration
from hauberk.layers.lipschitz import walk
from hauberk.layers.norms import conv_norm
from hauberk.layers.spectral import normalise_spectral, project_spectral
from hauberk.objectives.base import Context
from hauberk.objectives.standard import Standard

torch.set_num_threads(1)
PADDING = ((1, 1), (1, 1))  # zeros around the image, so that its size stays


def true_norm(kernel: Tensor, size: int) -> float:
    """The largest singular value of a convolution with zero padding, from its matrix."""
    channels = kernel.shape[1]
    unit = torch.eye(channels * size * size, dtype=kernel.dtype).reshape(-1, channels, size, size)
    return float(torch.linalg.matrix_norm(functional.conv2d(unit, kernel, padding=1).flatten(1), ord=2))


# %%
# Reshaping the kernel
# --------------------
# The slide's first option reshapes :math:`W_i` to a matrix :math:`\widetilde W_i` of :math:`h w C_{in}` by
# :math:`C_{out}` and takes its norm.
#
# **Erratum.** That is not an upper bound.  A pixel is read by up to :math:`h w` windows, so that the convolution may
# have a norm of :math:`\sqrt{h w}\,\|\widetilde W_i\|_2`.  A constant kernel comes close to this on large images.
# PyTorch's own ``spectral_norm`` normalises the reshaped matrix, and shares the fault.

constant = torch.full((1, 1, 3, 3), 1 / 3, dtype=torch.float64)
reshaped = float(torch.linalg.matrix_norm(constant.reshape(1, -1), ord=2))
rows = []
for size in range(3, 17):
    truth = true_norm(constant, size)
    bound = conv_norm(constant, (size, size), padding=PADDING).value
    assert reshaped < truth <= bound <= 3.0 * (1 + 1e-8)
    for name, value in (("reshaped kernel", reshaped), ("truth", truth), ("Hauberk's bound", bound)):
        rows.append({"size of the image": size, "norm": value, "what": name})
print(f"constant kernel of 3 x 3: reshaped {reshaped:.3f}, truth on 16 x 16 pixels {truth:.3f}")
plots.figure(plots.curves(rows, "size of the image", "norm", "what"))

# %%
# The Fourier transform
# ---------------------
# The slide's second option takes "the maximum magnitude over frequency dimensions (roughly)".  Exactly: at each
# frequency :math:`\omega` the transform of the kernel is a matrix :math:`\mathbf W(\omega)` of :math:`C_{out}` by
# :math:`C_{in}`, and
#
# .. math:: \|W\|_2 \le \max_\omega \sigma_1\big(\mathbf W(\omega)\big),
#
# with equality for circular padding if the grid of frequencies has the size of the image.  With zero padding the grid
# must cover the padded image.  The image is then a part of a circle, and the norm of a part is no larger.
#
# **Erratum.** The largest *entry* of the transform is no bound, and a grid of the size of the kernel misses
# frequencies.  The code shows both failures on a random kernel.

torch.manual_seed(0)
kernel = torch.randn(16, 16, 3, 3, dtype=torch.float64) / 12
SIZE = 8
truth = true_norm(kernel, SIZE)


def frequencies(n: int) -> Tensor:
    """The transform on a grid of n by n frequencies, one matrix for each, (n * n, out, in)."""
    spectrum: Tensor = torch.fft.fft2(kernel, s=(n, n))
    return spectrum.permute(2, 3, 0, 1).flatten(0, 1)


rows, entries = [], []
for n in range(3, 17):
    matrices = frequencies(n)
    entries.append(float(matrices.abs().max()))
    singular = float(torch.linalg.matrix_norm(matrices, ord=2).max())
    rows.append({"frequencies along a side": n, "norm": singular, "what": "largest singular value"})
    rows.append({"frequencies along a side": n, "norm": entries[-1], "what": "largest entry"})
    rows.append({"frequencies along a side": n, "norm": truth, "what": f"truth on {SIZE} x {SIZE} pixels"})
    assert singular >= truth if n >= SIZE + 2 else n > 3 or singular < truth
assert max(entries) < truth
ours = conv_norm(kernel, (SIZE, SIZE), padding=PADDING).value
print(f"truth {truth:.4f}, Hauberk's bound {ours:.4f}")
assert truth <= ours < 1.1 * truth
plots.figure(plots.curves(rows, "frequencies along a side", "norm", "what"))

# %%
# A kernel that sees differences of neighbours alone shows the fault of a small grid best.  On as many frequencies as it
# has taps, the one of alternating pixels is missing.

difference = torch.tensor([[[[1.0, -1.0, 0.0]]]], dtype=torch.float64)
grids = {n: float(torch.fft.fft2(difference, s=(1, n)).abs().max()) for n in (3, 16)}
print(f"difference of neighbours: {grids[3]:.4f} on 3 frequencies, {grids[16]:.4f} on 16")
assert grids[3] < grids[16]

# %%
# Power iteration and Gram iteration
# ----------------------------------
# Both are quick.  Power iteration applies the convolution and its transpose to an image, again and again.  Gram
# iteration squares the matrices :math:`\mathbf W(\omega)^* \mathbf W(\omega)`,
#
# .. math:: \sigma_1(W)^{2p} = \sigma_1\big((W^* W)^p\big) \le \big\|(W^* W)^p\big\|_F, \qquad p = 1, 2, 4, \dots
#
# They approach the norm from two sides.
#
# **Erratum.** The slide names both as ways to *estimate* the norm.  Power iteration is a lower bound at every step, so
# that a certificate must not use it.  Gram iteration is an upper bound at every step.  Hauberk takes singular values
# for certificates, Gram iteration for training, and power iteration for neither.

draws = torch.Generator().manual_seed(0)
grid = frequencies(SIZE + 2)
exact = float(torch.linalg.matrix_norm(grid, ord=2).max())
rows = []
for steps in range(1, 11):
    below = power_iteration(kernel, (SIZE, SIZE), steps, 1, draws.manual_seed(0))
    above = float(gram_bound(grid, steps).max())
    assert below <= truth <= exact <= above * (1 + 1e-9)
    rows.append({"iterations": steps, "norm": below, "method": "power iteration"})
    rows.append({"iterations": steps, "norm": above, "method": "Gram iteration"})
    rows.append({"iterations": steps, "norm": truth, "method": "truth"})
print(f"after 10 iterations: power {below:.4f}, truth {truth:.4f}, Gram {above:.4f}")
plots.figure(plots.curves(rows, "iterations", "norm", "method"))

# %%
# The start matters too.  Some released code starts power iteration from an image of ones.  The 1 x 1
# kernel :math:`(5, -5)` maps this image to 0, so that the norm found is 0 and every radius infinite.

opposite = torch.tensor([5.0, -5.0], dtype=torch.float64).reshape(1, 2, 1, 1)
found = float(functional.conv2d(torch.ones(1, 2, 4, 4, dtype=torch.float64), opposite).norm())
print(f"started from ones: {found:.3f}; the norm: {conv_norm(opposite, (4, 4)).value:.3f}")
assert found == 0.0

# %%
# Spectral normalisation
# ----------------------
# The lecture imposes a bound :math:`\hat L` by
#
# .. math:: W'_i \leftarrow \frac{W_i}{\|W_i\|_2}\,\hat L^{1/m}, \qquad \prod_{i=1}^m \|W'_i\|_2 = \hat L.
#
# ``project_spectral(..., both_ways=True)`` is this formula.  It is meant to follow a step of the optimiser.
# ``normalise_spectral`` puts the division into the forward pass, by a Gram bound, so that gradients see it.

digits = load("digits")
test = digits.test.batch(slice(0, 200))


def network() -> nn.Sequential:
    """Two convolutions and two dense layers, m = 4."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), MaxMin(), nn.Conv2d(16, 16, 3, stride=2, padding=1), MaxMin(), nn.Flatten(),
        nn.Linear(256, 64), MaxMin(), nn.Linear(64, 10),
    )  # fmt: skip


net = network().eval()
project_spectral(net, (1, 8, 8), target=4.0, both_ways=True)
shares = [step.value for step in (layer.bound for layer in walk(net, (1, 8, 8)).layers()) if step.value > 1.0001]
print("norms of the four layers:", ", ".join(f"{value:.5f}" for value in shares), " 4 ** (1 / 4) =", f"{4**0.25:.5f}")
assert len(shares) == 4
assert all(abs(value - 4**0.25) < 1e-3 for value in shares)


def train(target: float | None, steps: int = 250) -> nn.Sequential:
    """The network with the product of its norms at most the target, or free."""
    net = network()
    if target is not None:
        normalise_spectral(net, target)
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    everything, generator = digits.train.batch(), torch.Generator().manual_seed(0)
    for _ in range(steps):
        part = everything.select(torch.randint(len(everything), (64,), generator=generator))
        loss = Standard()(net, part, Context(generator)).total
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    return net.eval()


rows = []
certified = {}
for target in (None, 30.0, 10.0, 3.0):
    name = "free" if target is None else f"L = {target:g}"
    net = train(target)
    total = walk(net, (1, 8, 8)).total().value
    assert target is None or total <= target * (1 + 1e-6)
    result = LipschitzCertificate()(net, test, seed=0)
    right, radii = (result.prediction == test.labels).numpy(), result.radius.numpy()
    certified[name] = certified_accuracy(right, radii, 0.2).value
    print(f"{name:7} product of norms {total:7.2f}, accuracy {accuracy(right).value:.3f}, ", end="")
    print(f"certified at 0.2: {certified[name]:.3f}")
    for r in torch.linspace(0, 1.0, 101).tolist():
        rows.append({"radius": r, "certified accuracy": certified_accuracy(right, radii, r).value, "net": name})
assert min(value for name, value in certified.items() if name != "free") > certified["free"]
plots.figure(plots.curves(rows, "radius", "certified accuracy", "net", percent=True, steps=True))

# %%
# The constants of the logits
# ---------------------------
# A classifier needs no bound on the whole vector of logits.  The lecture takes for logit :math:`j`
#
# .. math:: L^j_{2,2} \le \Big(\prod_{i=1}^{m-1} \|W_i\|_2\Big) \|W_m[:, j]\|_2 .
#
# **Erratum.** The column belongs to the convention :math:`x^\top W`.  Where a layer computes :math:`W x`, as in
# PyTorch, it is row :math:`j`.  The two norms around :math:`f^y_\theta(x + \delta) - f^y_\theta(x)` on the slide are
# absolute values, for one logit is a number.  The code computes :math:`L^j` by hand and compares it with the library.
# The certificate needs even less: the constant of the *difference* of two logits, with :math:`\|w_y - w_j\|_2` in the
# place of a row (``hauberk explain pairwise_bounds``).  The page on GloRo nets compares the two.

bounds = walk(net, (1, 8, 8))
last = torch.as_tensor(net[-1].weight).detach().double()
before = bounds.total().value / float(torch.linalg.matrix_norm(last, ord=2))
by_hand = before * torch.linalg.vector_norm(last, dim=1)
assert torch.allclose(by_hand, bounds.logits(), rtol=1e-4)
assert bool((by_hand <= bounds.total().value).all())
rows = [{"constant": f"logit {j}", "value": float(value)} for j, value in enumerate(by_hand)]
plots.figure(plots.bars([{"constant": "all logits", "value": bounds.total().value}, *rows], "constant", "value"))
