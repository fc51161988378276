"""Every shipped YAML: composes as the stock command does it, builds, repeats nothing that is the default."""

from __future__ import annotations

import functools
import re
from pathlib import Path

import pytest
import torch
from fairseq import optim, tasks
from fairseq.dataclass.configs import FairseqConfig
from fairseq.dataclass.initialize import add_defaults, hydra_init
from fairseq.optim import lr_scheduler
from hydra.core.global_hydra import GlobalHydra
from hydra.experimental import compose, initialize_config_dir
from omegaconf import OmegaConf

import av_ssl.tasks  # noqa: F401  (registers everything)
from av_ssl.methods.fused_encoder import AudioVisualEncoder
from av_ssl.methods.raven.encoder import RavenEncoder
from av_ssl_fairseq_hook.ranges import check_values
from tests.targets.teacher_folders import write_teacher_folder

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
RECIPES = sorted(path for path in EXAMPLES.glob("*/conf/**/*.yaml") if not path.stem.startswith("_"))
"""Files that begin with an underscore are parts which recipes name in their ``defaults``."""
# AV-HuBERT's published sizes less its cluster head and mask vector.
ENCODER_PARAMETERS = {768: 102_620_288, 1024: 324_622_976}
# RAVEn's published encoders, by channels and stream.
RAVEN_PARAMETERS = {
    (512, "video"): 52_445_376, (512, "audio"): 45_111_168,
    (768, "video"): 103_747_520, (768, "audio"): 96_413_312,
    (1024, "video"): 339_283_648, (1024, "audio"): 331_949_440,
}  # fmt: skip
PRETRAINING_ONLY = (
    "mask_emb", "mask_emb_video", "final_pred_proj.weight", "final_pred_proj.bias", "final_proj.weight",
    "final_proj.bias", "label_embs_concat", "teacher_heads.",
)  # fmt: skip
TEACHERS = ("wavlm", "whisper")
CLASSES = 6
FROM_SCRATCH = ("av_classifier", "lupi_student")
"""Models that need no pre-trained encoder."""
REQUIRED = (
    "user_dir", "data", "modalities", "w2v_path", "label_dir", "tokenizer_bpe_model", "noise_wav", "teachers",
    "teacher_path", "init_student_from",
)  # fmt: skip
"""Stated as ??? because hydra lets a command line fill in only what the YAML names; save_dir likewise."""


def compose_by_hydra(recipe: Path, values: dict[str, str]):
    """As the stock command does it."""
    hydra_init(recipe.stem)
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(recipe.parent)):
        return compose(recipe.stem, [f"{key}={value}" for key, value in values.items()])


def load(recipe: Path, **values: str):
    """The same in a tenth of the time; test_hydra_composes_the_same compares the two."""
    cfg = OmegaConf.merge(whole_default(), stated(recipe))
    cfg.merge_with_dotlist([f"{key}={value}" for key, value in values.items()])
    return complete(cfg)


def complete(cfg):
    add_defaults(cfg)
    check_values(cfg)  # all of a recipe's numbers are in their ranges
    return OmegaConf.create(OmegaConf.to_container(cfg, resolve=True, enum_to_str=True))


@functools.cache
def whole_default():
    hydra_init("config")
    return OmegaConf.structured(FairseqConfig())


def stated(recipe: Path) -> dict:
    """What a recipe and its parts say; hydra 1.0 lets parts win, so none may repeat a key of another."""
    whole: dict = {}
    own = OmegaConf.to_container(OmegaConf.load(recipe))
    parts = [recipe.with_name(f"{name}.yaml") for name in own.pop("defaults", [])]
    for part in [own, *(OmegaConf.to_container(OmegaConf.load(path)) for path in parts)]:
        for group, keys in part.items():
            known = whole.setdefault(group, {})
            assert not known.keys() & keys.keys(), f"{recipe}: twice {known.keys() & keys.keys()}"
            known.update(keys)
    return whole


@functools.cache
def pretraining_model(recipe: Path) -> dict:
    return OmegaConf.to_container(load(recipe, **{"task.data": "/none", "common.user_dir": "/none"}).model)


