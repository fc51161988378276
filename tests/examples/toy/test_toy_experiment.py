from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from experiment import HERE, Corpus, Experiment
from fairseq.models import MODEL_DATACLASS_REGISTRY, MODEL_REGISTRY
from jobs import Job
from methods import AV2VEC, AV2VEC_MLM_STAGE, METHODS, SCRATCH, all_stages
from omegaconf import OmegaConf
from sizes import QUICK
from stages import Stage

import av_ssl.tasks  # noqa: F401  (registers everything)
from av_ssl.methods.teacher_heads import attach_teacher_shapes
from tests.targets.teacher_folders import write_teacher_folder


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    return Experiment(tmp_path / "seed", Corpus(tmp_path, QUICK, seed=1), seed=5)


def overrides(job: Job) -> dict[str, str]:
    return dict(word.split("=", 1) for word in job.command if "=" in word)


def all_jobs(experiment: Experiment) -> list[Job]:
    methods = list(METHODS.values())
    jobs = experiment.pretraining_jobs(methods) + experiment.finetuning_jobs(methods)
    return [*jobs, *experiment.decoding_jobs(methods)]


def test_names_are_unique_and_each_job_comes_after_what_it_reads(experiment: Experiment) -> None:
    corpus = experiment.corpus
    jobs = [corpus.making(), corpus.preprocessing(), corpus.lengthening(), *all_jobs(experiment)]
    assert len({job.name for job in jobs}) == len(jobs)
    for place, job in enumerate(jobs):
        assert set(job.after) <= set(jobs[:place])


def test_the_demo_trains_av2vec_alone(experiment: Experiment) -> None:
    (job,) = experiment.pretraining_jobs([SCRATCH, AV2VEC])
    assert (job.name, job.updates, job.threads) == ("train_pretrain", 12, 2)
    assert job.folder == experiment.out / "checkpoints" / "pretrain"
    assert overrides(job)["+task.noise_prob"] == "0.25"
    assert overrides(job)["common.seed"] == "5"


def test_scratch_differs_from_av2vec_by_its_weights_alone(experiment: Experiment) -> None:
    for modalities in ("video", "audio", "av"):
        scratch, av2vec = (overrides(experiment.finetuning(one, modalities)) for one in (SCRATCH, AV2VEC))
        assert scratch.pop("+model.no_pretrained_weights") == "true"
        different = {key for key in scratch if scratch[key] != av2vec[key]}
        assert different == {"checkpoint.save_dir", "hydra.run.dir"}
        resting = {"+model.freeze_finetune_updates"}
        resting |= {"model.feature_grad_mult"} if modalities == "video" else set()
        assert av2vec.keys() - scratch.keys() == resting


def test_lip_reading_hears_no_noise(experiment: Experiment) -> None:
    assert "+task.noise_prob" not in overrides(experiment.finetuning(AV2VEC, "video"))
    assert overrides(experiment.finetuning(AV2VEC, "audio"))["+task.noise_prob"] == "0.5"
    assert "--noise-snr" in experiment.decoding(AV2VEC, ("av", "noisy")).command
    assert "--noise-snr" not in experiment.decoding(AV2VEC, ("av", "clean")).command


def test_av2vec_mlm_predicts_clusters_of_the_first_iteration(experiment: Experiment) -> None:
    job = experiment.pretraining(AV2VEC_MLM_STAGE)
    assert overrides(job)["+task.label_dir"] == str(experiment.out / "labels" / "av_hubert_1")
    assert overrides(job)["+task.label_rate"] == "25"
    clustering = job.after[1]
    assert clustering.name == "labels_av_hubert_1"
    command = " ".join(clustering.command)
    assert "--clusters 10" in command
    assert f"--checkpoint {experiment.checkpoint('pretrain_av_hubert_1')} --layer 3" in command
    assert [one.name for one in clustering.after] == ["preprocess", "train_pretrain_av_hubert_1"]


def test_a_teacher_learns_hears_all_clips_and_then_teaches(experiment: Experiment) -> None:
    jobs = experiment.pretraining_jobs([METHODS["distillav"]])
    assert [job.name for job in jobs] == [
        "labels_mfcc", "teacher_hubert", "teacher_hubert_targets", "teacher_whisper",
        "teacher_whisper_targets", "train_pretrain_distillav",
    ]  # fmt: skip
    for earlier, job in pairwise(jobs[:3]):
        assert job.after == (earlier,)
        assert str(earlier.folder) in job.command
    folder = experiment.out / "teachers" / "hubert" / "targets"
    assert jobs[2].folder == folder
    assert overrides(jobs[-1])["model.teachers"] == f"[{folder},{jobs[4].folder}]"
    assert jobs[-1].after[1:] == (jobs[2], jobs[4])


def test_ways_of_distilling_share_their_teachers(experiment: Experiment) -> None:
    names = ("distillav", "distillav_one", "distillav_fixed", "distillav_finetuned")
    both, one, fixed, finetuned = (METHODS[name] for name in names)
    jobs = [job.name for job in experiment.pretraining_jobs([both, one, fixed, finetuned])]
    assert len(jobs) == 8  # labels, two teachers, three students
    assert overrides(experiment.pretraining(one.stage))["model.teachers"].count(",") == 0
    assert overrides(experiment.pretraining(fixed.stage))["+model.balance"] == "none"
    job = experiment.finetuning(finetuned, "video")
    assert overrides(job)["model.teachers"] == overrides(experiment.pretraining(both.stage))["model.teachers"]
    assert "model.teachers" not in overrides(experiment.finetuning(both, "video"))


