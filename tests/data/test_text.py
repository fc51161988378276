from __future__ import annotations

import io
from pathlib import Path

import pytest
import sentencepiece
import torch
from fairseq.data import Dictionary

from av_ssl.data.text import TextEncoder, load_dictionary
from av_ssl.errors import DataError

SENTENCES = [
    "bin blue at f two now",
    "élan vital für groß",
    "place red by q nine again",
    "lay white in z four soon",
]
SPECIALS = 4


@pytest.fixture(scope="module")
def model() -> bytes:
    """A tokenizer trained as AV-HuBERT's: specials in fairseq's order, so that ids agree."""
    writer = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 5), model_writer=writer, vocab_size=60, character_coverage=1.0,
        bos_id=0, pad_id=1, eos_id=2, unk_id=3, hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    return writer.getvalue()


@pytest.fixture
def pieces(model: bytes) -> list[str]:
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    return [processor.id_to_piece(id) for id in range(SPECIALS, processor.get_piece_size())]


def write_dictionary(path: Path, symbols: list[str]) -> Path:
    path.write_text("".join(f"{symbol} 1\n" for symbol in symbols), encoding="utf-8")
    return path


@pytest.fixture
def encoder(tmp_path: Path, model: bytes, pieces: list[str]) -> TextEncoder:
    (tmp_path / "spm.model").write_bytes(model)
    return TextEncoder.load(write_dictionary(tmp_path / "dict.wrd.txt", pieces), tmp_path / "spm.model")


@pytest.mark.parametrize("text", ["bin blue at f two now", "élan vital für groß"])
def test_round_trip(encoder: TextEncoder, text: str) -> None:
    ids = encoder.ids(text)
    assert ids.dtype == torch.int64
    assert ids[-1] == encoder.dictionary.eos()
    assert encoder.dictionary.unk() not in ids
    assert encoder.decode(encoder.dictionary.string(ids)) == text


def test_ids_are_those_of_sentencepiece(encoder: TextEncoder, model: bytes) -> None:
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    assert encoder.ids("lay white").tolist()[:-1] == processor.encode("lay white")


def test_text_is_lower_cased(encoder: TextEncoder) -> None:
    assert torch.equal(encoder.ids("Élan VITAL"), encoder.ids("élan vital"))


def test_without_tokenizer_symbols_are_taken_as_they_are(tmp_path: Path) -> None:
    encoder = TextEncoder.load(write_dictionary(tmp_path / "dict.ltr.txt", ["A", "b", "|"]), None)
    assert encoder.ids("A b  | a").tolist() == [4, 5, 6, encoder.dictionary.unk(), 2]
    assert encoder.decode("A b |") == "A b |"
    assert encoder.ids("").tolist() == [2]


def test_dictionary_that_lacks_a_piece(tmp_path: Path, model: bytes, pieces: list[str]) -> None:
    (tmp_path / "spm.model").write_bytes(model)
    dictionary = write_dictionary(tmp_path / "dict.wrd.txt", pieces[:7] + pieces[8:])
    with pytest.raises(DataError, match=r"dict\.wrd\.txt") as caught:
        TextEncoder.load(dictionary, tmp_path / "spm.model")
    assert repr(pieces[7]) in str(caught.value)
    assert str(dictionary) in str(caught.value)


def test_missing_and_broken_tokenizers(tmp_path: Path) -> None:
    dictionary = write_dictionary(tmp_path / "dict.wrd.txt", ["a"])
    with pytest.raises(DataError, match=r"spm\.model: the tokenizer cannot be read"):
        TextEncoder.load(dictionary, tmp_path / "spm.model")
    (tmp_path / "spm.model").write_bytes(b"no model")
    with pytest.raises(DataError, match=r"spm\.model: the tokenizer is no sentencepiece model"):
        TextEncoder.load(dictionary, tmp_path / "spm.model")


def test_empty_lines_at_the_end_are_no_symbols(tmp_path: Path) -> None:
    (tmp_path / "dict.wrd.txt").write_text("a 1\nb 1\n\n \n")
    assert load_dictionary(tmp_path / "dict.wrd.txt").symbols[SPECIALS:] == ["a", "b"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no symbols"),
        (b"a 1\nb\n", "line 2: 'b'"),
        (b"a 1\n\nb 1\n", "line 2: ''"),
        (b"a\t1\n", r"line 1: 'a\\t1'"),
        (b"b 1\na 1\na 1\n", "line 3: 'a' is also on line 2"),
        (b"<s> 1\n", "line 1: '<s>'"),
        (b"\xff 1\n", "not UTF-8"),
    ],
)
def test_malformed_dictionaries(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "dict.wrd.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        load_dictionary(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_dictionary(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"dict\.km\.txt: "):
        load_dictionary(tmp_path / "dict.km.txt")


def test_state_is_read_without_running_code(tmp_path: Path, encoder: TextEncoder) -> None:
    torch.save(encoder.state_dict(), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    encoder.check_state(state)
    assert state["tokenizer"].numpy().tobytes() == encoder.tokenizer


def test_another_dictionary_or_tokenizer_than_in_the_checkpoint(tmp_path: Path, encoder: TextEncoder) -> None:
    state = encoder.state_dict()
    symbols = list(state["symbols"])
    symbols[10], symbols[11] = symbols[11], symbols[10]
    with pytest.raises(DataError, match=r"dict\.wrd\.txt.*another dictionary, where id 10 is"):
        encoder.check_state({**state, "symbols": symbols})
    with pytest.raises(DataError, match="of 5 symbols instead of"):
        encoder.check_state({**state, "symbols": symbols[:5]})
    for tokenizer in (None, torch.zeros(3, dtype=torch.uint8)):
        with pytest.raises(DataError, match=r"spm\.model: .*tokenizer"):
            encoder.check_state({**state, "tokenizer": tokenizer})


def test_empty_encoder_takes_what_a_checkpoint_stored(encoder: TextEncoder) -> None:
    empty = TextEncoder(Dictionary())
    held = empty.dictionary
    assert empty.is_empty
    empty.adopt(encoder.state_dict())
    assert not empty.is_empty
    assert empty.dictionary is held
    assert empty.ids("bin blue").tolist() == encoder.ids("bin blue").tolist()
