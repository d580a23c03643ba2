"""MMCert's condition: the worst case over all votes of all tiny ensembles, ties, and its order in r."""

import math
from dataclasses import replace
from fractions import Fraction
from functools import cache
from itertools import combinations, product

import pytest

from hauberk.certificates.mmcert import Modality, least_margin, least_share, lecture_certified, most_edits
from hauberk.errors import HauberkError

KINDS = ("change", "add", "delete")
BOUNDS = ((Fraction(9, 10), Fraction(1, 10)), (Fraction(3, 5), Fraction(1, 20)), (Fraction(1), Fraction(0)))


def edited(elements: int, edits: int, kind: str) -> set[tuple[str, ...]]:
    """The elements after every attack of at most so many edits: old ones by number, new ones by a name of their own."""
    old = [f"old {i}" for i in range(elements)]
    found = set()
    for changed, added, deleted in product(range(edits + 1), repeat=3):
        spent = {"change": changed, "add": added, "delete": deleted}
        if changed + added + deleted > edits or any(spent[k] for k in KINDS if kind not in (k, "mixed")):
            continue
        if changed + deleted <= elements:
            new = tuple(f"new {i}" for i in range(changed + added))
            found.add((*old[: elements - changed - deleted], *new))
    return found


@cache
def ensembles(modalities: tuple[Modality, ...], kinds: tuple[str, ...]) -> set[tuple[int, int, int]]:
    """Sub-samples before, both, and after, of every attack, counted one by one."""

    def samples(contents: tuple[tuple[str, ...], ...]) -> set[tuple[tuple[str, ...], ...]]:
        pairs = zip(contents, modalities, strict=True)
        return set(product(*([tuple(sorted(c)) for c in combinations(own, m.kept)] for own, m in pairs)))

    first = samples(tuple(tuple(f"old {i}" for i in range(m.elements)) for m in modalities))
    attacks = product(*(sorted(edited(m.elements, m.edits, k)) for m, k in zip(modalities, kinds, strict=True)))
    return {(len(first), len(first & later), len(later)) for later in map(samples, attacks)}


@cache
def worst(before: int, both: int, after: int) -> dict[tuple[int, int], int]:
    """The smallest lead of A over B after the attack, for each number of votes for A and B before.

    Every way to divide the votes for A, B and others between sub-samples that stay and those that are lost is tried,
    and every way to divide the new ones.
    """
    least: dict[tuple[int, int], int] = {}
    for stay_a, stay_b in product(range(both + 1), repeat=2):
        if stay_a + stay_b > both:
            continue
        for lost_a, lost_b in product(range(before - both + 1), repeat=2):
            if lost_a + lost_b > before - both:
                continue
            lead = min(
                stay_a + new_a - stay_b - new_b
                for new_a, new_b in product(range(after - both + 1), repeat=2)
                if new_a + new_b <= after - both
            )
            votes = stay_a + lost_a, stay_b + lost_b
            least[votes] = min(lead, least.get(votes, lead))
    return least


def truth(lower: Fraction, upper: Fraction, modalities: tuple[Modality, ...], kinds: list[str]) -> Fraction:
    """The smallest margin over all votes within the bounds and all attacks."""
    margins = []
    for before, both, after in ensembles(modalities, tuple(kinds)):
        if after == 0:
            return Fraction(-1)
        leads = [v for (a, b), v in worst(before, both, after).items() if a >= lower * before and b <= upper * before]
        margins.append(Fraction(min(leads), after))
    return min(margins)


def instances(kinds: tuple[str, ...]) -> list[tuple[Modality, ...]]:
    """One modality of up to seven elements, and two of up to three, under every kind of attack and pair of kinds."""
    one = [
        (Modality(n, k, r, kind),)
        for n in range(1, 8) for k in range(1, n + 1) for r in range(3) for kind in kinds
        if math.comb(n + r, k) <= 10
    ]  # fmt: skip
    small = [Modality(n, k, r, kind) for n, k in ((2, 1), (3, 1), (3, 2)) for r in (0, 1) for kind in kinds]
    small = [m for m in small if m.edits or m.kind == "change"]  # without edits the kinds are one
    two = [(m, w) for m, w in product(small, small) if (m.elements, m.kept) <= (w.elements, w.kept)]
    return one + [(m, w) for m, w in two if math.comb(m.elements + 1, m.kept) * math.comb(w.elements + 1, w.kept) <= 12]


def shares(before: int) -> list[tuple[Fraction, Fraction]]:
    """Bounds on and between the whole sub-samples."""
    steps = [Fraction(i, 2 * before) for i in range(2 * before + 1)]
    return [(a, b) for a in steps for b in steps if a + b <= 1]


def test_it_is_the_worst_case_of_every_tiny_ensemble():
    asked, certified, kinds = 0, 0, set()
    for modalities in instances(KINDS):
        before = math.prod(math.comb(m.elements, m.kept) for m in modalities)
        for lower, upper in shares(before)[:: 1 + before]:
            margin = least_margin(lower, upper, modalities)
            assert margin == truth(lower, upper, modalities, [m.kind for m in modalities]), (lower, upper, modalities)
            asked, certified = asked + 1, certified + (margin > 0)
        kinds.add(tuple(sorted(m.kind for m in modalities if m.edits)))
    assert asked > 1000 and 200 < certified < asked - 200
    assert {("add", "delete"), ("add", "change"), ("change", "delete")} <= kinds


