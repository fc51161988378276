"""The tables of methods and corpora, and the commands that come of them."""

from __future__ import annotations

import functools
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from corpora import CORPORA, read_corpus
from fairseq.models import MODEL_DATACLASS_REGISTRY, MODEL_REGISTRY
from methods import FILE, MethodError, Methods
from omegaconf import OmegaConf
from report import methods_of
from run import main
from steps import COMMANDS, Step, Steps

import av_ssl.tasks  # noqa: F401  (registers everything)
from av_ssl.methods.teacher_heads import attach_teacher_shapes
from tests.targets.teacher_folders import write_teacher_folder

METHODS = Methods()


def steps_of(out: Path, corpus: str = "toy", **options) -> Steps:
    return Steps(METHODS, read_corpus(corpus, out, quick=True, **options), seed=5)


def needed(steps: Steps, *methods: str) -> dict[str, Step]:
    """Every step that the methods need, in order, by name without seed."""
    scores = [step for name in methods for step in steps.scores(METHODS.methods[name]).values()]
    return {one.name.removeprefix("seed_5."): one for step in scores for one in step.all_steps()}


def trainings(steps: Steps, *methods: str) -> dict[str, dict[str, str]]:
    """The keys on the command line of their trainings."""
    return {name: overrides(step) for name, step in needed(steps, *methods).items() if step.updates}


def overrides(step: Step) -> dict[str, str]:
    return dict(word.split("=", 1) for word in step.command if "=" in word and not word.startswith("--"))


@pytest.fixture
def toy(tmp_path: Path) -> Steps:
    return steps_of(tmp_path)


@pytest.fixture
def emotions(tmp_path: Path) -> Steps:
    return steps_of(tmp_path, "toy_emotions")


@pytest.mark.parametrize("corpus", CORPORA)
def test_every_step_has_one_command_and_comes_after_what_it_reads(corpus: str, tmp_path: Path) -> None:
    steps = steps_of(tmp_path, corpus)
    found: dict[str, Step] = {}
    for name in methods_of(METHODS, steps.corpus):
        for step in needed(steps, name).values():
            assert found.setdefault(step.name, step) == step
    makes = {str(step.result): step for step in found.values() if step.result}
    for step in found.values():
        earlier = {str(one.result) for one in step.all_steps()}
        for word in step.command:
            for path in (word, *word.partition("=")[2].strip("[]").split(",")):
                folder = path.removesuffix("/checkpoint_last.pt").removesuffix("/hydra")
                assert folder not in makes or folder in earlier, (step.name, folder)


@functools.cache
def stated(recipe: Path) -> dict:
    """What a recipe and its parts say."""
    parts = [recipe.with_name(f"{part}.yaml") for part in yaml.safe_load(recipe.read_text())["defaults"]]
    return OmegaConf.to_container(OmegaConf.merge(*map(OmegaConf.load, [*parts, recipe])))


@pytest.mark.parametrize("corpus", CORPORA)
def test_plus_signs_mark_the_keys_that_the_recipe_does_not_name(corpus: str, tmp_path: Path) -> None:
    """hydra refuses others."""
    steps = steps_of(tmp_path, corpus)
    for step in needed(steps, *methods_of(METHODS, steps.corpus)).values():
        for key in overrides(step) if step.recipe else ():
            group, name = key.removeprefix("+").split(".", 1)
            if group in ("task", "model", "criterion"):
                known = name in stated(step.recipe)[group]
                assert known == (not key.startswith("+")), (step.name, key)


def test_scratch_differs_from_av2vec_by_its_weights_alone(toy: Steps) -> None:
    found = trainings(toy, "scratch", "av2vec")
    assert found["pretrain_av2vec"]["+task.noise_prob"] == "0.25"
    for streams in ("video", "audio", "av"):
        scratch, av2vec = found[f"scratch_{streams}_16"], found[f"av2vec_{streams}_16"]
        assert scratch.pop("+model.no_pretrained_weights") == "true"
        different = {key for key in scratch if scratch[key] != av2vec[key]}
        assert different == {"checkpoint.save_dir", "hydra.run.dir", "model.w2v_path"}
        assert "/pretrain_av2vec_untrained/" in scratch["model.w2v_path"]
        resting = {"+model.freeze_finetune_updates"} | (
            {"model.feature_grad_mult"} if streams == "video" else set()
        )
        assert av2vec.keys() - scratch.keys() == resting
        assert ("+task.noise_prob" in av2vec) == (streams != "video")


