"""What a word error rate was measured with, stored beside the hypotheses."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import yaml
from omegaconf import OmegaConf

from av_ssl import __version__
from av_ssl.decoding.joint import JointBeamSearch

SECTIONS = ("task", "generation", "scoring", "common_eval", "dataset", "common")


def save_options(root: Any, search: Any) -> Path | None:
    """Write ``options-{subset}.yaml`` into the results folder of `fairseq-generate`.

    Args:
        root: the whole configuration of the command.
        search: what decodes. Its name is stored, and what joint search made of the options: which of them
            count depends on the model.

    Returns:
        The file; None if the command writes no results.
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