def test_changes_cover_every_mixture_of_edits():
    """Also within one modality: the truth about any r edits is that about r changes wherever these are survived."""
    certified = 0
    for modalities in instances(("change",)):
        before = math.prod(math.comb(m.elements, m.kept) for m in modalities)
        for lower, upper in shares(before)[:: 1 + before // 3]:
            margin = max(Fraction(0), least_margin(lower, upper, modalities))
            assert margin == max(0, truth(lower, upper, modalities, ["mixed"] * len(modalities)))
            certified += margin > 0 and any(m.edits for m in modalities)
    assert certified > 30


def test_a_tie_is_no_certificate():
    # one element of four is changed: A loses the vote of one sub-sample, and a rival wins it
    tie = (Modality(4, 1, 1),)
    assert least_margin(Fraction(3, 4), Fraction(0), tie) == Fraction(1, 4)
    assert least_margin(Fraction(2, 4), Fraction(0), tie) == 0
    assert lecture_certified(Fraction(2, 4), Fraction(0), tie)
    assert most_edits(Fraction(1, 2), Fraction(0), tie) == 0
    assert most_edits(Fraction(1, 2), Fraction(1, 2), tie) == -1


def test_without_edits_the_larger_probability_is_enough():
    for lower, upper in shares(6):
        some = [Modality(4, 2)]
        assert (least_margin(lower, upper, some) > 0) == (math.ceil(6 * lower) > math.floor(6 * upper))


@pytest.mark.parametrize("kind", KINDS)
def test_the_margin_falls_with_every_edit(kind):
    for lower, upper in BOUNDS:
        for other in (Modality(9, 2), Modality(9, 2, 1, "add"), Modality(9, 2, 3, "add")):
            row = [least_margin(lower, upper, [Modality(20, 3, r, kind), other]) for r in range(18)]
            assert row == sorted(row, reverse=True)


@pytest.mark.parametrize("kind", KINDS)
def test_the_most_edits_are_the_last_that_keep_the_class(kind):
    some = [Modality(50, 3, kind=kind), Modality(40, 2, kind="change")]
    found = most_edits(Fraction(19, 20), Fraction(1, 20), some)
    kept = [least_margin(Fraction(19, 20), Fraction(1, 20), [replace(m, edits=r) for m in some]) > 0 for r in range(12)]
    assert found == kept.index(False) - 1 > 0


def test_large_modalities_by_their_closed_forms():
    """Of one modality: changes E/D > 1 - (pA - pB)/2, additions D'/D < 1 + pA - pB, deletions D'/D > 1 - (pA - pB)."""
    n, k, lower, upper = 465, 90, Fraction(99, 100), Fraction(1, 100)
    gap, whole = lower - upper, math.comb(n, k)

    def last(holds):
        return next(r for r in range(1, 1000) if not holds(r)) - 1

    forms = {
        "change": lambda r: math.comb(n - r, k) > (1 - gap / 2) * whole,
        "add": lambda r: math.comb(n + r, k) < (1 + gap) * whole,
        "delete": lambda r: math.comb(n - r, k) > (1 - gap) * whole,
    }
    for kind, holds in forms.items():
        assert most_edits(lower, upper, [Modality(n, k, kind=kind)]) == last(holds)


def test_the_lecture_loses_additions():
    """It counts old elements as lost where elements are added, and so certifies less."""
    some = (Modality(30, 2, 3, "add"),)
    assert least_margin(Fraction(13, 20), Fraction(7, 20), some) > 0
    assert not lecture_certified(Fraction(13, 20), Fraction(7, 20), some)


def test_the_least_share_is_the_first_that_is_certified():
    # the first one has a tie at 3 of 4 sub-samples, below the share that is certified
    for some in ((Modality(4, 1, 1),), (Modality(6, 2, 1),), (Modality(5, 2, 1, "add"), Modality(3, 1))):
        share = least_share(some)
        step = Fraction(1, math.prod(math.comb(m.elements, m.kept) for m in some))
        assert least_margin(share, 1 - share, some) > 0 >= least_margin(share - step, 1 - share + step, some)
    for none in ((Modality(3, 3, 1),), (Modality(4, 1, 3),), (Modality(3, 2, 2, "delete"),)):
        assert least_share(none) > 1 and least_margin(Fraction(1), Fraction(0), none) <= 0


def test_the_least_share_of_whole_photographs_is_found_at_once():
    """The size of the authors' road images: 375 by 1,242 pixels in two modalities, some hundred thousand bits."""
    pixels = 375 * 1242
    share = least_share((Modality(pixels, 9000, 8), Modality(pixels, 1000, 8)))
    # E / D, edited pixel by edited pixel, by the chance that none of them is in a sub-sample
    both = math.prod((pixels - kept - j) / (pixels - j) for kept in (9000, 1000) for j in range(8))
    assert float(share) == pytest.approx(1.5 - both, rel=1e-12)


@pytest.mark.parametrize("asked", [(3, 4, 0), (3, 0, 0), (3, 1, -1)])
def test_what_cannot_be_is_refused(asked):
    with pytest.raises(HauberkError):
        Modality(*asked)
