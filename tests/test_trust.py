"""A file alone runs no code: specs are looked at as data, and code from outside runs when the user names it."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from hauberk import recipes, registry
from hauberk.errors import HauberkError
from hauberk.records import content_hash
from hauberk.subjects import subject
from hauberk.trust import trusting

Typed = Callable[..., tuple[int, str]]

SOURCE = "evil_module:build"
OWN = {"name": "own", "source": SOURCE}


@pytest.fixture
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that appears if the planted module of the current folder is imported."""
    here, found = tmp_path / "here", tmp_path / "code-ran"
    here.mkdir()
    (here / "evil_module.py").write_text(
        f"import pathlib\nimport torch\npathlib.Path({str(found)!r}).touch()\n"
        "def build():\n    torch.manual_seed(0)\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))\n"
    )
    monkeypatch.chdir(here)
    sys.modules.pop("evil_module", None)
    return found


@pytest.fixture
def stranger(tiny_run: Path, tmp_path: Path) -> Path:
    """A stranger's run whose config.json names code."""
    path = Path(shutil.copytree(tiny_run, tmp_path / "stranger"))
    config = json.loads((path / "checkpoints" / "config.json").read_text()) | {"spec": OWN}
    (path / "checkpoints" / "config.json").write_text(json.dumps(config))
    info = json.loads((path / "run.json").read_text())
    info["hashes"]["config"] = content_hash(config)  # who writes the one can write the other
    (path / "run.json").write_text(json.dumps(info))
    return path


@pytest.mark.parametrize(
    "verb",
    ["attack RUN --threat linf:0.1 --attack fgsm --images 4", "certify RUN --images 4", "check RUN", "lipschitz RUN",
     "mix --accurate RUN --robust RUN --alpha 0.5", "mix --network RUN --clean 0.5", "verify RUN --weights"],
)  # fmt: skip
def test_no_verb_runs_the_code_that_a_run_names(verb: str, stranger: Path, marker: Path, typed: Typed) -> None:
    code, text = typed(*verb.replace("RUN", str(stranger)).split())
    assert code == 1
    assert "runs only if you trust it" in text or verb.startswith("verify")  # which has found another fault before
    assert not marker.exists()


def recipe(tiny_recipe: Path, **changes: Any) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(tiny_recipe.read_text())
    return content | changes


PLACES: dict[str, dict[str, Any]] = {
    "the model": {"model": OWN},
    "the base of a defence": {"model": {"name": "mixed", "accurate": OWN, "robust": OWN, "alpha": 0.5}},
    "a setting that there is not": {
        "evaluation": {"attacks": [{"name": "pgd", "threat": "linf:0.1", "planted": OWN}]}
    },
    "a setting of another kind": {"evaluation": {"attacks": [{"name": "pgd", "threat": "linf:0.1", "steps": OWN}]}},
    "a list in a list": {"objective": {"name": "standard", "label_smoothing": [[OWN]]}},
    "the data": {"data": {"name": "digits", "root": OWN}},
    "a wrap": {"wrap": {"name": "smoothed", "sigma": 0.25, "base": OWN}},
    "the validation attack": {"training": {"validation_attack": {"name": "fgsm", "threat": "linf:0.1", "loss": OWN}}},
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("verb", ["train", "sweep --dry-run"])
def test_no_recipe_runs_code(
    place: str, verb: str, tiny_recipe: Path, tmp_path: Path, marker: Path, typed: Typed
) -> None:
    file = tmp_path / "planted.yaml"
    file.write_text(yaml.safe_dump(recipe(tiny_recipe, **PLACES[place])))
    if verb.startswith("sweep"):
        table = tmp_path / "table.yaml"
        table.write_text(yaml.safe_dump({"name": "table", "rows": [{"recipe": str(file)}]}))
        file = table
    code, text = typed(*verb.split(), file, "-o", tmp_path / "out")
    assert code == 1
    assert "error:" in text
    assert not marker.exists()


def test_the_user_may_name_the_code_or_trust_it(tiny_recipe: Path, tmp_path: Path, marker: Path, typed: Typed) -> None:
    arguments = ("--data", "digits", "--threat", "linf:0.1", "--attack", "fgsm", "--images", 4)
    code, text = typed("attack", SOURCE, *arguments, "-o", tmp_path / "typed")
    assert code == 0, text
    assert marker.exists()
    file = tmp_path / "own.yaml"
    file.write_text(yaml.safe_dump(recipe(tiny_recipe, model={"name": "own", "source": "another:build"})))
    few = ("--set", "training.epochs=1", "--set", "training.steps_per_epoch=1")
    code, text = typed("train", file, *few, "--set", f"model.source={SOURCE}", "-o", tmp_path / "set")
    assert code == 0, text
    code, text = typed("check", tmp_path / "set")  # the run names it now, and a file alone runs no code
    assert code == 1
    assert "--trust-code" in text
    assert "--trust-code" not in typed("check", tmp_path / "set", "--trust-code")[1]
    assert not any(Path(place) == Path.cwd() for place in sys.path)


def test_only_what_was_named_is_trusted(marker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path.cwd())
    for named in ((), ("evil_module:other",), ("evil_module",), ("build",), (SOURCE.upper(),), ("os:abort",)):
        with trusting(*named), pytest.raises(HauberkError, match="runs only if you trust it"):
            registry.build(OWN)
    assert not marker.exists()
    with trusting(SOURCE):
        registry.build(OWN)
    assert marker.exists()
    with pytest.raises(HauberkError, match="runs only if you trust it"):  # trust ends where its block ends
        registry.build(OWN)


def test_a_run_is_looked_at_before_its_weights_are_read(stranger: Path) -> None:
    (stranger / "checkpoints" / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(HauberkError, match="runs only if you trust it"):
        subject(stranger)


def test_a_changed_config_is_refused_before_anything_is_built(stranger: Path, marker: Path) -> None:
    with trusting(everything=True), pytest.raises(HauberkError, match="has changed"):  # its weights are another hash's
        path = stranger / "checkpoints" / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"weights": "0" * 16}))
        subject(stranger)
    assert not marker.exists()


def test_a_saved_model_names_no_other_run(tiny_run: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(tiny_run, tmp_path / "loop"))
    config = json.loads((path / "checkpoints" / "config.json").read_text())
    (path / "checkpoints" / "config.json").write_text(json.dumps(config | {"spec": {"name": "run", "path": str(path)}}))
    with pytest.raises(HauberkError, match="names another run"):
        subject(path)


def test_a_recipe_of_python_is_held_to_the_same(tiny_recipe: Path, marker: Path) -> None:
    content = recipe(tiny_recipe, model=OWN)
    with pytest.raises(HauberkError, match="runs only if you trust it"):
        recipes.parse(content)
    with trusting(SOURCE):
        recipes.parse(content)
    assert not marker.exists()  # looked at, not built
