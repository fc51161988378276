"""Names of the files in a prepared data folder."""

from __future__ import annotations

from pathlib import Path

SPLITS = ("train", "valid", "test")
MODEL, PIECES, DICTIONARY = "spm.model", "spm.vocab", "dict.wrd.txt"
TOKENIZER_FILES = (MODEL, PIECES, DICTIONARY)
LABELLED = "labelled_"


def labelled_folder(out: Path, clips: int) -> Path:
    """Folder whose training list is only `clips` transcribed clips."""
    return out / f"{LABELLED}{clips}"


def labelled_folders(out: Path) -> list[Path]:
    """All such folders in `out`, most clips first."""
    folders = [path for path in out.glob(f"{LABELLED}*") if path.name[len(LABELLED) :].isdecimal()]
    return sorted(folders, key=lambda path: int(path.name[len(LABELLED) :]), reverse=True)
