"""Joint beam search: attention decoder, CTC prefix scores and language model in one pass.

Scores are those of Watanabe et al. (2017, hybrid CTC/attention architecture) with shallow fusion of a
language model:

    (1 - c) log p_attention + c log p_ctc(prefix) + w log p_lm + bonus * length

The beam grows by one token at a time (label-synchronous).
For CTC alone see :mod:`av_ssl.recognition.ctc_generator`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from av_ssl.recognition.ctc_generator import as_fairseq


@dataclass
class Hypotheses:
    """N hypotheses of each of B clips; a score of -inf marks an empty place.

    Attributes:
        tokens: int64 ``[B, N, L]``; the first is eos, with which decoders start.
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
        """The hypotheses ``parents [B, N']``, each with one more token."""
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
        tokens: int64 ``[B, N, L]``, each ends with eos, followed by padding.
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
        """End hypotheses ``[B, K]`` with these scores; -inf for those that do not end."""
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
        """The hypotheses of each clip as fairseq-generate reads them, see ``JointBeamSearch.generate``."""
        scores, tokens, history = self.scores.cpu(), self.tokens.cpu(), self.history.cpu()
        clips = []
        for clip in range(len(scores)):
            hypotheses = []
            for n in range(max(1, int((scores[clip] > -math.inf).sum()))):
                length = int((tokens[clip, n] != self.padding).sum())
                path = history[clip, n, :length]
                steps = path.diff(prepend=path.new_zeros(1))
                hypotheses.append(as_fairseq(tokens[clip, n, :length], path[-1].item(), steps))
            clips.append(hypotheses)
        return clips


State = dict[str, dict[str, Tensor | None]]
EncoderOut = dict[str, list[Tensor]]


class NextToken:
    """Next-token probabilities of decoders or language models: the mean over several (an ensemble).

    ``encoder_outs`` are the outputs of their encoders for B clips; None for language models.
    """

    def __init__(self, models: Sequence[Any], encoder_outs: Sequence[EncoderOut | None]) -> None:
        self.models = models
        self.encoder_outs = list(encoder_outs)
        self.states: list[State] = [{} for _ in models]

    def log_probs(self, tokens: Tensor) -> Tensor:
        """float32 ``[B, K, V]`` after the hypotheses ``[B, K, L]``, of which only the last tokens are new."""
        rows = tokens.flatten(0, 1)
        outputs = []
        for model, encoder_out, state in zip(self.models, self.encoder_outs, self.states, strict=True):
            # The B clips are not repeated K times: attention between a clip's K hypotheses and its frames is
            # one product, see `beams`.
            logits = model.decoder(rows, encoder_out=encoder_out, incremental_state=state)
            outputs.append(model.get_normalized_probs(logits, log_probs=True)[:, -1].float())
        mean = torch.stack(outputs).logsumexp(0) - math.log(len(outputs)) if len(outputs) > 1 else outputs[0]
        return mean.view(*tokens.shape[:2], -1)

    def advance(self, clips: Tensor, parents: Tensor) -> None:
        """Reorder the decoders' caches: the clips ``[B']`` that continue, ``parents [B', K]`` in each."""
        rows = (clips[:, None] * parents.shape[1] + parents).flatten()
        for place, (model, encoder_out) in enumerate(zip(self.models, self.encoder_outs, strict=True)):
            model.decoder.reorder_incremental_state_scripting(self.states[place], rows)
            if encoder_out is not None and len(clips) < len(encoder_out["encoder_padding_mask"][0]):
                self.encoder_outs[place] = model.encoder.reorder_encoder_out(encoder_out, clips)


@contextmanager
def beams(models: Sequence[Any], width: int) -> Iterator[None]:
    """Let decoders keep keys and values of the encoder once per clip instead of once per hypothesis.

    fairseq's attention does so if the width of the beam is set. It is reset afterwards, since batches in
    training would be misread.
    """
    for model in models:
        model.decoder.set_beam_size(width)
    try:
        yield
    finally:
        for model in models:
            model.decoder.set_beam_size(1)


