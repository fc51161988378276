"""One-pass beam search by attention decoder, CTC prefix scores and language model (Watanabe et al., 2017)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from av_ssl.decoding.ctc_prefix import CTCPrefixScorer
from av_ssl.decoding.hypotheses import Finished, Hypotheses
from av_ssl.decoding.incremental import EncoderOut, NextToken, beams
from av_ssl.decoding.joint_score import Growth, JointScorer, SearchConfig


class JointBeamSearch:
    """Decodes in the place of fairseq's ``SequenceGenerator``.

    A hypothesis ends where its end is among the best K of all ways to go on, as in fairseq; scores are not
    divided by lengths.  Scores only fall, but for the bonus of tokens to come, which is bounded: so a clip is
    done when its n-th best ended hypothesis is no worse than any live one can become [ours].  That changes
    no result, whereas ESPnet's rule stops when the scores of the last lengths were poor.

    Args:
        dictionary: fairseq dictionary; its bos (blank), pad and unk are never output.
        cfg: weights and widths.
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

        Raises:
            ValueError: an output may need more positions than a decoder or the language model has.
        """
        net_input = {key: value for key, value in sample["net_input"].items() if key != "prev_output_tokens"}
        encoder_outs, log_probs = encode(models, net_input, ctc=self.cfg.ctc_weight > 0)
        lengths = (~net_input["padding_mask"]).sum(1)
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
                    f"{name} has {positions} positions, too few for outputs of up to {longest} tokens; bound "
                    "them with --max-len-a 0 --max-len-b TOKENS"
                )

    def search(self, scorer: JointScorer, limits: Tensor) -> list[list[dict[str, Any]]]:
        """Grow the beam token by token; a clip leaves the batch when it is done."""
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
            going = (~done).nonzero().squeeze(1)  # the one wait for the device in a step
            if len(going) < len(clips):
                left = done.nonzero().squeeze(1)
                results.update(zip(clips[left].tolist(), finished.of_clips(left).as_fairseq(), strict=True))
                if not len(going):
                    break
                limits, clips, finished = limits[going], clips[going], finished.of_clips(going)
            live = self.follow(scorer, live, growth, going, best, scores)
        return [results[clip] for clip in sorted(results)]

    def ends(self, ends: Tensor, growing: Tensor, over: Tensor, length: int) -> Tensor:
        """Scores of the hypotheses that end here, -inf for those that do not.

        Args:
            ends: ``[B, K]``, scores with eos behind.
            growing: ``[B, K]``, the K best scores with a token behind.
            over: bool ``[B]``, clips that allow no more tokens.
            length: tokens so far.
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
        """The beam of the next step: of the clips ``[B']`` that go on, the ``best [B, K]`` ways to go on."""
        best, scores = best[clips], scores[clips]
        parents = best // growth.candidates.shape[-1]
        tokens = growth.candidates[clips].flatten(1).gather(1, best)
        # Padding would make decoders build masks; the places that hold it are empty.
        tokens = tokens.masked_fill(scores == -math.inf, self.eos)
        local = growth.local[clips].flatten(1).gather(1, best)
        scorer.advance(clips, parents, tokens)
        return live.of_clips(clips).grown(parents, tokens, local, scores)


def encode(
    models: Sequence[Any], net_input: dict[str, Any], ctc: bool
) -> tuple[list[EncoderOut], Tensor | None]:
    """Run the encoders: their outputs, and where asked the mean CTC log-probabilities ``[B, T, V]``.

    Models with a CTC head alone have no output for a decoder.
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
