"""Names of the files in a prepared data folder."""

from __future__ import annotations

from pathlib import Path

from av_ssl.corpora.splits import SPLITS

MODEL, PIECES, DICTIONARY = "spm.model", "spm.vocab", "dict.wrd.txt"
TOKENIZER_FILES = (MODEL, PIECES, DICTIONARY)
LABELLED = "labelled_"
FOLD = "fold_"
PART = "_data"  # end of the name of a folder whose training list is a part of the corpus, e.g. 30h_data

__all__ = [
    "DICTIONARY",
    "MODEL",
    "PIECES",
    "SPLITS",
    "TOKENIZER_FILES",
    "fold_folder",
    "fold_folders",
    "labelled_folder",
    "labelled_folders",
]


def labelled_folder(out: Path, clips: int) -> Path:
    """Folder whose training list is only `clips` transcribed clips."""
    return out / f"{LABELLED}{clips}"


def fold_folder(out: Path, name: str) -> Path:
    """Folder of a published division of the clips."""
    return out / f"{FOLD}{name}"


def fold_folders(out: Path) -> list[Path]:
    """All folders in `out` with a published division."""
    return sorted(path for path in out.glob(f"{FOLD}*") if path.is_dir())


def labelled_folders(out: Path) -> list[Path]:
    """All folders in `out` with a smaller training list, the one with the longest training text first."""
    labelled = [path for path in out.glob(f"{LABELLED}*") if path.name[len(LABELLED) :].isdecimal()]
    folders = [path for path in (*labelled, *out.glob(f"*{PART}")) if path.is_dir()]
    return sorted(folders, key=lambda path: (-_text_size(path), path.name))


def _text_size(folder: Path) -> int:
    text = folder / "train.wrd"
    return text.stat().st_size if text.is_file() else 0
