"""Mutants of the door: models and data as a user names them, and what an evaluation of them refuses."""

from __future__ import annotations

from mutant import group

CHECKPOINT = "tests/models/test_checkpoint_file.py"
PROGRAM = "tests/models/test_program_file.py"
GIVEN = "tests/data/test_given.py"
EVALUATE = "tests/verbs/test_evaluate.py"
SOFTMAX = f"{PROGRAM}::test_an_onnx_file_that_ends_in_a_softmax_gives_logits_up_to_a_constant"
SUBJECTS = "tests/test_subjects.py"

DOOR = [
    *group(
        "door", "models/checkpoint_file.py", CHECKPOINT,
        ("map_location=\"cpu\", weights_only=True)", "map_location=\"cpu\", weights_only=False)"),
        ("    _check_fit(\n", "    (lambda *_: None)(\n"),
        ("if k in wanted and v.shape != wanted[k].shape]", "if k not in renamed]"),
        ("        if 2 * fit[0] <= len(wanted) or", "        if True or"),
        ("if 2 * fit[0] <= len(wanted) or fit < best", "if fit < best"),
        ("    if len(fitting) > 1:", "    if False:"),
        ("    if not others:", "    if True:"),
        ("    if likely and len(tensors) <= 1:", "    if likely and not tensors:"),
    ),
    *group(
        "door", "models/source.py", f"{PROGRAM}::test_a_program_is_opened_by_trust_alone",
        ("    trust.require_file(str(path), PROGRAM[kind])\n", ""),
    ),
    *group("door", "models/source.py", SUBJECTS, ("if not is_file(text) and Path(text).is_file():", "if False:")),
    *group("door", "trust.py", f"{PROGRAM}::test_a_program_is_opened_by_trust_alone",
           ("    if not trusted(path):", "    if False:")),
    *group(
        "door", "classifier.py", f"{PROGRAM}::test_a_file_saved_in_train_mode_shows_by_its_answers",
        ("    if is_random(model, images[:8]):\n", "    if False:\n"),
        ("        check_separate(model, images)\n    except", "        pass\n    except"),
    ),
    *group(
        "door", "models/onnx_file.py", SOFTMAX,
        ("partial(_logarithm, call) if _gives_probabilities(call, size) else call", "call"),
    ),
    *group(
        "door", "models/program_file.py", f"{PROGRAM}::test_an_export_of_two_rows_takes_five",
        ("if rows is None or rows == len(held):", "if True:"),
    ),
    *group(
        "door", "data/given.py", GIVEN,
        ("        if len(every) == 1:\n", "        if every:\n"),
        ("if own is not None and own <= LARGE else []", "if own is not None else []"),
        ("    if takes.tried(own, side) or not takes.tried(other, side):\n", "    if True:\n"),
        ("and not (data_root(None) / named).exists() else spec", "else spec"),
        ('{"test_fraction": 1.0, "val_fraction": 0.0}', "{}"),
    ),
    *group(
        "door", "data/folder.py", GIVEN,
        ('    if alone and set(names) <= {"test", "val", "extra"}:\n', "    if False:\n"),
    ),
    *group(
        "door", "verbs/evaluate.py", EVALUATE,
        ("    check_sense(*chosen, *judged, *proofs, shape=target.dataset.input_shape)\n", ""),
        ("    if bad is not None or found.speed is None:\n", "    if found.speed is None:\n"),
        ("return [] if isinstance(target.model, ScoresOnly) else [APGD(threat)]", "return [APGD(threat)]"),
        ("    if fitting:\n", "    if fixed:\n"),
        ("min(DIAGNOSED, len(_samples(target, plan)))", "DIAGNOSED"),
    ),
    *group(
        "door", "verbs/certify.py", "tests/cli/test_misuse.py::test_a_model_that_breaks_the_contract",
        ("    check_target(target, evaluation_samples(target.dataset, \"test\"))\n", "    pass\n"),
    ),
    *group(
        "door", "report/words.py", "tests/report/test_words.py",
        ('kind in ("scores", "decisions") for kind in known', 'kind == "" for kind in known'),
    ),
    *group("door", "verbs/attack.py", EVALUATE, ("    if isinstance(model, ScoresOnly):\n", "    if False:\n")),
    *group("door", "verbs/outcome.py", EVALUATE, ('"attacked": ("at most "', '"attacked": (""')),
    *group(
        "door", "subjects.py", SUBJECTS,
        ("        require(code)  # the run alone names it\n", "        pass\n"),
        ('    if "class" in named and not run.has_model:', "    if False:"),
        ("    if kept is not None and mine != kept:", "    if False:"),
    ),
]  # fmt: skip
