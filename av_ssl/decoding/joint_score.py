"""The score of joint search: attention decoder, CTC prefixes and language model.

Watanabe et al. (2017, hybrid CTC/attention architecture) with shallow fusion of a language model:

    (1 - c) log p_attention + c log p_ctc(prefix) + w log p_lm + bonus * length
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from av_ssl.decoding.ctc_prefix import CTCPrefixScorer
from av_ssl.decoding.hypotheses import Hypotheses
from av_ssl.decoding.incremental import NextToken


@dataclass
class SearchConfig:
    """What the search optimises, and how widely it looks.

    Attributes:
        beam: K, hypotheses a clip.
        nbest: hypotheses returned for a clip.
        ctc_weight: c, from 0 (attention alone) to 1 (CTC alone; the attention decoder is not run).
        lm_weight: w.
        length_bonus: added for each token but the end, in nats.
        pre_beam: next tokens that a hypothesis may take, in beams: those of the attention decoder's highest
            probability (with c = 1, CTC's).
        min_len: least tokens before the end.
        max_len_a, max_len_b: at most ``a * frames + b`` tokens before the end, and never more than frames.
    """

    beam: int = 40
    nbest: int = 1
    ctc_weight: float = 0.1
    lm_weight: float = 0.0
    length_bonus: float = 0.0
    pre_beam: float = 1.5
    min_len: int = 0
    max_len_a: float = 1.0
    max_len_b: int = 0

    def __post_init__(self) -> None:
        """Raise ValueError for values that make no sense."""
        if not 0 <= self.ctc_weight <= 1:
            raise ValueError(f"ctc_weight is {self.ctc_weight}; it must be between 0 and 1")
        if self.beam < 1 or self.nbest < 1:
            raise ValueError(f"beam is {self.beam} and nbest {self.nbest}; both must be at least 1")
        if self.pre_beam < 1:
            raise ValueError(f"pre_beam is {self.pre_beam}; fewer candidates than beams cannot fill a beam")
        if self.lm_weight < 0:
            raise ValueError(f"lm_weight is {self.lm_weight}; it must not be negative")

    def limits(self, lengths: Tensor) -> Tensor:
        """Most tokens before the end of clips of so many frames, int64 ``[B]``."""
        asked = (self.max_len_a * lengths + self.max_len_b).long()
        return torch.minimum(asked, lengths).clamp(min=0)


@dataclass
class Growth:
    """What the hypotheses can become: each has P candidates for its next token, or ends.

    Attributes:
        candidates: int64 ``[B, K, P]``.
        local: float32 ``[B, K, P]``, score without CTC's part; -inf for symbols that are never output.
        scores: float32 ``[B, K, P]``.
        ends: float32 ``[B, K]``, scores with the end behind.
    """

    candidates: Tensor
    local: Tensor
    scores: Tensor
    ends: Tensor


@dataclass
class JointScorer:
    """Scores a beam by the sources that have a weight; the others are None.

    Attributes:
        never: symbols that are no words, bool ``[V]``.
    """

    cfg: SearchConfig
    never: Tensor
    eos: int
    attention: NextToken | None
    ctc: CTCPrefixScorer | None
    lm: NextToken | None

    def grow(self, live: Hypotheses) -> Growth:
        """Score the next tokens of all hypotheses."""
        cfg = self.cfg
        attention = None if self.attention is None else self.attention.log_probs(live.tokens)
        language = None if self.lm is None else self.lm.log_probs(live.tokens)
        prefixes = None if self.ctc is None else self.ctc.prefixes()
        ranking = prefixes if attention is None else attention
        assert ranking is not None  # a CTC weight is either below 1 or above 0
        width = min(math.ceil(cfg.pre_beam * cfg.beam), ranking.shape[-1])
        candidates = ranking.masked_fill(self.never, -math.inf).topk(width).indices
        local, ends = live.local[..., None] + cfg.length_bonus, live.local
        for log_probs, weight in ((attention, 1 - cfg.ctc_weight), (language, cfg.lm_weight)):
            if log_probs is not None:
                local = local + weight * log_probs.gather(2, candidates)
                ends = ends + weight * log_probs[..., self.eos]
        local = local.masked_fill(self.never[candidates], -math.inf)
        if self.ctc is None or prefixes is None:
            return Growth(candidates, local, local, ends)
        scores = local + cfg.ctc_weight * prefixes.gather(2, candidates)
        return Growth(candidates, local, scores, ends + cfg.ctc_weight * self.ctc.complete())

    def advance(self, clips: Tensor, parents: Tensor, tokens: Tensor) -> None:
        """Follow the beam: clips ``[B']`` that go on, of each the parents and new tokens ``[B', K]``."""
        for source in (self.attention, self.lm):
            if source is not None:
                source.advance(clips, parents)
        if self.ctc is not None:
            self.ctc.advance(clips, parents, tokens)
