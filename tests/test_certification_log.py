"""Certification logs: what the field writes is read, what is wrong is named by its line, what is written reads back."""

import numpy as np
import pytest

from hauberk.certification_log import read_log, written
from hauberk.errors import HauberkError

HEADER = "idx\tlabel\tpredict\tradius\tcorrect\ttime\n"
FIELD = HEADER + (
    "0\t3\t3\t0.378\t1\t15.4\n20\t7\t-1\t0.0\t0\t15.6\n40\t4\t4\t1.2\t1\t0:02:31.5\n60\t7\t1\t7.11e-05\t0\t"
)


@pytest.fixture
def read(tmp_path):
    def reading(text):
        path = tmp_path / "sigma_0.25"
        path.write_bytes(text.encode())
        return read_log(path)

    return reading


def refused(read, text, *said):
    with pytest.raises(HauberkError) as caught:
        read(text)
    assert all(word in caught.value.message for word in said), caught.value.message


def test_the_field_s_layout_with_abstentions_and_both_formats_of_time(read):
    log = read(FIELD + "1 day, 0:00:01\n")
    assert log.ids.tolist() == [0, 20, 40, 60]
    assert log.labels.tolist() == [3, 7, 4, 7]
    assert log.predictions.tolist() == [3, -1, 4, 1]
    assert log.radii.tolist() == [0.378, 0.0, 1.2, 7.11e-05]
    assert log.seconds.tolist() == [15.4, 15.6, 151.5, 86401.0]
    assert log.notes == ()


def test_the_last_place_of_a_radius_is_known_though_trailing_zeros_are_left_out(read):
    significant = read(FIELD + "\n").places
    assert np.allclose(significant[[0, 2, 3]], [1e-3, 1e-2, 1e-7], rtol=1e-12)
    rows = ("0\t1\t1\t12.3456\t1\t0", "1\t1\t1\t0.0012\t1\t0", "2\t1\t1\t0.5\t1\t0")
    assert np.allclose(read(HEADER + "\n".join(rows)).places, 1e-4, rtol=1e-12)


def test_other_columns_are_ignored_and_time_may_be_missing(read):
    aces = read("idx\tlabel\tpredict\tradius\tcorrect\tunperturbed predict\tunperturbed correct\ttime\n"
                "0\t3\t3\t0.947\t1\t3\t1\t0:01:18.2\n9960\t2\t0\t0.947\t0\t0\t0\t0:01:15.7\n")  # fmt: skip
    assert aces.predictions.tolist() == [3, 0]
    assert aces.seconds.tolist() == [78.2, 75.7]
    merged = read("idx\tlabel\tpredict\tradius\tcorrect\n5\t3\t3\t0.947\t1\n")
    assert np.isnan(merged.seconds).all()


def test_a_running_total_of_right_images_is_told_from_a_wrong_column(read):
    rows = "0\t3\t3\t0.3\t1\t1\n1\t3\t3\t0.3\t2\t1\n2\t3\t4\t0.3\t2\t1\n"
    log = read(HEADER + rows)
    assert (log.labels == log.predictions).tolist() == [True, True, False]
    assert "running total" in log.notes[0]
    refused(read, HEADER + rows.replace("0.3\t2\t1\n2", "0.3\t3\t1\n2"), "line 3", "correct")
    refused(read, HEADER + "0\t3\t4\t0.3\t1\t1\n", "line 2", "correct")


@pytest.mark.parametrize("cut", ["60", "60\t7\t7", "60\t7\t7\t0.4", "60\t7\t7\t0.41\t1"])
def test_a_last_line_that_was_cut_short_is_left_out_and_named(read, cut):
    whole = FIELD.rsplit("60", 1)[0]
    log = read(whole + cut)
    assert log.ids.tolist() == [0, 20, 40]
    assert log.notes == ("line 5, the last one, is cut short and left out",)
    refused(read, whole + cut + "\n70\t7\t7\t0.4\t1\t2\n", "line 5", "columns")


