"""Wrong versions of the detector, the diagnosis of an evaluation, its metrics and its stages."""

from __future__ import annotations

from mutant import Mutant, group

DETECTOR = [
    *group(
        "detector", "defences/detector.py", "tests/defences/test_detector.py",
        ('told["detector"] <= told["threshold"]', 'told["detector"] < told["threshold"]'),
        ('told["detector"] <= told["threshold"]', '~(told["detector"] > told["threshold"])'),
        ("int(false_positives * len(clean))", "round(false_positives * len(clean))"),
        ("scores.sort(descending=True)", "scores.sort(descending=False)"),
        ('["detector"][:used]', '["detector"]'),
        ('model.spec = model.spec | {"threshold": model.threshold}', "pass"),
        ("(1.0 - self.weight) * fooled", "self.weight * fooled"),
        ('(outputs["threshold"] - outputs["detector"])', '(outputs["detector"] - outputs["threshold"])'),
        ("a.clamp_max(0.0) + b.clamp_max(0.0)", "a + b"),
        ("torch.minimum(a, b)", "torch.maximum(a, b)"),
        ("if targets is None:", "if True:"),
    ),
    *group(
        "detector", "objectives/detector.py", "tests/objectives/test_detector.py",
        ("functional.softplus(-under_attack)", "functional.softplus(under_attack)"),
        ("scores[: len(batch)], scores[len(batch) :]", "scores[len(batch) :], scores[: len(batch)]"),
        ("torch.cat([batch.images, attacked])", "torch.cat([batch.images, batch.images])"),
        ("with torch.no_grad(), evaluating(model.base):", "with torch.no_grad():"),
        ("with torch.no_grad(), evaluating(model.base):", "with evaluating(model.base):"),
        ("(under_attack.detach() > 0)", "(under_attack.detach() < 0)"),
    ),
]  # fmt: skip

BINARISATION = group(
    "diagnosis", "evaluation/binarisation.py", "tests/evaluation/test_binarisation.py",
    ("offset = top_score - GAP * gap", "offset = top_score + GAP * gap"),
    ("scale = own / offset.clamp_min(1e-300)", "scale = torch.ones_like(offset)"),
    ("found[planted] |= query.misclassified", "found[planted] = query.misclassified"),
    ("share * threat.eps * direction", "threat.eps * direction"),
    ('aim / norms(aim, "l1")', 'aim / norms(aim, "l2")'),
    ("planted[:, None]], 1) - inner.mean(1, keepdim=True)", "planted[:, None]], 1)"),
    ("dim1=1, dim2=2).mean(1)", "dim1=1, dim2=2).sum(1)"),
    ("target[:, -1] = 1.0", "target[:, :-1] = 1.0"),
    ("self.model.rows = rows  # type: ignore[assignment]\n        return",
     "self.model.rows = slice(0, len(points))\n        return"),
    ("labels = torch.zeros_like(batch.labels)", "labels = torch.ones_like(batch.labels)"),
    ("or sum(m is last[-1][0] for m, _ in last) > 1", ""),
)  # fmt: skip

CHECKS = "tests/evaluation/test_diagnostics.py::test_"


def _checks(file: str, *changes: tuple[str, str, str]) -> list[Mutant]:
    """Each change with the one test that must see it."""
    return [Mutant("diagnosis", f"evaluation/{file}", old, new, CHECKS + test) for test, old, new in changes]