IMPOSSIBLE = -1e6
"""Replaces log 0 in running sums, where -inf - -inf would be undefined."""


class CTCPrefixScorer:
    """CTC log-probabilities of the prefixes in a beam, which starts with the empty prefix in all K places.

    The probability of a prefix is the sum over all outputs that begin with it; that of a complete output, the
    sum over its alignments. For a hypothesis g, ``n[t]`` and ``b[t]`` are the probabilities that the first t
    frames emit g and end in its last token (n) or in blank (b). A prefix g·c whose c begins at frame t scores

        psi(g·c) = sum_t phi[t] x[t, c],    phi = n + b, or b alone if c repeats the last token of g.

    So candidates need no recursion over frames: for all tokens at once this is a matrix product. The
    recursions of the few hypotheses that the beam keeps are linear, of first order, and a running sum solves
    them,

        n'[t+1] = x[t, c] (n'[t] + phi[t])  =>  n'[t+1] = X[t+1] cumsum(phi / X[:-1])[t]
        with X[t] = prod x[:t, c],

    and the same for ``b'[t+1] = x[t, blank] (b'[t] + n'[t])`` [both ours]. Products of many frames exceed the
    range of float32, so all of it is float64: states [B, K, T] as logarithms, x [B, T, V] as probabilities.

    Args:
        log_probs: ``[B, T, V]``, frame by frame.
        lengths: real frames of each clip, int64 ``[B]``; later frames are ignored.
    """

    def __init__(self, log_probs: Tensor, lengths: Tensor, beam: int, blank: int = 0) -> None:
        clips, frames, _ = log_probs.shape
        padded = torch.arange(frames, device=log_probs.device) >= lengths[:, None]
        # After a clip's end blank is certain: states and scores at T are those at its own end.
        by_token = log_probs.float().transpose(1, 2).masked_fill(padded[:, None], -math.inf)
        blanks = log_probs[..., blank].double().masked_fill(padded, 0.0)
        self.log_probs = by_token.contiguous()  # [B, V, T]
        self.probabilities = by_token.transpose(1, 2).double().exp()  # [B, T, V]
        self.blanks = running(blanks)  # [B, T + 1]
        self.in_token = blanks.new_full((clips, beam, frames + 1), -math.inf)
        self.in_blank = possible(self.blanks)[:, None].expand(clips, beam, frames + 1)
        self.last = torch.full((clips, beam), blank, device=log_probs.device)

    def prefixes(self) -> Tensor:
        """Log-probability of each hypothesis followed by each token, as a prefix, float32 ``[B, K, V]``.

        It is -inf if it is more than about 700 nats below the hypothesis's best; the column of the blank has
        no meaning.
        """
        starts = torch.logaddexp(self.in_token, self.in_blank)[..., :-1]
        highest = starts.amax(-1, keepdim=True).clamp(min=IMPOSSIBLE)
        scores = torch.bmm((starts - highest).exp(), self.probabilities)
        blank_between = (self.in_blank[..., :-1] - highest).exp() * self.emissions(self.last).double().exp()
        scores = scores.scatter(2, self.last[..., None], blank_between.sum(-1, keepdim=True))
        return (scores.log() + highest).float()

    def complete(self) -> Tensor:
        """Log-probability ``[B, K]`` that a hypothesis is the complete output (the score of eos)."""
        return torch.logaddexp(self.in_token[..., -1], self.in_blank[..., -1]).float()

    def advance(self, clips: Tensor, parents: Tensor, tokens: Tensor) -> None:
        """Extend the beam of the clips ``[B']`` that continue: ``parents [B', K]`` and ``tokens``."""
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
    return pad(log_probs.clamp(min=IMPOSSIBLE).cumsum(-1), (1, 0))


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
    return pad(possible(states), (1, 0), value=-math.inf)


