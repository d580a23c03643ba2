"""Wrong versions of mixing: the mixes, what is chosen for them, what is proved of them, and what they are held to."""

from __future__ import annotations

from mutant import Mutant, group

ADAPTIVE = [
    *group(
        "adaptive", "defences/adaptive_mixed.py", "tests/defences/test_adaptive_mixed.py",
        ("super().__init__(accurate, robust, alpha_min, accurate",
         "super().__init__(accurate, robust, alpha_max, accurate"),
        ("low, high = (0.0, 1.0) if as_trained else (self.alpha, self.alpha_max)", "low, high = (0.0, 1.0)"),
        ("scale, shift = self.training_logit if as_trained else self.logit", "scale, shift = self.logit"),
        ("torch.is_grad_enabled() and not gray_box", "torch.is_grad_enabled()"),
        ("torch.full_like(logit, _log_rest(high))", "torch.full_like(logit, _log_rest(low))"),
        ("width + functional.logsigmoid(-logit)", "width + (1.0 - logit.sigmoid()).log()"),
        ("* logit.sigmoid()).clamp(low, high)", "* logit.sigmoid())"),
        ('softplus(-outputs["alpha_logit"])', 'softplus(outputs["alpha_logit"])'),
        ("        self.accurate.eval()\n        self.robust.eval()\n        return self", "        return self"),
        ("opinion(self.accurate_scale * accurate), self.robust_scale * robust",
         "opinion(self.robust_scale * accurate), self.accurate_scale * robust"),
    ),
    *group(
        "adaptive", "defences/mixed.py", "tests/defences/test_adaptive_mixed.py",
        ("Scaled(self.accurate, self.accurate_scale)", "Scaled(self.accurate, 1.0)"),
    ),
    *group(
        "adaptive", "defences/activations.py",
        "tests/defences/test_detector.py tests/defences/test_adaptive_mixed.py tests/defences/test_activations.py",
        ("seen.append(output.clone())", "seen.append(output)"),
        ("seen.append(output.clone())", "seen.append(output.detach().clone())"),
        ("if len(outputs) != 1:", "if not outputs:"),
        ("(seen[layer][0] for layer in layers)", "(seen[layer][0] for layer in modules if layer in seen)"),
        ("            handle.remove()", "            pass"),
    ),
    *group(
        "adaptive", "models/mixing_net.py", "tests/models/test_mixing_net.py",
        ("CLIP * scores.std(correction=0)", "CLIP * scores.var(correction=0)"),
        ("        if self.training:\n            mean", "        if True:\n            mean"),
        ("scores = scores.clamp(mean - spread, mean + spread)", "pass"),
        ("nn.BatchNorm1d(1, affine=False,", "nn.BatchNorm1d(1, affine=True,"),
        ("self.shortcut(active)", "self.shortcut(features)"),
        ("size = torch.Size([min(", "size = torch.Size([max("),
        ("(self.rest(features).mean((2, 3)))", "(self.rest(features).sum((2, 3)))"),
    ),
    *group(
        "adaptive", "objectives/adaptive_smoothing.py", "tests/objectives/test_adaptive_smoothing.py",
        ("torch.cat([torch.zeros_like(alpha[:rows]), torch.ones_like(alpha[rows:])])",
         "torch.cat([torch.ones_like(alpha[:rows]), torch.zeros_like(alpha[rows:])])"),
        ("self.product * ce * bce).mean()", "self.product * ce.mean() * bce).mean()"),
        ('gray_box=self.setting == "A", as_trained=True', 'gray_box=self.setting == "A"'),
        ('gray_box=self.setting == "A"', "gray_box=False"),
        ("round(float(normal.square().sum()))", "round(float(normal.abs().sum()))"),
        ("self.threat.eps * (least + (most - least) * randomness", "self.threat.eps * (least * randomness"),
        ("context.offset + first - start, end - start", "first, end - start"),
        ("(1 + min(self.targets, classes - 1))) - 1", "(1 + min(self.targets, classes))) - 1"),
        ("self._attack(context.generator, classes), _fork(context.generator)",
         "self._attack(context.generator, classes), context.generator"),
    ),
    *group(
        "adaptive", "attacks/part.py", "tests/attacks/test_part.py",
        ("search_on(self._part(query.model), self", "search_on(query.model, self"),
        ('APGD(self.threat, loss="margin")', "APGD(self.threat)"),
        ("self.attack.threat != self.threat", "self.attack.threat.eps > self.threat.eps"),
    ),
]  # fmt: skip

