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
from methods import FILE, Column, MethodError, Methods
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


def test_labels_of_the_second_iteration_are_clusters_of_the_first(toy: Steps) -> None:
    found = needed(toy, "av_hubert_2")
    assert list(found)[:6] == [
        "corpus", "data", "labels_mfcc", "pretrain_av_hubert_1", "labels_av_hubert_1", "pretrain_av_hubert_2",
    ]  # fmt: skip
    assert "--checkpoint" not in found["labels_mfcc"].command
    first, second = (overrides(found[f"pretrain_av_hubert_{n}"]) for n in (1, 2))
    assert (first["+task.label_rate"], second["+task.label_rate"]) == ("100", "25")
    command = found["labels_av_hubert_1"].script.replace(" \\\n   ", "")
    assert f"--checkpoint {first['checkpoint.save_dir']}/checkpoint_last.pt --layer 3" in command
    assert "--clusters 10" in command
    mlm = needed(toy, "av2vec_mlm")
    assert overrides(mlm["pretrain_av2vec_mlm"])["+task.label_dir"] == second["+task.label_dir"]


def test_variants_of_distillation_share_their_teachers(toy: Steps) -> None:
    found = needed(toy, "distillav", "distillav_one", "distillav_fixed", "distillav_finetuned")
    kinds = [step.kind for step in found.values()]
    assert [kinds.count(kind) for kind in ("labels", "teacher", "teacher_targets", "pre-training")] == [
        1,
        2,
        2,
        3,
    ]
    targets = [str(found[f"teacher_{name}_targets"]) for name in ("hubert", "whisper")]
    both = overrides(found["pretrain_distillav"])["model.teachers"]
    assert both == f"[{targets[0]},{targets[1]}]"
    assert overrides(found["pretrain_distillav_one"])["model.teachers"] == f"[{targets[0]}]"
    assert overrides(found["pretrain_distillav_fixed"])["+model.balance"] == "none"
    assert overrides(found["distillav_finetuned_video_16"])["model.teachers"] == both
    assert "model.teachers" not in overrides(found["distillav_video_16"])


def test_raven_has_a_recogniser_for_each_stream_on_waveforms(toy: Steps) -> None:
    found = trainings(toy, "raven")
    assert list(found) == ["pretrain_raven", "raven_video_16", "raven_audio_16"]
    assert "+task.noise_prob" not in found.pop("pretrain_raven")
    assert {each["+task.audio_input"] for each in found.values()} == {"waveform"}
    resting = {"+model.freeze_finetune_updates", "model.feature_grad_mult"}
    assert not any(resting & each.keys() for each in found.values())


def test_self_training_transcribes_what_has_no_labels(toy: Steps) -> None:
    found = needed(toy, "self_training")
    transcripts, selection = found["transcribe_av2vec_audio_16"], found["pseudo_labels_av2vec_audio_16"]
    assert str(found["av2vec_audio_16"]) in transcripts.command
    assert selection.command[1:5] == ("data", "pseudo-labels", str(toy.data), str(transcripts))
    training = overrides(found["self_training_video_16"])
    assert (training["task.data"], training["optimization.max_update"]) == (str(selection), "24")
    assert found["score_self_training_video_clean_test_16"].command[1] == str(toy.labelled)


def test_decoding_modes_share_their_recognisers(toy: Steps) -> None:
    found = needed(toy, "hybrid", "hybrid_attention", "hybrid_ctc")
    assert sum(step.kind == "fine-tuning" for step in found.values()) == 3  # one for each kind of streams
    commands = [
        found[f"score_{name}_av_long_test_16"].command
        for name in ("hybrid", "hybrid_attention", "hybrid_ctc")
    ]
    assert [command[command.index("--ctc-weight") + 1] for command in commands] == ["0.1", "0", "1"]
    assert {command[command.index("--path") + 1] for command in commands} == {str(found["hybrid_av_16"])}
    assert {command[1] for command in commands} == {str(found["long_test"])}


def test_noise_levels_and_probes_train_nothing_more(toy: Steps) -> None:
    before = trainings(toy, "scratch", "av2vec", "av_hubert_2")
    after = needed(
        toy, "scratch_noise", "av2vec_noise", "probe_untrained", "probe_av2vec", "probe_av_hubert_2"
    )
    assert {name for name, step in after.items() if step.updates} <= before.keys()
    assert "--noise-snr=-10" in after["score_av2vec_noise_audio_-10dB_test_16"].command
    assert "--noise-snr=0" not in needed(toy, "av2vec")["score_av2vec_av_clean_test_16"].command
    features = after["features_probe_untrained_av_test"]
    assert features.command[-2:] == ("--untrained", "5")
    assert str(features) in after["score_probe_untrained_av_viseme_test"].command


