"""Corpora in their owners' naming, with empty videos: all that the drivers look at are names and texts."""

from __future__ import annotations

import wave
from collections.abc import Sequence
from pathlib import Path

WORDS = "Text:  {}\nConf:  4\n"


def touch(root: Path, *names: str) -> None:
    """Empty files below `root`."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def lrs_text(text: str, times: Sequence[tuple[float, float]] = ()) -> str:
    """A text file of LRS2 or LRS3; with `times` (s) as in pretrain."""
    if not times:
        return WORDS.format(text)
    rows = [
        f"{word} {start:.2f} {end:.2f} 5.0" for word, (start, end) in zip(text.split(), times, strict=True)
    ]
    return WORDS.format(text) + "\n".join(["", "WORD START END ASDSCORE", *rows]) + "\n"


def lrs_clip(root: Path, name: str, text: str, times: Sequence[tuple[float, float]] = ()) -> None:
    """A video and its text file."""
    touch(root, f"{name}.mp4")
    (root / f"{name}.txt").write_text(lrs_text(text, times))


def lrs3(root: Path) -> Path:
    """Two clips of pretrain, the second one long enough to be cut into two; 20 of trainval; two of test."""
    lrs_clip(root, "pretrain/abc/00001", "SHORT ONE", [(0.1, 0.5), (0.7, 1.1)])
    long = [(0.1, 9.0), (9.2, 14.0), (15.0, 19.0)]
    lrs_clip(root, "pretrain/abc/00002", "LONG ONE CUT", long)
    for number in range(20):
        lrs_clip(root, f"trainval/v{number // 4}/5{number:04d}", f"TRAIN  NUMBER {number}")
    for number in range(2):
        lrs_clip(root, f"test/t/{number:05d}", f"TEST {number}")
    return root


def lrs2(root: Path, inner: str = "") -> Path:
    """Four clips of main and two of pretrain, the lists beside them."""
    corpus = root / inner
    for number in range(4):
        lrs_clip(corpus, f"main/6330/{number:05d}", f"MAIN {number}")
    for number in range(2):
        lrs_clip(corpus, f"pretrain/6331/{number:05d}", f"PRE {number}", [(0.0, 0.4), (0.5, 0.9)])
    lists = {
        "pretrain": "6331/00000\n6331/00001\n",
        "train": "6330/00000\n6330/00001\n",
        "val": "6330/00002\n",
        "test": "6330/00003 NF MV\n",
    }
    for name, text in lists.items():
        (root / f"{name}.txt").write_text(text)
    return root


def voxceleb2(root: Path) -> Path:
    """Three speakers of dev with two clips each, one of test."""
    for speaker in ("id00012", "id00015", "id00019"):
        touch(root, *(f"dev/mp4/{speaker}/21Uxsk56VDQ/{clip:05d}.mp4" for clip in (1, 2)))
    touch(root, "test/mp4/id00017/01dfn2spqyE/00001.mp4")
    return root


def voxceleb1(root: Path) -> Path:
    """Three speakers of dev with two recordings each, one of the test speakers; real wav files."""
    for speaker in ("id10001", "id10002", "id10003"):
        for clip in (1, 2):
            second_of_sound(root / f"wav/{speaker}/1zcIwhmdeo4/{clip:05d}.wav")
    second_of_sound(root / "wav/id10270/5r0dWxy17C8/00001.wav")
    return root


def second_of_sound(path: Path) -> None:
    """A wav file of 16 kHz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(bytes(range(250)) * 128)


def grid(root: Path) -> Path:
    """Six speakers, videos at the top or below video/mpg_6000; alignments; a speaker without video."""
    touch(root, "s1/bbaf2n.mpg", "s2/lwwz9s.mpg", "s3/video/mpg_6000/sgib8p.mpg", "s4/pgixza.mpg")
    touch(root, "s5/lbbc2a.mpg", "s6/swiz3n.mpg", "s3/align/sgib8p.align", "align/s4/pgixza.align")
    (root / "s21").mkdir()
    return root


def ravdess(root: Path) -> Path:
    """Eight actors with both statements; silent, sung and audio-only takes beside them."""
    for actor in range(1, 9):
        folder = f"Actor_{actor:02d}"
        for statement, emotion in (("01", "05"), ("02", "01")):
            rest = f"{emotion}-01-{statement}-01-{actor:02d}"
            touch(
                root, f"{folder}/01-01-{rest}.mp4", f"{folder}/02-01-{rest}.mp4", f"{folder}/01-02-{rest}.mp4"
            )
            touch(root, f"{folder}/03-01-{rest}.wav")
    return root


def crema_d(root: Path) -> Path:
    """Ten actors with one clip each, and one of those that are known to be broken."""
    touch(root, *(f"VideoFlash/{actor}_DFA_ANG_XX.flv" for actor in range(1001, 1011)))
    touch(root, "VideoFlash/1076_MTI_NEU_XX.flv")
    return root


def iemocap(root: Path) -> Path:
    """Five sessions with a dialogue each: three utterances of the four classes (one excited), one other."""
    for number in range(1, 6):
        dialogue, folder = f"Ses{number:02d}F_impro01", root / f"Session{number}/dialog"
        touch(folder, f"avi/DivX/{dialogue}.avi", f"wav/{dialogue}.wav", "EmoEvaluation/._junk.txt")
        rows = [
            f"[{start}.0000 - {start + 1}.5000]\t{dialogue}_{speaker}000{start}\t{emotion}\t[2.5, 2.5, 2.5]"
            for start, (speaker, emotion) in enumerate(
                [("F", "neu"), ("M", "ang"), ("M", "exc"), ("F", "fru")], start=1
            )
        ]
        text = (
            "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"
            + "\n".join(rows)
            + "\nC-E2:\tNeutral;"
        )
        (folder / f"EmoEvaluation/{dialogue}.txt").write_text(text)
        words = [f"{row.split(chr(9))[1]} [001.0000-002.5000]: Excuse me." for row in rows]
        (folder / "transcriptions").mkdir()
        (folder / f"transcriptions/{dialogue}.txt").write_text("\n".join(words))
    return root


def clip_list(out: Path, names: Sequence[str]) -> Path:
    """OUT as av-ssl crop leaves it: three seconds each."""
    rows = [f"{name}\tvideo/{name}.mp4\taudio/{name}.wav\t75\t48000" for name in names]
    out.mkdir(parents=True, exist_ok=True)
    (out / "clips.tsv").write_text("\n".join(["id\tvideo\taudio\tframes\tsamples", *rows]) + "\n")
    return out