NUTS = [
    *group(
        "nuts", "defences/mixed_nuts.py", "tests/defences/test_mixed_nuts.py",
        ("top.var(1, keepdim=True)", "top.var(1, keepdim=True, correction=0)"),
        ("(wide - top.mean(1, keepdim=True))", "(wide - wide.mean(1, keepdim=True))"),
        ("sure = ONE_HOT * winner + 0.0 * accurate.detach()", "sure = ONE_HOT * winner"),
        ("mix_log_probabilities(accurate, smooth, self.surrogate_alpha)",
         "mix_log_probabilities(accurate, smooth, self.alpha)"),
        ("self._bent(robust), robust, RAW_SHARE", "robust, self._bent(robust), RAW_SHARE"),
        ('traits = Traits(gradient="none")', "traits = Traits()"),
        ("scale * bent.sign() * bent.abs()", "scale * bent.abs()"),
        ("if logits.shape[1] == 2:", "if logits.shape[1] <= 3:"),
        ("return wide - wide.mean(1, keepdim=True)", "return 2.0 * wide"),
    ),
    *group(
        "nuts", "evaluation/nuts.py", "tests/evaluation/test_nuts.py",
        ("excess >= limit", "excess <= limit"),
        ("cutoff = margins[:, rows.needed - 1]", "cutoff = margins[:, -1]"),
        ("    if rows.as_printed:", "    if True:"),
        ("& (cutoff <= CUTOFFS[1])", ""),
        ("(raw[still])[::-1][needed - 1]", "(raw[still])[needed - 1]"),
        ("leads(h, y).min(1) <= 0.0", "leads(worst, y).min(1) <= 0.0"),
        ("alpha = needed_alpha(cutoff)", "alpha = 1.0 - cutoff"),
        ("float(gaps[rows.needed - 1])", "float(gaps[-1])"),
        ("return 2.0 * np.log(3.0) /", "return np.log(3.0) /"),
    ),
]  # fmt: skip

# those without a search for the smallest example come first
_BY_HAND = (
    "a_tie_is_no_win", "a_window_narrower_than_the_step_back_is_found", "the_largest_alpha_of_three_images",
    "the_smallest_alpha_of_four_margins", "a_network_that_tells_images_apart_raises_the_range",
    "scales_against_brute_force", "between_the_weights_named_mixing_does_help",
)  # fmt: skip
_CALIBRATION = "tests/evaluation/test_calibration.py"
CHOSEN = " ".join([*(f"{_CALIBRATION}::test_{name}" for name in _BY_HAND), _CALIBRATION])