def test_the_seed_is_that_of_training_and_not_of_the_corpus(toy: Steps) -> None:
    score = next(iter(toy.scores(METHODS.methods["av_hubert_2"]).values()))
    again = next(iter(Steps(METHODS, toy.corpus, seed=6).scores(METHODS.methods["av_hubert_2"]).values()))
    for step, other in zip(score.all_steps(), again.all_steps(), strict=True):
        assert (step == other) == (step.name in ("corpus", "data"))
        assert not step.recipe or (overrides(step)["common.seed"], overrides(other)["common.seed"]) == (
            "5",
            "6",
        )


SHORT = {
    "LAST": "checkpoint_last.pt",
    "MODELS": "SEED/checkpoints",
    "PSEUDO": "SEED/pseudo_labels/av2vec_audio_16",
    "SEED": "OUT/seed_5",
}
READ = [
    ("toy", "av_hubert_2", "pretrain_av_hubert_1", "+task.label_dir=SEED/labels/mfcc +task.label_rate=100"),
    ("toy", "av_hubert_2", "labels_av_hubert_1", "MODELS/pretrain_av_hubert_1/LAST 3 10"),
    ("toy", "av_hubert_2", "pretrain_av_hubert_2", "+task.label_dir=SEED/labels/av_hubert_1"),
    ("toy", "distillav_one", "pretrain_distillav_one", "model.teachers=[SEED/teachers/hubert/targets]"),
    ("toy", "raven", "raven_video_16", "+task.audio_input=waveform task.modalities=video"),
    ("toy", "self_training", "pseudo_labels_av2vec_audio_16_0.5", "PSEUDO/transcripts"),
    ("toy", "self_training", "self_training_video_16", "task.data=PSEUDO/data_0.5"),
    ("toy", "hybrid_ctc", "score_hybrid_ctc_av_long_test_16", "OUT/data/long_test_16 --ctc-weight 1"),
    ("toy", "av2vec_noise", "score_av2vec_noise_audio_-10dB_test_16", "OUT/data/noise --noise-snr=-10"),
    ("toy", "probe_untrained", "features_probe_untrained_av_test", "--untrained 5"),
    ("toy", "av2vec_labels", "score_av2vec_labels_video_clean_test_20", "OUT/data/labelled_20"),
    ("toy_emotions", "embeddings", "embeddings_embed_15",
     "task.data=OUT/data model.teacher_path=MODELS/teacher_15/LAST"),
    ("toy_emotions", "embeddings", "embeddings_head_15",
     "task.data=OUT/data/labelled_15 model.init_student_from=MODELS/embeddings_embed_15/LAST"),
    ("toy_emotions", "embeddings", "score_embeddings_test_15", "OUT/data/test.emo --snr clean 0 -5"),
    ("toy_emotions", "shuffled", "teacher_shuffled_15", "task.data=OUT/shuffled_labelled_15"),
    ("toy_emotions", "shuffled", "shuffled_embed_15", "task.data=OUT/shuffled_data +task.label_dir=OUT/data"),
]  # fmt: skip


@pytest.mark.parametrize(("corpus", "method", "name", "words"), READ)
def test_steps_read_what_their_row_says(
    corpus: str, method: str, name: str, words: str, tmp_path: Path
) -> None:
    command = needed(steps_of(tmp_path, corpus), method)[name].command
    for short, whole in SHORT.items():
        words = words.replace(short, whole)
    assert set(words.replace("OUT", str(tmp_path)).split()) <= set(command)


def test_controls_differ_by_one_thing(emotions: Steps) -> None:
    def differing(method: str) -> set[str]:
        own, lupi = (trainings(emotions, name).values() for name in (method, "embeddings"))
        own_folders = {
            "checkpoint.save_dir",
            "hydra.run.dir",
            "model.teacher_path",
            "model.init_student_from",
        }
        pairs = list(zip(list(own)[1:], list(lupi)[1:], strict=True))
        return {
            key for one, other in pairs for key in one.keys() | other.keys() if one.get(key) != other.get(key)
        } - own_folders

    def updates(method: str) -> int:
        return sum(int(each["optimization.max_update"]) for each in trainings(emotions, method).values())

    assert differing("shuffled") == {"task.data", "+task.label_dir"}
    assert differing("audio_teacher") == {"+task.modalities"}
    assert differing("labelled") == {"task.data"}
    assert differing("cosine") == {"+criterion.distance"}
    assert updates("audio_only_longer") == updates("embeddings") - updates("teacher")
    assert updates("soft_labels") == updates("embeddings")
    assert {each["+task.segment_frames"] for each in trainings(emotions, "segments").values()} == {"10"}


