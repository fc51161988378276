"""The hypotheses of a beam, as tensors, and as fairseq-generate reads them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad


@dataclass
class Hypotheses:
    """N hypotheses of each of B clips; a score of -inf marks an empty place.

    Attributes:
        tokens: int64 ``[B, N, L]``; the first is eos, as decoders are started.
        history: float32 ``[B, N, L]``, the joint score after each token.
        local: float32 ``[B, N]``, the part of the score that is a sum over tokens: all but CTC's.
    """

    tokens: Tensor
    history: Tensor
    local: Tensor

    @classmethod
    def start(cls, clips: int, places: int, eos: int, device: torch.device) -> Hypotheses:
        """The empty hypothesis in the first place, nothing in the others."""
        local = torch.full((clips, places), -math.inf, device=device)
        local[:, 0] = 0.0
        tokens = torch.full((clips, places, 1), eos, device=device)
        return cls(tokens, local[..., None], local)

    @property
    def scores(self) -> Tensor:
        """``[B, N]``."""
        return self.history[..., -1]

    def grown(self, parents: Tensor, tokens: Tensor, local: Tensor, scores: Tensor) -> Hypotheses:
        """Those of ``parents [B, N']`` with a token behind each."""
        index = parents[..., None].expand(-1, -1, self.tokens.shape[-1])
        return Hypotheses(
            torch.cat([self.tokens.gather(1, index), tokens[..., None]], -1),
            torch.cat([self.history.gather(1, index), scores[..., None]], -1),
            local,
        )

    def of_clips(self, clips: Tensor) -> Hypotheses:
        return Hypotheses(self.tokens[clips], self.history[clips], self.local[clips])


@dataclass
class Finished:
    """The N best hypotheses of each clip that have ended, best first.

    Until one ends, a clip's first place holds the empty output with a score of -inf.

    Attributes:
        tokens: int64 ``[B, N, L]``, each ends with eos, behind which is padding.
        history: float32 ``[B, N, L]``, the joint score after each token.
        scores: float32 ``[B, N]``.
        padding: index of the padding symbol.
    """

    tokens: Tensor
    history: Tensor
    scores: Tensor
    padding: int

    @classmethod
    def none(cls, clips: int, places: int, eos: int, padding: int, device: torch.device) -> Finished:
        scores = torch.full((clips, places), -math.inf, device=device)
        return cls(torch.full((clips, places, 1), eos, device=device), scores[..., None], scores, padding)

    def with_ended(self, live: Hypotheses, scores: Tensor) -> Finished:
        """Let hypotheses ``[B, K]`` end with these scores; -inf for those that do not."""
        eos = live.tokens[..., :1]
        tokens = torch.cat([live.tokens[..., 1:], eos], -1)
        history = torch.cat([live.history[..., 1:], scores[..., None]], -1)
        longer = tokens.shape[-1] - self.tokens.shape[-1]
        tokens = torch.cat([pad(self.tokens, (0, longer), value=self.padding), tokens], 1)
        history = torch.cat([pad(self.history, (0, longer)), history], 1)
        scores, best = torch.cat([self.scores, scores], 1).topk(self.scores.shape[1])
        index = best[..., None].expand(-1, -1, tokens.shape[-1])
        return Finished(tokens.gather(1, index), history.gather(1, index), scores, self.padding)

    def of_clips(self, clips: Tensor) -> Finished:
        return Finished(self.tokens[clips], self.history[clips], self.scores[clips], self.padding)

    def as_fairseq(self) -> list[list[dict[str, Any]]]:
        """For each clip its hypotheses as fairseq-generate reads them, see ``JointBeamSearch.generate``."""
        scores, tokens, history = self.scores.cpu(), self.tokens.cpu(), self.history.cpu()
        clips = []
        for clip in range(len(scores)):
            found = max(1, int((scores[clip] > -math.inf).sum()))
            clips.append([_as_fairseq(tokens[clip, n], history[clip, n], self.padding) for n in range(found)])
        return clips


def _as_fairseq(tokens: Tensor, history: Tensor, padding: int) -> dict[str, Any]:
    length = int((tokens != padding).sum())
    history = history[:length]
    return {
        "tokens": tokens[:length],
        "score": history[-1].item(),
        "attention": None,
        "alignment": torch.empty(0),
        "positional_scores": history.diff(prepend=history.new_zeros(1)),
    }
