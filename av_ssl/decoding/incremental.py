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
    """Probabilities of the next token by one decoder or the mean over several (an ensemble).

    Args:
        decoders: fairseq's ``FairseqIncrementalDecoder`` s.
        encoder_outs: for each what its encoder returned for B clips; None for language models.
    """

    def __init__(self, decoders: Sequence[Any], encoder_outs: Sequence[EncoderOut | None]) -> None:
        self.decoders = decoders
        self.encoder_outs = encoder_outs
        self.states: list[State] = [{} for _ in decoders]

    def log_probs(self, tokens: Tensor) -> Tensor:
        """float32 ``[B, K, V]`` behind the hypotheses ``[B, K, L]``, whose last tokens alone are new."""
        rows = tokens.flatten(0, 1)
        outputs = []
        for decoder, encoder_out, state in zip(self.decoders, self.encoder_outs, self.states, strict=True):
            # The B clips are not repeated K times: between tokens of a clip's K hypotheses and its frames
            # attention is one product, see `beams`.
            logits = decoder(rows, encoder_out=encoder_out, incremental_state=state)
            outputs.append(decoder.get_normalized_probs(logits, True, None)[:, -1].float())
        mean = torch.stack(outputs).logsumexp(0) - math.log(len(outputs)) if len(outputs) > 1 else outputs[0]
        return mean.view(*tokens.shape[:2], -1)

    def advance(self, clips: Tensor, parents: Tensor) -> None:
        """Reorder what the decoders remember: clips ``[B']`` that go on, ``parents [B', K]`` in each."""
        rows = (clips[:, None] * parents.shape[1] + parents).flatten()
        for decoder, state in zip(self.decoders, self.states, strict=True):
            decoder.reorder_incremental_state_scripting(state, rows)


@contextmanager
def beams(decoders: Sequence[Any], width: int) -> Iterator[None]:
    """Have decoders keep keys and values of the encoder once a clip instead of once a hypothesis.

    fairseq's attention does that by itself where it is told the width of the beam, but would then misread
    a batch of training; so the width is taken back afterwards.
    """
    for decoder in decoders:
        decoder.set_beam_size(width)
    try:
        yield
    finally:
        for decoder in decoders:
            decoder.set_beam_size(1)