DIAGNOSIS = [
    *_checks(
        "indicators.py",
        ("a_value_is_graded_by_its_limits", "broken is not None and broken < sound", "False"),
        ("a_value_is_graded_by_its_limits", "0 if sign * value <= sign * sound", "0 if sign * value < sign * sound"),
        ("a_check_may_be_capped", "ORDER[min(level, ORDER.index(worst))]", "ORDER[level]"),
        ("cross_entropy_is_softplus_of_the_odds", "logits.scatter(1, labels[:, None], -torch.inf)", "logits"),
        ("the_spread_that_randomness_is_held_against_is_the_mean_one", "_spread(first).mean()", "_spread(first).max()"),
        ("a_ceiling_is_counted", "float(at_ceiling.sum() - 1)", "float(at_ceiling.sum())"),
        ("a_ceiling_is_counted", "0.01 * (high - low)", "0.1 * (high - low)"),
        ("a_zero_gradient_in_the_ball_counts_as_one_at_the_image", "flat[0] | flat[1]", "flat[0] & flat[1]"),
        ("a_zero_gradient_in_the_ball_counts_as_one_at_the_image", "flat[0] | flat[1]", "flat[0]"),
        ("the_gradient_of_another_loss_only_makes_it_questionable", 'f"avoid the {name} loss", "questionable"',
         'f"avoid the {name} loss"'),
        ("a_small_gradient_that_keeps_its_direction_is_sound", "(cosine < 0.9)", "(cosine > 0.9)"),
        ("a_small_gradient_that_keeps_its_direction_is_sound", "(_unit(rounded), _unit(exact), dim=1)",
         "(rounded, exact, dim=1)"),
        ("gradients_are_compared_with_finite_differences", "(ahead - behind).double())", "(ahead - images).double())"),
        ("gradients_are_compared_with_finite_differences", "size[min(k, 1)] += actual.abs() + predicted.abs()",
         "size[min(k, 1)] += 2.0 * actual.abs()"),
        ("a_declared_surrogate_is_not_called_broken", '"broken" if exact else "questionable"', '"broken"'),
        ("neighbours_move_the_margin_by_its_slope", "draws, NEAR * subject.threat.eps)", "draws)"),
        ("neighbours_move_the_margin_by_its_slope", "- here).abs() / spread", "- here).abs()"),
    ),
    *_checks(
        "diagnostics.py",
        ("the_worst_check_decides_and_its_reason_comes_first", "return max((c.verdict", "return min((c.verdict"),
        ("a_loss_that_still_rises_is_counted", ".cummax(0).values", ""),
        ("a_rise_is_held_against_the_whole_rise_and_not_the_loss", "late > 0.05 * (best[-1] - best[0])",
         "late > 0.05 * best[-1]"),
        ("a_loss_that_still_rises_is_counted", "round(0.1 * len(best))", "round(0.5 * len(best))"),
        ("an_idle_attack_is_beaten_by_everybody", "missed = ~result.success", "missed = result.success"),
        ("what_a_stronger_attack_finds_is_told", '["stronger_attack"] = (strong,', '["stronger_attack"] = (attack,'),
        ("points_of_a_surrogate_are_tried", "replace(rest, model=surrogate)", "rest"),
        ("a_hidden_success_is_seen[16]", "(traces.misclassified & missed)", "(~traces.misclassified & missed)"),
        ("a_linear_model_is_sound[linf:0.05]", "(traces.misclassified & missed)", "traces.misclassified"),
        ("too_few_steps_are_seen[16]", "steps=2 * _steps(attack)", "steps=_steps(attack)"),
        ("only_images_that_are_right_are_judged", "batch.select(right), threat", "batch, threat"),
        ("the_budget_grows_and_so_does_the_step", "size * budget / attack.threat.eps", "size"),
        ("accuracy_that_rises_with_the_budget_is_counted", '"l2": pixels**0.5', '"l2": float(pixels)'),
        ("accuracy_that_rises_with_the_budget_is_counted", "after - min(accuracies[: k + 1])",
         "after - max(accuracies[: k + 1])"),
        ("the_cost_is_an_upper_bound_that_is_nearly_met", "2 * around + QUERIES + RANDOM_POINTS",
         "2 * around + RANDOM_POINTS"),
        ("a_model_without_a_graph_has_zero_gradients", "0.0 * images.flatten(1)", "1.0 * images.flatten(1)"),
    ),
]  # fmt: skip

METRICS = [
    *group(
        "metrics", "evaluation/metrics.py", "tests/evaluation/test_metrics.py",
        ("[_share(c & (d > budget))", "[_share(c & (d >= budget))"),
        ("[_share(c & (d > budget))", "[_share(d > budget)"),
        ("return median_interval(d[c])", "return median_interval(d[c & np.isfinite(d)])"),
        ("return median_interval(d[c])", "return median_interval(d)"),
        ("lead: Floats = top[:, 1] - top[:, 0]", "lead: Floats = top[:, 1]"),
        ("(left, still), (left, ~still)", "(left, right), (left, ~right)"),
        ("left = np.where(still, np.minimum(left, ", "left = np.where(still, np.maximum(left, "),
        ("left = np.where(still, np.minimum(", "left = np.where(right, np.minimum("),
        ("return _share(~_bools(survived))", "return _share(_bools(survived))"),
        ("np.where(s, 0.0, d)", "np.where(s, 0.0, 1.0)"),
        ("return _share(g | h)", "return _share(g & h)"),
        ("_share(own > rival)", "_share(own >= rival)"),
        ("_share(own == drawn.shape[1])", "_share(own > 0)"),
        ("np.where(right, 0, votes)", "np.where(right | (drawn < 0), 0, votes)"),
    ),
    *group(
        "metrics", "evaluation/units.py", "tests/evaluation/test_units.py::test_stages_see_survivors_alone",
        ('[~found[-1].column("success").astype(bool)]', ""),
        ('[~found[-1].column("success").astype(bool)]', '[found.column("success").astype(bool)]'),
        ('"stage": number}', '"stage": 0}'),
    ),
    *group(
        "metrics", "evaluation/alpha_steps.py",
        "tests/evaluation/test_units.py::test_the_interval_where_a_mix_is_right_agrees_with_a_scan",
        ("(end > 0.0), cross, -1.0).max(1)", "(end > 0.0), cross, -1.0).min(1)"),
        ("cross = start / (start - end)", "cross = end / (end - start)"),
        ("never = ((start <= 0.0) & (end <= 0.0)).any(1)", "never = ((start <= 0.0) & (end < -1.0)).any(1)"),
    ),
]  # fmt: skip

EVALUATION: list[Mutant] = [*DETECTOR, *BINARISATION, *DIAGNOSIS, *METRICS]
