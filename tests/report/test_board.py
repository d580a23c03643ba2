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
    told = verdict(board, lambda *_: Interval(0.2, 0.1, 0.3, 120))
    assert told.said.startswith(f"Ship {best.name} against changes of at most 0.5 in ℓ₂")
    assert "more than any other here" in told.said
    assert "+20.0 (+10.0 to +30.0) points" in told.reasons[0]


def test_a_single_classifier_is_the_best_of_nothing(board) -> None:
    alone = dataclasses.replace(board, lines=board.tried[:1])
    told = verdict(alone, nothing)
    assert told.said.startswith(f"Against changes of at most 0.5 in ℓ₂ {board.tried[0].name} keeps")
    assert "any other" not in " ".join((told.said, *told.reasons))
    assert told.measured[0].startswith("Attacked on 120 images")


def test_no_two_of_many_classifiers_look_alike() -> None:
    assert len({(charts.colour(n), charts.form(n)) for n in range(1, 65)}) == 64


def test_what_these_images_cannot_tell_apart_is_said(board) -> None:
    one, other = board.tried[:2]
    told = verdict(board, lambda *_: Interval(0.01, -0.02, 0.04, 120))
    assert f"{one.name}, {other.name} or" in told.said
    assert "cannot tell them apart" in told.said


def test_other_images_give_no_difference(board) -> None:
    assert "on other images" in " ".join(verdict(board, nothing).reasons)


def test_nothing_that_guesses_is_shipped(board) -> None:
    bare = dataclasses.replace(board, lines=tuple(
        dataclasses.replace(line, certified=None, curve=None,
                            attacked=line.attacked and dataclasses.replace(line.attacked, accuracy=wilson(6, 120)))
        for line in board.lines))  # fmt: skip
    assert verdict(bare, nothing).said.startswith("Ship none of these")


def test_a_broken_evaluation_recommends_nobody(board) -> None:
    best = board.tried[0]
    judged = Judgement("apgd", "l2", 0.5, "broken", (), 40)
    other = changed(board, 0, judgement=judged)
    told = verdict(other, nothing)
    assert best.name not in told.said.split(":")[0]
    assert f"Evaluation broken: {best.name}." in told.measured
    elsewhere = changed(board, 0, judgement=dataclasses.replace(judged, eps=0.25))
    assert best.name in verdict(elsewhere, nothing).said


def test_only_proofs_and_nothing_at_all(board) -> None:
    unattacked = dataclasses.replace(board, lines=tuple(dataclasses.replace(x, attacked=None) for x in board.lines))
    assert "No attack was run with this budget" in verdict(unattacked, nothing).said
    bare = dataclasses.replace(
        unattacked, lines=tuple(dataclasses.replace(x, certified=None, curve=None) for x in unattacked.lines)
    )
    told = verdict(bare, nothing)
    assert "Nothing here tells" in told.said
    assert "Nothing at this budget." in told.proved


def test_the_three_blocks_keep_proofs_and_attacks_apart(board) -> None:
    told = verdict(board, nothing)
    assert any("at least" in line for line in told.proved)
    assert not any("at most" in line for line in told.proved)
    assert not any("at least" in line for line in told.measured)
    assert any("Not checked whether the attacks work" in line for line in told.measured)
    assert any("something between" in line for line in told.unknown)


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
    known, own = found
    table = {(p.first, p.second, p.quantity): p.difference for p in pairs(known, own, [])}
    difference = page._difference(board, table)
    one, other = board.tried[:2]
    there, back = difference(one, other), difference(other, one)
    assert there.value == pytest.approx(one.attacked.accuracy.value - other.attacked.accuracy.value)
    assert (back.value, back.low, back.high) == pytest.approx((-there.value, -there.high, -there.low))
