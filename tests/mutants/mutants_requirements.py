"""Mutants of the gate: what may pass, what must not, and which exit code says so."""

from __future__ import annotations

from mutant import Mutant

GATE = "tests/verbs/test_gate.py::"
UPPER = f"{GATE}test_a_robust_accuracy_is_an_upper_bound"
CODES = f"{GATE}test_exit_codes_reasons_and_junit"
DROP = "tests/comparison/test_drop.py::test_exact_counts"


def mutant(file: str, old: str, new: str, tests: str) -> Mutant:
    """One of the gate's."""
    return Mutant("requirements", file, old, new, tests)


REQUIREMENTS = [
    mutant("verbs/gate.py", "found.value.low if requirement.lower else", "found.value.value if requirement.lower else",
           f"{GATE}test_the_estimate_or_its_lower_limit_must_reach_the_number"),
    mutant("verbs/gate.py", "    if problems:\n", "    if False:\n",
           f"{GATE}test_records_that_do_not_verify_tell_nothing"),
    mutant("verbs/gate.py", "    if found.doubt:\n", "    if False:\n", UPPER),
    mutant("verbs/gate.py", 'first.verdict == "sound" or first.verdict in here.allowed', "True", UPPER),
    mutant("verbs/gate.py", "if (j.norm, j.eps) == (quantity.norm, quantity.eps)]", "]", UPPER),
    mutant("verbs/gate.py", "key=lambda eps: abs(eps - quantity.eps), ", "",
           f"{GATE}test_a_budget_is_that_of_the_record_which_prints_the_same"),
    mutant("verbs/gate.py", "if attacked and quantity.eps > typed:", "if False:",
           f"{GATE}test_a_record_at_a_larger_budget_does_not_fail_a_smaller_one"),
    mutant("verbs/gate.py", "if not Run(self.path).has_model:", "if False:",
           f"{GATE}test_a_bundle_without_weights_gets_no_command_that_needs_them"),
    mutant("comparison/baseline.py", "        if problem:\n", "        if False:\n",
           f"{GATE}test_records_that_do_not_verify_are_compared_with_nothing"),
    mutant("comparison/baseline.py", "    if not named:\n", "    if False:\n",
           f"{GATE}test_proofs_without_a_radius_ask_for_one"),
    mutant("verbs/gate.py", '("fail", "cannot tell", "pass")\n    return',
           '("cannot tell", "fail", "pass")\n    return',
           CODES),
    mutant("comparison/baseline.py", 'if found.verdict == "pass" and effect.fewer:', "if False:",
           f"{GATE}test_a_run_against_itself_and_against_another"),
    mutant("cli/gate.py", "raise typer.Exit(NOT_APPLIED)", "raise typer.Exit(1)",
           f"{GATE}test_what_cannot_be_judged_has_the_code_of_a_usage_error"),
    mutant("comparison/drop.py", "lost > won and p <= 2.0 * alpha", "lost > won and p <= 4.0 * alpha", DROP),
    mutant("comparison/drop.py", "lost > won and p", "p", DROP),
    mutant("comparison/drop.py", 'if change.low > -(tolerated + unseen) else', 'if True else', DROP),
    mutant("comparison/drop.py", "change.high < -tolerated", "change.value < -tolerated", DROP),
    mutant("verbs/gate.py", "    if len(met) > 1:", "    if False:",
           f"{GATE}test_requirements_that_two_predictors_meet_are_not_met_by_one"),
    mutant("report/bundle.py", "    if size > MOST_BYTES:", "    if False:",
           "tests/report/test_bundle.py::test_small_weights_come_along_where_they_are_asked_for"),
]  # fmt: skip
