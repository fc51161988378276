"""Which search decodes which model, checks of its language model, and the record of its options."""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import yaml
from fairseq.dataclass.configs import GenerationConfig
from omegaconf import OmegaConf
from torch import Tensor

from av_ssl import __version__
from av_ssl.data.text import difference, load_dictionary
from av_ssl.errors import DataError
from av_ssl.recognition.ctc_generator import CTCBeamSearch
from av_ssl.recognition.search import JointBeamSearch, SearchConfig

logger = logging.getLogger(__name__)

FILE = "dict.txt"
"""The language model's dictionary for fairseq 0.12.2, in the data folder of the command."""


def check_stored_dictionary(data: Path, dictionary: Any) -> None:
    """Compare the dictionary that fairseq gives to the language model with the recogniser's.

    fairseq's checkpoints of language models hold no dictionary; with symbols in another order, scores would
    be wrong without an error.
    """
    path = data / FILE
    if not path.exists():
        raise DataError(
            f"{path}: does not exist; fairseq-generate reads the dictionary of --lm-path there: copy {FILE} "
            "from the folder that the language model was trained on (fairseq-preprocess wrote it)"
        )
    check_dictionary(load_dictionary(path), dictionary, str(path))


def check_dictionary(language_model: Any, recogniser: Any, origin: str) -> None:
    """Raise DataError if the two dictionaries differ; ``origin`` names the language model's."""
    if language_model.symbols != recogniser.symbols:
        raise DataError(
            f"{origin}: the language model has another dictionary, "
            f"{difference(language_model.symbols, recogniser.symbols)}; train it on text in the recogniser's "
            "pieces (av-ssl data pieces) with fairseq-preprocess --srcdict dict.wrd.txt"
        )


SECTIONS = ("task", "generation", "scoring", "common_eval", "dataset", "common")


def save_options(root: Any, search: Any) -> Path | None:
    """Write ``options-{subset}.yaml`` into the results folder of `fairseq-generate`, if there is one.

    Args:
        root: the entire configuration of the command.
        search: its name is stored; of joint search also its settings, which depend on the model.
    """
    folder = root.common_eval.results_path
    if not folder:
        return None
    options: dict[str, Any] = {key: OmegaConf.to_container(root[key], enum_to_str=True) for key in SECTIONS}
    options["search"] = {"name": type(search).__name__}
    if isinstance(search, JointBeamSearch):
        options["search"].update(asdict(search.cfg))
    options["versions"] = {"av_ssl": __version__, "torch": torch.__version__}
    path = Path(folder) / f"options-{root.dataset.gen_subset}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = json.loads(json.dumps(options, default=str))  # no tuples, which safe YAML lacks
    path.write_text(yaml.safe_dump(plain, sort_keys=False), encoding="utf-8")
    return path


OTHER_SEARCHES = (
    "sampling", "constraints", "diverse_beam_groups", "diversity_rate", "match_source_len", "prefix_size",
    "no_repeat_ngram_size", "lenpen", "unkpen", "temperature", "score_reference", "print_alignment",
)  # fmt: skip
"""Options of fairseq's beam search that the searches of this package do not have."""


def choose_search(
    models: Sequence[Any], dictionary: Any, task: Any, args: Any, lm: Any = None, lm_weight: float = 0.0
) -> Any | None:
    """A search for these models; None: fairseq's own.

    ============================  =====================================================================
    attention decoder             fairseq's, with any language model
    CTC head                      CTC beam search; with a language model joint search, CTC weight 1
    both                          joint search; with a CTC weight of 0 fairseq's
    any, and a length bonus       joint search
    ============================  =====================================================================

    Args:
        models: an ensemble of one kind.
        task: configuration of the recognition task.
        args: ``GenerationConfig`` or the options of the command.
        lm: language model of ``--lm-path``.

    Raises:
        ValueError: models of several kinds, or options that the search lacks.
        DataError: the language model has another dictionary.
    """
    if lm is not None:
        check_dictionary(lm.decoder.dictionary, dictionary, "--lm-path")
        if not lm_weight:
            logger.warning("--lm-path has no effect without --lm-weight")
            lm = None
    has_attention = kind(models, "decoder")
    has_ctc = not has_attention or kind(models, "ctc_log_probs")
    ctc_weight = 0.0 if not has_ctc else task.ctc_weight if has_attention else 1.0
    if not task.length_bonus:
        if ctc_weight == 0:
            return None
        if not has_attention and lm is None:
            refuse_others(args, "CTC beam search")
            warn_of_bounds(args)
            return CTCBeamSearch(dictionary, beam=args.beam)
    return JointBeamSearch(dictionary, search_config(task, args, ctc_weight, lm_weight), lm)


