"""Models that know the validation images: called out, and chosen on a part of the test split that no record holds."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from hauberk import verify
from hauberk.audit import audit
from hauberk.audit.data import data_problems
from hauberk.data import load
from hauberk.records import read_all
from hauberk.runs import Run
from hauberk.subjects import Subject
from hauberk.verbs.known_images import keep, known_images
from hauberk.verify.facts import facts_problems

Typed = Callable[..., tuple[int, str]]
MINE = """
    import torch
    from torch import nn
    def build():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()
    """.replace("\n    ", "\n")
ATTACK = ("attack", "mine_calibrated:build", "--threat", "linf:0.05", "--attack", "fgsm", "--images", "32")


class Learnt(nn.Module):
    """Right on the images that it has seen, and guesses elsewhere."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        super().__init__()
        self.register_buffer("images", images.flatten(1))
        self.labels = labels

    def forward(self, images: Tensor) -> Tensor:
        near = torch.cdist(images.flatten(1), self.images, compute_mode="donot_use_mm_for_euclid_dist")
        known = nn.functional.one_hot(self.labels[near.argmin(1)], 10).float()
        return torch.where(near.amin(1, keepdim=True) < 1e-3, 5.0 * known, torch.eye(10)[3])


def subject_of(model: nn.Module) -> Subject:
    return Subject(Run(Path("none")), model.eval(), load("digits"), {"name": "theirs", "data": {"name": "digits"}})


def test_a_model_that_knows_the_validation_images_is_called_out(tmp_path: Path) -> None:
    data = load("digits")
    val = data.val.batch()
    knowing, honest = subject_of(Learnt(val.images, val.labels)), subject_of(Learnt(val.images[:0], val.labels[:0]))
    honest = replace(honest, model=nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval())
    with torch.no_grad():
        tables = [s.model(val.images).double().numpy() for s in (knowing, honest)]
    (said,) = known_images((knowing, honest), tables, val.labels.numpy())
    assert said.startswith("theirs is right on 100.0% of 200 validation images and on 1")
    assert "--calibrate-on" in said
    run = Run.create(tmp_path / "run", {"name": "mixed", "data": {"name": "digits"}})
    keep(run, [said])
    assert said in run.info["notes"]
    assert run.info["known_images"] == [said]


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mine")
    (folder / "mine_calibrated.py").write_text(MINE)
    return folder


@pytest.fixture
def judged(mine: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(mine)
    monkeypatch.syspath_prepend(str(mine))
    code, said = typed(*ATTACK, "--data", "digits", "--calibrate-on", "60", "-o", "judged")
    assert code == 0, said
    return mine / "judged"


def test_what_is_reported_is_disjoint_from_the_part_and_anybody_sees_it(judged: Path) -> None:
    (part,) = read_all(judged / "records")
    held = load({"name": "calibrated", "of": {"name": "digits"}, "images": 60})
    assert held.calibration is not None
    assert part.facts["calibration"] == {"images": 60, "border": held.calibration.border}
    assert set(part.column("id").tolist()) <= set(held.test.ids.tolist())
    assert not [p for v in audit(judged) for p in v.problems]
    verdicts = verify.verify_run(judged)
    assert any(verify.claims.HELD_BACK in v.checked for v in verdicts)


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"calibration": None}, "does not say which"),
        ({"calibration": {"images": 61, "border": "0" * 64}}, "that of the recipe 60"),
        ({"calibration": {"images": 60, "border": "f" * 64}}, "of the part that choices were made on"),
        ({"calibration": {"images": 60, "border": "x"}}, "no hash"),
        ({"calibration": [60]}, "its calibration part is"),
    ],
)
def test_a_record_that_says_otherwise_is_found(judged: Path, facts: dict[str, object], said: str) -> None:
    (part,) = read_all(judged / "records")
    changed = replace(part, facts={k: v for k, v in {**part.facts, **facts}.items() if v is not None})
    recipe = Run.open(judged).recipe
    assert any(said in problem for problem in facts_problems(changed, recipe, {}, {}))


def test_a_border_that_is_not_the_datas_is_found(judged: Path, tmp_path: Path) -> None:
    (part,) = read_all(judged / "records")
    easy = replace(part, facts={**part.facts, "calibration": {"images": 60, "border": "0" * 64}})
    held = load({"name": "calibrated", "of": {"name": "digits"}, "images": 60})
    assert any("that of the data is" in p for p in data_problems(easy, held))
    assert not list(data_problems(part, held))


def test_a_run_keeps_its_own_part(judged: Path, typed: Typed) -> None:
    code, said = typed("attack", judged, "--calibrate-on", "30", "--threat", "linf:0.05")
    assert code == 1
    assert "--calibrate-on needs --data" in said


def test_a_mix_is_chosen_on_the_part(mine: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(mine)
    monkeypatch.syspath_prepend(str(mine))
    code, said = typed(
        "mix", "--accurate", "mine_calibrated:build", "--robust", "mine_calibrated:build", "--data", "digits",
        "--calibrate-on", "60", "--clean", "5%", "--threat", "linf:0.01", "-o", "mixed", "--images", "8",
    )  # fmt: skip
    assert code == 0, said
    assert "on 60 validation images" in said
    recipe = Run.open("mixed").recipe
    assert recipe["data"] == {"name": "calibrated", "of": {"name": "digits"}, "images": 60}
