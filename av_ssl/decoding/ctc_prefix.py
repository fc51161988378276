"""CTC prefix scores for label-synchronous search (Watanabe et al., 2017, hybrid CTC/attention architecture).

The probability of a prefix is the sum over all outputs that begin with it; that of a complete output, the sum
over its alignments.  For a hypothesis g, ``n[t]`` and ``b[t]`` are the probabilities that the first t frames
say g and end in its last token (n) or in blank (b).  A prefix g·c whose c begins at frame t scores

    psi(g·c) = sum_t phi[t] x[t, c],    phi = n + b, or b alone where c repeats the last token of g.

So candidates need no recursion over frames, only this sum; and the recursions of the few hypotheses that the
beam keeps are linear and of first order, which a running sum solves [ours]:

    n'[t+1] = x[t, c] (n'[t] + phi[t])   =>   n'[t+1] = X[t+1] cumsum(phi / X[:-1])[t],   X[t] = prod x[:t, c]

and the same for ``b'[t+1] = x[t, blank] (b'[t] + n'[t])``.  In the log domain these quotients need float64,
which holds for the states [B, K, T]; what grows with candidates, [B, K, P, T], is float32.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

IMPOSSIBLE = -1e6
"""Stands for log 0 inside running sums, where -inf - -inf would be undefined."""


class CTCPrefixScorer:
    """Log-probabilities of the prefixes in a beam; it begins with the empty prefix in all K places.

    Args:
        log_probs: ``[B, T, V]``, frame by frame.
        lengths: real frames of each clip, int64 ``[B]``; what lies behind them is not looked at.
        beam: K, hypotheses a clip.
        blank: index of the blank symbol.
    """

    def __init__(self, log_probs: Tensor, lengths: Tensor, beam: int, blank: int = 0) -> None:
        clips, frames, _ = log_probs.shape
        padded = torch.arange(frames, device=log_probs.device) >= lengths[:, None]
        # Behind a clip's end blank is certain: states and scores at T are those at its own end.
        by_token = log_probs.float().transpose(1, 2).masked_fill(padded[:, None], -math.inf)
        blanks = log_probs[..., blank].double().masked_fill(padded, 0.0)
        self.log_probs = by_token.contiguous()  # [B, V, T]
        self.blanks = running(blanks)  # [B, T + 1]
        self.in_token = blanks.new_full((clips, beam, frames + 1), -math.inf)
        self.in_blank = possible(self.blanks)[:, None].expand(clips, beam, frames + 1)
        self.last = torch.full((clips, beam), blank, device=log_probs.device)

    def rank(self) -> Tensor:
        """``prefixes`` for all tokens ``[B, K, V]`` by one matrix product, to choose candidates by.

        Scores more than about 87 nats below their hypothesis's best may come out as -inf, and a repetition
        of the last token is scored as if it needed no blank between, that is, too high.
        """
        starts = torch.logaddexp(self.in_token, self.in_blank)[..., :-1].float()
        highest = starts.amax(-1, keepdim=True).clamp(min=IMPOSSIBLE)
        return torch.matmul((starts - highest).exp(), self.log_probs.exp().transpose(1, 2)).log() + highest

    def prefixes(self, candidates: Tensor) -> Tensor:
        """Log-probabilities ``[B, K, P]`` of hypotheses with each of their candidates (int64) behind them."""
        clips, beam, width = candidates.shape
        starts = torch.logaddexp(self.in_token, self.in_blank)[..., :-1].float()
        emitted = self.emissions(candidates.flatten(1)).view(clips, beam, width, -1)
        scores = torch.logsumexp(emitted + starts[:, :, None], dim=-1)
        again = torch.logsumexp(self.emissions(self.last) + self.in_blank[..., :-1].float(), dim=-1)
        return torch.where(candidates == self.last[..., None], again[..., None], scores)

    def complete(self) -> Tensor:
        """Log-probability ``[B, K]`` that a hypothesis is the whole output (the score of eos)."""
        return torch.logaddexp(self.in_token[..., -1], self.in_blank[..., -1]).float()

    def advance(self, clips: Tensor, parents: Tensor, tokens: Tensor) -> None:
        """Put other hypotheses into the beam.

        Args:
            clips: int64 ``[B']``, the clips that go on, of those that there were.
            parents: int64 ``[B', K]``, the hypothesis that each new one goes on from.
            tokens: int64 ``[B', K]``, what it adds.
        """
        if len(clips) < len(self.log_probs):
            self.log_probs, self.blanks = self.log_probs[clips], self.blanks[clips]
        places = clips[:, None], parents
        in_token, in_blank = self.in_token[places], self.in_blank[places]
        repeats = (tokens == self.last[places])[..., None]
        starts = torch.where(repeats, in_blank, torch.logaddexp(in_token, in_blank))[..., :-1]
        self.in_token = solve(starts, running(self.emissions(tokens).double()))
        self.in_blank = solve(self.in_token[..., :-1], self.blanks[:, None])
        self.last = tokens

    def emissions(self, tokens: Tensor) -> Tensor:
        """``[B, N, T]``: log-probability at each frame of the tokens ``[B, N]``."""
        vocabulary = self.log_probs.shape[1]
        offsets = torch.arange(len(tokens), device=tokens.device)[:, None] * vocabulary
        rows = self.log_probs.flatten(0, 1).index_select(0, (tokens + offsets).flatten())
        return rows.view(*tokens.shape, -1)


def running(log_probs: Tensor) -> Tensor:
    """Sums over the first 0, 1, ..., T frames: ``[..., T + 1]`` for ``[..., T]``, all finite."""
    return torch.nn.functional.pad(log_probs.clamp(min=IMPOSSIBLE).cumsum(-1), (1, 0))


def possible(log_probs: Tensor) -> Tensor:
    """-inf again where the running sums held ``IMPOSSIBLE``."""
    return log_probs.masked_fill(log_probs < IMPOSSIBLE / 2, -math.inf)


def solve(starts: Tensor, stays: Tensor) -> Tensor:
    """Solve ``state[t + 1] = x[t] (state[t] + start[t])``, ``state[0] = 0``: log-states ``[..., T + 1]``.

    Args:
        starts: log of ``start``, float64 ``[..., T]``.
        stays: ``running(log x)``, ``[..., T + 1]``.
    """
    states = stays[..., 1:] + torch.logcumsumexp(starts - stays[..., :-1], dim=-1)
    return torch.nn.functional.pad(possible(states), (1, 0), value=-math.inf)
