"""Text of a language model in the pieces of a recogniser."""

import pytest

from av_ssl.cli.main import main
from av_ssl.data.text import TextEncoder


@pytest.fixture
def data(tmp_path):
    lines = ["bin blue at two now", "lay red by six again", "set white in nine soon"] * 5
    (tmp_path / "train.wrd").write_text("\n".join(lines) + "\n")
    assert main(["data", "vocabulary", str(tmp_path), "--size", "40"]) == 0
    return tmp_path


def convert(data, text):
    (data / "text").write_bytes(text.encode() if isinstance(text, str) else text)
    return main(["data", "pieces", str(data), str(data / "text"), str(data / "out" / "train.pieces")])


def test_pieces_are_those_of_transcripts(data, capsys):
    assert convert(data, "Lay BLUE in two\n\n  again soon \n") == 0
    lines = (data / "out" / "train.pieces").read_text(encoding="utf-8").splitlines()
    encoder = TextEncoder.load(data / "dict.wrd.txt", data / "spm.model")
    assert lines == [encoder.encode("lay blue in two"), encoder.encode("again soon")]
    assert [encoder.decode(line) for line in lines] == ["lay blue in two", "again soon"]
    assert "2 sentences" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "message"),
    [("\n \n", "holds no words"), ("1984 2001 % $\n", "not in the dictionary"), (b"caf\xe9\n", "not UTF-8")],
)
def test_texts_of_no_use_are_refused(data, capsys, text, message):
    assert convert(data, text) == 1
    assert message in capsys.readouterr().err
    assert not (data / "out" / "train.pieces").exists()


def test_missing_text_is_named(data, capsys):
    assert main(["data", "pieces", str(data), str(data / "none"), str(data / "out")]) == 1
    assert "none: cannot be read" in capsys.readouterr().err