@dataclass
class SearchConfig:
    """Weights and widths of the search.

    Attributes:
        beam: K, hypotheses per clip.
        nbest: hypotheses returned per clip.
        ctc_weight: c, from 0 (attention alone) to 1 (CTC alone; the attention decoder is not run).
        lm_weight: w.
        length_bonus: added for each token but the end, in nats.
        pre_beam: candidates for the next token of a hypothesis, as a multiple of the beam: those most
            probable by the attention decoder (with c = 1, by CTC).
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
        """Raise ValueError for values out of range."""
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
    """Possible extensions of the hypotheses: each has P candidates for its next token, or ends.

    Attributes:
        candidates: int64 ``[B, K, P]``.
        local: float32 ``[B, K, P]``, score without CTC's part; -inf for symbols that are never output.
        scores: float32 ``[B, K, P]``.
        ends: float32 ``[B, K]``, scores with eos.
    """

    candidates: Tensor
    local: Tensor
    scores: Tensor
    ends: Tensor


@dataclass
class JointScorer:
    """Scores a beam by the sources that have a weight; the others are None.  Symbols in ``never [V]`` are not
    output."""

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
        """Follow the beam: the clips ``[B']`` that continue, their parents and new tokens ``[B', K]``."""
        for source in (self.attention, self.lm):
            if source is not None:
                source.advance(clips, parents)
        if self.ctc is not None:
            self.ctc.advance(clips, parents, tokens)


class JointBeamSearch:
    """Joint search in place of fairseq's ``SequenceGenerator``.

    A hypothesis ends if eos is among the best K of all extensions, as in fairseq; scores are not divided by
    lengths. Scores only fall, except for the bonus of further tokens, which is bounded: so a clip is done
    when its n-th best ended hypothesis is no worse than any live one can become [ours]. This rule changes no
    result, unlike ESPnet's, which stops after some lengths with low scores.

    Args:
        dictionary: its bos (blank), pad and unk are never output.
        lm: fairseq language model over the same dictionary.
    """

    def __init__(self, dictionary: Any, cfg: SearchConfig, lm: Any = None) -> None:
        self.cfg, self.lm = cfg, lm if cfg.lm_weight else None
        self.blank, self.eos, self.padding = dictionary.bos(), dictionary.eos(), dictionary.pad()
        never = [self.blank, self.eos, self.padding, dictionary.unk()]
        self.never = torch.zeros(len(dictionary), dtype=torch.bool)
        self.never[never] = True
        self.symbols_to_strip_from_output = {self.eos, self.blank}

    @torch.no_grad()
    def generate(
        self, models: Sequence[Any], sample: dict[str, Any], **unused: Any
    ) -> list[list[dict[str, Any]]]:
        """Decode a batch; several models are averaged in probability.

        Returns:
            For each clip its hypotheses, best first, each with ``tokens`` int64 [L], the last eos; ``score``,
            the joint one; ``positional_scores`` [L], which add up to it; ``attention`` None and ``alignment``
            empty.
        """
        net_input = {key: value for key, value in sample["net_input"].items() if key != "prev_output_tokens"}
        encoder_outs, log_probs = encode(models, net_input, ctc=self.cfg.ctc_weight > 0)
        return self.decode(models, encoder_outs, log_probs, (~net_input["padding_mask"]).sum(1))

    def decode(
        self,
        models: Sequence[Any],
        encoder_outs: Sequence[EncoderOut],
        log_probs: Tensor | None,
        lengths: Tensor,
    ) -> list[list[dict[str, Any]]]:
        """Search the outputs of :func:`encode` for clips of ``lengths [B]`` frames, see :meth:`generate`."""
        limits = self.cfg.limits(lengths)
        readers = models if self.cfg.ctc_weight < 1 else []
        self.check_positions(readers, int(limits.max()))
        scorer = JointScorer(
            self.cfg,
            self.never.to(lengths.device),
            self.eos,
            attention=NextToken(readers, encoder_outs) if readers else None,
            ctc=None if log_probs is None else CTCPrefixScorer(log_probs, lengths, self.cfg.beam, self.blank),
            lm=None if self.lm is None else NextToken([self.lm], [None]),
        )
        with beams(readers, self.cfg.beam):
            return self.search(scorer, limits)

    def check_positions(self, models: Sequence[Any], longest: int) -> None:
        named = [("the decoder", model) for model in models]
        if self.lm is not None:
            named.append(("the language model", self.lm))
        for name, model in named:
            positions = model.decoder.max_positions()
            if longest >= positions:
                raise ValueError(
                    f"{name} has {positions} positions, too few for outputs of up to {longest} tokens; set "
                    "--max-len-a 0 --max-len-b TOKENS"
                )

    def search(self, scorer: JointScorer, limits: Tensor) -> list[list[dict[str, Any]]]:
        """Extend the beam token by token; a clip leaves the batch when it is done."""
        device, cfg = limits.device, self.cfg
        live = Hypotheses.start(len(limits), cfg.beam, self.eos, device)
        finished = Finished.none(len(limits), cfg.nbest, self.eos, self.padding, device)
        clips = torch.arange(len(limits), device=device)
        results: dict[int, list[dict[str, Any]]] = {}
        for length in range(int(limits.max()) + 1):
            growth = scorer.grow(live)
            over = limits <= length
            candidates = growth.scores.masked_fill(over[:, None, None], -math.inf)
            scores, best = candidates.flatten(1).topk(cfg.beam)
            finished = finished.with_ended(live, self.ends(growth.ends, scores, over, length))
            reach = scores[:, 0] + max(cfg.length_bonus, 0.0) * (limits - length - 1)
            done = over | (finished.scores[:, -1] >= reach)
            going = (~done).nonzero().squeeze(1)  # the only wait for the device in a step
            if len(going) < len(clips):
                left = done.nonzero().squeeze(1)
                results.update(zip(clips[left].tolist(), finished.of_clips(left).as_fairseq(), strict=True))
                if not len(going):
                    break
                limits, clips, finished = limits[going], clips[going], finished.of_clips(going)
            live = self.follow(scorer, live, growth, going, best, scores)
        return [results[clip] for clip in sorted(results)]

    def ends(self, ends: Tensor, growing: Tensor, over: Tensor, length: int) -> Tensor:
        """Of scores with eos ``ends [B, K]``, those of hypotheses that end here; -inf for the others.

        They compete with the best scores with another token, ``growing [B, K]``; clips in ``over [B]`` allow
        none.
        """
        if length < self.cfg.min_len:
            ends = ends.masked_fill(~over[:, None], -math.inf)
        threshold = torch.cat([ends, growing], 1).topk(self.cfg.beam).values[:, -1:]
        return ends.masked_fill(ends < threshold, -math.inf)

    def follow(
        self,
        scorer: JointScorer,
        live: Hypotheses,
        growth: Growth,
        clips: Tensor,
        best: Tensor,
        scores: Tensor,
    ) -> Hypotheses:
        """The beam of the next step: the ``best [B, K]`` extensions of the clips ``[B']`` that continue."""
        best, scores = best[clips], scores[clips]
        parents = best // growth.candidates.shape[-1]
        tokens = growth.candidates[clips].flatten(1).gather(1, best)
        # Not padding, for which decoders would build masks: these places are empty.
        tokens = tokens.masked_fill(scores == -math.inf, self.eos)
        local = growth.local[clips].flatten(1).gather(1, best)
        scorer.advance(clips, parents, tokens)
        return live.of_clips(clips).grown(parents, tokens, local, scores)


def encode(
    models: Sequence[Any], net_input: dict[str, Any], ctc: bool
) -> tuple[list[EncoderOut], Tensor | None]:
    """Run the encoders: their outputs, and if asked for the mean CTC log-probabilities ``[B, T, V]``.

    Models with only a CTC head have no output for a decoder.
    """
    encoder_outs, posteriors = [], []
    for model in models:
        if not hasattr(model, "encoder"):
            output = model(**net_input)
            posteriors.append(model.get_normalized_probs(output, log_probs=True).transpose(0, 1))
            continue
        encoder_outs.append(model.encoder(**net_input))
        if ctc:
            posteriors.append(model.ctc_log_probs(encoder_outs[-1]))
    if not posteriors:
        return encoder_outs, None
    return encoder_outs, torch.stack(posteriors).logsumexp(0) - math.log(len(posteriors))
