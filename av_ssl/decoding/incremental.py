"""fairseq's decoders, one token at a time, as scorers of a beam: attention decoders and language models."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

State = dict[str, dict[str, Tensor | None]]
EncoderOut = dict[str, list[Tensor]]


class NextToken:
    """Probabilities of the next token by one model's decoder, or the mean over several (an ensemble).

    Args:
        models: with a ``decoder`` that is a ``FairseqIncrementalDecoder``.
        encoder_outs: for each what its encoder returned for B clips; None for language models.
    """

    def __init__(self, models: Sequence[Any], encoder_outs: Sequence[EncoderOut | None]) -> None:
        self.models = models
        self.encoder_outs = list(encoder_outs)
        self.states: list[State] = [{} for _ in models]

    def log_probs(self, tokens: Tensor) -> Tensor:
        """float32 ``[B, K, V]`` behind the hypotheses ``[B, K, L]``, whose last tokens alone are new."""
        rows = tokens.flatten(0, 1)
        outputs = []
        for model, encoder_out, state in zip(self.models, self.encoder_outs, self.states, strict=True):
            # The B clips are not repeated K times: between tokens of a clip's K hypotheses and its frames
            # attention is one product, see `beams`.
            logits = model.decoder(rows, encoder_out=encoder_out, incremental_state=state)
            outputs.append(model.get_normalized_probs(logits, log_probs=True)[:, -1].float())
        mean = torch.stack(outputs).logsumexp(0) - math.log(len(outputs)) if len(outputs) > 1 else outputs[0]
        return mean.view(*tokens.shape[:2], -1)

    def advance(self, clips: Tensor, parents: Tensor) -> None:
        """Reorder what the decoders remember: clips ``[B']`` that go on, ``parents [B', K]`` in each."""
        rows = (clips[:, None] * parents.shape[1] + parents).flatten()
        for place, (model, encoder_out) in enumerate(zip(self.models, self.encoder_outs, strict=True)):
            model.decoder.reorder_incremental_state_scripting(self.states[place], rows)
            if encoder_out is not None and len(clips) < len(encoder_out["encoder_padding_mask"][0]):
                self.encoder_outs[place] = model.encoder.reorder_encoder_out(encoder_out, clips)


@contextmanager
def beams(models: Sequence[Any], width: int) -> Iterator[None]:
    """Have decoders keep keys and values of the encoder once a clip instead of once a hypothesis.

    fairseq's attention does that by itself where it is told the width of the beam, but would then misread
    a batch of training; so the width is taken back afterwards.
    """
    for model in models:
        model.decoder.set_beam_size(width)
    try:
        yield
    finally:
        for model in models:
            model.decoder.set_beam_size(1)
