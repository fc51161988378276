"""CTC prefix beam search of models with only a CTC head, as fairseq-generate calls it.

The search, `prefix_search`, extends prefixes frame by frame. Joint search with a CTC weight of 1 extends them
token by token, by the sum over all outputs with the same prefix. For peaked posteriors the two agree; for
flat ones, as of weak models, joint search inserts tokens and returns less probable outputs, even with a wide
beam (see tests/recognition/test_ctc_generator.py). So this search decodes models with only a CTC head, unless
there is a language model.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from av_ssl.recognition.prefix_search import PRUNE, Prefix, prefix_search


class CTCBeamSearch:
    """Decodes CTC models in place of fairseq's ``SequenceGenerator``.

    Args:
        dictionary: its eos, pad and unk are never output.
        beam: hypotheses kept; 1 is greedy search over paths.
        prune: symbols less probable than the frame's best by more than this (in nats) are skipped.
    """

    def __init__(self, dictionary: Any, beam: int = 20, prune: float = PRUNE) -> None:
        if beam < 1:
            raise ValueError(f"beam is {beam}; it must be at least 1")
        self.beam, self.prune = beam, prune
        self.never = [dictionary.eos(), dictionary.pad(), dictionary.unk()]
        self.eos = dictionary.eos()
        self.symbols_to_strip_from_output = {self.eos, dictionary.bos()}

    @torch.no_grad()
    def generate(
        self, models: Sequence[Any], sample: dict[str, Any], **unused: Any
    ) -> list[list[dict[str, Any]]]:
        """Decode a batch; several models are averaged in probability.

        Returns:
            For each clip its hypotheses, best first, each with ``tokens`` int64 [L] without eos, ``score``
            (log-probability, the sum over all paths), ``positional_scores`` [L] and ``alignment`` as
            fairseq-generate reads them.
        """
        net_input = {key: value for key, value in sample["net_input"].items() if key != "prev_output_tokens"}
        probabilities = [model.get_normalized_probs(model(**net_input), log_probs=False) for model in models]
        log_probs = torch.stack(probabilities).mean(0).log().transpose(0, 1)
        return self.decode(log_probs, (~net_input["padding_mask"]).sum(1))

    def decode(self, log_probs: Tensor, lengths: Tensor) -> list[list[dict[str, Any]]]:
        """Decode ``log_probs [B, T, V]``, of which the first ``lengths [B]`` frames are real."""
        log_probs = log_probs.index_fill(-1, torch.tensor(self.never, device=log_probs.device), -math.inf)
        return [
            [
                as_fairseq(torch.tensor(prefix, dtype=torch.long), score)
                for prefix, score in self.search(clip[:length])
            ]
            for clip, length in zip(log_probs.cpu(), lengths.tolist(), strict=True)
        ]

    def search(self, log_probs: Tensor) -> list[tuple[Prefix, float]]:
        """Best prefixes of one clip, ``log_probs [T, V]``, with their log-probabilities, best first."""
        return prefix_search(log_probs.float().numpy(), self.beam, self.prune)


def as_fairseq(tokens: Tensor, score: float, positional_scores: Tensor | None = None) -> dict[str, Any]:
    """A hypothesis as fairseq-generate reads it; without positional scores, all tokens have the same."""
    if positional_scores is None:
        positional_scores = torch.full((len(tokens),), score / max(1, len(tokens)))
    return {
        "tokens": tokens,
        "score": score,
        "attention": None,
        "alignment": torch.empty(0),
        "positional_scores": positional_scores,
    }
