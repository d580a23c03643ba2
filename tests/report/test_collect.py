import dataclasses

import numpy as np
import pytest

from hauberk import records
from hauberk.errors import HauberkError
from hauberk.report import collect, mixing
from hauberk.report.subject import one_axis
from hauberk.runs import Run


@pytest.fixture(scope="module")
def parts(lab):
    return [p for run in collect.load(lab.runs) for p in run.parts]


@pytest.fixture(scope="module")
def known(parts):
    return {s.predictor: s for s in collect.subjects(parts)}


def changed(part, facts=None, unit=None, **columns):
    table = {name: part.table.column(name).to_pylist() for name in part.table.column_names} | columns
    return records.part(part.kind, {**part.unit, **(unit or {})}, {**part.facts, **(facts or {})}, table)


def only(parts, kind, name, norm="l2", eps=0.5):
    return [
        p for p in parts
        if p.kind == kind and p.unit["predictor"] == name
        and (kind != "attack" or p.unit["threat"] == {"name": norm, "eps": eps})
    ]


def test_the_worst_case_is_taken_image_by_image(lab, parts, known) -> None:
    two = only(parts, "attack", lab.robust.name)
    assert len(two) == 2
    broken = np.logical_or(*[p.column("success") for p in two])
    found = next(a for a in known[lab.robust.name].attacked if (a.norm, a.eps) == ("l2", 0.5))
    assert found.accuracy.value == pytest.approx(1 - broken.mean())
    assert found.accuracy.value <= min(m.accuracy.value for m in found.methods)
    assert [m.name for m in found.methods] == ["apgd", "pgd"]


def test_attacks_that_break_different_images_add_up(lab, parts) -> None:
    first, second = only(parts, "attack", lab.robust.name)
    right = first.column("clean_prediction") == first.column("label")
    even = np.arange(len(right)) % 2 == 0
    halves = [changed(first, success=(~right | even).tolist()), changed(second, success=(~right | ~even).tolist())]
    [subject] = collect.subjects(halves)
    assert subject.attacked[0].accuracy.value == 0.0
    assert subject.attacked[0].success_rate.value == 1.0
    assert subject.attacked[0].boundary_error.value == right.mean()
    assert all(m.accuracy.value > 0.3 for m in subject.attacked[0].methods)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_lead_under_attack_is_the_smallest_that_any_attack_saw(lab, parts, order) -> None:
    two = only(parts, "attack", lab.robust.name)
    rows = [{r["id"]: r for r in p.table.to_pylist()} for p in two]
    stand = [i for i in rows[0] if not rows[0][i]["success"] and not rows[1][i]["success"]]
    least = [min(r[i]["probability_margin"] for r in rows) for i in stand]
    assert len(stand) > 5
    [subject] = collect.subjects([two[i] for i in order])
    gap = subject.attacked[0].gaps.attacked_right
    assert gap.n == len(stand)
    assert gap.mean.value == pytest.approx(np.mean(least), abs=1e-6)


def test_attacks_on_survivors_only_are_joined_by_id(lab, parts) -> None:
    first, second = only(parts, "attack", lab.robust.name)
    survivors = np.flatnonzero(~first.column("success"))
    rest = records.Part(second.kind, second.unit, second.facts, second.table.take(survivors))
    [subject] = collect.subjects([first, rest])
    broken = first.column("success") | second.column("success")
    assert subject.attacked[0].accuracy.value == pytest.approx(1 - broken.mean())
    assert subject.attacked[0].accuracy.n == len(broken)


def test_the_staircase_is_exact(lab, known) -> None:
    x, y, _ = lab.data
    radius, right = lab.robust.radius(x), lab.robust.logits(x).argmax(1) == y
    [curve] = known[lab.robust.name].certified
    assert not curve.thinned
    for eps in np.random.default_rng(0).uniform(0, 1.5, 200):
        after = [s for s in curve.steps if s.eps < eps][-1]
        assert after.accuracy.value == pytest.approx((right & (radius >= eps)).mean())
    assert curve.mean_radius.value == pytest.approx(np.where(right, radius, 0).mean())


def test_a_thinned_staircase_is_never_above_the_exact_one(lab, parts, monkeypatch) -> None:
    x, y, _ = lab.data
    monkeypatch.setattr(collect, "MOST_STEPS", 17)
    [subject] = collect.subjects(only(parts, "certificate", lab.robust.name))
    [curve] = subject.certified
    radius, right = lab.robust.radius(x), lab.robust.logits(x).argmax(1) == y
    assert curve.thinned
    assert len(curve.steps) == 18
    for eps in np.linspace(0.001, 1.5, 400):
        shown = [s for s in curve.steps if s.eps < eps][-1].accuracy.value
        assert shown <= (right & (radius >= eps)).mean() + 1e-12


def test_certified_never_exceeds_attacked(known) -> None:
    for subject in known.values():
        for attacked in subject.attacked:
            curve = subject.curve(attacked.norm)
            if curve is not None:
                level = next(v for v in curve.levels if v.eps == attacked.eps)
                assert level.accuracy.value <= attacked.accuracy.value
        assert all(c.found == 0 and c.compared for c in subject.checks)