def pretrained(recipe: Path, groups: dict) -> dict:
    """Configuration of a model that a fine-tuning recipe may start from."""
    conf = EXAMPLES / "av2vec/conf/pretrain"
    if "raven" in recipe.parts:
        size = "large_vox" if "large" in recipe.stem else "base_vox"
        model = pretraining_model(EXAMPLES / f"raven/conf/pretrain/{size}.yaml")
        return {**model, "modality": groups["task"]["modalities"]}
    large = groups["model"].get("decoder_embed_dim") == 1024
    return pretraining_model(conf / ("large_lrs3.yaml" if large else "base_lrs3.yaml"))


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labels")
    (folder / "dict.wrd.txt").write_text("".join(f"piece{n} 1\n" for n in range(996)))
    for label in ("emo", "spk"):
        (folder / f"classes.{label}.txt").write_text("".join(f"{n}\n" for n in range(CLASSES)))
    for label in ("mfcc", "km"):
        (folder / f"dict.{label}.txt").write_text("".join(f"{n} 1\n" for n in range(2000)))
    for teacher in TEACHERS:
        write_teacher_folder(folder / teacher)
    return folder


def build(recipe: Path, labels: Path):
    """Configuration, task and model (on no device: shapes without memory)."""
    groups = stated(recipe)
    values = {"task.data": str(labels), "common.user_dir": "/none"}
    for key, value in (("label_dir", labels), ("noise_wav", "/none"), ("tokenizer_bpe_model", "null")):
        if groups["task"].get(key) == "???":
            values[f"task.{key}"] = str(value)
    if groups["model"].get("teachers") == "???":
        values["model.teachers"] = str([str(labels / teacher) for teacher in TEACHERS])
    if groups["task"].get("modalities") == "???":
        values["task.modalities"] = "av"
    if "w2v_path" not in groups["model"]:
        cfg = load(recipe, **values)
    else:
        cfg = load(recipe, **values, **{"model.w2v_path": "/none"})
        cfg.model.w2v_args = {"model": pretrained(recipe, groups), "task": {}}
        cfg.model.no_pretrained_weights = True
    for key in ("teacher_path", "init_student_from"):
        if groups["model"].get(key) == "???":
            cfg.model[key] = ""
    task = tasks.setup_task(cfg.task)
    # A student asks for files that are not there, unless it is loaded.
    student = cfg.model._name == "lupi_student"
    if student:
        cfg.model.num_classes = CLASSES
    with torch.device("meta"):
        return cfg, task, task.build_model(cfg.model, from_checkpoint=student)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: "-".join(path.relative_to(EXAMPLES).parts))
def test_builds(recipe: Path, labels: Path):
    cfg, task, model = build(recipe, labels)
    task.build_criterion(cfg.criterion)
    optimizer = optim.build_optimizer(cfg.optimizer, list(model.parameters()))
    lr_scheduler.build_lr_scheduler(cfg.lr_scheduler, optimizer).step_update(1)
    encoders = [one for one in model.modules() if isinstance(one, (AudioVisualEncoder, RavenEncoder))]
    assert encoders or cfg.model._name in FROM_SCRATCH
    for encoder in encoders:
        expected = published_parameters(encoder)
        named = encoder.named_parameters()
        counted = sum(p.numel() for name, p in named if not name.startswith(PRETRAINING_ONLY))
        assert expected in (None, counted)


def published_parameters(encoder) -> int | None:
    channels = encoder.cfg.encoder_embed_dim
    if isinstance(encoder, RavenEncoder):
        return RAVEN_PARAMETERS.get((channels, encoder.modality))
    return ENCODER_PARAMETERS.get(channels)


COMPOSED = [
    "av_hubert/conf/pretrain/base_vox_iter5",
    "av_hubert/conf/finetune/large_lrs3_30h",
    "toy/conf/pretrain",
    "raven/conf/finetune/vsr_30h_large_vox",
    "lupi/conf/emotion/student_head",
]


