"""Mutants of the boundary: what is refused before anything is spent, what is left behind, and what is asked for."""

from __future__ import annotations

from mutant import Mutant

ASKED = "tests/cli/test_misuse.py::test_the_recipe_says_what_is_evaluated_and_options_replace_it"
NEXT = "tests/cli/test_misuse.py::test_every_next_line_works"
LEFT = "tests/cli/test_misuse.py::test_misuse_of_a_run_leaves_it_as_it_was"
PYTHON = "tests/test_boundary.py"
FOLDERS = "tests/cli/test_misuse.py::test_one_model_on_two_data_sets_has_two_folders"
KEEP = "tests/verbs/test_mix.py::test_a_share_to_keep_is_that_share_of_the_accuracy_under_attack"
PLACES = "tests/cli/test_places.py::"
FOLDER = "tests/data/test_folder.py::"


def typed(line: str) -> str:
    """The test of one misuse."""
    return f"tests/cli/test_misuse.py::test_a_misuse[{line}]"


def contract(model: str) -> str:
    """The tests of one model that breaks the contract."""
    test = "tests/cli/test_misuse.py::test_a_model_that_breaks_the_contract"
    return f"{test}[{model}-another_verb] {test}[{model}-check]"


MISUSE = [
    Mutant("misuse", "boundary.py", "if not isinstance(logits, Tensor):", "if False:", PYTHON),
    Mutant("misuse", "boundary.py", "or dtype not in (None, logits.dtype)", "", PYTHON),
    Mutant(
        "misuse", "boundary.py", "logits.layout != torch.strided or ", "", f"{PYTHON}::test_an_answer_of_another_kind"
    ),
    Mutant(
        "misuse", "boundary.py", "if bool(logits.max(1).values.isinf().any()):", "if False:",
        f"{PYTHON}::test_an_answer_of_another_kind",
    ),
    Mutant(
        "misuse", "boundary.py", "if bool(logits.max(1).values.isinf().any()):", "if bool(logits.isinf().any()):",
        f"{PYTHON}::test_a_class_that_is_ruled_out_may_be_infinitely_unlikely",
    ),
    Mutant(
        "misuse", "models/own.py", 'if getattr(made, "_modules", None) is None:', "if False:",
        f"{PYTHON}::test_a_module_without_the_inside_of_one",
    ),
    Mutant(
        "misuse", "certificates/gate.py", "    check_uncompiled(model)\n", "",
        f"{PYTHON}::test_a_traced_model_is_not_walked",
    ),
    Mutant(
        "misuse", "runs.py", "            check_own(self.path, PARTS)\n", "            pass\n",
        f"{PLACES}test_a_folder_that_holds_something_else_stays_as_it_is",
    ),
    Mutant(
        "misuse", "storage.py", "name not in parts and ", "", f"{PLACES}test_what_a_kill_left_of_a_run_is_gone_on_with"
    ),
    Mutant(
        "misuse", "cli/options.py", 'strip("./ ")', 'strip(". ")',
        f"{PLACES}test_a_run_is_in_no_folder_that_is_everybodys",
    ),
    Mutant(
        "misuse", "cli/options.py", "    return os.path.expanduser(path)", "    return path",
        f"{PLACES}test_a_tilde_is_the_home_folder",
    ),
    Mutant(
        "misuse", "verbs/mix.py", '"runs/.calibration"', '"runs/calibration"',
        f"{PLACES}test_a_wish_that_fails_leaves_no_run_and_a_mix_says_what_its_data_is",
    ),
    Mutant(
        "misuse", "verbs/mix.py", "notes=list(like.dataset.notes)", "notes=[]",
        f"{PLACES}test_a_wish_that_fails_leaves_no_run_and_a_mix_says_what_its_data_is",
    ),
    Mutant(
        "misuse", "evaluation/sense.py", "if sigma > MOST_NOISE:", "if False:",
        "tests/evaluation/test_sense.py::test_noise_that_hides_every_image_is_refused",
    ),
    Mutant(
        "misuse", "data/folder.py", "    _check_names(base)\n", "",
        f"{FOLDER}test_a_split_under_another_name_is_not_passed_over",
    ),
    Mutant(
        "misuse", "data/folder.py", "Field(ge=1, le=MOST)", "Field(ge=1, le=10**6)",
        f"{FOLDER}test_an_image_is_of_a_size_that_a_machine_can_hold",
    ),
    Mutant("misuse", "boundary.py", "if outputs < num_classes:", "if outputs < 2:", contract("five")),
    Mutant(
        "misuse", "boundary.py",
        "if images.dtype not in (torch.float32, torch.float64):",
        "if not images.is_floating_point():",
        PYTHON,
    ),
    Mutant(
        "misuse", "boundary.py",
        "if values.shape == (rows,) and values.dtype == torch.int64:",
        "if values.dtype == torch.int64:",
        PYTHON,
    ),
    Mutant(
        "misuse", "boundary.py",
        "if not isinstance(value, Tensor) or value.is_quantized or value.is_sparse:",
        "if isinstance(value, Tensor) and value.is_sparse:",
        contract("quantised"),
    ),
    Mutant("misuse", "boundary.py", "if isinstance(module, torch.jit.ScriptModule):", "if False:", PYTHON),
    Mutant("misuse", "boundary.py", "    if not value.requires_grad or", "    if", PYTHON),
    Mutant(
        "misuse", "attacks/query.py",
        "if gradient is None:\n            raise no_gradient()",
        "if gradient is None:\n            gradient = torch.zeros_like(leaf)",
        typed("attack_detached_ATTACK"),
    ),
    Mutant("misuse", "classifier.py", "    check_weights(model)\n", "", PYTHON),
    Mutant(
        "misuse", "verbs/sweep.py", "        Run(cell.path).check(cell.recipe.plain(), completed)\n", "        pass\n",
        "tests/verbs/test_sweep.py::test_a_table_does_not_show_runs_of_other_recipes",
    ),
    Mutant(
        "misuse", "report/bundle.py", "    _check_signed(run)\n", "",
        "tests/report/test_bundle.py::test_a_record_that_changed_is_not_signed_anew",
    ),
    Mutant(
        "misuse", "data/arrays.py", "64.0 * np.finfo", "512.0 * np.finfo",
        "tests/data/test_npz.py::test_half_precision_moves_no_image_further",
    ),
    Mutant(
        "misuse", "data/dataset.py", "        if twice:\n", "        if False:\n",
        "tests/data/test_npz.py::test_class_names",
    ),
    Mutant("misuse", "recipes.py", "name.isdecimal()", "name.isdigit()", "tests/test_recipes.py"),
    Mutant(
        "misuse", "cli/options.py", " or _even(found[-1])", "", f"{PLACES}test_a_next_line_says_a_setting_as_it_was"
    ),
    Mutant("misuse", "boundary.py", "= model(images.clone())", "= model(images)", PYTHON),
    Mutant("misuse", "boundary.py", "logits.clone() if isinstance(logits, Tensor) else logits", "logits", PYTHON),
    Mutant(
        "misuse", "draws.py", "torch.equal(called(model, images), called(model, images))",
        "torch.equal(model(images), model(images))", PYTHON,
    ),
    Mutant("misuse", "attacks/query.py", "return called(net, points)", "return net(points)", PYTHON),
    Mutant("misuse", "classifier.py", "if bool(apart > APART) and", "if False and", PYTHON),
    Mutant("misuse", "classifier.py", "and not is_random(model, few, PROBES):", "and True:", PYTHON),
    Mutant(
        "misuse", "verbs/samples.py", "    check_separate(target.model, first.images, tile)\n", "",
        typed("attack_Crowd_ATTACK"),
    ),
    Mutant("misuse", "models/own.py", "if isinstance(factory, nn.Module):", "if False:", PYTHON),
    Mutant(
        "misuse", "models/own.py",
        "except (Exception, SystemExit) as error:\n        raise failing",
        "except ImportError as error:\n        raise failing",
        contract("prefixed"),
    ),
    Mutant(
        "misuse", "verbs/mix.py",
        "if outputs[0] != outputs[1]:",
        "if False:",
        typed("mix_--accurate_good_--robust_twenty_--alpha_0.5_FEW"),
    ),
    Mutant("misuse", "evaluation/work.py", "        self._work.begin()\n", "", "tests/test_subjects.py"),
    Mutant(
        "misuse", "subjects.py",
        "    run.check(recipe)\n",
        "    Run.create(run.path, recipe)\n",
        contract("broken"),
    ),
    Mutant("misuse", "subjects.py", "{Path(str(place)).stem if place else data['name']}{mark}", "", FOLDERS),
    Mutant(
        "misuse", "verbs/train.py",
        "        if new and is_main():\n            run.abandon()\n",
        "",
        typed("train_mine.yaml_--set_training.batch_size=100000"),
    ),
    Mutant(
        "misuse", "cli/report.py",
        "next(name for name in names if not name.exists())",
        "next(names)",
        "tests/cli/test_misuse.py::test_a_report_without_a_name_is_a_new_file_here",
    ),
    Mutant("misuse", "subjects.py", "if data is not None and not _same(_description(data), known):", "if False:", LEFT),
    Mutant("misuse", "cli/options.py", 'dict(recipe.get("evaluation", {})) | changed', "changed", ASKED),
    Mutant("misuse", "cli/options.py", "if number < 1:", "if number < 0:", typed("attack_good_ATTACK_--images_0")),
    Mutant(
        "misuse", "cli/options.py",
        "        if own != value:\n",
        "        if False:\n",
        typed("attack_good_FEW_--threat_linf:0.1_--attack_fgsm,threat=l2:1"),
    ),
    Mutant(
        "misuse", "cli/options.py",
        "    if key in spec:",
        "    if False:",
        typed("attack_good_FEW_--threat_linf:0.1_--attack_pgd,steps=3,steps=4"),
    ),
    Mutant(
        "misuse", "cli/options.py",
        "math.isfinite(value) and least <= value <= most",
        "not value < least",
        typed("sweep_once.yaml_--budget_nan"),
    ),
    Mutant(
        "misuse", "cli/command.py",
        "if single and order.count(param) > 1:",
        "if False:",
        typed("attack_good_ATTACK_--images_5_--images_6"),
    ),
    Mutant(
        "misuse", "recipes.py",
        "if twice is not None:",
        "if False:",
        typed("train_mine.yaml_--set_seed=1_--set_seed=2"),
    ),
    Mutant("misuse", "verbs/sweep.py", "if twice is not None:", "if False:", typed("sweep_twice.yaml_--dry-run")),
    Mutant(
        "misuse", "verbs/train.py",
        "!= value:\n            raise",
        "!= given:\n            raise",
        typed("train_mine.yaml_--set_model.num_classes=5"),
    ),
    Mutant("misuse", "verbs/wishes.py", "return value / base", "return value", KEEP),
    Mutant("misuse", "cli/mix.py", 'trusted = ["--trust-code"] if foreign else []', "trusted: list[str] = []", NEXT),
]