def test_a_broken_certificate_is_found(lab, parts) -> None:
    [certificate] = only(parts, "certificate", lab.robust.name)
    attacks = only(parts, "attack", lab.robust.name)
    boasting = changed(certificate, radius=(certificate.column("radius") + 0.3).tolist())
    [subject] = collect.subjects([*attacks, boasting])
    right = certificate.column("prediction") == certificate.column("label")
    within = [a.column("success") & (a.column("distance") < boasting.column("radius")) for a in attacks]
    assert subject.checks[0].found == (np.logical_or(*within) & right).sum() > 0


def test_an_estimate_is_never_certified(lab, parts) -> None:
    [certificate] = only(parts, "certificate", lab.robust.name)
    estimate = changed(certificate, facts={"proof": "estimate"})
    [subject] = collect.subjects([*only(parts, "attack", lab.robust.name), estimate])
    assert subject.certified == subject.checks == ()
    assert len(subject.estimated) == 1
    assert subject.curve("l2") is None
    with pytest.raises(HauberkError, match="estimate"):
        one_axis([*subject.attacked, *subject.estimated])


def test_one_axis_holds_one_predictor_and_one_norm(lab, known) -> None:
    robust, accurate = known[lab.robust.name], known[lab.accurate.name]
    l2 = [a for a in robust.attacked if a.norm == "l2"]
    assert one_axis([*l2, *robust.certified]) == (lab.robust.name, "l2")
    with pytest.raises(HauberkError, match="one predictor and one norm"):
        one_axis([*l2, *accurate.attacked])
    with pytest.raises(HauberkError, match="one predictor and one norm"):
        one_axis(robust.attacked)
    with pytest.raises(HauberkError):
        one_axis([])


def test_the_headline_is_the_middle_budget_of_the_fullest_suite(lab, known) -> None:
    headline = known[lab.robust.name].headline
    assert (headline.norm, headline.eps, len(headline.methods)) == ("l2", 0.5, 2)


def test_records_that_disagree_about_the_data_are_refused(lab, parts) -> None:
    first, second = only(parts, "attack", lab.robust.name)
    with pytest.raises(HauberkError, match="two different labels"):
        collect.subjects([first, changed(second, label=[0] * second.table.num_rows)])
    with pytest.raises(HauberkError, match="classes"):
        collect.subjects([first, changed(second, facts={"classes": ["a", "b"]})])


def test_runs_without_records_are_refused(tmp_path) -> None:
    Run.create(tmp_path, {"name": "empty", "data": {"name": "digits"}})
    with pytest.raises(HauberkError, match="no records"):
        collect.load([tmp_path])
    with pytest.raises(HauberkError, match="not a run"):
        collect.load([tmp_path / "absent"])


# --- mixes ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mix(parts, known):
    [found] = mixing.mixes(parts, known.values())
    return found


@pytest.mark.parametrize("alpha", [0.0, 0.13, 0.37, 0.5, 0.62, 0.8, 0.91, 1.0])
def test_clean_accuracy_of_every_alpha_is_that_of_the_mix(lab, mix, alpha) -> None:
    x, y, _ = lab.data
    truth = dataclasses.replace(lab.mixture, alpha=alpha).probabilities(x).argmax(1) == y
    assert mix.clean_accuracy(alpha).value == pytest.approx(truth.mean())


@pytest.mark.parametrize("alpha", [0.55, 0.8, 0.95])
def test_certified_images_of_a_mix_survive_attack(lab, mix, alpha) -> None:
    x, y, _ = lab.data
    mixture = dataclasses.replace(lab.mixture, alpha=alpha)
    for k, eps in enumerate(mix.eps):
        points = mixture.attack(x, y, eps, "l2")
        certified = np.array([row[k] is not None and row[k] <= alpha for row in mix.certified])
        assert mix.certified_accuracy(alpha, eps).value == pytest.approx(certified.mean())
        assert (mixture.probabilities(points).argmax(1) == y)[certified].all()


def test_a_radius_that_was_not_recorded_is_refused(mix) -> None:
    with pytest.raises(HauberkError, match="no radius"):
        mix.certified_accuracy(0.8, 0.3)


def test_dots_stand_at_the_alphas_that_were_attacked(lab, mix) -> None:
    assert {d.alpha for d in mix.dots} == {0.0, 0.8, 1.0}
    assert {d.predictor for d in mix.dots if d.alpha == 1.0} == {lab.robust.name}


def test_a_mix_without_certificate_records_takes_its_proof_from_the_mix(lab, known, mix) -> None:
    subject = known[lab.mixture.name]
    [curve] = subject.certified
    for level in curve.levels:
        if level.eps in mix.eps:
            assert level.accuracy == mix.certified_accuracy(0.8, level.eps)


def test_what_a_mix_answered_at_its_own_alpha_parts_no_family(lab, parts, known) -> None:
    [part] = [p for p in parts if p.kind == "mix"]
    told = [changed(part, unit={"predictor": name}, evidence=[f'{{"mix_deployed": {k}}}'] * part.table.num_rows)
            for k, name in enumerate(("one", "other"))]  # fmt: skip
    assert len(mixing.mixes(told, known.values())) == 1


def test_mixes_that_disagree_are_refused(lab, parts, known) -> None:
    [part] = [p for p in parts if p.kind == "mix"]
    other = changed(part, unit={"predictor": "other"}, alpha_low=[0.0] * part.table.num_rows)
    with pytest.raises(HauberkError, match="different rows"):
        mixing.mixes([part, other], known.values())
