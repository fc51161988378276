"""Fine-tuned checkpoints of tiny width, for clips of 24 x 24 pixels."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.models.published_layout import finetuned_state


def write_recogniser(
    path: Path, kind: str = "av_hubert_seq2seq", modalities: tuple[str, ...] = ("audio", "video")
) -> Path:
    """A recogniser with random weights, dictionary and tokenizer in the file."""
    state = finetuned_state(path.parent, kind)
    state["cfg"]["task"].update(image_crop_size=22, modalities=list(modalities))
    torch.save(state, path)
    return path