def test_a_changed_recipe_changes_the_shell_file(toy: Steps, tmp_path: Path) -> None:
    recipes = tmp_path / "conf"
    shutil.copytree(toy.corpus.recipes, recipes)
    step = Step("one", "training", ("x",), recipe=recipes / "pretrain.yaml")
    before = step.script
    for name in ("_common", "pretrain"):
        changed = tmp_path / f"changed_{name}"
        shutil.copytree(recipes, changed)
        with (changed / f"{name}.yaml").open("a") as file:
            file.write("# changed\n")
        assert Step("one", "training", ("x",), recipe=changed / "pretrain.yaml").script != before


@pytest.mark.parametrize("comparison", METHODS.tables.values(), ids=METHODS.tables)
def test_baselines_are_in_the_table_and_trained_alike(comparison) -> None:
    for method in (METHODS.methods[name] for name in comparison.methods):
        assert set(method.columns) <= set(comparison.columns) or comparison.name == "pretraining"
        if method.baseline and method.measure.name == "wer":
            baseline = METHODS.methods[method.baseline]
            assert method.baseline in comparison.methods
            assert baseline.columns == method.columns
            for streams, name in method.models.items():
                own, other = METHODS.trainings[name], METHODS.trainings[baseline.models[streams]]
                assert (own.overrides, own.updates) == (other.overrides, other.updates)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("pretrain_av2vec: {recipe: pretrain}", "pretrain_av2vec: {nose: 1}", "pretrain_av2vec: .*nose"),
        ("hubert: {labels: mfcc}", "hubert: {labels: plp}", "'plp' among the labels"),
        ("title: AV2vec, start: pretrain_av2vec", "title: AV2vec, start: x", "'x' among the trainings"),
        ("[hybrid, hybrid_attention", "[hybrids, hybrid_attention", "'hybrids' among the methods"),
        ("columns: one_stream", "columns: two", "'two' among the columns"),
        ("recognisers: [scratch,", "recognisers: [x, scratch,", "'x' among the recognisers"),
    ],
)  # fmt: skip
def test_wrong_rows_are_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = FILE.read_text()
    assert old in text
    (tmp_path / "methods.yaml").write_text(text.replace(old, new, 1))
    with pytest.raises(MethodError, match=rf"methods\.yaml: .*{message}"):
        main(["--dry-run", "--out", str(tmp_path)], Methods(tmp_path / "methods.yaml"))


def test_a_table_of_other_columns_scores_the_same_models() -> None:
    row, model = METHODS.methods["av2vec_noise"], METHODS.methods["av2vec"]
    assert (row.models, row.title, row.baseline) == (model.models, model.title, "scratch_noise")
    assert METHODS.methods["scratch_noise"].baseline == ""
    assert "av2vec_noise" in METHODS.tables["noise"].methods


def test_every_command_is_used(toy: Steps, emotions: Steps) -> None:
    every = [*needed(toy, *methods_of(METHODS, toy.corpus)).values()]
    every += needed(emotions, *methods_of(METHODS, emotions.corpus)).values()
    used = {step.command[:2] for step in every}
    assert {tuple(text.split()[:2]) for text in COMMANDS.values() if text.startswith("av-ssl")} <= used


PRETRAININGS = [name for name, training in METHODS.trainings.items() if training.kind == "pre-training"]


@pytest.mark.parametrize("name", PRETRAININGS)
def test_models_of_all_pretrainings_build(name: str, toy: Steps, tmp_path: Path) -> None:
    training = METHODS.trainings[name]
    recipe = toy.corpus.recipes / f"{training.recipe}.yaml"
    values = OmegaConf.from_dotlist([text.removeprefix("+") for text in training.overrides])
    cfg = OmegaConf.merge(stated(recipe), values).model
    others = {"task": {"image_mean": 0.4, "image_std": 0.2}, "optimization": {"max_update": 7}}
    model = OmegaConf.merge(OmegaConf.structured(MODEL_DATACLASS_REGISTRY[cfg._name]()), cfg)
    cfg = OmegaConf.create({"model": model, **others})
    if training.teachers:
        cfg.model.teachers = [str(write_teacher_folder(tmp_path / name)) for name in training.teachers]
        attach_teacher_shapes(cfg.model)
    task = SimpleNamespace(dictionaries=[range(54)], for_training=True)
    with torch.device("meta"):
        built = MODEL_REGISTRY[cfg.model._name].build_model(cfg.model, task)
    assert built.masking is not None
    assert hasattr(built, "label_embs_concat") == bool(training.labels)


def test_a_shuffled_teacher_never_gets_its_own_video(emotions: Steps) -> None:
    found = trainings(emotions, "shuffled")
    teacher, embed, head = found.values()
    out = emotions.corpus.out
    assert teacher["task.data"] == str(out / "shuffled_labelled_15")
    assert teacher["+task.label_dir"] == head["task.data"] == str(emotions.labelled)
    assert embed["task.data"] == str(out / "shuffled_data")
