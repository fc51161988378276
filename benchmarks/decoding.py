"""Speed of decoding a hybrid recogniser: by CTC, by attention, by both, and with a language model.

    python benchmarks/decoding.py [--device cuda] [--size base] [--clips 8] [--seconds 4] [--beams 1 10 40]

Prints a markdown table: utterances a second and the real-time factor (seconds of work a second of speech),
encoder included.  Weights are random.  So that searches do the work that a trained model gives them, every
output has a token for five frames, as LRS3's transcripts have, and CTC's posteriors are peaked, four frames
in five at the blank.
"""

import argparse
import statistics
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from fairseq.data import Dictionary
from fairseq.models.transformer_lm import TransformerLanguageModel, TransformerLanguageModelConfig
from fairseq.sequence_generator import SequenceGenerator
from omegaconf import OmegaConf
from timing import machine, median_time

import av_ssl.tasks  # noqa: F401  (registers everything)
from av_ssl.recognition.ctc_generator import CTCBeamSearch
from av_ssl.recognition.heads import (
    CTCConfig,
    CTCModel,
    HybridConfig,
    HybridModel,
    Seq2SeqConfig,
    Seq2SeqModel,
)
from av_ssl.recognition.search import JointBeamSearch, SearchConfig

FRAME_RATE = 25
FRAMES_A_TOKEN = 5
ENCODERS: dict[str, dict[str, Any]] = {
    "tiny": {"encoder_layers": 2, "encoder_embed_dim": 64, "encoder_ffn_embed_dim": 128,
             "encoder_attention_heads": 4, "resnet_width": 8, "conv_pos": 16, "conv_pos_groups": 4},
    "base": {},
}  # fmt: skip
DECODERS: dict[str, dict[str, int]] = {
    "tiny": {"decoder_embed_dim": 32, "decoder_ffn_embed_dim": 64, "decoder_layers": 2},
    "base": {},
}
LANGUAGE_MODELS = {  # width, layers
    "tiny": (32, 2),
    "base": (512, 16),
}
Search = Any


def symbols(count: int) -> Dictionary:
    dictionary = Dictionary()
    for number in range(count - len(dictionary)):
        dictionary.add_symbol(f"piece{number}")
    return dictionary


KINDS: dict[str, tuple[Any, Any]] = {
    "ctc": (CTCModel, CTCConfig),
    "seq2seq": (Seq2SeqModel, Seq2SeqConfig),
    "hybrid": (HybridModel, HybridConfig),
}


def random_recogniser(kind: str, size: str, dictionary: Dictionary) -> Any:
    """One of ``KINDS``, in eval mode."""
    encoder = {"image_mean": 0.421, "image_std": 0.165, **ENCODERS[size]}
    own: dict[str, Any] = {"w2v_args": {"model": encoder, "task": {"normalize": True}}, "normalize": True}
    model, config = KINDS[kind]
    cfg = OmegaConf.merge(OmegaConf.structured(config()), own, DECODERS[size] if kind != "ctc" else {})
    return model.build_model(cfg, SimpleNamespace(target_dictionary=dictionary, pretrained=None)).eval()


def make_peaked(head: torch.nn.Linear, spread: float = 20.0) -> None:
    """Let logits of normalised features vary by ``spread`` nats, and blank win in four frames of five."""
    torch.nn.init.normal_(head.weight, std=spread * head.in_features**-0.5)
    torch.nn.init.zeros_(head.bias)
    # The largest of V normal variables is above this in a fifth of the cases.
    tail = -torch.tensor(1 - 1 / FRAMES_A_TOKEN).log().item() / head.out_features
    with torch.no_grad():
        head.weight[0] = 0.0
        head.bias[0] = spread * statistics.NormalDist().inv_cdf(1 - tail)


def random_language_model(size: str, dictionary: Dictionary) -> TransformerLanguageModel:
    width, layers = LANGUAGE_MODELS[size]
    cfg = TransformerLanguageModelConfig(
        decoder_embed_dim=width, decoder_input_dim=width, decoder_output_dim=width,
        decoder_ffn_embed_dim=4 * width, decoder_layers=layers, decoder_attention_heads=8,
        add_bos_token=False, tokens_per_sample=1024, max_target_positions=1024, tpu=False,
    )  # fmt: skip
    task = SimpleNamespace(source_dictionary=dictionary, target_dictionary=dictionary)
    return TransformerLanguageModel.build_model(cfg, task).eval()


