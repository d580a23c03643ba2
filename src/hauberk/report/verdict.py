"""The verdict on a board in sentences: which classifier to take and why, and what is proved, measured and unknown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hauberk.report import words
from hauberk.report.board import Board, Line
from hauberk.report.subject import Judgement
from hauberk.statistics import Interval

Difference = Callable[[Line, Line], Interval | None]
Lacks = Callable[[Line, Line], bool]
MOST_NAMED = 3
NO_ATTACK = "No attack was run with this budget"


@dataclass(frozen=True)
class Verdict:
    """The first screen in sentences.

    Args:
        said: which classifier to take against this threat.
        reasons: why, and at what price.
        proved: what no attack can change.
        measured: which attacks were run, and whether their results can be believed.
        unknown: what neither proofs nor attacks show.
    """

    said: str
    reasons: tuple[str, ...]
    proved: tuple[str, ...]
    measured: tuple[str, ...]
    unknown: tuple[str, ...]


def verdict(board: Board, difference: Difference, lacks: Lacks) -> Verdict:
    """The verdict on one threat.

    Args:
        board: the classifiers under the threat.
        difference: attacked accuracy of one minus that of another on the images that both saw, None without any.
        lacks: whether the robust accuracy of the second rests on an attack that the first never met.
    """
    return Verdict(
        _said(board, difference, lacks), tuple(_reasons(board, difference, lacks)), tuple(_proved(board)),
        tuple(_measured(board)), tuple(_unknown(board)),
    )  # fmt: skip


def _said(board: Board, difference: Difference, lacks: Lacks) -> str:
    where, tried, proved = words.changes(board.norm, board.eps), board.tried, board.proved
    if not tried and not proved:
        return f"Nothing here tells what withstands {where}: no attack counts, and nothing is proved."
    if not tried:
        told = "No attack with this budget counts" if any(line.here for line in board.lines) else NO_ATTACK
        return f"{_by_proof(board, proved[0], where)} {told}."
    best, level = tried[0], _upper(tried[0])
    guess = 1 / len(best.subject.classes)
    if _hopeless(best):
        if proved and proved[0].certified and proved[0].certified.value > guess:
            return _by_proof(board, proved[0], where)
        least = f"Even the best, {best.name}," if len(tried) > 1 else best.name
        return f"Ship none of these against {where}: {least} keeps {level}; guessing gives {words.percent(guess)}."
    proof = f" If only proofs count, take {proved[0].name}: {_lower(proved[0])}." if proved else ""
    # after a sound evaluation, other attacks would hardly break more
    sound = best.judged is not None and best.judged.verdict == "sound"
    missed = None if sound else next((line for line in tried[1:] if lacks(best, line)), None)
    if missed is not None:
        said = f"Attack both alike before you choose: against {where} {best.name} keeps most, {level}, and did not meet"
        return f"{said} all attacks that {missed.name} met.{proof}"
    even = [line for line in tried[1:]
            if _even(difference(best, line)) and not any(lacks(line, x) for x in tried)]  # fmt: skip
    if even:
        names = words.listed([line.name for line in (best, *even)][:MOST_NAMED], "or")
        return f"Ship {names} against {where}: the best keeps {level}, and these images cannot tell them apart.{proof}"
    beyond = [d is not None and d.low > 0.0 for d in (difference(best, line) for line in tried[1:])]
    more = ", more than any other here" if beyond and all(beyond) else ""
    several = len(board.lines) > 1  # a single classifier is not the best of all
    said = f"Ship {best.name} against {where}: it" if several else f"Against {where} {best.name}"
    said = f"{said} keeps {level}{more}"
    if not proved:
        return f"{said}. Nothing is proved; a better attack may break more."
    if proved[0] is best:
        return f"{said}, and {_lower(best)}."
    return f"{said}.{proof}"


def _by_proof(board: Board, line: Line, where: str) -> str:
    opening = f"Ship {line.name} against {where}" if len(board.lines) > 1 else f"{line.name} against {where}"
    return f"{opening}: {_lower(line)}."


def _upper(line: Line) -> str:
    if line.attacked is None:
        return "nothing"
    return f"{words.percent(line.attacked.accuracy.value, 'up')} of the images right under all attacks that were run"


def _lower(line: Line) -> str:
    if line.certified is None:
        return "nothing is proved"
    share = words.percent(line.certified.value, "down")
    return f"at least {share} of the images are proved to stay right{_chance(line)}"


def _chance(line: Line) -> str:
    """The failure probability of a proof by votes, which must always be stated."""
    chance = line.curve.failure_probability if line.curve else 0.0
    return f", each with a chance of {chance:g} to be wrong" if chance else ""


def _hopeless(line: Line) -> bool:
    """Whether the attacked accuracy is no better than guessing."""
    return line.attacked is not None and line.attacked.accuracy.value <= 1 / len(line.subject.classes)


def _even(difference: Interval | None) -> bool:
    return difference is not None and difference.low <= 0.0 <= difference.high


# --- why, and at what price -----------------------------------------------------------------------------------


def _reasons(board: Board, difference: Difference, lacks: Lacks) -> list[str]:
    tried, said = board.tried, []
    best = (tried or board.proved or board.lines)[0]
    if len(tried) > 1:
        alike = not (lacks(tried[0], tried[1]) or lacks(tried[1], tried[0]))
        said += _next(tried[1], difference(tried[0], tried[1]), alike)
    sharpest = max(board.lines, key=lambda line: line.subject.clean.value)
    own = words.share(best.subject.clean)
    if sharpest.subject.clean.value > best.subject.clean.value:
        top = words.percent(sharpest.subject.clean.value)
        said.append(f"Without attack {best.name} gets {own} % right; the most accurate here, {sharpest.name}, {top}.")
    else:
        more = ", the most of all here" if len(board.lines) > 1 else ""
        said.append(f"Without attack {best.name} gets {own} % right{more}.")
    if best.here:
        said.append(_trust(best))
    return said


def _next(line: Line, difference: Interval | None, alike: bool) -> list[str]:
    level = words.percent(line.attacked.accuracy.value, "up") if line.attacked else "–"
    if difference is None:
        return [f"The next is {line.name} with at most {level}, on other images."]
    told = "" if _even(difference) else ", beyond what chance explains in this pair"
    said = f"The next is {line.name} with at most {level}: {words.points(difference)} points on the same images{told}."
    return [said] if alike else [said, "The two were not attacked alike, so the one attacked less looks better."]


def _trust(line: Line) -> str:
    """Whether the attacks on one classifier can be believed, in a sentence."""
    judged = line.judgement
    if judged is None:
        attacked = line.attacked
        if attacked is None or words.without_gradients(m.name for m in attacked.methods):
            return f"Whether the attacks on {line.name} work is not known: {words.NO_CHECK}."
        command = f"hauberk check RUN --threat {words.typed(attacked.norm, attacked.eps)} --diagnose"
        return f"Whether the attacks on {line.name} work was not checked: {command} does it."
    place = "" if judged.eps == line.eps else f", as looked at with ε = {words.epsilon(judged.eps)}"
    return f"The evaluation of {line.name} is {judged.verdict}{place}: {_meaning(judged)}."


def _meaning(judgement: Judgement) -> str:
    return {
        "sound": f"{_checks(len(judgement.findings))} on {judgement.images} images found no sign of a failing attack",
        "questionable": "a better attack may find more",
        "broken": "its attacked accuracy must not be believed",
    }[judgement.verdict]


def _checks(count: int) -> str:
    return "1 check" if count == 1 else f"{count} checks"


# --- proved, measured, not known ------------------------------------------------------------------------------


def _proved(board: Board) -> list[str]:
    said = []
    for line in board.proved[:MOST_NAMED]:
        if line.certified and line.curve:
            share = words.share(line.certified, "down")
            said.append(f"{line.name}: at least {share} % of {line.certified.n:,} images{_chance(line)}.")
    more, rest = len(board.proved) - MOST_NAMED, len(board.lines) - len(board.proved)
    if not board.proved:
        said.append("Nothing at this budget.")
    elif more > 0 or rest:
        counted = [f"a smaller share of {more} more"] * (more > 0) + [f"nothing of the other {rest}"] * (rest > 0)
        said.append(f"{words.listed(counted).capitalize()}.")
    checks = [c for line in board.lines for c in line.subject.checks if c.norm == board.norm]
    compared, found = sum(c.compared for c in checks), sum(c.found for c in checks)
    if compared:
        told = f"{found} of these images" if found else "none of these images"
        verb = "were" if found > 1 else "was"
        said.append(f"{compared:,} times an image was attacked and certified in this norm: {told} {verb} broken within "
                    "its radius.")  # fmt: skip
    return said


def _measured(board: Board) -> list[str]:
    tried = [line for line in board.lines if line.here and line.attacked]
    if not tried:
        return [f"{NO_ATTACK}."]
    images = sorted({line.attacked.accuracy.n for line in tried if line.attacked})
    many = f"{images[0]:,}" if len(images) == 1 else f"{images[0]:,} to {images[-1]:,}"
    names = words.attacks(m for line in tried for m in (line.attacked.methods if line.attacked else ()))
    who = f"{len(tried)} of {len(board.lines)} classifiers attacked" if len(board.lines) > 1 else "Attacked"
    said = [f"{who} on {many} images, with {names}."]
    for word in ("broken", "questionable", "sound"):
        judged = [line.name for line in tried if line.judged and line.judged.verdict == word]
        if judged:
            said.append(f"Evaluation {word}: {words.listed(judged)}.")
        for line in tried:
            other = line.judgement if line.judged is None else None
            if other and other.verdict == word:
                at = words.epsilon(other.eps)
                said.append(f"Evaluation {word} at ε = {at}, and not checked with this budget: {line.name}.")
    unjudged = [line.name for line in tried if line.judgement is None]
    if unjudged:
        said.append(f"Not checked whether the attacks work: {_few(unjudged)}.")
    return [*said, *_remarks(board)]


def _remarks(board: Board) -> list[str]:
    """Remarks on classifiers that give one answer for every image."""
    said = []
    for line in board.lines:
        known = line.subject.by_class
        if known and known.constant is not None:
            always = words.class_name(known.constant, line.subject.classes)
            said.append(f"{line.name} answers {always} for every image, so its accuracy is the share of that class.")
    return said


def _unknown(board: Board) -> list[str]:
    said = []
    for line in board.tried[:MOST_NAMED]:
        if line.attacked and line.certified and line.curve and line.curve.images == line.attacked.images:
            low, high = line.certified.value, line.attacked.accuracy.value
            if low < high:
                ends = f"{words.percent(low, 'down').removesuffix(' %')} and {words.percent(high, 'up')}"
                said.append(f"{line.name}: where between {ends} the share lies that no attack can break.")
        elif line.attacked and line.attacked.accuracy.value > 0:
            top = words.percent(line.attacked.accuracy.value, "up")
            said.append(f"{line.name}: how far below {top} a better attack brings it.")
    absent = [line.name for line in board.lines if not line.here]
    if absent:
        said.append(f"Not attacked with this budget: {_few(absent)}.")
    said.append("Changes of another kind: rotation, blur, patches, new cameras, poisoned training data.")
    return said


def _few(names: Sequence[str]) -> str:
    if len(names) <= MOST_NAMED:
        return words.listed(list(names))
    return f"{', '.join(names[: MOST_NAMED - 1])} and {len(names) - MOST_NAMED + 1} more"