CHOICE = [
    *group(
        "calibration", "evaluation/alpha_steps.py", CHOSEN,
        ("(alpha * margins > 1.0", "(alpha * margins >= 1.0"),
        ("cross, -1.0).max(1)", "cross, -1.0).min(1)"),
        ("cross, 2.0).min(1)", "cross, 2.0).max(1)"),
        ('np.searchsorted(highs, points, "right")', 'np.searchsorted(highs, points, "left")'),
        ('np.searchsorted(lows, points, "left")', 'np.searchsorted(lows, points, "right")'),
        ("np.minimum(BELOW, np.diff(ends) / 2)", "BELOW"),
        ("np.flatnonzero(enough).max()", "np.flatnonzero(enough).min()"),
        ("int(np.ceil(wanted * n - 1e-9))", "int(wanted * n)"),
        ("int(np.ceil(wanted * n - 1e-9))", "int(np.ceil(wanted * n))"),
    ),
    *group(
        "calibration", "evaluation/calibration.py", CHOSEN,
        ("low - width * u, high - width * u", "low - width * v, high - width * v"),
        ("enough_of(wanted, len(low)), 1.0 - width)", "enough_of(wanted, len(low)), 1.0)"),
        ("kept_by(m, least + width * v)", "kept_by(m, least + width * u)"),
        ("[::-1][enough_of(wanted, len(m)) - 1]", "[enough_of(wanted, len(m)) - 1]"),
        ("margin(softmax(hot * worst), y)", "margin(softmax(worst), y)"),
        ("if best is None or found[:2] > best[:2]:", "if best is None or found[1:3] > best[1:3]:"),
        ("low, high = b / (a + b) if", "low, high = a / (a + b) if"),
        ("b = 0.0 if np.isnan(b) else b", "pass"),
    ),
    *group(
        "calibration", "verbs/mix.py", "tests/verbs/test_mix.py",
        ('if plan.split != "val":', "if False:"),
        ("found.probability_margin_point", "found.adversarial"),
        ("said(robust, other)", "said(robust, own)"),
        ('"attack": registry.spec(attack), "seed": plan.seed,', '"seed": plan.seed,'),
        ('"data": data_hash(samples),', ""),
        ("narrowed.load_state_dict(model.state_dict())", "pass"),
    ),
    *group(
        "calibration", "verbs/mix.py",
        "tests/verbs/test_mix.py::test_a_choice_is_made_for_the_scaled_logits"
        " tests/verbs/test_mix.py::test_the_verdict_is_on_the_pair_in_its_order",
        ("softmax(sharp * logits.accurate), softmax(hot * logits.robust)",
         "softmax(hot * logits.accurate), softmax(sharp * logits.robust)"),
        ("margin(softmax(hot * logits.robust_attacked), labels)", "margin(softmax(logits.robust_attacked), labels)"),
        ("Mixture(found.alpha, sharp, hot).spec", "Mixture(found.alpha).spec"),
        ("calibration.mixability(g, own, h, other,", "calibration.mixability(h, other, g, own,"),
    ),
]  # fmt: skip

