"""The first screen: which classifier it names, why, and what it says is proved, measured and not known."""

import dataclasses

import pytest

from hauberk.report import charts, collect, page
from hauberk.report.board import Board, boards, first
from hauberk.report.pairs import CLEAN, held, pairs
from hauberk.report.subject import Judgement
from hauberk.report.verdict import verdict
from hauberk.statistics import Interval, wilson


@pytest.fixture(scope="module")
def found(lab):
    runs = collect.load(lab.runs)
    parts = [p for run in runs for p in run.parts]
    known = collect.subjects(parts)
    own = collect.by_predictor(parts)
    return known, [own[s.predictor, s.dataset, s.split] for s in known]


@pytest.fixture(scope="module")
def board(found) -> Board:
    known, _ = found
    every = boards(known, [f"net {k}" for k, _ in enumerate(known, 1)])
    return next(b for b in every if (b.norm, b.eps) == ("l2", 0.5))


def changed(board: Board, place: int, **lines) -> Board:
    rows = list(board.lines)
    rows[place] = dataclasses.replace(rows[place], **lines)
    return dataclasses.replace(board, lines=tuple(rows))


def nothing(*_):
    return None


def test_one_board_for_each_threat_and_the_fullest_first(found, lab) -> None:
    known, _ = found
    every = boards(known, [s.predictor for s in known])
    assert {(b.norm, b.eps) for b in every} == {(a.norm, a.eps) for s in known for a in s.attacked}
    assert all(len(b.lines) == len(known) for b in every)
    assert every[first(every)].norm == "l2"  # three classifiers, against one in the other norm


def test_the_one_that_keeps_most_stands_first(board) -> None:
    kept = [line.attacked.accuracy.value for line in board.lines if line.here]
    assert kept == sorted(kept, reverse=True)
    assert [line.here for line in board.lines] == sorted((line.here for line in board.lines), reverse=True)


def test_a_smaller_budget_bounds_a_larger_one_and_is_named(found) -> None:
    known, _ = found
    every = boards(known, [s.predictor for s in known])
    smaller = [line for b in every for line in b.lines if line.attacked and not line.here]
    assert all(line.attacked.eps < line.eps for line in smaller)
    assert not [line for line in smaller if line.believed]


def test_certified_accuracy_is_that_of_the_budget(board, lab) -> None:
    x, y, _ = lab.data
    robust = next(line for line in board.lines if line.subject.predictor == lab.robust.name)
    assert robust.certified.value == ((lab.robust.logits(x).argmax(1) == y) & (lab.robust.radius(x) >= 0.5)).mean()


def test_the_best_is_named_with_its_reason(board) -> None:
    best = board.tried[0]
    told = verdict(board, lambda *_: Interval(0.2, 0.1, 0.3, 120), nothing)
    assert told.said.startswith(f"Ship {best.name} against changes of at most 0.5 in ℓ₂")
    assert "more than any other here" in told.said
    assert "+20.0 (+10.0 to +30.0) points" in told.reasons[0]


def test_a_single_classifier_is_the_best_of_nothing(board) -> None:
    alone = dataclasses.replace(board, lines=board.tried[:1])
    told = verdict(alone, nothing, nothing)
    assert told.said.startswith(f"Against changes of at most 0.5 in ℓ₂ {board.tried[0].name} keeps")
    assert "any other" not in " ".join((told.said, *told.reasons))
    assert told.measured[0].startswith("Attacked on 120 images")


def test_no_two_of_many_classifiers_look_alike() -> None:
    assert len({(charts.colour(n), charts.form(n)) for n in range(1, 65)}) == 64


def test_what_these_images_cannot_tell_apart_is_said(board) -> None:
    one, other = board.tried[:2]
    told = verdict(board, lambda *_: Interval(0.01, -0.02, 0.04, 120), nothing)
    assert f"{one.name}, {other.name} or" in told.said
    assert "cannot tell them apart" in told.said


def test_other_images_give_no_difference(board) -> None:
    assert "on other images" in " ".join(verdict(board, nothing, nothing).reasons)


