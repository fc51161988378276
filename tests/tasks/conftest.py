"""A small data folder as preprocessing leaves it, and the stock commands run on it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import soundfile

REPOSITORY = Path(__file__).resolve().parents[2]
WORDS = ["bin", "lay", "blue", "green", "at", "by", "one", "two", "now", "soon"]
TINY_ENCODER = [
    "model.encoder_layers=2", "model.encoder_embed_dim=16", "model.encoder_ffn_embed_dim=32",
    "model.encoder_attention_heads=2", "model.conv_pos=8", "model.conv_pos_groups=2", "model.resnet_width=4",
    "model.average_top_k_layers=2",
]  # fmt: skip
# The schedule must not depend on the number of updates: a resumed run would differ from an uninterrupted one.
SCHEDULE = [
    "lr_scheduler.phase_ratio=null", "+lr_scheduler.warmup_steps=2", "+lr_scheduler.hold_steps=9",
    "+lr_scheduler.decay_steps=9",
]  # fmt: skip


def write_split(folder: Path, split: str, clips: int, rng: np.random.Generator) -> None:
    lines, transcripts = [str(folder)], []
    for number in range(clips):
        frames = int(rng.integers(20, 40))
        name = f"{split}_{number}"
        video = rng.integers(0, 256, (frames, 24, 24), dtype=np.uint8)
        np.save(folder / f"{name}.npy", video)
        wave = rng.normal(0, 3000, frames * 640).astype(np.int16)
        soundfile.write(folder / f"{name}.wav", wave, 16000)
        lines.append(f"{name}\t{name}.npy\t{name}.wav\t{frames}\t{len(wave)}")
        transcripts.append(" ".join(rng.choice(WORDS, 3)))
    (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    (folder / f"{split}.wrd").write_text("\n".join(transcripts) + "\n")


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Manifests, transcripts, vocabulary and noise lists of 12 + 4 + 4 clips."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for split, clips in (("train", 12), ("valid", 4), ("test", 4)):
        write_split(folder, split, clips, rng)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(WORDS * 5), model_prefix=str(folder / "spm"), vocab_size=40,
        model_type="unigram", hard_vocab_limit=False, bos_id=0, pad_id=1, eos_id=2, unk_id=3, minloglevel=2,
    )  # fmt: skip
    tokenizer = sentencepiece.SentencePieceProcessor(model_file=str(folder / "spm.model"))
    pieces = [tokenizer.id_to_piece(i) for i in range(4, tokenizer.get_piece_size())]
    (folder / "dict.wrd.txt").write_text("".join(f"{piece} 1\n" for piece in pieces))
    (folder / "noise").mkdir()
    soundfile.write(folder / "noise.wav", rng.normal(0, 2000, 16000).astype(np.int16), 16000)
    for split in ("train", "valid", "test"):
        (folder / "noise" / f"{split}.tsv").write_text(f"{folder / 'noise.wav'}\n")
    return folder


def stock(*command: str | Path, expect: int = 0) -> str:
    """Run a stock command in a fresh process; its output, both streams together."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=300,
        env={**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"}, cwd="/",
    )  # fmt: skip
    output = done.stdout + done.stderr
    assert (done.returncode == 0) == (expect == 0), output[-4000:]
    return output


def train(
    config: str, save: Path, *overrides: str, prefix: tuple[str, ...] = (), expect: int = 0,
    schedule: Sequence[str] = SCHEDULE,
) -> str:  # fmt: skip
    """``fairseq-hydra-train`` with a configuration of the toy demo, cut down."""
    return stock(
        *prefix, "fairseq-hydra-train", "--config-dir", REPOSITORY / "examples/toy/conf",
        "--config-name", config, f"common.user_dir={REPOSITORY / 'av_ssl'}", f"checkpoint.save_dir={save}",
        f"hydra.run.dir={save / 'hydra'}", "task.image_crop_size=22", "dataset.max_tokens=150",
        "common.log_interval=1", *schedule, *overrides, expect=expect,
    )  # fmt: skip


def pretrain(data: Path, save: Path, updates: int, *overrides: str, prefix: tuple[str, ...] = ()) -> str:
    return train(
        "pretrain", save, f"task.data={data}", f"optimization.max_update={updates}",
        *TINY_ENCODER, *overrides, prefix=prefix,
    )  # fmt: skip


@pytest.fixture(scope="session")
def pretrained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a few updates of AV2vec."""
    save = tmp_path_factory.mktemp("pretrained")
    pretrain(data, save, 4)
    return save / "checkpoint_last.pt"