PROOFS = [
    *group(
        "proofs", "certificates/mixed.py", "tests/certificates/test_mixed.py",
        ("constants = 0.25 * seen", "constants = 0.2 * seen"),
        ("0.25 * seen.constants.pairwise.max(1)", "0.25 * seen.constants.pairwise.mean(1)"),
        ("constant = self._votes().noise.steepest", "constant = 2.0 * self._votes().noise.steepest"),
        ("return seen.alpha * lower, seen.alpha * upper", "return lower, seen.alpha * upper"),
        ("OfMix(seen, model.least_alpha,", "OfMix(seen, model.alpha,"),
        ("if not bool((left > 0.0).all()):", "if not bool((left > 0.0).any()):"),
        ("(alpha * (lipschitz_y + np.asarray(", "(alpha * (np.asarray("),
        ("- (1.0 - alpha) - margin\n", "- margin\n"),
        ("return [lower - upper], constant", "return [lower], constant"),
        ("if found > self.base.threat.eps else 0.0", "if found > 0.0 else 0.0"),
        ("or radius <= self.base.threat.eps\n", "or True\n"),
        ("if isinstance(self.base, LocalLipschitz) else model.robust", "if False else model.robust"),
    ),
    *group(
        "proofs", "certificates/local_lipschitz.py",
        "tests/certificates/test_local_lipschitz.py tests/certificates/test_mixed.py",
        ("return float(own + others.sum()) / len(clean)", "return float(own - others.sum()) / len(clean)"),
        ("early_stop=False, steps", "early_stop=True, steps"),
        (".argmin(0)", ".argmax(0)"),
        ("np.maximum(points.max(0) - clean, 0.0) / eps", "(points.max(0) - clean) / eps"),
        ("torch.where(labels == self.k, -value, value)", "value"),
        ("if y == ABSTAIN or radius > self.threat.eps:", "if y == ABSTAIN:"),
        ("clean.argmax(1), batch.ids)  # its own", "batch.labels, batch.ids)  # its own"),
        ('kind: ClassVar[Proof] = "estimate"', 'kind: ClassVar[Proof] = "deterministic"'),
    ),
    *group(
        "proofs", "verify/derive/mixes.py",
        "tests/test_verify.py"
        " tests/evaluation/test_units.py::test_a_path_without_a_certificate_counts_the_mixs_own_decisions",
        ("stats.logistic.pdf(0.0)", "stats.norm.pdf(0.0)"),
        ("speeds[top] = -change.min(0)[top] / radius", "pass"),
        ("found = 0.5 * float(law.ppf", "found = 1.0 * float(law.ppf"),
        ("np.array([2.0 * law_of(shared).pdf(0.0)", "np.array([law_of(shared).pdf(0.0)"),
        ("left - alpha * slopes * radius > 0.0", "left - slopes > 0.0"),
    ),
    *group(
        "proofs", "verify/proofs.py",
        "tests/test_verify.py"
        " tests/evaluation/test_units.py::test_a_path_without_a_certificate_counts_the_mixs_own_decisions",
        ('{"bound": part.unit["method"].get("bound", "exact")}', '{"bound": "exact"}'),
        ('if estimated and shared["eps"] != asked["threat"]["eps"]:', "if False:"),
    ),
    *group(
        "proofs", "verify/paths.py",
        "tests/test_verify.py"
        " tests/evaluation/test_units.py::test_a_path_without_a_certificate_counts_the_mixs_own_decisions",
        ("        yield from _path_problems(row)", "        pass"),
        ("(lead > 0.0) != bool(low < alpha < high)", "(lead > 0.0) > bool(low < alpha < high)"),
        ("(lead > 0.0) != bool(low < alpha < high)", "(lead > 0.0) < bool(low < alpha < high)"),
        ("(0.0, 0.5, 1.0, *ends)", "(0.0, 0.5, 1.0)"),
        ("derived is None or not derived * (1.0 - SLACK) <= recorded <= 1.0", "derived is None"),
        ("if top == row[\"label\"] and kept > 0.0", "if kept > 0.0"),
    ),
    *group(
        "proofs", "evaluation/alpha_path.py",
        "tests/evaluation/test_units.py::test_a_path_without_a_certificate_counts_the_mixs_own_decisions"
        " tests/test_verify.py::test_the_alpha_path_agrees_with_the_certificates"
        " tests/test_verify.py::test_no_weight_certifies_a_label_that_is_not_the_robust_models"
        " tests/test_verify.py::test_votes_have_no_alpha_path",
        ("model.accurate_scale * logits_of(model.accurate", "logits_of(model.accurate"),
        ("model.robust_scale * logits_of(model.robust", "logits_of(model.robust"),
        ('if certificate is not None and certificate.kind != "deterministic":', "if False:"),
        ("base.decision(seen.base) == y and not", "not"),
        ("needed_alpha(base.margin(seen.base, r))", "needed_alpha(base.margin(seen.base, 0.0))"),
    ),
]  # fmt: skip

