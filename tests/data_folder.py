"""Tiny data folders, as preprocessing leaves them: noise for clips, written without a video encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import sentencepiece
import soundfile

from av_ssl.manifest import Clip

WORDS = ("bin", "lay", "blue", "green", "at", "by", "one", "two", "now", "soon")
SIDE = 24
"""Pixels; models of these tests cut 22 of them."""
CLUSTERS = 10


def write_split(folder: Path, split: str, frames: Sequence[int], seed: int = 0) -> None:
    """``{split}.tsv``, and for each number of frames a clip: ``.npy`` of 24 x 24 pixels and ``.wav``."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([seed, *split.encode()])
    lines = [str(folder)]
    for number, length in enumerate(frames):
        name = f"{split}_{number}"
        np.save(folder / f"{name}.npy", rng.integers(0, 256, (length, SIDE, SIDE), dtype=np.uint8))
        wave = rng.normal(0, 300 * (1 + number), length * 640).clip(-32768, 32767).astype(np.int16)
        soundfile.write(folder / f"{name}.wav", wave, 16000)
        lines.append(f"{name}\t{name}.npy\t{name}.wav\t{length}\t{len(wave)}")
    (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n")


def write_data(folder: Path, splits: Mapping[str, int] | None = None) -> Path:
    """Splits of so many clips of 10, 11, 12, ... frames; 9 for training and 3 for validation by default."""
    for split, clips in (splits or {"train": 9, "valid": 3}).items():
        write_split(folder, split, range(10, 10 + clips))
    return folder


def listed_clips(*frames: int) -> list[Clip]:
    """Clips of these lengths whose files do not exist."""
    return [Clip(f"clip{k}", Path("v"), Path("a"), n, 640 * n, 2 + k) for k, n in enumerate(frames)]


def frame_counts(folder: Path, split: str) -> list[int]:
    """Video frames of each clip of a manifest."""
    return [int(line.split("\t")[3]) for line in (folder / f"{split}.tsv").read_text().splitlines()[1:]]


def write_transcripts(folder: Path, split: str, words: int = 3) -> None:
    """``{split}.wrd``: random words for each clip."""
    rng = np.random.default_rng(list(split.encode()))
    lines = [" ".join(rng.choice(WORDS, words)) for _ in frame_counts(folder, split)]
    (folder / f"{split}.wrd").write_text("\n".join(lines) + "\n")


def write_vocabulary(folder: Path) -> None:
    """Tokenizer and dictionary of the words above."""
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(WORDS * 5), model_prefix=str(folder / "spm"), vocab_size=40,
        model_type="unigram", hard_vocab_limit=False, bos_id=0, pad_id=1, eos_id=2, unk_id=3, minloglevel=2,
    )  # fmt: skip
    tokenizer = sentencepiece.SentencePieceProcessor(model_file=str(folder / "spm.model"))
    pieces = [tokenizer.id_to_piece(i) for i in range(4, tokenizer.get_piece_size())]
    (folder / "dict.wrd.txt").write_text("".join(f"{piece} 1\n" for piece in pieces))


def write_noise(folder: Path, splits: Sequence[str] = ("train", "valid", "test")) -> None:
    """A second of noise, and lists in ``noise/`` that name it."""
    (folder / "noise").mkdir()
    wave = np.random.default_rng(0).normal(0, 2000, 16000).astype(np.int16)
    soundfile.write(folder / "noise.wav", wave, 16000)
    for split in splits:
        (folder / "noise" / f"{split}.tsv").write_text(f"{folder / 'noise.wav'}\n")


def write_labels(data: Path, folder: Path, label: str, rate: int, clusters: int = CLUSTERS) -> None:
    """Random cluster ids at ``rate`` Hz for the training and validation clips, and their dictionary."""
    rng = np.random.default_rng(rate)
    for split in ("train", "valid"):
        counts = [frames * rate // 25 for frames in frame_counts(data, split)]
        text = "".join(" ".join(map(str, rng.integers(0, clusters, count))) + "\n" for count in counts)
        (folder / f"{split}.{label}").write_text(text)
    (folder / f"dict.{label}.txt").write_text("".join(f"{cluster} 1\n" for cluster in range(clusters)))
