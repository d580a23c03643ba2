"""Wrong versions of the checks of ``hauberk verify``."""

from __future__ import annotations

from mutant import Mutant, group

FORGED = "tests/audit/test_forgeries.py::test_the_files_show_it"


def forged(*names: str) -> str:
    """The forgeries that a check of the files must find."""
    return " ".join(f"{FORGED}[{name.replace(' ', '_')}]" for name in names)


VERIFIED: list[Mutant] = [
    Mutant("verify", "verify/plans.py", "if asked - ids:", "if False:", forged("one row removed")),
    Mutant("verify", "verify/plans.py", "if ids - asked:", "if False:", forged("ids invented")),
    Mutant("verify", "verify/run.py", "tuple((path.name, _content(path)) for path in files)", "()",
           "tests/audit/test_damage.py::test_a_report_verifies_a_run_once_and_again_after_any_change"),
    *group("verify", "verify/plans.py", "tests/audit/test_damage.py",
           ("span.stop < span.start or span.stop - span.start > MOST for", "False for")),
    *group("verify", "verify/plans.py", forged("an evaluation gone and its plan left"),
           ("    if lost:", "    if False:")),
    *group("verify", "verify/facts.py", forged("a stage of no suite", "only survivors of a stage of no suite"),
           ('if ("stage" in unit) != ("suite" in unit)', 'if False')),
    *group("verify", "verify/attacks.py", forged("a random model without draws"),
           ('bool(part.facts["stochastic"]) and drawn', 'bool(part.facts["stochastic"])')),
    *group("verify", "verify/diagnoses.py", forged("a check left out", "a check twice"),
           ("for n in _due(rows) if n not in names", "for n in ()"), ("if names.count(n) > 1", "if False")),
    *group("verify", "audit/data.py", "tests/audit/test_forgeries.py::test_the_data_shows_it",
           ('if p.kind != "diagnosis" and not hashed(p, dataset)', "if False")),
    *group("verify", "audit/again.py", "tests/audit/test_forgeries.py::test_the_weights_show_it",
           ("if part.unit.get(name, found) != found:", "if False:"),
           ('if bool(part.facts["stochastic"]) != (', 'if False and bool(part.facts["stochastic"]) != ('),
           ("if decides_itself(part) != isinstance(target.model, Decides):", "if False:")),
    *group("verify", "audit/attacks.py", "tests/audit/test_attacks_again.py",
           ("    if chance < ODD:", "    if False:")),
    Mutant("verify", "verify/rows.py", "if any(i is None or i < 0 for i in found):", "if False:",
           forged("a negative id")),
    Mutant("verify", "verify/rows.py", "if len(twice):", "if False:", forged("an id twice")),
    Mutant("verify", "verify/rows.py", "elif bool((ids[1:] < ids[:-1]).any()):", "elif False:",
           forged("rows in another order")),
    Mutant("verify", "verify/rows.py", "if v is None or not least <= v < classes]", "if v is None]",
           forged("class 99", "a prediction out of range")),
    Mutant("verify", "verify/rows.py", "if v is None or not least <= v < classes]",
           "if v is not None and v >= classes]",
           forged("a negative label")),
    *group(
        "verify", "verify/facts.py", forged("an unknown split"), ('if facts["split"] not in SPLITS:', "if False:"),
    ),
    *group(
        "verify", "verify/facts.py", forged("another data set everywhere", "data of the recipe"),
        ("if known and not any(", "if False and not any("),
    ),
    *group(
        "verify", "verify/facts.py", forged("another model's name", "predictor of the run"),
        ("if known and predictor not in _names(part, str(known)):", "if False:"),
    ),
    *group(
        "verify", "verify/facts.py", forged("other weights"),
        ('if known and weights is not None and part.unit["weights"] != weights:', "if False:"),
    ),
    *group(
        "verify", "verify/facts.py", forged("a split that the recipe does not plan"),
        ("if name in plan and plan[name] != value:", "if False:"),
    ),
    *group(
        "verify", "verify/facts.py", forged("a larger budget"),
        ('if where["threat"] != threat:', "if False:"),
    ),
    *group(
        "verify", "verify/facts.py", forged("alpha of a mix", "models of a mix"),
        ('if named != unit["predictor"]:', "if False:"),
    ),
    *group(
        "verify", "verify/facts.py", forged("alpha of a mix's evidence"),
        ('if proved and float(facts["shared"]["mix_alpha"]) != float(facts["alpha"]):', "if False:"),
    ),
    *group(
        "verify", "verify/facts.py", forged("alpha of a mix in the recipe"),
        ("if value and key in spec and not math.isclose(", "if False and not math.isclose("),
    ),
    *group(
        "verify", "verify/facts.py", forged("a changed configuration", "model of the recipe"),
        ("    if changed:", "    if False:"),
    ),
    *group(
        "verify", "verify/attacks.py", forged("success taken back"),
        ("yield self.success != (wrong_before | changed)", "yield self.success & ~(wrong_before | changed)"),
    ),
    *group(
        "verify", "verify/attacks.py", forged("a survivor against its margins"),
        ("nothing = ~self.success & ~left_alone & seen", "nothing = ~self.success & False"),
    ),
    *group(
        "verify", "verify/attacks.py", forged("a larger margin of a survivor"),
        ("yield probability > own - rival + ROUNDING", "yield probability > 2.0"),
    ),
    *group(
        "verify", "verify/attacks.py", forged("a larger logit margin of a survivor"),
        ("more = ~left_alone & (logit > gap + 0.01 * (1.0 + abs(gap)))", "more = logit > np.inf"),
    ),
    *group(
        "verify", "verify/attacks.py", forged("no forward passes"),
        ("yield self.forwards < 1,", "yield self.forwards < 0,"),
    ),
    *group(
        "verify", "verify/attacks.py", forged("other probabilities at the point"),
        ("yield (decided >= 0) & behind,", "yield (decided < -1) & behind,"),
    ),
    *group(
        "verify", "verify/attacks.py", forged("a kept point that is the image"),
        ("if abs(length[norm] - distance) > 1e-6 * max(1.0, eps):", "if False:"),
    ),
    *group(
        "verify", "verify/attacks.py", forged("a kept picture cut short"),
        ("if None in pictures or {len(p) for p in pictures} != {4 * int(np.prod(shape))}:", "if None in pictures:"),
    ),
    *group(
        "verify", "verify/together.py", forged("logits x5 beside an attack"),
        ("far = held & (abs(said - found.table(", "far = held & False & (abs(said - found.table("),
    ),
    *group(
        "verify", "verify/together.py", forged("the last stage dropped"),
        ("        if found != left:", "        if found - left:"),
    ),
    *group(
        "verify", "verify/together.py", forged("a stage of another number"),
        ("if late or 0 not in stages:", "if False:"),
    ),
    *group(
        "verify", "verify/together.py", forged("labels of a mix set to predictions"),
        ("        if two:\n", "        if False:\n"),
    ),
    *group(
        "verify", "verify/diagnoses.py", forged("a verdict of a diagnosis"),
        ('if (verdict == "sound") != (sign * value <= sign * sound):', "if False:"),
    ),
    *group(
        "verify", "verify/diagnoses.py", forged("a limit of a diagnosis"),
        ('if row["threshold"] != sound:', "if False:"),
    ),
    *group(
        "verify", "audit/data.py", "tests/audit/test_forgeries.py::test_the_data_shows_it"
        " tests/audit/test_forgeries.py::test_the_data_names_what_was_invented",
        ("    if invented:\n", "    if False:\n"),
        ("    if wrong.any():\n", "    if False:\n"),
        ("    if other:\n", "    if False:\n"),
    ),
    *group(
        "verify", "audit/certificates.py", "tests/audit/test_forgeries.py::test_the_weights_show_it",
        ("abs(old - new).max() > CLOSE * max(1.0, abs(new).max())", "False"),
        ("or not np.allclose(old, new, rtol=CLOSE, atol=0.0)", ""),
    ),
    *group(
        "verify", "audit/votes.py", "tests/audit/test_votes.py",
        ("    if wrong.any():\n", "    if False:\n"),
        ("stats.norm.sf(ahead / np.sqrt(variance)) < LEVEL", "False"),
        ("np.arange(len(values), 0, -1)", "1.0"),
        ("chosen = int(np.argmax(recorded[\"counts0\"]))", "chosen = int(np.argmax(fresh[\"counts0\"]))"),
    ),
    *group(
        "verify", "audit/attacks.py", "tests/audit/test_attacks_again.py"
        " tests/audit/test_forgeries.py::test_the_weights_show_it",
        ("    if chance < LEVEL:", "    if False:"),
        ("    if _same_machine(target) and", "    if False and"),
        ("    if _same_machine(target) and", "    if True and"),
        ('same_code = part.unit.get("revisions") == revisions_today(part)', "same_code = True"),
        ("clear & (said != np.asarray(", "False & (said != np.asarray("),
    ),
    *group(
        "verify", "audit/again.py", "tests/audit/test_attacks_again.py::test_the_sample_is_the_verifiers",
        ("picked = ids if rows is None or rows >= len(ids)", "picked = ids if True or rows >= len(ids)"),
    ),
]  # fmt: skip
