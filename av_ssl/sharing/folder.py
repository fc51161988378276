"""Folders to share a model in: `model.safetensors`, `config.json` and a model card, `README.md`.

    save_pretrained(read_stored("vsr.pt"), "vsr")               # also to a hub, with push_to_hub=True
    from_pretrained("vsr"), from_pretrained("name/vsr")         # a folder, or a repository of a hub

Folders need safetensors alone; hubs and cards need huggingface_hub.  Nothing in a folder is executed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml
from fairseq.criterions import CRITERION_DATACLASS_REGISTRY
from fairseq.dataclass.configs import FairseqConfig
from fairseq.models import MODEL_DATACLASS_REGISTRY
from fairseq.optim import OPTIMIZER_DATACLASS_REGISTRY
from fairseq.optim.lr_scheduler import LR_SCHEDULER_DATACLASS_REGISTRY
from fairseq.tasks import TASK_DATACLASS_REGISTRY
from omegaconf import OmegaConf

import av_ssl.tasks  # noqa: F401 - registers the names of all sections
from av_ssl.checkpoints.files import CONFIG, WEIGHTS, read_stored, write_safetensors
from av_ssl.checkpoints.stored import StoredModel, is_reference, plain_config
from av_ssl.errors import DataError, explained, optional_package

ErrorRates = Mapping[str, float]
"""Word error rates in % by the name of the test set."""

SECTIONS = {
    "task": TASK_DATACLASS_REGISTRY,
    "model": MODEL_DATACLASS_REGISTRY,
    "criterion": CRITERION_DATACLASS_REGISTRY,
    "optimizer": OPTIMIZER_DATACLASS_REGISTRY,
    "lr_scheduler": LR_SCHEDULER_DATACLASS_REGISTRY,
}
"""Sections of a configuration whose keys depend on a name."""
NOT_SHOWN = ("_name", "w2v_args", "user_dir", "save_dir", "tensorboard_logdir")
"""Keys that are no choice of the training's."""


def save_pretrained(
    stored: StoredModel,
    folder: str | Path,
    license: str = "other",
    error_rates: ErrorRates | None = None,
    **hub: Any,
) -> list[Path]:
    """Write the three files; a model card that is there already is replaced.

    Args:
        stored: a recogniser, encoder or classifier.
        folder: is created.
        license: of the weights, as hubs spell it, such as ``mit`` or ``cc-by-nc-4.0``.
        error_rates: go into the card.
        hub: ``push_to_hub=True``, ``repo_id`` and others of ``ModelHubMixin.save_pretrained``.

    Returns:
        The files.

    Raises:
        DataError: huggingface_hub or safetensors is missing, an error rate is no percentage, or a file cannot
            be written or uploaded.
    """
    for test, rate in (error_rates or {}).items():
        if not (isinstance(rate, (int, float)) and 0 <= rate < math.inf):
            raise DataError(f"error_rates: that of {test!r} is {rate!r}; give a percentage")
    model = hub_class()(stored)
    folder = Path(folder)
    with explained(
        f"{folder}: cannot be written{' or uploaded' if hub.get('push_to_hub') else ''}", *HUB_PACKAGES
    ):
        (folder / CARD).unlink(missing_ok=True)
        card = {"license": license, "error_rates": error_rates or {}}
        model.save_pretrained(folder, model_card_kwargs=card, **hub)
    return [folder / WEIGHTS, folder / CONFIG, folder / CARD]


def from_pretrained(name: str | Path, revision: str | None = None) -> StoredModel:
    """Read a folder, or download a repository of a hub.

    Args:
        name: a folder, or else ``OWNER/NAME`` at a hub.
        revision: branch, tag or commit of a repository.

    Raises:
        DataError: there is neither; a file is missing or damaged; huggingface_hub is missing.
    """
    if Path(name).is_dir():
        return read_stored(name)
    with explained(f"{name}: is no folder, and cannot be downloaded", *HUB_PACKAGES):
        return hub_class().from_pretrained(str(name), revision=revision).stored


CARD = "README.md"
HUB_PACKAGES = ("huggingface_hub", "httpx", "requests")
"""Packages whose errors, which have no common class, say that a hub refuses or cannot be reached."""


