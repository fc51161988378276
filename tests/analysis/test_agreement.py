"""Agreement of clusters with words and speakers."""

import numpy as np
import pytest

from av_ssl.analysis.agreement import agreement, agreement_table
from av_ssl.errors import DataError
from av_ssl.manifest import read_manifest


@pytest.mark.parametrize(
    ("clusters", "classes", "expected"),
    [
        ([2, 2, 0, 1], "bbaa", (1, 0.75, 1)),
        ([0, 1, 0, 1], "aabb", (0.5, 0.5, 0)),
        ([0, 1], "aa", (1, 0.5, 0)),
        # H(class) = 0.6365 nats. Cluster 0 has a and b, cluster 1 has a: H(class | cluster) = 2/3 log 2.
        ([0, 0, 1], "aba", (2 / 3, 2 / 3, 1 - (2 / 3) * np.log(2) / 0.636514)),
    ],
)
def test_known_values(clusters, classes, expected):
    assert agreement(np.array(clusters), np.array(list(classes))) == pytest.approx(expected, abs=1e-6)


@pytest.fixture
def corpus(tmp_path):
    """Two talkers, labels at 25 Hz: word `bin` is cluster 1 and `lay` cluster 2; pauses are cluster 0."""
    lines = [f"s{k}/x\ts{k}/x.mp4\ts{k}/x.wav\t5\t3200\n" for k in (1, 2, 3)]
    (tmp_path / "train.tsv").write_text("/\n" + "".join(lines))
    (tmp_path / "train.km").write_text("0 1 1 2 2\n0 1 1 2 2\n0 0 0 0 0\n")
    for talker in ("s1", "s2"):
        (tmp_path / talker).mkdir()
        (tmp_path / talker / "x.align").write_text("0 1000 sil\n1000 3000 bin\n3000 5000 lay\n")
    return tmp_path


def test_words_and_speakers(corpus):
    clips = read_manifest(corpus / "train.tsv")
    table = agreement_table(corpus / "train.km", clips, 25, corpus)
    assert "8 labels in which something is said, 2 of 3 clips" in table
    assert "| word | 2 | 1.000 | 1.000 | 1.000 |" in table
    assert "| speaker | 2 | 0.500 | 0.500 | 0.000 |" in table


def test_no_alignment(corpus):
    with pytest.raises(DataError, match=r"nowhere.*holds no label"):
        agreement_table(corpus / "train.km", read_manifest(corpus / "train.tsv"), 25, corpus / "nowhere")


def test_phones_and_words_in_one_folder(corpus):
    (corpus / "s3").mkdir()
    (corpus / "s3/x.json").write_text('{"phones": [["a", 0, 0.2]]}')
    with pytest.raises(DataError, match="of phones and of words"):
        agreement_table(corpus / "train.km", read_manifest(corpus / "train.tsv"), 25, corpus)