def test_other_budgets_and_subsets_have_steps_of_their_own(tmp_path: Path) -> None:
    names_ = set(needed(steps_of(tmp_path), "av2vec"))
    fewer = set(needed(steps_of(tmp_path, labelled=8), "av2vec"))
    assert names_ & fewer == {"corpus", "data", "pretrain_av2vec"}
    validation = set(needed(steps_of(tmp_path, validation=True), "av2vec"))
    assert names_ - validation == {name for name in names_ if "_test_" in name}


def test_students_learn_from_the_teacher_of_the_same_seed(emotions: Steps) -> None:
    found = trainings(emotions, "embeddings")
    assert list(found) == ["teacher_15", "embeddings_embed_15", "embeddings_head_15"]
    teacher, embed, head = found.values()
    assert embed["model.teacher_path"] == teacher["checkpoint.save_dir"] + "/checkpoint_last.pt"
    assert head["model.init_student_from"] == embed["checkpoint.save_dir"] + "/checkpoint_last.pt"
    assert "model.teacher_path" not in head
    assert {each["+task.noise_prob"] for each in found.values()} == {"0.75"}
    # Labels train teacher and head; embeddings teach on all clips.
    few, every = str(emotions.labelled), str(emotions.data)
    assert [each["task.data"] for each in found.values()] == [few, every, few]


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


def test_a_shuffled_teacher_never_gets_its_own_video(emotions: Steps) -> None:
    found = trainings(emotions, "shuffled")
    teacher, embed, head = found.values()
    out = emotions.corpus.out
    assert teacher["task.data"] == str(out / "shuffled_labelled_15")
    assert teacher["+task.label_dir"] == head["task.data"] == str(emotions.labelled)
    assert embed["task.data"] == str(out / "shuffled_data")


def test_classes_are_scored_at_all_noise_levels_at_once(emotions: Steps, tmp_path: Path) -> None:
    talkers = steps_of(tmp_path, "grid_talkers")
    for steps, label in ((emotions, "emo"), (talkers, "spk")):
        found = needed(steps, "embeddings", "embeddings_analysis", "soft_labels")
        head, embed, teacher = (
            found[f"{name}_{steps.corpus.labelled}"]
            for name in ("embeddings_head", "embeddings_embed", "teacher")
        )
        test = [str(steps.data / "test.tsv"), str(steps.data / f"test.{label}")]
        score = found[f"score_embeddings_test_{steps.corpus.labelled}"].command
        assert list(score[3:6]) == [str(head), *test]
        assert list(score[6:]) == ["--noise", str(steps.data / "noise/test.tsv"), "--snr", "clean", "0", "-5"]
        analysis = found[f"score_embeddings_analysis_test_{steps.corpus.labelled}"].command
        assert list(analysis[3:]) == [str(teacher), str(embed), *test]
        hidden = found[f"partly_labelled_{steps.corpus.labelled}"]
        assert overrides(found[f"soft_labels_{steps.corpus.labelled}"])["task.data"] == str(hidden)
        assert {overrides(step)["+task.label"] for step in found.values() if step.recipe} == {label}


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


def test_columns_have_titles() -> None:
    texts = [
        Column("video", "clean"),
        Column("audio", "clean"),
        Column("av", "0dB"),
        Column("av", "long"),
        Column("", "-5dB"),
        Column.read("video_clean@20"),
    ]
    assert [column.title for column in texts] == [
        "VSR",
        "ASR, clean",
        "AVSR, 0 dB babble",
        "AVSR, twice as long",
        "-5 dB babble",
        "VSR, 20 labelled",
    ]


def test_columns_name_the_labelled_clips(toy: Steps) -> None:
    found = needed(toy, "av2vec_labels")
    scores = {name: step for name, step in found.items() if name.startswith("score_")}
    assert scores["score_av2vec_labels_video_clean_test_20"].command[1].endswith("labelled_20")
    of_20, of_650 = (overrides(found[f"av2vec_video_{number}"]) for number in (20, 650))
    assert {key for key in of_20 if of_20[key] != of_650[key]} == {
        "task.data", "checkpoint.save_dir", "hydra.run.dir"
    }  # fmt: skip
    assert len([name for name in found if name.startswith("pretrain_")]) == 1


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
    ],
)  # fmt: skip
def test_wrong_rows_are_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = FILE.read_text()
    assert old in text
    (tmp_path / "methods.yaml").write_text(text.replace(old, new, 1))
    with pytest.raises(MethodError, match=rf"methods\.yaml: .*{message}"):
        main(["--dry-run", "--out", str(tmp_path)], Methods(tmp_path / "methods.yaml"))


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
    task = SimpleNamespace(dictionaries=[range(54)], starts_from_pretrained=True)
    with torch.device("meta"):
        built = MODEL_REGISTRY[cfg.model._name].build_model(cfg.model, task)
    assert built.masking is not None
    assert hasattr(built, "label_embs_concat") == bool(training.labels)
