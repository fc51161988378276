"""A small data folder of clips whose speakers and emotions differ in sound and image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

EMOTIONS = ("calm", "glad", "sour")
SPEAKERS = {"train": ("ann", "bob", "cid", "dot"), "valid": ("eve", "fay"), "test": ("gus", "hal")}


def write_clip(folder: Path, name: str, emotion: int, rng: np.random.Generator) -> str:
    """Write a clip whose emotion is in its pitch and brightness; its line of the manifest."""
    frames = int(rng.integers(20, 40))
    seconds = np.arange(frames * 640) / 16000
    pitch = 300 * 2**emotion * rng.uniform(0.95, 1.05)
    wave = 3000 * np.sin(2 * np.pi * pitch * seconds) + rng.normal(0, 100, len(seconds))
    soundfile.write(folder / f"{name}.wav", wave.astype(np.int16), 16000)
    video = np.clip(60 + 60 * emotion + rng.normal(0, 10, (frames, 24, 24)), 0, 255).astype(np.uint8)
    np.save(folder / f"{name}.npy", video)
    return f"{name}\t{name}.npy\t{name}.wav\t{frames}\t{len(wave)}"


def write_folder(folder: Path) -> Path:
    """24 + 6 + 6 clips; the test clips have no video."""
    rng = np.random.default_rng(0)
    for split, clips in (("train", 24), ("valid", 6), ("test", 6)):
        speakers = SPEAKERS[split]
        emotions = [number % 3 for number in range(clips)]
        names = [f"{speakers[number // 3 % len(speakers)]}_{number}" for number in range(clips)]
        lines = [write_clip(folder, name, e, rng) for name, e in zip(names, emotions, strict=True)]
        if split == "test":
            rows = [line.split("\t") for line in lines]
            lines = ["\t".join([name, "", audio, "0", samples]) for name, _, audio, _, samples in rows]
        (folder / f"{split}.tsv").write_text("\n".join([str(folder), *lines]) + "\n")
        (folder / f"{split}.emo").write_text("".join(f"{EMOTIONS[e]}\n" for e in emotions))
        (folder / f"{split}.spk").write_text("".join(f"{name.split('_')[0]}\n" for name in names))
    (folder / "classes.emo.txt").write_text("\n".join(EMOTIONS) + "\n")
    (folder / "classes.spk.txt").write_text("\n".join(SPEAKERS["train"]) + "\n")
    return folder