def test_nothing_that_guesses_is_shipped(board) -> None:
    bare = dataclasses.replace(board, lines=tuple(
        dataclasses.replace(line, certified=None, curve=None,
                            attacked=line.attacked and dataclasses.replace(line.attacked, accuracy=wilson(6, 120)))
        for line in board.lines))  # fmt: skip
    assert verdict(bare, nothing, nothing).said.startswith("Ship none of these")


def test_a_broken_evaluation_recommends_nobody(board) -> None:
    best = board.tried[0]
    judged = Judgement("apgd", "l2", 0.5, "broken", (), 40)
    subject = dataclasses.replace(best.subject, judgements=(judged,))
    other = changed(board, 0, judgement=judged, subject=subject)
    told = verdict(other, nothing, nothing)
    assert best.name not in told.said.split(":")[0]
    assert f"Evaluation broken: {best.name}." in told.measured


def test_a_judgement_at_another_budget_is_named_with_it_and_a_broken_one_counts_in_its_norm(board) -> None:
    line = board.tried[0]
    for word in ("sound", "broken"):
        judged = Judgement("apgd", "l2", 0.25, word, (), 40)
        subject = dataclasses.replace(line.subject, judgements=(judged,))
        told = verdict(changed(board, 0, judgement=judged, subject=subject), nothing, nothing)
        assert f"Evaluation {word} at ε = 0.25, and not checked with this budget: {line.name}." in told.measured
        assert f"Evaluation {word}: {line.name}." not in told.measured
        assert (line.name in told.said.split(":")[0]) == (word == "sound")


def test_nobody_is_shipped_who_met_fewer_attacks(board) -> None:
    best, other = board.tried[:2]
    fewer = verdict(board, lambda *_: Interval(0.2, 0.1, 0.3, 120), lambda one, _: one is best)
    assert not fewer.said.startswith("Ship")
    assert f"did not meet all attacks that {other.name} met" in fewer.said
    for word, eps, ships in (("sound", 0.5, True), ("sound", 0.25, False), ("questionable", 0.5, False)):
        judged = dataclasses.replace(best, judgement=Judgement("apgd", "l2", eps, word, (), 40))
        told = verdict(
            dataclasses.replace(board, lines=(judged, *board.lines[1:])),
            lambda *_: Interval(0.2, 0.1, 0.3, 120), lambda one, _: one is not other,
        )  # fmt: skip
        assert told.said.startswith(f"Ship {best.name}") == ships
        assert "The two were not attacked alike" in " ".join(told.reasons)
    more = verdict(board, lambda *_: Interval(0.2, 0.1, 0.3, 120), lambda one, _: one is other)
    assert more.said.startswith(f"Ship {best.name}")
    even = verdict(board, lambda *_: Interval(0.0, -0.1, 0.1, 120), lambda one, _: one is other)
    assert other.name not in even.said.split(":")[0]


def test_more_than_any_other_is_said_of_every_pair_or_not_at_all(board) -> None:
    second = board.tried[1]
    partly = verdict(board, lambda _, x: Interval(0.2, 0.1, 0.3, 120) if x is second else None, nothing)
    assert "more than any other" not in partly.said


def test_a_best_that_guesses_is_not_shipped_beside_a_weak_proof(board) -> None:
    weak = dataclasses.replace(board, lines=tuple(
        dataclasses.replace(line, certified=line.certified and wilson(3, 120),
                            attacked=line.attacked and dataclasses.replace(line.attacked, accuracy=wilson(6, 120)))
        for line in board.lines))  # fmt: skip
    assert verdict(weak, nothing, nothing).said.startswith("Ship none of these")


def test_a_proof_by_votes_states_its_chance(board) -> None:
    place = next(k for k, line in enumerate(board.lines) if line.curve and line.certified.value)
    curve = dataclasses.replace(board.lines[place].curve, proof="probabilistic", failure_probability=0.001)
    told = verdict(changed(board, place, curve=curve), nothing, nothing)
    assert any("each with a chance of 0.001 to be wrong" in line for line in told.proved)