def make_batch(clips: int, frames: int, device: str) -> dict[str, Any]:
    padding = torch.zeros(clips, frames, dtype=torch.bool, device=device)
    video = torch.randint(0, 256, (clips, 1, frames, 88, 88), dtype=torch.uint8, device=device)
    audio = torch.randn(clips, 104, frames, device=device)
    net_input = {
        "source": {"audio": audio, "video": video},
        "padding_mask": padding,
        "frame_index": torch.arange(clips * frames, device=device),
        "src_tokens": torch.full((clips, frames), 4, device=device),
    }
    return {"net_input": net_input}


class CTCHalf:
    """The hybrid as a model with a CTC head alone, which is what CTC beam search knows."""

    def __init__(self, model: HybridModel) -> None:
        self.model = model

    def __call__(self, **net_input: Any) -> torch.Tensor:
        return self.model.ctc_log_probs(self.model.encoder(**net_input)).transpose(0, 1)

    def get_normalized_probs(self, net_output: torch.Tensor, log_probs: bool) -> torch.Tensor:
        return net_output if log_probs else net_output.exp()


def searches(
    model: HybridModel, lm: TransformerLanguageModel, dictionary: Dictionary, beam: int, frames: int
) -> dict[str, tuple[Search, Any]]:
    """By name a search and the model that it decodes; all outputs have the same length."""
    tokens = frames // FRAMES_A_TOKEN
    length: dict[str, Any] = {"min_len": tokens, "max_len_a": 0.0, "max_len_b": tokens}
    stock = SequenceGenerator([model], dictionary, beam_size=beam, normalize_scores=False, **length)

    def joint(ctc_weight: float, lm_weight: float = 0.0) -> tuple[Search, Any]:
        cfg = SearchConfig(beam=beam, ctc_weight=ctc_weight, lm_weight=lm_weight, **length)
        return JointBeamSearch(dictionary, cfg, lm), model

    return {
        "CTC beam search": (CTCBeamSearch(dictionary, beam=beam), CTCHalf(model)),
        "fairseq's beam search (attention)": (stock, model),
        "joint search, attention alone": joint(0.0),
        "joint search, CTC alone": joint(1.0),
        "joint search": joint(0.1),
        "joint search with language model": joint(0.1, 0.3),
    }


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", type=lambda name: getattr(torch, name), default="float32")
    parser.add_argument("--size", choices=ENCODERS, default="base")
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each clip")
    parser.add_argument("--beams", type=int, nargs="+", default=[1, 10, 40])
    parser.add_argument("--symbols", type=int, default=1000, help="of the dictionary")
    parser.add_argument("--repeats", type=int, default=3)
    return parser.parse_args()


def print_row(search: str, beam: str, seconds: float, args: argparse.Namespace) -> None:
    rate, factor = args.clips / seconds, seconds / (args.clips * args.seconds)
    print(f"| {search} | {beam} | {rate:.2f} | {factor:.3f} |", flush=True)


@torch.no_grad()
def main() -> None:
    args = parse_arguments()
    torch.manual_seed(0)
    frames = round(args.seconds * FRAME_RATE)
    dictionary = symbols(args.symbols)
    model = random_recogniser("hybrid", args.size, dictionary)
    make_peaked(model.ctc.proj)
    model.to(args.device, args.dtype)
    lm = random_language_model(args.size, dictionary).to(args.device, args.dtype)
    batch = make_batch(args.clips, frames, args.device)
    print(
        f"{args.size}, {str(args.dtype)[6:]}, {args.clips} clips of {args.seconds:g} s, "
        f"{frames // FRAMES_A_TOKEN} tokens each; {machine(args.device)}\n"
    )
    print("| search | beam | utterances/s | real-time factor |\n|---|---:|---:|---:|")
    encoder_input = {key: value for key, value in batch["net_input"].items() if key != "src_tokens"}
    encode = median_time(partial(model.encoder, **encoder_input), args.device, args.repeats)
    print_row("encoder alone", "", encode, args)
    for beam in args.beams:
        for name, (search, decoded) in searches(model, lm, dictionary, beam, frames).items():
            seconds = median_time(partial(search.generate, [decoded], batch), args.device, args.repeats)
            print_row(name, str(beam), seconds, args)


if __name__ == "__main__":
    main()
