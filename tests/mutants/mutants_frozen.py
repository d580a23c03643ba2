"""Wrong versions of the frozen predictor: other numbers than the deployed model's, and rounding that is not seen."""

from __future__ import annotations

from mutant import Mutant, group

FROZEN: list[Mutant] = [
    *group(
        "frozen", "layers/freezing.py", "tests/layers/test_freezing.py",
        ("spent = plain_copy(model).requires_grad_(False)",
         "spent = plain_copy(model).double().requires_grad_(False)"),
        ("    _hold(spent, input_shape)", "    pass"),
        ("exact = tensor.to(torch.complex128)", "exact = tensor"),
        ("plain._modules[name] = _plain(child, done)", "pass"),
        ("if id(module) not in done:", "if True:"),
        ("ChannelAffine(scale, shift.to(mean),", "ChannelAffine(scale, (1.0 + 2.0**-20) * shift.to(mean),"),
    ),
    *group(
        "frozen", "layers/derived.py", "tests/layers/test_freezing.py",
        ("if self.input_shape not in (None, tuple(input_shape)):", "if False:"),
        ("held.of(input_shape) if isinstance(held, Numbers) else", ""),
        ("value = chain().detach().clone()", "value = getattr(layer, name).detach().clone()"),
        ("input_shape if self.by_shape else None", "None"),
    ),
    *group(
        "frozen", "layers/sandwich.py", "tests/layers/test_freezing.py",
        ("if not bool((inward.isfinite() & outward.isfinite()).all()):", "if False:"),
        ("return float((inward * outward).abs().max())", "return 1.9999999"),
    ),
    *group(
        "frozen", "layers/freezing.py", "tests/certificates/test_frozen.py",
        ("return images.double()", "return images"),
    ),
    *group(
        "frozen", "certificates/frozen.py", "tests/certificates/test_frozen.py",
        ("    check_walked(model)\n    return exact", "    return exact"),
    ),
    *group(
        "deployed", "certificates/deployed.py", "tests/certificates/test_deployed.py",
        ("EXPLAINED * estimate, torch.where", "torch.inf * estimate, torch.where"),
        ("EXPLAINED = 2.0", "EXPLAINED = 1.0"),
        ("torch.where(counted, noise, 0.0)", "torch.zeros_like(noise)"),
        ("torch.where(counted, noise, 0.0)", "noise"),
        ("torch.maximum(share * estimate, distance)", "distance"),
        ("coarsest = max(", "coarsest = min("),
        ("nan_to_num(nan=torch.inf, posinf=torch.inf)", "nan_to_num(nan=0.0)"),
        ("if forward.share is None:", "if True:"),
        ("+ vanishing * forward.values", ""),
    ),
    *group(
        "deployed", "certificates/lipschitz.py", "tests/certificates/test_deployed.py",
        ("or not seen.distance <= seen.explained:", ":"),
        ("(logits, rounding + found.lost,", "(logits, rounding,"),
    ),
    *group(
        "deployed", "report/words.py", "tests/report/test_words.py",
        ("if not curve.frozen:", "if curve.frozen:"),
    ),
    *group(
        "deployed", "verify/derive/logits.py", "tests/certificates/test_deployed.py",
        ('if not row.get("distance", 0.0) <= row.get("explained", np.inf):', "if False:"),
    ),
    *group(
        "frozen", "layers/lipschitz.py", "tests/layers/test_lipschitz.py",
        ("if not _level(made[row], layer(company)[row], float(made.abs().max())):", "if False:"),
        ("for row, sign in ((0, 1.0), (1, -1.0)):", "for row, sign in ((0, 1.0),):"),
        ("for row, sign in ((0, 1.0), (1, -1.0)):", "for row, sign in ((1, -1.0),):"),
        ("few = 8.0 * torch.finfo(first.dtype).eps * size", "few = 1e-4 * size"),
        ("layer(company)[row], float", "layer(features[row : row + 1])[0], float"),
    ),
    *group(
        "frozen", "certificates/rounding.py", "tests/certificates/test_frozen.py",
        ("return materialised(model, input_shape)", "return __import__('copy').deepcopy(model).double()"),
    ),
]  # fmt: skip
