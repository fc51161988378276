"""Small random recognisers and language models, and the joint score of an output by its definition."""

import itertools
import math
from collections import defaultdict
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from fairseq.data import Dictionary
from fairseq.models import FairseqEncoder
from fairseq.models.transformer_lm import TransformerLanguageModel, TransformerLanguageModelConfig
from torch import Tensor
from torch.nn.functional import ctc_loss

from av_ssl.recognition.heads import CTCHead, HybridModel, Seq2SeqConfig, Seq2SeqDecoder, Seq2SeqEncoder
from av_ssl.recognition.search import SearchConfig
from tests.dictionaries import dictionary_of

CHANNELS = 8
LETTERS = "abc"


def letters() -> Dictionary:
    return dictionary_of(LETTERS)


class Features(FairseqEncoder):
    """Hands features ``[B, T, C]`` on as they are."""

    def __init__(self) -> None:
        super().__init__(None)

    def forward(
        self,
        source: Tensor,
        padding_mask: Tensor,
        frame_index: Tensor | None = None,
        teachers: Any = None,
        **unused: Any,
    ) -> dict[str, list[Tensor]]:
        return {"encoder_out": [source.transpose(0, 1)], "encoder_padding_mask": [padding_mask]}

    reorder_encoder_out = Seq2SeqEncoder.reorder_encoder_out


def hybrid(seed: int = 0, positions: int = 64) -> HybridModel:
    """A decoder whose outputs depend on the whole history, peaked enough that beams differ."""
    torch.manual_seed(seed)
    cfg = Seq2SeqConfig(
        decoder_embed_dim=CHANNELS, decoder_ffn_embed_dim=16, decoder_layers=2, decoder_attention_heads=2,
        decoder_normalize_before=True, max_target_positions=positions,
    )  # fmt: skip
    dictionary = letters()
    model = HybridModel(
        Features(), Seq2SeqDecoder(cfg, dictionary, CHANNELS), CTCHead(CHANNELS, len(dictionary), dropout=0.0)
    )
    torch.nn.init.normal_(model.decoder.embed_out)
    torch.nn.init.normal_(model.ctc.proj.weight)
    return model.eval()


def language_model(seed: int = 0, positions: int = 64) -> TransformerLanguageModel:
    torch.manual_seed(seed)
    cfg = TransformerLanguageModelConfig(
        decoder_embed_dim=CHANNELS, decoder_output_dim=CHANNELS, decoder_input_dim=CHANNELS,
        decoder_ffn_embed_dim=16, decoder_layers=1, decoder_attention_heads=2, dropout=0.0,
        add_bos_token=False, tokens_per_sample=positions, max_target_positions=positions, tpu=False,
    )  # fmt: skip
    dictionary = letters()
    task = SimpleNamespace(source_dictionary=dictionary, target_dictionary=dictionary)
    model = TransformerLanguageModel.build_model(cfg, task)
    torch.nn.init.normal_(model.decoder.output_projection.weight)
    return model.eval()


def batch(lengths: list[int], frames: int | None = None, seed: int = 0) -> dict[str, Any]:
    """What fairseq-generate hands to a generator; clips and their noise do not depend on the padding."""
    frames = frames or max(lengths)
    source = torch.full((len(lengths), frames, CHANNELS), 7.0)
    for clip, length in enumerate(lengths):
        generator = torch.Generator().manual_seed(100 * seed + clip)
        source[clip, :length] = torch.randn(length, CHANNELS, generator=generator)
    padding = torch.arange(frames) >= torch.tensor(lengths)[:, None]
    return {"net_input": {"source": source, "padding_mask": padding, "prev_output_tokens": None}}


def only(sample: dict[str, Any], clip: int) -> dict[str, Any]:
    """One clip of a batch, its padding taken away."""
    net_input = sample["net_input"]
    length = int((~net_input["padding_mask"][clip]).sum())
    cut = {key: net_input[key][clip : clip + 1, :length] for key in ("source", "padding_mask")}
    return {"net_input": {**cut, "prev_output_tokens": None}}


Output = tuple[int, ...]


def output_probabilities(log_probs: Tensor, symbols: Sequence[int] | None = None) -> dict[Output, float]:
    """Probability of every output of one clip ``[T, V]``, blank 0, by enumeration of all alignments."""
    totals: dict[Output, float] = defaultdict(float)
    for path in itertools.product(symbols or range(log_probs.shape[1]), repeat=len(log_probs)):
        output = tuple(symbol for symbol, _ in itertools.groupby(path) if symbol != 0)
        totals[output] += math.exp(sum(log_probs[t, symbol].item() for t, symbol in enumerate(path)))
    return totals


def all_outputs(length: int) -> list[Output]:
    return list(itertools.product(range(4, 4 + len(LETTERS)), repeat=length))


@torch.no_grad()
def joint_scores(
    models: list[HybridModel],
    sample: dict[str, Any],
    outputs: list[Output],
    cfg: SearchConfig,
    lm: Any = None,
) -> list[float]:
    """Scores of complete outputs, all of one length, for one clip: whole-sequence decoders, torch's CTC."""
    count, length = len(outputs), len(outputs[0])
    history = torch.tensor([[2, *output] for output in outputs])
    targets = torch.tensor([[*output, 2] for output in outputs])[..., None]
    source = sample["net_input"]["source"].expand(count, -1, -1)
    frames = source.shape[1]
    padding = torch.zeros(count, frames, dtype=torch.bool)
    heads = [model(source, padding, history) for model in models]
    scores = torch.full((count,), float(cfg.length_bonus * length))
    if cfg.ctc_weight < 1:
        attention = torch.stack([logits.softmax(-1) for logits, _ in heads]).mean(0).log()
        scores += (1 - cfg.ctc_weight) * attention.gather(2, targets).sum((1, 2))
    if cfg.ctc_weight > 0:
        posteriors = torch.stack([extra["ctc_logits"].softmax(-1) for _, extra in heads]).mean(0)
        lengths = torch.full((count,), frames), torch.full((count,), length)
        scores -= cfg.ctc_weight * ctc_loss(
            posteriors.log().transpose(0, 1),
            torch.tensor(outputs).view(count, length),
            *lengths,
            reduction="none",
        )
    if lm is not None:
        scores += cfg.lm_weight * lm(history)[0].log_softmax(-1).gather(2, targets).sum((1, 2))
    return scores.tolist()
