"""Corpora as their owners ship them: clips, transcripts, labels and splits. One file a corpus."""

from __future__ import annotations

from pathlib import Path

from av_ssl.corpora.corpus import Corpus, CorpusClip
from av_ssl.corpora.crema_d import CremaD
from av_ssl.corpora.folder import Folder
from av_ssl.corpora.grid import Grid
from av_ssl.corpora.iemocap import Iemocap
from av_ssl.corpora.lrs import Lrs2, Lrs3
from av_ssl.corpora.ravdess import Ravdess
from av_ssl.corpora.voxceleb import VoxCeleb1, VoxCeleb2
from av_ssl.errors import DataError

FOLDER = Folder.name
CORPORA: dict[str, Corpus] = {
    corpus.name: corpus
    for corpus in (
        Folder(), Lrs3(), Lrs2(), VoxCeleb1(), VoxCeleb2(), Grid(), Ravdess(), CremaD(), Iemocap(),
    )
}  # fmt: skip

__all__ = ["CORPORA", "FOLDER", "Corpus", "CorpusClip", "read_corpus", "recognised"]


def recognised(root: Path) -> Corpus | None:
    """The corpus that ``root`` looks like."""
    known = (corpus for corpus in CORPORA.values() if corpus.name != FOLDER)
    return next((corpus for corpus in known if corpus.recognises(root)), None)


def read_corpus(name: str, root: Path, skip: Path | None = None) -> dict[str, CorpusClip]:
    """Clips by id, sorted, of the corpus ``name`` in the folder ``root``, without its subfolder ``skip``.

    Raises:
        DataError: ``root`` is no folder or another corpus, a transcript is missing or empty, or two clips
            have one id.
    """
    corpus = CORPORA[name]
    if not root.is_dir():
        raise DataError(f"{root}: is not a folder; name the folder that holds the videos")
    if not corpus.recognises(root):
        other = recognised(root)
        hint = "Videos in any other layout: preprocess/folder.sh"
        if other is not None:
            hint = f"It looks like {other.title}: use preprocess/{other.name}.sh"
        raise DataError(f"{root}: is not {corpus.title}; expected {corpus.layout}. {hint}.")
    return corpus.read(root, skip)
