"""Wrong versions of the gate: what is walked, what is treated as a black box, what the deployed classifier says."""

from __future__ import annotations

from mutant import Mutant, group

TESTS = "tests/certificates/test_gate.py"

GATE: list[Mutant] = [
    *group(
        "gate", "layers/walkable.py", "tests/layers/test_lipschitz.py",
        ("everywhere._global_forward_hooks or everywhere._global_forward_pre_hooks",
         "everywhere._global_forward_hooks"),
        ("    check_eval(model)\n", ""),
        ("[*module._forward_hooks.values(), *module._forward_pre_hooks.values()]", "[*module._forward_hooks.values()]"),
        ("[*module._forward_hooks.values(), *module._forward_pre_hooks.values()]",
         "[*module._forward_pre_hooks.values()]"),
        ("    if replaced or", "    if"),
    ),
    *group(
        "gate", "layers/walkable.py", TESTS,
        ("    for cls in seen:\n        check_class(cls)\n", ""),
        ("if any(not is_weight_hook(module, hook) for hook in hooks):", "if False:"),
        ("if parametrize.is_parametrized(module) and not made_by_parametrize(type(module)):", "if False:"),
        ("    if shadows:\n", "    if False:\n"),
        ("    if any(t is not None and type(t) not in {Tensor, nn.Parameter} for t in tensors):\n", "    if False:\n"),
        ("        if changed:\n            raise HauberkError(\n                f\"{name} has replaced methods",
         "        if False:\n            raise HauberkError(\n                f\"{name} has replaced methods"),
        ("    if bent:\n", "    if False:\n"),
        ("(hasattr(nn.Module, key) or key in _COPYING)]", "hasattr(nn.Module, key)]"),
        ("return found is cls", "return True"),
        ("if not codes or not ours or not", "if not codes or not"),
        ("code.co_filename != file or not named:", "code.co_filename != file:"),
        ("code.co_filename != file or not named:", "not named:"),
        ("code.co_filename == home.__file__ and code.co_qualname == key", "code.co_filename == home.__file__"),
        ("if home is None or value.__module__.partition(\".\")[0] not in _TRUSTED:", "if home is None:"),
        ("    return not callable(value) or type(value).__module__.partition(\".\")[0] in _CALLED", "    return True"),
        ("(hasattr(owner, key) or key in names)}", "hasattr(owner, key)}"),
        ("(hasattr(owner, key) or key in names)}", "key in names}"),
        ("(is_house(cls) and issubclass(cls, owner))", "is_house(cls)"),
        ("if not known and _varies(chain):", "if False:"),
        ("return not same_state(before, random_state()) or not", "return not"),
        ("return not same_state(before, random_state()) or not all(torch.equal(first, chain()) for _ in range(2))",
         "return not same_state(before, random_state())"),
    ),
    *group(
        "gate", "layers/weight_hooks.py", TESTS,
        ("return type(hook) in {*_NORMS, *_PRUNING} and", "return isinstance(hook, (*_NORMS, *_PRUNING)) and"),
        ("                hook(module, ())\n", ""),
        ("                del module._forward_pre_hooks[key]\n", ""),
    ),
    *group(
        "gate", "layers/known.py", "tests/layers/test_lipschitz.py tests/certificates/test_gate.py",
        ("same and not own and not bent(layer, kind)", "same and not own"),
    ),
    *group(
        "gate", "layers/lipschitz.py", TESTS,
        ("(\"lipschitz_bound\", *_HELPERS)", "(\"lipschitz_bound\",)"),
    ),
    *group(
        "gate", "layers/export.py", TESTS,
        ("owner is None or bent(model, owner)", "owner is None"),
    ),
    *group(
        "gate", "certificates/gate.py", TESTS,
        ("    if parametrize._cache_enabled:\n", "    if False:\n"),
        ("    check_walkable(model)\n    check_as_written()\n    check_parametrisations(model)\n",
         "    check_walkable(model)\n    check_as_written()\n"),
        ("    if type(model) not in known:\n", "    if not isinstance(model, known):\n"),
        ("    check_module(model, \"model\")\n", ""),
        ("    for cls in type(model).__mro__:\n        check_class(cls)\n    check_as_written()\n",
         "    check_as_written()\n"),
        ("        check_class(cls)\n    check_as_written()\n", "        check_class(cls)\n"),
        ("not isinstance(model, SmoothedClassifier):\n        raise HauberkError(f\"{type(model).__name__} decides",
         "False:\n        raise HauberkError(f\"{type(model).__name__} decides"),
        ("    _check_settings(model)\n", ""),
        ("    yield\n    box.again()\n", "    yield\n"),
        ("(top.values[:, 0] > top.values[:, 1])", "(top.values[:, 0] >= top.values[:, 1])"),
        ("logits.isfinite().all(1) & (top", "(top"),
    ),
    *group(
        "gate", "certificates/gate.py",
        "tests/certificates/test_lipschitz.py::test_half_precision_is_refused "
        "tests/certificates/test_lipschitz.py::test_half_precision_statistics_are_refused_too",
        ("t.element_size() < 4 for", "t.element_size() < 2 for"),
        ("t.is_floating_point() and t.element_size() < 4 for t in model.state_dict().values()",
         "t.is_floating_point() and t.element_size() < 4 for t in model.parameters()"),
    ),
    *group(
        "gate", "certificates/black_box.py", TESTS,
        ("if not same_state(before, random_state()):", "if False:"),
        ("if self._kept() != kept:", "if False:"),
        ("            if _same(seen[fixed], first[fixed]):\n", "            if True:\n"),
        ("self._check_places_and_sizes(tile)", "pass"),
        ("(*SIZES, tile, 2 * tile + 1)", "(tile,)"),
        ("logits = self.model(images.clone())", "logits = self.model(images)"),
        ("apart = ((seen - seen.mean(1, keepdim=True)) - (expected - expected.mean(1, keepdim=True))).abs().amax(1)",
         "apart = 1e-3 * (seen - expected).abs().amax(1)"),
    ),
    *group(
        "gate", "certificates/mixed.py", TESTS,
        ("check_part(model.accurate)", "pass"),
        ("or self.contradicted(row, shared):", "or False:"),
        ("torch.where(accurate.isfinite().all(1), found, ABSTAIN)", "found"),
    ),
    *group(
        "gate", "certificates/smoothing.py", TESTS,
        ("        check_part(base)\n", ""),
        ("with black_box(base, batch.images, tile, self.sigma, \"base\"):", "if True:"),
    ),
    *group(
        "gate", "defences/mixed.py", TESTS,
        ("self.accurate(images.clone())", "self.accurate(images)"),
        ("self.robust(images.clone())", "self.robust(images)"),
        ("torch.where(logits.isfinite().all(1, keepdim=True), logits, 0.0)", "logits"),
    ),
    *group(
        "gate", "classifier.py", TESTS,
        ("not torch.equal(first.nan_to_num(), other.nan_to_num()) for other in others",
         "bool((first - other).abs().max() > 1e-3 * (1.0 + first.abs().max())) for other in others"),
    ),
]  # fmt: skip
