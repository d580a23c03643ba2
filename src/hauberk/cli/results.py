"""The numbers of a run in a few lines, computed from its records."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hauberk.later import Later

if TYPE_CHECKING:
    from hauberk.report import collect, page, words
    from hauberk.report.subject import Attacked, Subject
    from hauberk.statistics import Interval
else:
    collect, page, words = (Later(f"hauberk.report.{name}") for name in ("collect", "page", "words"))


def percent(interval: Interval, rounding: Literal["up", "down", "near"] = "near") -> str:
    """``61.2 % [58.1, 64.2]``: value and 95 % interval; bounds are rounded to the safe side."""
    return f"{words.percent(interval.value, rounding)} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"


def nothing(run: Path) -> bool:
    """Whether the run has no records: a shard may have no unit."""
    return not any(run.glob("records/*.parquet"))


def lines(run: Path) -> list[str]:
    """The results of a run as lines."""
    found = collect.subjects(part for facts in collect.load([run]) for part in facts.parts)
    return [line for subject in found for line in _subject_lines(subject)]


def diagnosis_lines(run: Path) -> list[str]:
    """The findings of the checks of an evaluation, one line each, the worst first."""
    found = collect.judgements(part for facts in collect.load([run]) for part in facts.parts)
    return [line for j in found for line in [
        f"evaluation {j.verdict}: {words.judged(j)}",
        *(f"  {f.verdict}  {f.name.replace('_', ' ')}: {f.reason}" for f in j.findings),
    ]]  # fmt: skip


def numbers(run: Path) -> dict[str, Any]:
    """The results of a run as plain values."""
    return page.summary([run])


def _subject_lines(subject: Subject) -> Iterator[str]:
    yield f"{subject.predictor} on {subject.dataset}/{subject.split}"
    own = subject.by_class
    uneven = own is not None and own.uneven
    beside = f", balanced {percent(own.balanced)}" if own is not None and uneven else ""
    yield f"  clean {percent(subject.clean)} of {subject.clean.n} images{beside}"
    yield from (f"  note: {note}" for note in subject.notes)
    for attacked in subject.attacked:
        names = ", ".join(dict.fromkeys(m.suite or m.name for m in attacked.methods))
        upper = percent(attacked.accuracy, "up")
        after = attacked.by_class if uneven else None
        beside = f", balanced {percent(after.balanced, 'up')}" if after else ""
        yield f"  attacked {attacked.norm} {words.epsilon(attacked.eps)}: {upper} at most{beside} ({names})"
        yield from (f"    {line}" for line in _random_lines(attacked))
    yield from _variant_lines(subject)
    for judgement in subject.judgements:
        yield f"  evaluation {judgement.verdict}: {words.judged(judgement)}"
        yield from (f"    {f.name.replace('_', ' ')}: {f.reason}" for f in judgement.findings if f.verdict != "sound")
    for curve in (*subject.certified, *subject.estimated):
        word = "estimated" if curve.proof == "estimate" else "certified"
        chance = curve.failure_probability
        levels = [x for x in curve.levels if x.accuracy.value > 0]
        if curve.proof == "estimate":  # an estimate holds for its own budget alone, its largest radius
            yield from (f"  {word} {curve.norm} {words.epsilon(x.eps)}: about {percent(x.accuracy)} ({curve.method})"
                        for x in levels[-1:])  # fmt: skip
            continue
        risk = f", each row may fail with probability {chance:g}" if chance else ""
        means = {x.eps: f", balanced {percent(x.accuracy, 'down')}" for x in curve.balanced if uneven}
        for level in levels[:6]:
            lower, beside = percent(level.accuracy, "down"), means.get(level.eps, "")
            yield f"  {word} {curve.norm} {words.epsilon(level.eps)}: {lower} at least{beside} ({curve.method}{risk})"
        yield f"  mean radius over all images {curve.mean_radius.value:.4f} {curve.norm}"


def _random_lines(attacked: Attacked) -> Iterator[str]:
    """Lines about a random model: the curve of a sweep, repeated tries of the points, and attacks on fixed draws."""
    found = attacked.draws
    if found.sweep is not None:
        stages = found.sweep.stages
        curve = ", ".join(f"{words.percent(s.accuracy.value, 'up')} ({s.draws} x {s.steps})" for s in stages)
        yield f"after each stage (draws x steps): {curve}"
        yield words.swept(found.sweep)
    for one in found.repeated:
        clean = percent(one.clean)
        yield f"right in all of {one.tries} tries: {percent(one.attacked, 'up')} at most, without an attack {clean}"
    for other in found.transferred:
        yield (
            f"transfer between draws, a diagnostic: an attack on {other.draws} fixed breaks "
            f"{percent(other.own)} there, {percent(other.carried)} for the predictor"
        )


def _variant_lines(subject: Subject) -> Iterator[str]:
    """Lines about points in whole levels, attacks towards a chosen class, and the median distance of errors."""
    for white, found in subject.on_grid:
        for attacked in found:
            budget = f"{attacked.norm} {attacked.eps:.4g}"
            yield f"  attacked {budget} in whole levels of 1/{white}: {percent(attacked.accuracy, 'up')} at most"
    for one in subject.reached:
        name, rate = words.class_name(one.target, subject.classes), one.rate
        grid = "" if one.white is None else f" in whole levels of 1/{one.white}"
        yield (
            f"  turned into {name}, {one.norm} {one.eps:.4g}{grid}: {percent(rate, 'down')} at least of {rate.n} "
            f"images of other classes ({', '.join(one.attacks)})"
        )
    for half in subject.half_broken:
        median = half.eps50
        yield (
            f"  eps50 {half.norm}: {median.value:.4g} at most [{median.low:.4g}, {median.high:.4g}], over {median.n} "
            f"images that are right, {half.standing} of them never broken ({', '.join(half.attacks)})"
        )
