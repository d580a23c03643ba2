"""Wrong versions of the semidefinite dual, and of what else is proved of Lipschitz nets."""

from __future__ import annotations

from mutant import Mutant, group

CERTIFIED: list[Mutant] = [
    *group(
        "semidefinite", "layers/one_hidden_layer.py", "tests/layers/test_one_hidden_layer.py",
        ("found[rows, columns] = 0.5 *", "found[rows, columns] = 0.25 *"),
        ("0.5 * (norms + error) * size *", "0.5 * norms *"),
        ("torch.cat([inner.sum(2, keepdim=True), inner]", "torch.cat([0.5 * inner.sum(2, keepdim=True), inner]"),
        ("/ (p[:, :, None] * q[:, None, :])", "/ p[:, :, None]"),
        ("last[rows] - last[columns]", "last[rows] + last[columns]"),
        ("return torch.minimum(product, found + found.T)", "return found + found.T.clamp(max=0.0)"),
        ("return torch.minimum(product, found + found.T)", "return found + found.T"),
        ('if norm != "linf":', "if True:"),
        ("share = torch.finfo(dtype).eps *", "share = 0.0 *"),
        ("if not bool(scaled.isfinite().all() and size.isfinite().all()):", "if False:"),
        ("if len(input_shape) != 1:", "if False:"),
    ),
    *group(
        "semidefinite", "layers/lipschitz.py", "tests/layers/test_one_hidden_layer.py",
        ("if isinstance(last, BoundsPairs):", "if False:"),
        ("last.pairwise_bounds(shape, q) * _product(reach[q], 1.0 + SLACK)", "last.pairwise_bounds(shape, q)"),
        ('"weighted_branches", "pairwise_bounds")', '"weighted_branches")'),
    ),
    *group(
        "semidefinite", "objectives/semidefinite_dual.py", "tests/objectives/test_semidefinite_dual.py",
        ("self.weight * bound, terms", "bound, terms"),
        ("return 0.5 * norm", "return norm"),
        ("fixed.mT @ (fixed @ vector)", "vector"),
        ("torch.linalg.vector_norm(matrix @ vector", "torch.linalg.vector_norm(fixed @ vector"),
        ("norm * size", "norm * size.detach()"),
    ),
]