@pytest.mark.parametrize("name", COMPOSED)
def test_hydra_composes_the_same(name: str):
    recipe = EXAMPLES / f"{name}.yaml"
    values = {"task.data": "/none", "common.user_dir": "/none", "optimization.max_update": "7"}
    if "label_dir" in stated(recipe)["task"]:
        values |= {"task.label_dir": "/labels"}  # of a part
    assert complete(compose_by_hydra(recipe, values)) == load(recipe, **values)


def test_distillav_base_is_the_published_script():
    cfg = load(EXAMPLES / "distillav/conf/pretrain/base_lrs3.yaml")
    task = cfg.task
    assert task.frames_per_update == cfg.dataset.max_tokens * 8 * 2 == 35_200
    assert (task.noise_prob, task.noise_snr, cfg.optimization.max_update) == (0.1, "5", 200_000)
    assert cfg.lr_scheduler.phase_ratio == [0.05, 0.85, 0.1]


RECIPE = {
    "mask_prob_audio": 0.8, "mask_length_audio": 10, "mask_prob_image": 0.3, "mask_length_image": 5,
    "modality_dropout": 0.5, "audio_dropout": 0.5, "final_dim": 256, "logit_temp": 0.1,
}  # fmt: skip
RAVEN = {
    "mask_semantics": "fraction", "mask_prob_image": 0.2, "mask_prob_audio": 0.2, "mask_length": 3,
    "predictor_embed_dim": 512, "predictor_ffn_embed_dim": 2048, "predictor_attention_heads": 8,
    "predictor_layers_video": 2, "predictor_layers_audio": 2, "within_audio": True, "within_video": False,
    "target": "last", "target_norm": "none", "ema_decay": 0.999, "ema_anneal_end_step": 76_050,
}  # fmt: skip
NUMBERS = {
    "av_hubert/conf/pretrain/base_lrs3_iter5": (
        {**RECIPE, "sim_type": "cosine", "feature_grad_mult": 0.1},
        {"loss_weights": [10.0], "pred_masked_weight": 1.0, "pred_nomask_weight": 0.0},
    ),
    "av2vec/conf/pretrain/base_lrs3_mlm": (
        {**RECIPE, "use_regression": True, "use_mlm": True},
        {"regression_weight": 0.1, "pred_masked_weight": 1.0, "pred_nomask_weight": 0.0},
    ),
    "av2vec/conf/pretrain/base_lrs3": (
        {**RECIPE, "use_mlm": False, "loss_on": "union", "average_top_k_layers": 8, "target_type": "ffn",
         "instance_norm_target_layer": True, "layer_norm_targets": False, "teacher_modalities": "av",
         "ema_scope": "layers", "ema_decay": 0.999, "ema_end_decay": 0.9999, "ema_anneal_end_step": 30_000},
        {"loss_weights": [10.0], "regression_weight": 1.0, "decorrelation_weight": 0.0, "loss_beta": 0.0,
         "loss_scale": None},
    ),
    "distillav/conf/pretrain/base_lrs3": (
        {**RECIPE, "loss_on": "all", "soft_label_temp": 0.1, "balance": "aligned_mtl",
         "gram": "batch_sum", "mask_equal_counts": True},
        {"loss_weights": [10.0], "regression_weight": 1.0, "cluster_weight": 1.0},
    ),
    "raven/conf/pretrain/base_lrs3": (RAVEN, {}),
    "raven/conf/pretrain/braven_base_lrs3": (
        {**RAVEN, "mask_prob_audio": 0.4, "predictor_layers_video": 1, "target": "mean_blocks",
         "target_norm": "instance"},
        {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NUMBERS)
def test_targets_masks_and_weights_are_those_of_the_method(name: str):
    cfg = load(EXAMPLES / f"{name}.yaml", **{"model.teachers": "[]"} if "distillav" in name else {})
    for group, wanted in zip((cfg.model, cfg.criterion), NUMBERS[name], strict=True):
        assert {key: group[key] for key in wanted} == wanted


SCHEDULES = {
    "pretrain/base_lrs3_iter1": (32_000, 400_000, 5e-4, "audio 0.8/10, image 0.8/10, dropout 0.0, feature"),
    "pretrain/base_lrs3_iter4": (32_000, 400_000, 5e-4, "audio 0.8/10, image 0.8/10, dropout 0.0, feature"),
    "pretrain/base_lrs3_iter5": (32_000, 400_000, 5e-4, "audio 0.8/10, image 0.3/5, dropout 0.5, input"),
    "pretrain/base_vox_iter1": (32_000, 800_000, 2e-3, "audio 0.8/10, image 0.8/10, dropout 0.0, feature"),
    "pretrain/base_vox_iter3": (32_000, 800_000, 2e-3, "audio 0.8/10, image 0.8/10, dropout 0.5, feature"),
    "pretrain/large_vox_iter5": (64_000, 600_000, 2e-3, "audio 0.8/10, image 0.3/5, dropout 0.5, input"),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_pretraining_of_av_hubert_is_the_published_one(name: str):
    cfg = load(EXAMPLES / f"av_hubert/conf/{name}.yaml")
    model = cfg.model
    masks = (
        f"audio {model.mask_prob_audio}/{model.mask_length_audio}, "
        f"image {model.mask_prob_image}/{model.mask_length_image}, "
        f"dropout {model.modality_dropout}, {model.masking_type}"
    )
    budget = cfg.dataset.max_tokens * cfg.distributed_training.distributed_world_size
    found = (budget, cfg.optimization.max_update, cfg.optimization.lr[0], masks)
    assert found == SCHEDULES[name]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: "-".join(path.relative_to(EXAMPLES).parts))
def test_schedules_end_with_training(recipe: Path):
    groups = stated(recipe)
    updates, schedule = groups["optimization"]["max_update"], groups["lr_scheduler"]
    if "decay_steps" in schedule:
        assert schedule["warmup_steps"] + schedule["decay_steps"] == updates
    if "lr_period_updates" in schedule:
        assert schedule["warmup_updates"] + schedule["lr_period_updates"] == updates
    if "total_num_update" in schedule:
        assert schedule["total_num_update"] == updates
    task, gpus = groups["task"], groups.get("distributed_training", {}).get("distributed_world_size", 1)
    accumulate = task.get("frames_per_update", 0) / (groups["dataset"]["max_tokens"] * gpus)
    assert accumulate == int(accumulate)
    assert groups["model"].get("freeze_finetune_updates", 0) <= updates


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: "-".join(path.relative_to(EXAMPLES).parts))
def test_first_lines_give_the_command(recipe: Path):
    head = recipe.read_text().split("\n\n")[0]
    command = re.sub(r"\\\n#\s*", "", head)
    folder = recipe.parent.relative_to(EXAMPLES.parent)
    assert f"fairseq-hydra-train --config-dir {folder} --config-name {recipe.stem} " in command


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: "-".join(path.relative_to(EXAMPLES).parts))
def test_says_nothing_but_what_differs(recipe: Path):
    from fairseq.registry import REGISTRIES

    whole = OmegaConf.structured(FairseqConfig())
    for group, keys in stated(recipe).items():
        if group in ("task", "model"):
            registry = tasks.TASK_DATACLASS_REGISTRY if group == "task" else model_dataclasses()
            defaults = registry[keys["_name"]]()
        elif "_name" in keys:
            defaults = REGISTRIES[group]["dataclass_registry"][keys["_name"]]()
        else:
            defaults = whole[group]
        for key, value in keys.items():
            if key in ("_name", "save_dir") or value == "???":
                assert value != "???" or key in REQUIRED
                continue
            default = getattr(defaults, key)
            assert plain(value) != plain(default), f"{group}.{key}={value} is the default"


def model_dataclasses() -> dict:
    from fairseq.models import MODEL_DATACLASS_REGISTRY

    return MODEL_DATACLASS_REGISTRY


def plain(value):
    """Compare lists, tuples and their strings alike."""
    if OmegaConf.is_config(value):
        value = OmegaConf.to_container(value)
    if isinstance(value, (list, tuple)):
        return str(list(value))
    return str(value).replace("(", "[").replace(")", "]")