BASELINES = [
    *group(
        "baselines", "defences/locally_biased.py", "tests/defences/test_locally_biased.py",
        ('return found + values if self.on == "probabilities" else found', "return found"),
        ("create_graph=differentiable, retain_graph", "create_graph=False, retain_graph"),
        ("values, direction = self._one(values), direction[:, 1:]",
         "values, direction = self._one(values), direction[:, :1]"),
        ("length = 0.5 * scaled.square()", "length = scaled.square()"),
        ("steep - lengths(robust)", "lengths(robust) - steep"),
        ("return largest.log().squeeze(1) + length", "return length"),
        ("accurate.max(1, keepdim=True).values", "robust.max(1, keepdim=True).values"),
    ),
    *group(
        "baselines", "defences/nearest_neighbour.py", "tests/defences/test_nearest_neighbour.py",
        ("torch.where(closer, start + own[place], index[:, c])", "torch.where(closer, own[place], index[:, c])"),
        ("closer = value < least[:, c]", "closer = value >= 0.0"),
        ('"l2": 2.0', '"l2": 1.0'),
        (".clamp_min(torch.finfo(change.dtype).tiny).sqrt()", ".sqrt()"),
        ('compute_mode="donot_use_mm_for_euclid_dist"', 'compute_mode="use_mm_for_euclid_dist"'),
    ),
    *group(
        "baselines", "defences/resized.py", "tests/defences/test_resized.py",
        ("antialias=shrinks", "antialias=False"),
        ("align_corners=False, antialias", "align_corners=True, antialias"),
        ("self.size[0] < height or self.size[1] < width", "self.size[0] < height and self.size[1] < width"),
        ("if (height, width) != self.size:", "if height != self.size[0]:"),
    ),
    *group(
        "baselines", "objectives/iaat.py", "tests/objectives/test_iaat.py",
        ("torch.where(stands_more, more, torch.where(stands, before, less))",
         "torch.where(stands, more, torch.where(stands_more, before, less))"),
        ("attacked = self._attacked(model, batch, budgets, randomness)",
         "attacked = self._attacked(model, batch, before, randomness)"),
        ("wanted = torch.where(right, wanted, torch.zeros_like(wanted))", "pass"),
        ("(1.0 - self.beta) * before + self.beta * wanted", "self.beta * before + (1.0 - self.beta) * wanted"),
        ("(before - gamma).clamp_min(0.0)", "before - gamma"),
        ("batch.labels, randomness, budgets)", "batch.labels, randomness)"),
        ("size.clamp_min(self.least_step)", "size"),
        ("context.whole(budgets).tolist()", "context.whole(before).tolist()"),
    ),
]  # fmt: skip

WORK = [
    *group(
        "work", "cli/options.py", "tests/training/test_precision.py",
        ('    if precision != "bfloat16":\n', "    if False:\n"),
        ("    if times > SLOW:", "    if True:"),
    ),
    *group(
        "work", "subjects.py", "tests/verbs/test_mix.py",
        ("if (dataset.input_shape, dataset.classes) != (own.input_shape, own.classes):", "if False:"),
        ('dict(found.recipe) | {"data": description}', "dict(found.recipe)"),
    ),
    *group(
        "work", "cli/mix.py", "tests/verbs/test_mix.py",
        ('        asking.check(cast("mixing.Kind", kind), wishes)', "        pass"),
    ),
    *group(
        "work", "evaluation/cost.py", "tests/evaluation/test_cost.py",
        ("asked = model if poll is None else poll.base", "asked = model"),
        ("if id(asked) not in known:", "if True:"),
    ),
    *group(
        "work", "verbs/sweep.py", "tests/verbs/test_sweep.py",
        ("        if key not in known:\n", "        if True:\n"),
        ("key = (cell.label, trained)", 'key = ("", trained)'),
        ("if first > LONG:", "if False:"),
        ("return there and run", "return run"),
        ('run.info.get("evaluated") == self.plan', '"evaluated" in run.info'),
        ("there = all((", "there = any(("),
    ),
    *group(
        "work", "evaluation/preflight.py",
        "tests/evaluation/test_preflight.py::test_passes_of_pgd_by_hand"
        " tests/evaluation/test_preflight.py::test_a_bill_is_passes_times_speed"
        " tests/evaluation/test_preflight.py::test_no_image_takes_more_than_the_bill",
        ("more = (length - enough)", "more = (length - less)"),
        ("5.0 * small.eps / norms", "0.5 * small.eps / norms"),
        ("speed.seconds(forwards, backwards)", "speed.seconds(0, backwards)"),
        ("sum(b for _, b in found)", "max(b for _, b in found)"),
    ),
]  # fmt: skip

MIXING: list[Mutant] = [*ADAPTIVE, *NUTS, *CHOICE, *PROOFS, *BASELINES, *WORK]
