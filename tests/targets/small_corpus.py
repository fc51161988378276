"""A small data folder and a small model, for making targets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
import torch

from tests.methods.helpers import TINY, tiny_av2vec

CLIPS = {"train": 9, "valid": 3}


def write_data(folder: Path) -> Path:
    """Lists of 9 and 3 clips of 10 to 18 frames of noise."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for split, clips in CLIPS.items():
        lines = [str(folder)]
        for number in range(clips):
            name, frames = f"{split}_{number}", 10 + number
            np.save(folder / f"{name}.npy", rng.integers(0, 256, (frames, 24, 24), dtype=np.uint8))
            wave = rng.normal(0, 300 * (1 + number), frames * 640).astype(np.int16)
            soundfile.write(folder / f"{name}.wav", wave, 16000)
            lines.append(f"{name}\t{name}.npy\t{name}.wav\t{frames}\t{len(wave)}")
        (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    return folder


def write_checkpoint(path: Path) -> Path:
    """A fused model of three layers, saved as fairseq does."""
    task = {"_name": "av_pretraining", "normalize": True, "image_crop_size": 22}
    cfg = {"model": {"_name": "av2vec", **TINY}, "task": task, "criterion": {"_name": "av2vec"}}
    torch.save({"args": None, "cfg": cfg, "model": tiny_av2vec().state_dict()}, path)
    return path
