"""The tokenizer and its dictionary, and the text of a language model in its pieces."""

import random

import pytest
import sentencepiece

from av_ssl.data.text import TextEncoder

from .conftest import call


@pytest.fixture
def out(tmp_path):
    """A training text of 400 lines from 300 random words, one with an accent."""
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghijklmnop", k=draw.randint(2, 8))) for _ in range(299)] + ["café"]
    lines = [" ".join(draw.choices(words, k=6)) for _ in range(400)]
    (tmp_path / "train.wrd").write_text("\n".join([*lines, "CAFÉ au lait"]) + "\n", encoding="utf-8")
    (tmp_path / "labelled_3").mkdir()
    return tmp_path


def test_ids_of_model_and_dictionary_are_the_same(out):
    assert call("data", "vocabulary", out, "--size", "200") == 0
    model = sentencepiece.SentencePieceProcessor(model_file=str(out / "spm.model"))
    assert model.get_piece_size() == 200
    assert [model.id_to_piece(k) for k in range(4)] == ["<s>", "<pad>", "</s>", "<unk>"]
    assert (model.bos_id(), model.pad_id(), model.eos_id(), model.unk_id()) == (0, 1, 2, 3)
    lines = (out / "dict.wrd.txt").read_text(encoding="utf-8").splitlines()
    assert lines == [f"{model.id_to_piece(k)} 1" for k in range(4, 200)]
    assert model.unk_id() not in model.encode("café au lait")
    assert model.decode(model.encode("café")) == "café"
    for name in ("spm.model", "spm.vocab", "dict.wrd.txt"):
        assert (out / "labelled_3" / name).read_bytes() == (out / name).read_bytes()


def test_same_text_same_bytes(out):
    models = set()
    for _ in range(2):
        assert call("data", "vocabulary", out, "--size", "100") == 0
        models.add((out / "spm.model").read_bytes())
    assert len(models) == 1


def test_a_small_text_gives_fewer_pieces_and_says_so(tmp_path, capsys):
    (tmp_path / "train.wrd").write_text("bin blue at two now\nlay red by six again\n")
    assert call("data", "vocabulary", tmp_path, "--size", "1000") == 0
    pieces = len((tmp_path / "dict.wrd.txt").read_text().splitlines()) + 4
    assert pieces < 60
    assert f"supports only {pieces}" in capsys.readouterr().out


def test_a_size_below_the_number_of_characters_is_refused(out, refused):
    message = refused(call("data", "vocabulary", out, "--size", "8"))
    assert "train.wrd" in message
    least = message.split("--size ")[1].split()[0]
    assert call("data", "vocabulary", out, "--size", least) == 0


def test_the_largest_labelled_list_serves_when_the_whole_has_no_transcripts(tmp_path):
    for count in (2, 10):
        (tmp_path / f"labelled_{count}").mkdir()
        (tmp_path / f"labelled_{count}" / "train.wrd").write_text("place green with four please\n" * count)
    assert call("data", "vocabulary", tmp_path, "--size", "30") == 0
    assert (tmp_path / "labelled_2" / "spm.model").read_bytes() == (tmp_path / "spm.model").read_bytes()


def test_no_text(tmp_path, refused):
    assert "train.wrd: does not exist" in refused(call("data", "vocabulary", tmp_path))
    (tmp_path / "train.wrd").write_text("\n")
    assert "holds no words" in refused(call("data", "vocabulary", tmp_path))


def test_whole_words_whatever_the_size(out):
    assert call("data", "vocabulary", out, "--size", "8", "--type", "word") == 0
    model = sentencepiece.SentencePieceProcessor(model_file=str(out / "spm.model"))
    words = set((out / "train.wrd").read_text(encoding="utf-8").lower().split())
    assert {model.id_to_piece(k) for k in range(4, model.get_piece_size())} == {
        f"\u2581{word}" for word in words
    }
    assert model.encode("café lait", out_type=str) == ["\u2581café", "\u2581lait"]


@pytest.fixture
def data(tmp_path):
    lines = ["bin blue at two now", "lay red by six again", "set white in nine soon"] * 5
    (tmp_path / "train.wrd").write_text("\n".join(lines) + "\n")
    assert call("data", "vocabulary", tmp_path, "--size", "40") == 0
    return tmp_path


def convert(data, text):
    (data / "text").write_bytes(text.encode() if isinstance(text, str) else text)
    return call("data", "pieces", data, data / "text", data / "out" / "train.pieces")


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
def test_texts_of_no_use_are_refused(data, refused, text, message):
    assert message in refused(convert(data, text))
    assert not (data / "out" / "train.pieces").exists()