def test_only_proofs_and_nothing_at_all(board) -> None:
    unattacked = dataclasses.replace(board, lines=tuple(dataclasses.replace(x, attacked=None) for x in board.lines))
    assert "No attack was run with this budget" in verdict(unattacked, nothing, nothing).said
    bare = dataclasses.replace(
        unattacked, lines=tuple(dataclasses.replace(x, certified=None, curve=None) for x in unattacked.lines)
    )
    told = verdict(bare, nothing, nothing)
    assert "Nothing here tells" in told.said
    assert "Nothing at this budget." in told.proved


def test_the_three_blocks_keep_proofs_and_attacks_apart(board) -> None:
    told = verdict(board, nothing, nothing)
    assert any("at least" in line for line in told.proved)
    assert not any("at most" in line for line in told.proved)
    assert not any("at least" in line for line in told.measured)
    assert any("Not checked whether the attacks work" in line for line in told.measured)
    assert any("that no attack can break" in line for line in told.unknown)


# --- two classifiers, image by image --------------------------------------------------------------------------


def test_what_holds_adds_up_to_what_is_said_of_the_whole(found) -> None:
    known, own = found
    for subject, parts in zip(known, own, strict=True):
        rows = held(subject, parts, [("l2", 0.5)])
        assert rows[CLEAN][1].mean() == subject.clean.value
        for a in subject.attacked:
            assert rows["attacked", a.norm, a.eps][1].mean() == a.accuracy.value
        if subject.curve("l2"):
            assert rows["certified", "l2", 0.5][1].mean() == subject.curve("l2").at(0.5).value


def test_pairs_count_the_images_that_both_saw(found) -> None:
    known, own = found
    for pair in pairs(known, own, [("l2", 0.5)]):
        one, other = (held(known[n - 1], own[n - 1], [("l2", 0.5)])[pair.quantity] for n in (pair.first, pair.second))
        assert (one[0] == other[0]).all()
        cells = (pair.both, pair.only_first, pair.only_second, pair.neither)
        assert cells == ((one[1] & other[1]).sum(), (one[1] & ~other[1]).sum(), (~one[1] & other[1]).sum(),
                         (~one[1] & ~other[1]).sum())  # fmt: skip
        assert pair.difference.n == sum(cells) == len(one[0])
        assert pair.difference.value == pytest.approx((pair.only_first - pair.only_second) / sum(cells))
        assert list(pair.ids[0]) == one[0][one[1] & ~other[1]][:12].tolist()


def test_the_difference_of_two_lines_has_the_sign_of_their_order(found, board) -> None:
    _, own = found
    difference, lacks = page.beside(board, own)
    one, other = board.tried[:2]
    there, back = difference(one, other), difference(other, one)
    assert there.value == pytest.approx(one.attacked.accuracy.value - other.attacked.accuracy.value)
    assert (back.value, back.low, back.high) == pytest.approx((-there.value, -there.high, -there.low))
    assert not lacks(one, one)
    parts = list(own)
    attacks = [part for part in own[other.number - 1] if part.kind == "attack"]
    first = next(part for part in attacks if part.unit["threat"] == {"name": "l2", "eps": 0.5})
    unit = first.unit | {"method": first.unit["method"] | {"steps": 999}, "suite": None}
    parts[one.number - 1] = attacks  # the same ones
    parts[other.number - 1] = [*attacks, dataclasses.replace(first, unit=unit)]
    assert page.beside(board, parts)[1](one, other)
    suite = {"name": "autoattack", "version": "fast", "losses": None}
    for own in (  # which only one kind of model can meet
        {"method": {"name": "part", "attack": unit["method"]}},
        {"method": {"name": "on_grid", "white": 255, "attack": {"name": "part", "part": "robust"}}},
        {"method": unit["method"] | {"loss": {"name": "alpha_down"}}},
    ):
        parts[other.number - 1] = [*attacks, dataclasses.replace(first, unit=unit | own)]
        assert not page.beside(board, parts)[1](one, other)
    parts[one.number - 1] = [*attacks, dataclasses.replace(first, unit=unit | {"suite": suite})]
    added = suite | {"losses": [{"name": "alpha_down"}]}
    parts[other.number - 1] = [*attacks, dataclasses.replace(first, unit=unit | {"suite": added})]
    assert not page.beside(board, parts)[1](one, other)