def test_a_value_at_the_very_end_of_a_file_may_have_lost_digits(read):
    for time in ("0:0", "0:02:3", "1"):
        assert np.isnan(read(FIELD + time).seconds[-1])
    log = read("idx\tlabel\tpredict\tradius\n0\t3\t3\t0.378\n1\t3\t3\t1.2")
    assert log.ids.tolist() == [0]
    assert "line 3" in log.notes[0]


def test_repeated_headers_blank_lines_and_stray_whitespace(read):
    log = read("\ufeff" + HEADER.replace("\n", "\r\n") + "\n 0 \t3\t3\t0.378\t1\t15.4\t\r\n" + HEADER.upper()
               + "20\t7\t-1\t0.0\t0\t15.6  \n\n")  # fmt: skip
    assert log.ids.tolist() == [0, 20]
    assert log.notes == ("line 4 repeats the header",)
    spaced = read("idx label predict radius correct time\n0 3 3 0.378 1 15.4\n")
    assert spaced.radii.tolist() == [0.378]


def test_an_image_counts_once(read):
    line = "0\t3\t3\t0.378\t1\t15.4\n"
    log = read(HEADER + line + line.replace("15.4", "9"))
    assert log.ids.tolist() == [0]
    assert "1 lines repeat" in log.notes[0]
    refused(read, HEADER + line + line.replace("0.378", "0.9"), "line 3", "line 2", "image 0")


@pytest.mark.parametrize(("line", "said"), [
    ("x\t3\t3\t0.3\t1\t1", "idx"), ("-4\t3\t3\t0.3\t1\t1", "idx"), ("4\t3.5\t3\t0.3\t1\t1", "label"),
    ("4\t3\t-2\t0.3\t0\t1", "predict"), ("4\t3\t3\tnan\t1\t1", "radius"), ("4\t3\t3\t-0.3\t1\t1", "radius"),
    ("4\t3\t3\tinf\t1\t1", "radius"), ("4\t3\t3\tsnan\t1\t1", "radius"),
    ("4\t3\t3\t\t1\t1", "radius"), ("4\t3\t-1\t0.3\t0\t1", "abstained"),
    ("4\t3\t3\t0.3\t1\tsoon", "time"), ("4\t3\t3\t0.3", "columns"), ("4\t3\t3\t0.3\t1\t1\t9", "columns"),
    (f"{2**63}\t3\t3\t0.3\t1\t1", "idx"), ("4\t3\t3\t1e-9999999999999999999999\t1\t1", "radius"),
])  # fmt: skip
def test_a_wrong_line_is_named(read, line, said):
    refused(read, HEADER + "1\t3\t3\t0.378\t1\t15.4\n" + line + "\n5\t3\t3\t0.378\t1\t15.4\n", "line 3", said)


@pytest.mark.parametrize("text", ["", "\n", HEADER, "0.0\t0.7\n0.1\t0.6\n", "idx\tpredict\tradius\n0\t1\t0.2\n",
                                  "idx\tlabel\tpredict\tradius\tradius\n0\t1\t1\t0.2\t0.3\n"])  # fmt: skip
def test_what_is_no_log_is_refused(read, text):
    refused(read, text)


def test_what_is_written_reads_back_and_no_radius_has_grown(read):
    draws = np.random.default_rng(0)
    radii = np.concatenate([10.0 ** draws.uniform(-6, 3, 500), [0.0, 0.1, 0.953, 1.0, 9.995, 0.3]])
    radii[:5] = 0.0
    ids = np.arange(len(radii))
    labels, predictions = draws.integers(0, 3, len(ids)), draws.integers(0, 3, len(ids))
    predictions[:5] = -1
    log = read(written(ids, labels, predictions, radii))
    assert (log.ids == ids).all()
    assert (log.labels == labels).all()
    assert (log.predictions == predictions).all()
    assert (log.radii <= radii).all()
    assert (log.radii > radii - 1.001 * log.places).all()
    assert np.isclose(log.radii, radii, rtol=1e-2).all()
    assert (log.seconds == 0).all()
    assert log.notes == ()
