"""Logs of others beside runs: their numbers, whether their radii fit what is stated, and that they are never ranked."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from hauberk.certification_log import CertificationLog, written
from hauberk.errors import HauberkError
from hauberk.noises import Gaussian
from hauberk.report import collect, page, summary, votes, write_report
from hauberk.report.ladder import ladder
from hauberk.report.logs import load_log
from hauberk.report.outcomes import correct

SIGMA = 0.5
HEADER = "idx\tlabel\tpredict\tradius\tcorrect\ttime\n"


def counted(n, alpha, images=300, seed=0):
    """Labels, answers and exact radii of a classifier whose vote probabilities are known, from binomial counts."""
    draws = np.random.default_rng(seed)
    p = np.concatenate([draws.uniform(0.3, 1.0, images - 100), np.full(60, 1.0), 1 - 10.0 ** draws.uniform(-5, -2, 40)])
    k = draws.binomial(n, p)
    lower = np.where(k == n, alpha ** (1 / n), stats.beta.ppf(alpha, k, n - k + 1))
    labels = draws.integers(0, 10, images)
    answers = np.where(draws.uniform(size=images) < 0.8, labels, (labels + 1) % 10)
    return labels, np.where(lower > 0.5, answers, -1), np.where(lower > 0.5, SIGMA * stats.norm.ppf(lower), 0.0)


def rounded(labels, predictions, radii):
    """A log as the field prints it: three significant digits, to the nearest."""
    rows = zip(labels, predictions, radii, strict=True)
    return HEADER + "".join(f"{i}\t{y}\t{c}\t{r:.3}\t{int(y == c)}\t0:00:13.7\n" for i, (y, c, r) in enumerate(rows))


@pytest.fixture
def log(tmp_path):
    def made(text, **stated):
        path = tmp_path / f"sigma_{SIGMA}"
        path.write_text(text)
        return load_log({"name": path, **stated})

    return made


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    path = tmp_path_factory.mktemp("log") / f"sigma_{SIGMA}"
    path.write_text(rounded(*counted(100_000, 0.001)))
    return path


def test_certified_accuracy_and_mean_radius_equal_an_independent_count(honest):
    (row,) = votes.voted([], str, [load_log({"name": honest, "n": 100_000, "alpha": 0.001})])
    told = [line.split("\t") for line in honest.read_text().splitlines()[1:]]
    right = [float(r) for _, y, c, r, *_ in told if y == c]
    assert row.curve.mean_radius.value == pytest.approx(sum(right) / len(told))
    assert row.curve.abstained.value == sum(c == "-1" for _, _, c, *_ in told) / len(told)
    assert 0 < row.curve.abstained.value < 0.5
    for eps in (0.0, 0.25, 0.5, 1.0, 1.5):
        assert row.curve.at(eps).value == sum(r >= eps for r in right) / len(told)
    assert row.curve.at(0.5).low < row.curve.at(0.5).value < row.curve.at(0.5).high


def test_images_are_sorted_by_the_vote_probability_of_their_radius(honest):
    found = load_log({"name": honest})
    bands = {b.name: b for b in votes.bands(found.part, found.noise)}
    told = [line.split("\t") for line in honest.read_text().splitlines()[1:]]
    p = [stats.norm.cdf(float(r) / SIGMA) for _, y, c, r, *_ in told if y == c]
    edges = zip(votes.RANGES, (0, 0.9, 0.99, 0.999), (0.9, 0.99, 0.999, 1), strict=True)
    for name, low, high in edges:
        assert bands[name].share.value == sum(low <= x < high for x in p) / len(told)
    assert bands["abstained"].share.value == sum(c == "-1" for _, _, c, *_ in told) / len(told)
    assert sum(b.share.value for b in bands.values()) == pytest.approx(1)
    assert sum(b.carried for b in bands.values()) == pytest.approx(1)
    assert bands["wrong"].carried == bands["abstained"].carried == 0


def test_the_largest_possible_radius_is_that_of_the_published_table():
    table = {1_000: (2.605, 2.463, 2.429, 2.359), 10_000: (3.314, 3.199, 3.171, 3.115),
             100_000: (3.911, 3.812, 3.788, 3.740), 1_000_000: (4.435, 4.347, 4.326, 4.283)}  # fmt: skip
    none = np.zeros(1)
    silent = CertificationLog(*(np.zeros(1, np.int64),) * 3, none, none + 1e-3, none)
    for n, row in table.items():
        for alpha, most in zip((0.01, 0.001, 0.0005, 0.0001), row, strict=True):
            assert ladder(silent, Gaussian(1.0), n, alpha).most == pytest.approx(most, abs=1e-3)


@pytest.mark.parametrize("true", [0.01, 0.001, 0.0005, 0.0001])
def test_a_log_fits_the_alpha_it_was_made_with_and_no_other(log, true):
    text = rounded(*counted(100_000, true))
    for stated in (0.01, 0.001, 0.0005, 0.0001):
        found = log(text, n=100_000, alpha=stated)
        assert (found.ladder.apart > 0) == (stated != true)
        assert (found.ladder.beyond > 0) == (stated < true)
        assert found.ladder.fitting == (true,)
    made_with = log(text, n=100_000, alpha=0.001 if true != 0.001 else 0.01)
    assert f"All of them fit alpha = {true:g}." in made_with.notes[0]


def test_radii_that_no_usual_alpha_gives_are_called_so(log):
    text = rounded(*counted(1_000, 0.001))
    assert log(text, n=1_000, alpha=0.001).notes == []
    assert "No usual alpha fits" in log(text, n=1_000, alpha=0.001, sigma=0.4).notes[0]


def test_radii_may_be_rounded_down_where_no_time_is_told(log):
    labels, predictions, radii = counted(100_000, 0.001)
    text = written(np.arange(len(labels)), labels, predictions, radii)
    assert log(text, n=100_000, alpha=0.001).notes == []
    assert log(text.replace("0:00:00", "0:00:09"), n=100_000, alpha=0.001).ladder.apart > 0
    assert log(text, n=100_000, alpha=0.01).ladder.apart > 0


def test_the_ladder_equals_an_enumeration_of_all_counts(log):
    n, alpha = 120, 0.01
    proved = [SIGMA * stats.norm.ppf(alpha ** (1 / n) if k == n else stats.beta.ppf(alpha, k, n - k + 1))
              for k in range(1, n + 1)]  # fmt: skip
    radii = np.round(np.random.default_rng(1).uniform(0.01, 1.05 * max(proved), 400), 3)
    found = log(rounded(np.zeros(400, int), np.zeros(400, int), radii), n=n, alpha=alpha)
    printed = zip(found.told.radii, found.told.places, strict=True)
    near = [min(abs(r - t) for t in proved) <= 0.5 * place for r, place in printed]
    assert found.ladder.apart == 400 - sum(near)
    assert 0 < sum(near) < 400


@pytest.mark.parametrize(("stated", "said"), [
    ({"sigma": -1.0}, "sigma"), ({"n": 0}, "n"), ({"n": 2.5}, "n"), ({"alpha": 1.5}, "alpha"), ({"votes": 9}, "votes"),
    ({"sigma": 0.5, "noise": "laplace:0.5"}, "both"), ({"noise": "sand:0.5"}, "sand"),
])  # fmt: skip
def test_impossible_settings_are_refused(log, stated, said):
    with pytest.raises(HauberkError, match=said):
        log(HEADER + "0\t1\t1\t0.3\t1\t1\n", **stated)


def test_sigma_is_asked_for_where_the_file_does_not_say_it(tmp_path):
    path = tmp_path / "cohen.tsv"
    path.write_text(HEADER + "0\t1\t1\t0.3\t1\t1\n")
    with pytest.raises(HauberkError, match="which noise"):
        load_log({"name": path})
    with pytest.raises(HauberkError, match="no log"):
        load_log({"name": tmp_path / "absent", "sigma": 0.5})
    found = load_log({"name": path, "noise": "laplace:0.5"})
    assert found.part.facts["norm"] == "l1"


@pytest.fixture(scope="module")
def smoothing(lab):
    (run,) = collect.load(lab.runs[:1])
    return next(part for part in run.parts if part.unit["method"]["name"] == "smoothing")


def test_a_certificate_on_record_has_its_vote_probabilities(smoothing):
    part = smoothing
    (row,) = votes.voted([[part]], str)
    assert row.log is None
    p = stats.norm.cdf(part.column("radius") / 0.5)[correct(part)]
    assert row.sure.share.value == pytest.approx((p >= 0.99).mean() * len(p) / part.table.num_rows)
    assert row.n == 10_000


def test_estimates_and_certificates_with_a_goal_have_no_row(smoothing):
    part = smoothing
    guessed = replace(part, facts={**part.facts, "proof": "estimate"})
    aimed = replace(part, unit={**part.unit, "method": {**part.unit["method"], "goal": 0.25}})
    assert votes.voted([[guessed], [aimed]], str) == []


def test_a_log_changes_no_ranking_and_no_verdict_and_is_called_what_it_is(lab, honest, tmp_path):
    cohen = load_log({"name": honest, "n": 100_000, "alpha": 0.01, "called": "Cohen"})
    text = write_report(lab.runs[:1], tmp_path / "both.html", [cohen]).read_text()
    told = re.search(r'<section id="votes".*?</section>', text, re.S)[0]
    for said in ("Cohen", "on trust", "contradicts what is stated", "smoothed("):
        assert said in told
    assert "Cohen" not in text.replace(told, "")
    assert "but for those of logs, which stand on trust" in " ".join(text.split())


def test_the_numbers_are_plain_values_that_say_what_is_on_trust(lab, honest):
    found = summary(lab.runs[:1], [load_log({"name": honest})])["votes"]
    assert [row["on_trust"] for row in found] == [False, True]
    assert found[1]["alpha"] is None
    assert json.loads(page.to_json({"votes": found}))["votes"] == found


def test_a_page_of_logs_alone(honest, tmp_path, typed):
    code, said = typed("report", "--log", f"{honest},n=100000,alpha=0.01", "-o", tmp_path / "logs.html")
    assert code == 0
    assert "fit alpha = 0.001" in " ".join(said.split())
    assert "log, on trust" in (tmp_path / "logs.html").read_text()
    assert "expected a run or a log" in typed("report")[1]
