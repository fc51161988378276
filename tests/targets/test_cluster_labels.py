"""Finished label files against manifest and dictionary."""

import pytest

from av_ssl.errors import DataError
from av_ssl.targets.cluster_labels import check_labels, write_dictionary
from tests.data_folder import listed_clips


def check(folder, text, frames, clusters=4):
    (folder / "train.km").write_text(text)
    write_dictionary(folder / "dict.km.txt", clusters)
    return check_labels(folder / "train.km", folder / "dict.km.txt", listed_clips(*frames), 25, clusters)


def test_usage(tmp_path):
    usage = check(tmp_path, "0 0 1 1\n3 3 3 3\n\n", (4, 4, 4))
    assert (usage["clips"], usage["labels"], usage["clusters"], usage["clusters_unused"]) == (3, 8, 4, 1)
    assert usage["entropy_bits"] == pytest.approx(1.5)
    assert usage["perplexity"] == pytest.approx(2**1.5)
    assert usage["largest_share"] == 0.5
    assert usage["hours"] == pytest.approx(8 / 25 / 3600)
    assert usage["clips_without_labels"] == usage["clips_of_other_length"] == ["clip2"]
    assert (tmp_path / "dict.km.txt").read_text() == "0 10000\n1 10000\n2 10000\n3 10000\n"


def test_one_cluster_has_no_entropy(tmp_path):
    usage = check(tmp_path, "0 0 0 0\n", (4,), clusters=1)
    assert (usage["entropy_bits"], usage["perplexity"]) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 0 1 1\n", r"train\.km has 1 lines, train\.tsv lists 2 clips"),
        ("0 0 1 1\n0 0 1 4\n", r"train\.km, line 2: holds cluster 4, ids are 0 to 3|not in the dictionary"),
        ("0 0 1 1\n" + "0 " * 30 + "x\n", r"train\.km, line 2: holds something else|not in the dictionary"),
    ],
)
def test_files_that_do_not_fit(text, message, tmp_path):
    with pytest.raises(DataError, match=message):
        check(tmp_path, text, (4, 31))


def test_a_dictionary_without_cluster_0(tmp_path):
    (tmp_path / "train.km").write_text("1 1 2 2\n")
    (tmp_path / "dict.km.txt").write_text("1 1\n2 1\n")
    with pytest.raises(DataError, match=r"dict\.km\.txt: does not list the ids 0 to 2 in order"):
        check_labels(tmp_path / "train.km", tmp_path / "dict.km.txt", listed_clips(4), 25, 3)


def test_lengths_that_disagree_in_more_than_one_percent(tmp_path):
    assert check(tmp_path, "0 0 0 0\n0\n", (4, 4))["clips_of_other_length"] == ["clip1"]
    with pytest.raises(
        DataError, match=r"in 2 of 3 clips; clip1 has 4 frames .*line 3\) and 1 labels at 25 Hz"
    ):
        check(tmp_path, "0 0 0 0\n0\n0\n", (4, 4, 4))
