"""MMCert on images: against all sub-samples and all attacks of a tiny one; its records, and forgeries of them."""

import copy
import dataclasses
import json
from collections.abc import Callable
from fractions import Fraction
from itertools import combinations, product
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor, nn

from hauberk import registry, verify
from hauberk.batch import Batch
from hauberk.certificates import ABSTAIN, MixedCertificate, MMCert
from hauberk.certificates.evidence import VoteCounts
from hauberk.conformance import check_certificate
from hauberk.errors import HauberkError
from hauberk.evaluation.keys import Setting
from hauberk.evaluation.sense import check_sense
from hauberk.evaluation.units import certificate_records
from hauberk.evaluation.work import Work
from hauberk.records import Part, group, read_all
from hauberk.report import charts, collect, words
from hauberk.report.board import boards
from hauberk.verify.derive.edits import edits
from hauberk.verify.polls import poll_problems

TINY = MMCert("columns", (1, 10), (5, 5), (1, 1), n0=20, n=2000, alpha=0.01)
SETTING = Setting("tiny", "test", ("dark", "bright"), tile=8)


class Brightness(nn.Module):
    """Whether more of what it sees is bright than dark; what is 0 it does not see."""

    def forward(self, images: Tensor) -> Tensor:
        seen = images.flatten(1)
        lead = (seen > 0.5).sum(1) - ((seen > 0.0) & (seen <= 0.5)).sum(1)
        return torch.stack([0.5 - lead, lead - 0.5], 1).float()


BASE = Brightness().eval()


def image_of(bright: int) -> Tensor:
    """So many bright pixels in each of the crops, from the left."""
    half = torch.where(torch.arange(5) < bright, 0.9, 0.1)
    return torch.cat([half, half]).view(1, 1, 10)


def batch_of(*bright: int) -> Batch:
    return Batch(torch.stack([image_of(b) for b in bright]), torch.ones(len(bright)).long(), torch.arange(len(bright)))


def shares_of(images: Tensor) -> list[list[int]]:
    """How many of all sub-samples vote for each class, of each image."""
    masks = [
        [int(i in (*one, *(5 + j for j in two))) for i in range(10)]
        for one, two in product(combinations(range(5), 1), repeat=2)
    ]
    every = torch.tensor(masks).float().view(-1, 1, 1, 10)
    return [torch.bincount(BASE(image * every).argmax(1), minlength=2).tolist() for image in images]


def attacked(image: Tensor, r: int) -> Tensor:
    """The image under every choice of r elements of each crop, made dark."""
    found = []
    for one, two in product(combinations(range(5), r), repeat=2):
        changed = image.clone()
        changed[..., [*one, *(5 + j for j in two)]] = 0.1
        found.append(changed)
    return torch.stack(found)


def test_no_attack_within_the_radius_turns_the_vote() -> None:
    found = TINY(BASE, batch_of(5, 4, 3, 0), seed=3, tile=64)
    assert found.norm == "elements" and found.kind == "probabilistic" and found.failure_probability == 0.01
    assert found.radius.tolist()[0] >= 1
    for image, prediction, radius, row in zip(
        batch_of(5, 4, 3, 0).images, found.prediction.tolist(), found.radius.tolist(), found.rows, strict=True
    ):
        (votes,) = shares_of(image[None])
        assert sum(row["counts"]) == 2000 and abs(row["counts"][1] / 2000 - votes[1] / 25) < 0.05
        if prediction == 1:
            assert all(v[1] > v[0] for v in shares_of(attacked(image, int(radius))))


def test_the_bound_is_exact_where_the_votes_are() -> None:
    """With all votes for the class and a tiny alpha's bound near 1, the radius is that of the closed form."""
    sure = dataclasses.replace(TINY, n=100_000)
    votes = VoteCounts((0, 20), (0, 100_000), sure.plan)
    # r = 1 meets 1 - (4/5)^2 = 9/25 of all sub-samples, r = 2 more than a half
    assert sure.radius(votes) == 1.0
    wide = MMCert("columns", (2, 10), (5, 5), (1, 2), n=100_000)
    votes = VoteCounts((0, 100), (0, 100_000), wide.plan)
    # ten elements: r = 1 meets 1 - (9/10)(8/10) = 0.28, r = 2 meets 1 - (8/10)(28/45) > 1/2
    assert wide.radius(votes) == 1.0
    assert wide.margin(votes, 1.0) == pytest.approx(1 - 2 * 0.28, abs=0.01)
    assert wide.margin(votes, 1.9) == wide.margin(votes, 1.0) > 0 > wide.margin(votes, 2.0)
    assert wide.radius(votes, 0.5) == 0.0 and wide.radius(votes, 0.4) == 1.0


