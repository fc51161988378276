"""Label files, one line per clip: transcripts or cluster ids."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from functools import cached_property
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from fairseq.data import Dictionary
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import Self

from av_ssl.data.text import TOLERATED_UNKNOWN, TextEncoder, load_dictionary
from av_ssl.errors import DataError
from av_ssl.io import composed, decoded
from av_ssl.layout import FRAME_RATE, LABELLED
from av_ssl.manifest import Clip

logger = logging.getLogger(__name__)

SAMPLED_LINES = 2000
"""Lines searched for unknown symbols, evenly spaced: another dictionary shows in any of them."""
TRANSCRIPTS = ".wrd"
TOLERATED_SECONDS = 0.1


class LabelFile:
    """Lines of a label file, read one by one: the labels of a corpus are too large for every worker.

    Raises DataError if the file is missing, is no text (`av_ssl.io.decoded`), or has not one line per clip.
    """

    def __init__(self, path: Path, clips: Sequence[Clip]) -> None:
        self.path = path
        fix = "make the labels again for this split, or check label_dir and labels"
        if path.suffix == TRANSCRIPTS and not path.exists():
            raise DataError(
                f"{path}: does not exist: recognisers are trained and scored on clips that all have "
                "transcripts; write those that are missing and run av-ssl data manifest again, or have it "
                f"choose clips that have one (--labelled N, then task.data=DATA/{LABELLED}N)"
            )
        try:
            stored = path.read_bytes()
        except OSError as error:
            raise DataError(f"{path}: labels cannot be read ({error.strerror}); {fix}") from error
        content = decoded(stored, path, fix).encode()
        self._converted = None if content == stored else content  # UTF-16, or with byte-order marks
        ends = np.flatnonzero(np.frombuffer(content, np.uint8) == ord("\n")) + 1
        if content and not content.endswith(b"\n"):
            ends = np.append(ends, len(content))
        if len(ends) > len(clips) and not content[ends[len(clips) - 1] if len(clips) else 0 :].strip():
            ends = ends[: len(clips)]  # empty lines at the end
        if len(ends) != len(clips):
            raise DataError(
                f"{path} has {len(ends)} lines, {path.stem}.tsv lists {len(clips)} clips, and line k of the "
                "labels belongs to clip k of the manifest; make them again from the same manifest"
            )
        starts = np.append(0, ends[:-1]).astype(np.int64)
        self.spans = np.stack([starts, ends], axis=1)

    @cached_property
    def symbol_counts(self) -> NDArray[np.int64]:
        with self._open() as file:
            return np.array([len(line.split()) for line in islice(file, len(self.spans))], np.int64)

    def line(self, number: int) -> str:
        """Line `number` from 0, in NFC, without white space at its ends."""
        start, end = self.spans[number]
        with self._open() as file:
            file.seek(start)
            return composed(file.read(end - start).decode("utf-8").strip())

    def _open(self) -> BinaryIO:
        return self.path.open("rb") if self._converted is None else BytesIO(self._converted)


class Labels:
    """Dictionary ids of clips; sub-classes turn a line of the label file into ids."""

    def __init__(self, path: Path, dictionary: Dictionary, clips: Sequence[Clip]) -> None:
        self.file = LabelFile(path, clips)
        self.dictionary = dictionary
        self.lines: NDArray[np.int64] = np.arange(len(clips))

    def encode(self, line: str) -> Tensor:
        """Ids int64 `[L]` of a line."""
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self.lines)

    def __getitem__(self, index: int) -> Tensor:
        return self.encode(self.file.line(self.lines[index]))

    def select(self, indices: Sequence[int]) -> Self:
        selected = object.__new__(type(self))
        selected.__dict__.update(self.__dict__)
        selected.lines = self.lines[np.asarray(indices, np.int64)]
        return selected

    def check_unknown(self) -> None:
        """Raise DataError if more than 10 % of the labels are not in the dictionary, warn if any is not."""
        step = max(1, len(self) // SAMPLED_LINES)
        ids = [self[index] for index in range(0, len(self), step)]
        unknown = torch.cat(ids) == self.dictionary.unk() if ids else torch.zeros(0)
        share = float(unknown.float().mean()) if len(unknown) else 0.0
        if share == 0:
            return
        line = next(self.lines[k * step] for k, row in enumerate(ids) if (row == self.dictionary.unk()).any())
        found = (
            f"{self.file.path}: {share:.1%} of the labels are not in the dictionary "
            f"({len(self.dictionary)} symbols with specials), the first of them on line {line + 1}"
        )
        if share > TOLERATED_UNKNOWN:
            raise DataError(f"{found}; use the dictionary and tokenizer that these labels were made with")
        logger.warning("%s; they count as <unk>", found)


ID_FIRST = "the id of its clip, as do others; leave the ids out: line k belongs to clip k of the manifest"


def holds_ids(lines: Iterable[str], clips: Sequence[Clip]) -> bool:
    """Whether the first transcripts all begin with the ids of their clips, as in lists of other tools."""
    rows = [(line.split(maxsplit=1), clip.id) for line, clip in zip(lines, clips[:10], strict=False)]
    return bool(rows) and all(len(words) == 2 and words[0] == name for words, name in rows)


class TextLabels(Labels):
    """Transcripts `{split}.wrd` of all clips of a manifest.

    With a tokenizer they are lower-cased and cut into pieces (AV-HuBERT, Shi et al., 2022); without one they
    are space-separated symbols. Each ends with `</s>`: attention decoders learn where to stop, and fairseq's
    `ctc` criterion ignores it.

    Raises DataError if lines and clips differ in number, lines begin with ids, more than 10 % of the symbols
    are unknown, or more than 10 % of the training transcripts (and more than one) are empty.
    """

    def __init__(self, path: Path, encoder: TextEncoder, clips: Sequence[Clip]) -> None:
        super().__init__(path, encoder.dictionary, clips)
        self.encoder = encoder
        lines = map(self.file.line, range(len(clips)))
        if holds_ids(lines, clips):
            raise DataError(f"{path}, line 1: begins with {clips[0].id!r}, {ID_FIRST}")
        self.check_empty()
        self.check_unknown()

    def check_empty(self) -> None:
        """Warn of empty transcripts; raise DataError if more than one and 10 % of a training split are."""
        empty = np.flatnonzero(self.file.symbol_counts == 0)
        if not len(empty):
            return
        found = (
            f"{self.file.path}: {len(empty)} of {len(self)} transcripts are empty, the first of them on line "
            f"{empty[0] + 1}; write what is said, or remove the clips"
        )
        if self.file.path.stem.startswith("train") and len(empty) > max(1, TOLERATED_UNKNOWN * len(self)):
            raise DataError(found)
        logger.warning("%s", found)

    def encode(self, line: str) -> Tensor:
        return self.encoder.ids(line)


class FrameLabels(Labels):
    """Cluster ids `{split}.km`, `label_rate` of them a second (AV-HuBERT, Shi et al., 2022).

    Frame t of the video gets label `floor(t * label_rate / 25)`, through the dictionary, whose first line has
    index 4.

    Raises DataError as `TextLabels` does.
    """

    def __init__(self, path: Path, dictionary: Dictionary, clips: Sequence[Clip], label_rate: float) -> None:
        super().__init__(path, dictionary, clips)
        if label_rate <= 0:
            raise DataError(
                f"label_rate is {label_rate}; frame labels need the number of labels a second, e.g. 25"
            )
        self.label_rate = label_rate
        self.check_unknown()

    @classmethod
    def load(cls, path: Path, dictionary: Path, clips: Sequence[Clip], label_rate: float) -> Self:
        return cls(path, load_dictionary(dictionary), clips, label_rate)

    def encode(self, line: str) -> Tensor:
        """Ids int64 `[T]` of the frames that have a label."""
        ids = torch.tensor([self.dictionary.index(symbol) for symbol in line.split()], dtype=torch.int64)
        ratio = self.label_rate / FRAME_RATE
        frames = torch.arange(int(len(ids) / ratio))
        return ids[(frames * ratio).long()]

    def agrees(self, clips: Sequence[Clip]) -> NDArray[np.bool_]:
        """For each clip `[N]`, whether labels and video differ by less than 0.1 s."""
        seconds = self.file.symbol_counts[self.lines] / self.label_rate
        frames = np.array([clip.frames for clip in clips])
        return np.abs(frames / FRAME_RATE - seconds) < TOLERATED_SECONDS


def keep_agreeing(clips: Sequence[Clip], labels: Sequence[FrameLabels], indices: Sequence[int]) -> list[int]:
    """Those of `indices` whose labels are as long as the clip, in every label set of the manifest's `clips`.

    Raises DataError if fewer than half of them are.
    """
    agree = np.all([one.agrees(clips) for one in labels], axis=0)
    kept = [index for index in indices if agree[index]]
    logger.log(
        logging.INFO if len(kept) == len(indices) else logging.WARNING,
        "kept %d of %d clips: their labels are as long as the video", len(kept), len(indices),
    )  # fmt: skip
    if 2 * len(kept) < len(indices):
        files = ", ".join(f"{one.file.path} ({one.label_rate:g} labels/s)" for one in labels)
        first = next(index for index in indices if not agree[index])
        counts = ", ".join(str(one.file.symbol_counts[one.lines[first]]) for one in labels)
        raise DataError(
            f"{files}: labels and video differ by 0.1 s or more in {len(indices) - len(kept)} of "
            f"{len(indices)} clips; e.g. {clips[first].id} has {clips[first].frames} frames at 25 Hz and "
            f"{counts} labels. Check label_rate, or make the labels again from this manifest"
        )
    return kept
