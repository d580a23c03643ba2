"""Wrong versions of the semidefinite dual, and of what else is proved of Lipschitz nets."""

from __future__ import annotations

from mutant import Mutant, group

CERTIFIED: list[Mutant] = [
    *group(
        "semidefinite", "layers/one_hidden_layer.py", "tests/layers/test_one_hidden_layer.py",
        ("found[rows, columns] = 0.5 *", "found[rows, columns] = 0.25 *"),
        ("* size.cpu() *", "*"),
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
        "bottom", "defences/bottom_class.py", "tests/defences/test_bottom_class.py",
        ("wide[:, None, :]) - eps * pairwise.to(wide)", "wide[:, None, :])"),
        ("(1.0 - RESERVE) * (wide", "(1.0 + RESERVE) * (wide"),
        ("gaps.masked_fill(own, math.inf).amin(2)", "gaps.masked_fill(own, math.inf).amax(2)"),
        ("lead > 0.0, top, ABSTAIN", "lead > -1e9, top, ABSTAIN"),
        ("key = weights_hash(self.base), tuple", "key = '', tuple"),
        ("pairwise(self.norm)", "pairwise()"),
        ("ahead.scatter(1, labels[:, None], -math.inf).amax(1)", "ahead.amax(1)"),
        ("    model.constants(shape)  #", "    #"),
    ),
    *group(
        "bottom", "certificates/lipschitz.py", "tests/defences/test_bottom_class.py",
        ("torch.where(decide(model, batch, tile=tile) == ABSTAIN, ABSTAIN, classes)", "classes"),
        ("check_composite(model, BottomClass)", "pass"),
    ),
    *group(
        "bottom", "certificates/mixed.py", "tests/defences/test_bottom_class.py",
        ("        check_part(model.robust)\n", ""),
    ),
    *group(
        "sets", "certificates/class_sets.py", "tests/certificates/test_class_sets.py",
        ("return top_k_radius(seen, self.k)", "return top_k_radius(seen, 1)"),
        ("return 0.0 if margin > 0.0 or", "return 0.0 if"),
        ("return -1.0", "return 0.0"),
        ("if seen.constants.norm != self.norm:", "if False:"),
    ),
    *group(
        "sets", "certificates/mixed.py", "tests/certificates/test_class_sets.py",
        ("if isinstance(self.base, SetCertificate):", "if False:"),
    ),
    *group(
        "sets", "verify/derive/sets.py", "tests/certificates/test_class_sets.py",
        ("key=lambda j: (-values[j], j)", "key=lambda j: (values[j], j)"),
        ('- float(row.get("rounding", 0.0))', ""),
        ("if gap <= 0.0:", "if gap < -1.0:"),
        ("all(j in members", "any(j in members"),
    ),
    *group(
        "sets", "verify/proofs.py", "tests/certificates/test_class_sets.py",
        ("    shared |= {name:", "    {name:"),
    ),
    *group(
        "sets", "cli/options.py", "tests/certificates/test_class_sets.py",
        ('letter == "," and depth <= 0 and', 'letter == "," and'),
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
