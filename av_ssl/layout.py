"""What data folders and models share: rates, streams, sizes of crops, names of files."""

from __future__ import annotations

import os
import re
from pathlib import Path

# -- rates, streams, crops -----------------------------------------------------------------------------------

SAMPLE_RATE = 16000
"""Audio samples a second."""
FRAME_RATE = 25
"""Video frames a second: the unit of a clip's length."""
SAMPLES_PER_FRAME = SAMPLE_RATE // FRAME_RATE
LOUDEST = 4.0
"""Peak of floating-point audio, full scale 1: up to 12 dB above it is clipped, more is another scale."""

STREAMS = {"audio": ("audio",), "video": ("video",), "av": ("audio", "video")}
"""The names that configurations and commands have for a set of streams; all other code uses the tuples."""

IMAGE_MEAN, IMAGE_STD = 0.421, 0.165
"""Of mouth crops in gray, on the scale 0..1 (AV-HuBERT)."""
CROP_MARGIN = 96 / 88
"""Side of a mouth crop, in sides of what models take out of its middle (AV-HuBERT, Shi et al., 2022)."""
LARGEST_FRAME = 4 / 3
"""Side of frames in multiples of the part that is cut: mouth crops are a little larger, 96 pixels for 88."""


def crop_side(taken: int) -> int:
    """Side of the mouth crops, an even number of pixels, for a model that takes ``taken`` pixels of them."""
    return 2 * round(taken * CROP_MARGIN / 2)


# -- files of a data folder ----------------------------------------------------------------------------------

SPLITS = ("train", "valid", "test")
NOT_MANIFESTS = re.compile(r"clips|bad_clips\..*|.*\.hyp", re.DOTALL)
"""Names of the ``.tsv`` files that are no lists of a split."""
TOKENIZER, PIECES, DICTIONARY = "spm.model", "spm.vocab", "dict.wrd.txt"
TOKENIZER_FILES = (TOKENIZER, PIECES, DICTIONARY)
BLANK = 0
"""Id of ``<s>``, which is CTC's blank symbol (as fairseq's own ``ctc`` criterion assumes)."""
SPEAKER = "spk"
"""Suffix of the files with the speaker of each clip."""
CLASS_LABELS = (SPEAKER, "emo")
LABELLED, FOLD = "labelled_", "fold_"
PART = "_data"
"""End of the name of a folder whose training list is a part of the corpus, such as 30h_data."""


def labelled_folder(out: Path, clips: int) -> Path:
    return out / f"{LABELLED}{clips}"


def fold_folder(out: Path, name: str) -> Path:
    return out / f"{FOLD}{name}"


def fold_folders(out: Path) -> list[Path]:
    return sorted(path for path in out.glob(f"{FOLD}*") if path.is_dir())


def labelled_folders(out: Path) -> list[Path]:
    """All folders in ``out`` with a smaller training list, the one with the longest training text first."""

    def text_size(folder: Path) -> int:
        text = folder / "train.wrd"
        return text.stat().st_size if text.is_file() else 0

    labelled = [path for path in out.glob(f"{LABELLED}*") if path.name[len(LABELLED) :].isdecimal()]
    folders = [path for path in (*labelled, *out.glob(f"*{PART}")) if path.is_dir()]
    return sorted(folders, key=lambda path: (-text_size(path), path.name))


START_FOLDER = "AV_SSL_START_FOLDER"
"""Environment variable: the folder in which `fairseq-hydra-train` was started, since hydra leaves it."""


def start_folder() -> Path:
    """The folder in which the command was started."""
    return Path(os.environ.get(START_FOLDER) or Path.cwd())