def hub_class() -> Any:
    """A stored model with the methods of huggingface_hub's mixin; the package is an optional extra."""
    optional_package("huggingface_hub", "hub")
    from huggingface_hub import ModelCard, ModelHubMixin, snapshot_download

    class SharedModel(ModelHubMixin, library_name="av_ssl"):
        def __init__(self, stored: StoredModel) -> None:
            self.stored = stored

        def _save_pretrained(self, save_directory: Path) -> None:
            write_safetensors(self.stored, save_directory / WEIGHTS, save_directory / CONFIG)

        @classmethod
        def _from_pretrained(cls, *, model_id: str, **options: Any) -> SharedModel:
            del options["force_download"]
            return cls(read_stored(snapshot_download(model_id, allow_patterns=[WEIGHTS, CONFIG], **options)))

        def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
            return ModelCard(model_card(self.stored, **kwargs))

    return SharedModel


# -- the model card ------------------------------------------------------------------------------------------


def model_card(stored: StoredModel, license: str = "other", error_rates: ErrorRates | None = None) -> str:
    """The text of a card, in Markdown: method, data, error rates, use and the recipe of the training."""
    from huggingface_hub import EvalResult, ModelCardData

    name = str(stored.model_cfg.get("_name"))
    encoder = (plain_config(stored.model_cfg.get("w2v_args")).get("model") or {}).get("_name")
    data = Path(str(stored.task_cfg.get("data") or "unknown")).name
    parameters = sum(tensor.numel() for tensor in stored.tensors.values())
    kind = "recogniser" if stored.text else "classifier" if stored.classes else "encoder"
    rates = dict(error_rates or {})
    results = [
        EvalResult("automatic-speech-recognition", "audio-visual speech", test, "wer", rate)
        for test, rate in rates.items()
    ]
    about = ModelCardData(
        library_name="av_ssl", license=license, tags=["audio-visual speech", name], model_name=name,
        eval_results=results or None,
    )  # fmt: skip
    streams = stored.task_cfg.get("modalities")
    use = 'model.transcribe("talk.mp4").text' if stored.text else 'av_ssl.features(model, "talk.mp4")'
    lines = [
        f"---\n{about.to_yaml()}\n---\n",
        f"# {name}\n",
        f"A {kind} for audio-visual speech, made with av_ssl.\n",
        f"- Method: {name}" + (f", fine-tuned from {encoder}" if encoder else ""),
        f"- Streams: {streams if isinstance(streams, str) else ' and '.join(streams or ['unknown'])}",
        f"- Data: {data}",
        f"- Licence: {license}",
        f"- Numbers in its tensors: {parameters:,}\n",
        "## Error rates\n",
        *([f"- {test}: {rate:g} % of the words are wrong" for test, rate in rates.items()] or ["Unknown."]),
        "\n## Use\n",
        f'```python\nimport av_ssl\n\nmodel = av_ssl.from_pretrained("FOLDER_OR_NAME")\n{use}\n```\n',
        "## Training\n",
        "As `training.yaml` in the folder `RECIPE`:\n",
        f"```yaml\n{training_recipe(stored.cfg)}```\n",
        "```sh",
        "fairseq-hydra-train --config-dir RECIPE --config-name training common.user_dir=PATH/av_ssl\n```",
    ]
    return "\n".join(lines) + "\n"


def training_recipe(cfg: Mapping[str, Any]) -> str:
    """A YAML file for ``fairseq-hydra-train``: all keys of a stored configuration that are no defaults."""
    defaults, recipe = FairseqConfig(), {}
    for section, values in cfg.items():
        if not isinstance(values, dict):
            continue
        usual = getattr(defaults, section, None)
        name = {}
        if section in SECTIONS:
            structure = SECTIONS[section].get(values.get("_name"))
            usual, name = structure and structure(), {"_name": values.get("_name")}
        known = {each.name: getattr(usual, each.name) for each in fields(usual)} if usual is not None else {}
        recipe[section] = name | {
            key: value
            for key, value in values.items()
            if key in known and key not in NOT_SHOWN and is_choice(value, known[key])
        }
    text = yaml.safe_dump({key: values for key, values in recipe.items() if values}, sort_keys=False)
    return f"# @package _group_\n{text}"


def is_choice(value: Any, default: Any) -> bool:
    """Whether a value was chosen; a default that refers to another key follows that one."""
    if value is None or is_reference(default) or is_reference(value):
        return False
    plain = OmegaConf.to_container(OmegaConf.create({"value": default}))["value"]
    usual = getattr(plain, "value", plain)
    return value != usual and str(value) != str(usual)  # 1 is 1.0, and a name that of its enum
