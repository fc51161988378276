"""Fine-tuned checkpoints of tiny width, for clips of 24 x 24 pixels."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.checkpoints.published_layout import ENCODER, finetuned_state


def write_recogniser(
    path: Path, kind: str = "av_hubert_seq2seq", modalities: tuple[str, ...] = ("audio", "video")
) -> Path:
    """A recogniser with random weights, dictionary and tokenizer in the file."""
    hybrid = kind == "hybrid_ctc_attention"
    state = finetuned_state(path.parent, "av_hubert_seq2seq" if hybrid else kind)
    if hybrid:
        symbols = len(state["task_state"]["target_dictionary"])
        head = torch.nn.Linear(ENCODER["encoder_embed_dim"], symbols).state_dict()
        state["model"].update({f"ctc.proj.{name}": tensor for name, tensor in head.items()})
        state["cfg"]["model"]["_name"] = kind
    state["cfg"]["task"].update(image_crop_size=22, modalities=list(modalities))
    torch.save(state, path)
    return path