def test_half_of_the_votes_abstain() -> None:
    votes = VoteCounts((0, 20), (1000, 1000), TINY.plan)
    assert TINY.decision(votes) == ABSTAIN and TINY.radius(votes) == 0.0
    lower, upper = TINY.shares(votes)
    assert isinstance(lower, Fraction) and lower < 0.5 and upper == 1 - lower
    two = dataclasses.replace(TINY, rival="runner_up")
    spread = VoteCounts((0, 20, 0, 0), (400, 900, 350, 350), two.plan)
    assert two.decision(spread) == 1 and TINY.decision(dataclasses.replace(spread, plan=TINY.plan)) == ABSTAIN


def test_what_it_cannot_certify_is_refused() -> None:
    with pytest.raises(ValueError, match="a mix has no such certificate"):
        MixedCertificate(TINY)
    with pytest.raises(HauberkError, match="this one has 1x1x10"):
        MMCert("columns", (2, 10), (5, 5), (1, 2), n=50)(BASE, batch_of(5))
    with pytest.raises(HauberkError, match="5 votes always abstain"):
        check_sense(dataclasses.replace(TINY, n=5))
    with pytest.raises(HauberkError, match="not for elements"):
        check_certificate(MMCert("columns", (3, 5), (2, 3), (1, 2), n=50))
    with pytest.raises(HauberkError, match="expected to keep at most"):
        registry.build({"name": "mmcert", "axis": "rows", "size": [2, 2], "parts": [1, 1], "kept": [3, 1]})


# --- records ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> list[Part]:
    """Votes, plan and certificate of six images, one of two crops of two rows."""
    folder = tmp_path_factory.mktemp("records")
    certificate = MMCert("rows", (2, 10), (1, 1), (1, 2), n0=20, n=1000, alpha=0.01, rival="runner_up")
    images = torch.cat([batch_of(b).images.view(1, 1, 1, 10) for b in (5, 4, 2, 0, 0, 5)]).expand(-1, -1, 2, -1)
    batch = Batch(images.contiguous(), torch.tensor([1, 1, 0, 0, 0, 1]), torch.arange(6))
    certificate_records(BASE, batch, certificate, SETTING, Work(folder))
    return [p for kind in ("certificate", "votes", "plan") for p in read_all(folder, kind)]  # type: ignore[arg-type]


def certificate_of(parts: list[Part]) -> Part:
    (found,) = group([p for p in parts if p.kind == "certificate"])
    return found


def described(part: Part, edit: Callable[[dict[str, Any], dict[str, Any]], None]) -> Part:
    unit, facts = copy.deepcopy(dict(part.unit)), copy.deepcopy(dict(part.facts))
    edit(unit, facts)
    return dataclasses.replace(part, unit=unit, facts=facts)


def changed(part: Part, name: str, change: Callable[[list[Any]], list[Any]]) -> Part:
    index = part.table.schema.get_field_index(name)
    values = pa.array(change(part.table.column(name).to_pylist()), part.table.schema.field(name).type)
    return dataclasses.replace(part, table=part.table.set_column(index, part.table.schema.field(name), values))


def test_verify_derives_the_radii_by_its_own_route(recorded: list[Part]) -> None:
    part = certificate_of(recorded)
    assert verify.verify_part(part).problems == ()
    assert list(poll_problems(recorded)) == []
    assert max(part.column("radius")) >= 1.0 and part.facts["norm"] == "elements"


def test_a_table_names_whole_elements(recorded: list[Part]) -> None:
    (subject,) = collect.subjects(recorded)
    levels = subject.certified[0].levels
    assert [level.eps for level in levels] == list(range(len(levels))) and len(levels) > 1