@torch.no_grad()
def decode_output(
    model: Any, output: Any, lengths: Tensor, dictionary: Any, beam: int, ctc_weight: float, longest: int
) -> list[Tensor]:
    """The best tokens of each clip from what ``model(**net_input)`` returned: the encoder is not run again.

    A CTC head is decoded by CTC beam search, an attention decoder by joint search, without CTC's scores where
    it has no CTC head.

    Args:
        model: one of :mod:`av_ssl.recognition.heads`.
        lengths: frames of the clips, int64 ``[B]``.
        beam: hypotheses kept; 1 is greedy.
        ctc_weight: of joint search.
        longest: most tokens of an output of an attention decoder.
    """
    if isinstance(output, dict):
        log_probs = model.get_normalized_probs(output, log_probs=True).transpose(0, 1)
        found = CTCBeamSearch(dictionary, beam=beam).decode(log_probs, lengths)
    else:
        encoder_out = output[1]["encoder_out"]
        ctc = hasattr(model, "ctc_log_probs") and ctc_weight > 0
        longest = min(longest, model.decoder.max_positions() - 1)
        options = SearchConfig(beam, ctc_weight=ctc_weight if ctc else 0, max_len_a=0, max_len_b=longest)
        log_probs = model.ctc_log_probs(encoder_out) if ctc else None
        found = JointBeamSearch(dictionary, options).decode([model], [encoder_out], log_probs, lengths)
    return [best["tokens"] for best, *_ in found]


def kind(models: Sequence[Any], part: str) -> bool:
    """Whether models have a part; ValueError if only some have it."""
    have = {hasattr(model, part) for model in models}
    if len(have) > 1:
        raise ValueError(
            "an ensemble of models with different heads (CTC, attention) cannot be decoded together"
        )
    return have.pop()


def search_config(task: Any, args: Any, ctc_weight: float, lm_weight: float) -> SearchConfig:
    """fairseq's options as those of joint search; ValueError for options that it would ignore."""
    refuse_others(args, "joint CTC/attention search")
    return SearchConfig(
        beam=args.beam,
        nbest=option(args, "nbest"),
        ctc_weight=ctc_weight,
        lm_weight=lm_weight,
        length_bonus=task.length_bonus,
        pre_beam=task.pre_beam,
        min_len=option(args, "min_len"),
        max_len_a=option(args, "max_len_a"),
        max_len_b=option(args, "max_len_b"),
    )


def refuse_others(args: Any, search: str) -> None:
    """Raise DataError for options that ``search`` ignores."""
    ignored = [name for name in OTHER_SEARCHES if option(args, name) != option(None, name)]
    if ignored:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in ignored)
        raise DataError(f"{names}: {search} has no such option; omit it")


def warn_of_bounds(args: Any) -> None:
    """Log bounds on lengths that CTC beam search ignores."""
    bounds = ("max_len_a", "max_len_b")
    ignored = ["min_len"] if option(args, "min_len") > 1 else []
    if option(args, "max_len_a") < 1 and any(option(args, name) != option(None, name) for name in bounds):
        ignored += bounds
    if ignored:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in ignored)
        logger.warning("%s: without effect; CTC beam search has no bounds on the length", names)


def option(args: Any, name: str) -> Any:
    """An option of the command, or fairseq's default."""
    return getattr(args, name, GenerationConfig.__dataclass_fields__[name].default)
