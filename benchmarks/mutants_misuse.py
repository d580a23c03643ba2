"""Mutants of the boundary: what is refused before anything is spent, what is left behind, and what is asked for."""

from __future__ import annotations

from mutant import Mutant

ASKED = "tests/cli/test_misuse.py::test_the_recipe_says_what_is_evaluated_and_options_replace_it"
NEXT = "tests/cli/test_misuse.py::test_every_next_line_works"
LEFT = "tests/cli/test_misuse.py::test_misuse_of_a_run_leaves_it_as_it_was"
PYTHON = "tests/test_boundary.py"
FOLDERS = "tests/cli/test_misuse.py::test_one_model_on_two_data_sets_has_two_folders"
KEEP = "tests/test_mixing.py::test_a_share_to_keep_is_that_share_of_the_accuracy_under_attack"


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
    Mutant("misuse", "models/own.py", "if isinstance(factory, nn.Module):", "if False:", PYTHON),
    Mutant(
        "misuse", "models/own.py",
        "except (Exception, SystemExit) as error:\n        raise failing",
        "except ImportError as error:\n        raise failing",
        contract("prefixed"),
    ),
    Mutant(
        "misuse", "mixing.py",
        "if outputs[0] != outputs[1]:",
        "if False:",
        typed("mix_--accurate_good_--robust_twenty_--alpha_0.5_FEW"),
    ),
    Mutant("misuse", "evaluation/units.py", "        self._work.begin()\n", "", "tests/test_subjects.py"),
    Mutant(
        "misuse", "subjects.py",
        "    run.check(recipe)\n",
        "    Run.create(run.path, recipe)\n",
        contract("broken"),
    ),
    Mutant("misuse", "subjects.py", "-{data['name']}{mark}", "", FOLDERS),
    Mutant(
        "misuse", "api.py",
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
    Mutant("misuse", "subjects.py", "if data is not None and _description(data) != known:", "if False:", LEFT),
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
    Mutant("misuse", "sweep.py", "if twice is not None:", "if False:", typed("sweep_twice.yaml_--dry-run")),
    Mutant(
        "misuse", "api.py",
        "!= value:\n            raise",
        "!= given:\n            raise",
        typed("train_mine.yaml_--set_model.num_classes=5"),
    ),
    Mutant("misuse", "mixing.py", "return value / base", "return value", KEEP),
    Mutant("misuse", "cli/mix.py", 'trusted = ["--trust-code"] if foreign else []', "trusted: list[str] = []", NEXT),
]
