"""CTC prefix scores for label-synchronous search (Watanabe et al., 2017, hybrid CTC/attention architecture).

The probability of a prefix is the sum over all outputs that begin with it; that of a complete output, the sum
over its alignments.  For a hypothesis g, ``n[t]`` and ``b[t]`` are the probabilities that the first t frames
say g and end in its last token (n) or in blank (b).  A prefix g·c whose c begins at frame t scores

    psi(g·c) = sum_t phi[t] x[t, c],    phi = n + b, or b alone where c repeats the last token of g.

So candidates need no recursion over frames: for all tokens at once this is a matrix product.  And the
recursions of the few hypotheses that the beam keeps are linear, of first order: a running sum solves them,

    n'[t+1] = x[t, c] (n'[t] + phi[t])   =>   n'[t+1] = X[t+1] cumsum(phi / X[:-1])[t],   X[t] = prod x[:t, c]

and the same for ``b'[t+1] = x[t, blank] (b'[t] + n'[t])`` [both ours].  As products of many frames leave the
range of float32, all of it is float64: states [B, K, T] as logarithms, x [B, T, V] as probabilities.
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
        self.probabilities = by_token.transpose(1, 2).double().exp()  # [B, T, V]
        self.blanks = running(blanks)  # [B, T + 1]
        self.in_token = blanks.new_full((clips, beam, frames + 1), -math.inf)
        self.in_blank = possible(self.blanks)[:, None].expand(clips, beam, frames + 1)
        self.last = torch.full((clips, beam), blank, device=log_probs.device)

    def prefixes(self) -> Tensor:
        """Log-probability of each hypothesis's prefix with each token behind it, float32 ``[B, K, V]``.

        What is more than about 700 nats below a hypothesis's best is -inf; the blank's column says nothing.
        """
        starts = torch.logaddexp(self.in_token, self.in_blank)[..., :-1]
        highest = starts.amax(-1, keepdim=True).clamp(min=IMPOSSIBLE)
        scores = torch.bmm((starts - highest).exp(), self.probabilities)
        blank_between = (self.in_blank[..., :-1] - highest).exp() * self.emissions(self.last).double().exp()
        scores = scores.scatter(2, self.last[..., None], blank_between.sum(-1, keepdim=True))
        return (scores.log() + highest).float()

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
            self.log_probs, self.probabilities = self.log_probs[clips], self.probabilities[clips]
            self.blanks = self.blanks[clips]
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