def test_raven_has_a_recogniser_for_each_stream_on_waveforms(experiment: Experiment) -> None:
    raven = METHODS["raven"]
    jobs = experiment.finetuning_jobs([raven])
    assert [overrides(job)["task.modalities"] for job in jobs] == ["video", "audio"]
    assert {overrides(job)["+task.audio_input"] for job in jobs} == {"waveform"}
    resting = {"+model.freeze_finetune_updates", "model.feature_grad_mult"}
    assert not any(resting & overrides(job).keys() for job in jobs)
    assert [job.name for job in experiment.decoding_jobs([raven])] == [
        "decode_raven_video_clean", "decode_raven_audio_clean", "decode_raven_audio_noisy",
    ]  # fmt: skip
    assert "+task.noise_prob" not in overrides(experiment.pretraining(raven.stage))


def test_self_training_transcribes_what_has_no_labels(experiment: Experiment) -> None:
    rounds = experiment.finetuning_rounds([METHODS["self_training"]])
    assert [[job.name for job in jobs] for jobs in rounds] == [
        ["train_av2vec_audio"], ["transcribe_av2vec_audio"], ["pseudo_labels_av2vec_audio"],
        ["train_self_training_video"],
    ]  # fmt: skip
    _, (transcription,), (selection,), (training,) = rounds
    assert str(experiment.checkpoint("av2vec_audio")) in transcription.command
    assert selection.command[2:4] == (str(experiment.corpus.data), str(transcription.folder))
    assert overrides(training)["task.data"] == str(selection.folder)
    (decoding,) = experiment.decoding_jobs([METHODS["self_training"]])
    assert decoding.command[1] == str(experiment.corpus.labelled)


def test_ways_of_decoding_share_their_recognisers(experiment: Experiment) -> None:
    ways = [METHODS[name] for name in ("hybrid", "hybrid_attention", "hybrid_ctc")]
    assert len(experiment.finetuning_jobs(ways)) == 3  # one a modality
    commands = [experiment.decoding(way, ("av", "long")).command for way in ways]
    assert [command[command.index("--ctc-weight") + 1] for command in commands] == ["0.1", "0", "1"]
    assert {command[command.index("--path") + 1] for command in commands} == {
        str(experiment.checkpoint("hybrid_av"))
    }
    assert {command[1] for command in commands} == {str(experiment.corpus.long)}


def test_mfcc_are_clustered_without_a_model(experiment: Experiment) -> None:
    stage = METHODS["av_hubert_1"].stage
    assert stage.labels is not None
    job = experiment.clustering(stage.labels)
    assert "--checkpoint" not in job.command
    assert [one.name for one in job.after] == ["preprocess"]
    assert overrides(experiment.pretraining(stage))["+task.label_rate"] == "100"


def test_plus_signs_mark_the_keys_that_the_recipe_does_not_name(experiment: Experiment) -> None:
    """hydra refuses others."""
    for job in all_jobs(experiment):
        if not job.updates:
            continue
        config = job.command[job.command.index("--config-name") + 1]
        recipe = OmegaConf.to_container(OmegaConf.load(HERE / "conf" / f"{config}.yaml"))
        for key in overrides(job):
            group, name = key.removeprefix("+").split(".", 1)
            if group in ("task", "model"):
                assert (name in recipe[group]) == (not key.startswith("+")), (job.name, key)


@pytest.mark.parametrize("stage", all_stages(METHODS.values()), ids=lambda stage: stage.name)
def test_models_of_all_stages_build(stage: Stage, tmp_path: Path) -> None:
    recipe = OmegaConf.load(HERE / "conf" / f"{stage.config}.yaml")
    values = OmegaConf.from_dotlist([text.removeprefix("+") for text in stage.overrides])
    stated = OmegaConf.merge(recipe.model, values.get("model", {}))
    name = stated._name
    others = {"task": {"image_mean": 0.4, "image_std": 0.2}, "optimization": {"max_update": 7}}
    model = OmegaConf.merge(OmegaConf.structured(MODEL_DATACLASS_REGISTRY[name]()), stated)
    cfg = OmegaConf.create({"model": model, **others})
    if stage.teachers:
        folders = [write_teacher_folder(tmp_path / teacher.kind) for teacher in stage.teachers]
        cfg.model.teachers = list(map(str, folders))
        attach_teacher_shapes(cfg.model)
    task = SimpleNamespace(dictionaries=[range(54)], starts_from_pretrained=True)
    with torch.device("meta"):
        built = MODEL_REGISTRY[name].build_model(cfg.model, task)
    assert built.masking is not None
    assert hasattr(built, "label_embs_concat") == (stage.labels is not None)


def test_other_sizes_of_the_corpus_make_every_training_run_again(experiment: Experiment) -> None:
    larger = Corpus(experiment.corpus.data.parent, replace(QUICK, train=41), seed=1)
    other = Experiment(experiment.out, larger, experiment.seed)
    for before, after in zip(all_jobs(experiment), all_jobs(other), strict=True):
        assert before.name == after.name
        assert before.fingerprint() != after.fingerprint()