def test_a_page_draws_a_certificate_that_allows_no_change(recorded: list[Part]) -> None:
    none = [changed(p, "radius", lambda v: [0.0] * len(v)) if p.kind == "certificate" else p for p in recorded]
    known = collect.subjects(none)
    (board,) = boards(known, ["one"])
    *_, measured = charts.overlay(board)["layer"]
    assert board.eps == 0.0 and measured["encoding"]["x"]["scale"]["domain"] == [0, 1]
    assert words.changes("elements", 2.0) == "changes of at most 2 elements of each modality"


@pytest.mark.parametrize("rule", ["fixed", "anytime"])
@pytest.mark.parametrize("rival", ["rest", "runner_up"])
def test_two_derivations_agree_on_random_votes(rule: Any, rival: Any) -> None:
    generator, found = np.random.default_rng(1), []
    for axis, size, parts in product(("channels", "rows", "columns"), ((3, 4), (12, 28)), ((1, 2), (2, 2, 1))):
        size = {"rows": (sum(parts), size[1]), "columns": (size[0], sum(parts))}.get(axis, size)
        kept = tuple(int(k) for k in generator.integers(1, 5, len(parts)))
        asked = MMCert(axis, size, parts, kept, n0=10, n=500, alpha=0.01, rule=rule, rival=rival)
        own = int(generator.integers(250, 501))
        counts = (*generator.multinomial(500 - own, [0.5, 0.5]).tolist(), own)
        votes = VoteCounts((0, 0, 10), counts, asked.plan)
        for margin in (0.0, 0.1):
            top, radius = edits(votes.row(), votes.shared(), margin)
            assert (top, radius) == (asked.decision(votes), asked.radius(votes, margin)), (asked, counts)
            found.append(radius)
    assert len(set(found)) > 3


@pytest.mark.parametrize("step", [1.0, -1.0, 0.5, 1e-6])
def test_a_tampered_radius_is_found(recorded: list[Part], step: float) -> None:
    bad = changed(certificate_of(recorded), "radius", lambda values: [v + step if v > 0 else v for v in values])
    assert verify.verify_part(bad).problems


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("kept", [1, 1], "was asked for"),
        ("parts", [2, 1], "was asked for"),
        ("axis", "columns", "was asked for"),
        ("size", [4, 10], "was asked for"),
    ],
)
def test_other_modalities_are_found_in_the_evidence_and_in_the_method(
    recorded: list[Part], key: str, value: Any, said: str
) -> None:
    part = certificate_of(recorded)
    bad = described(part, lambda _, facts: facts["shared"]["noise"].update({key: value}))
    assert any(said in p for p in verify.verify_part(bad).problems)

    def both(unit: dict[str, Any], facts: dict[str, Any]) -> None:
        facts["shared"]["noise"].update({key: value})
        unit["method"].update({key: value})

    consistent = described(part, both)
    others = [p for p in recorded if p.kind != "certificate"]
    told = [*verify.verify_part(consistent).problems, *poll_problems([*others, consistent])]
    assert any("plan of other votes" in p for p in told)
    if key != "kept":
        assert any("its modalities are not those of images of 1x2x10" in p for p in told)


def test_other_claims_are_found(recorded: list[Part]) -> None:
    part = certificate_of(recorded)
    for name, value in (("norm", "l1"), ("proof", "deterministic"), ("failure_probability", 0.001)):
        bad = described(part, lambda _, facts, name=name, value=value: facts.update({name: value}))  # type: ignore[misc]
        assert any("claims" in p for p in verify.verify_part(bad).problems)
    nameless = described(part, lambda _, facts: facts.pop("votes"))
    assert any("names no votes" in p for p in poll_problems([*recorded, nameless]))


def test_other_votes_are_found(recorded: list[Part]) -> None:
    def stuffed(values: list[str]) -> list[str]:
        rows = [json.loads(v) for v in values]
        return [json.dumps(row | {"counts": [0, 1000]}) for row in rows]

    part = certificate_of(recorded)
    bad = changed(part, "evidence", stuffed)
    others = [p for p in recorded if p.kind != "certificate"]
    assert verify.verify_part(bad).problems
    assert any("other counts than the votes on record" in p for p in poll_problems([*others, bad]))


def test_a_modality_that_would_take_for_ever_is_a_sentence(recorded: list[Part]) -> None:
    part = certificate_of(recorded)
    bad = described(part, lambda _, facts: facts["shared"]["noise"].update(size=[2, 10**9], kept=[10**8, 1]))
    assert any("elements" in p for p in verify.verify_part(bad).problems)
