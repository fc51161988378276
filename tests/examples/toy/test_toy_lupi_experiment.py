from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from jobs import Job
from lupi_experiment import QUICK, RECIPES, EmotionCorpus, LupiExperiment
from lupi_methods import EMOTION, SPEAKER, TASKS, LupiMethod, Task, all_trainings
from omegaconf import OmegaConf


@pytest.fixture
def corpus(tmp_path: Path) -> EmotionCorpus:
    return EmotionCorpus(tmp_path, QUICK, seed=1)


def experiment(corpus: EmotionCorpus, task: Task) -> LupiExperiment:
    return LupiExperiment(corpus.data.parent / "seed_5", corpus, task, seed=5)


def overrides(job: Job) -> dict[str, str]:
    return dict(word.split("=", 1) for word in job.command if "=" in word)


def method(task: Task, name: str) -> LupiMethod:
    return next(one for one in task.methods if one.name == name)


def trainings(corpus: EmotionCorpus, task: Task, *names: str) -> dict[str, dict[str, str]]:
    """Overrides of the trainings of the methods, by name."""
    made = experiment(corpus, task)
    chosen = all_trainings([method(task, name) for name in names])
    return {one.name: overrides(made.training(one)) for one in chosen}


def all_jobs(corpus: EmotionCorpus) -> Iterator[Job]:
    for task in TASKS:
        made = experiment(corpus, task)
        for jobs in made.rounds(task.methods):
            yield from jobs
        yield from made.scorings(task.methods)


def test_names_are_unique_and_each_job_comes_after_what_it_reads(corpus: EmotionCorpus) -> None:
    jobs = [corpus.making(), corpus.preprocessing(), corpus.mispairing(), corpus.drawing_trials()]
    jobs += all_jobs(corpus)
    assert len({job.name for job in jobs}) == len(jobs)
    for place, job in enumerate(jobs):
        assert set(job.after) <= set(jobs[:place])


def test_trainings_of_one_round_do_not_wait_for_each_other(corpus: EmotionCorpus) -> None:
    rounds = experiment(corpus, EMOTION).rounds(EMOTION.methods)
    assert len(rounds) == 3  # teachers and the baseline, students, headers
    for jobs in rounds:
        assert not any(set(job.after) & set(jobs) for job in jobs)
    assert experiment(corpus, EMOTION).rounds([]) == []


def test_students_learn_from_the_teacher_of_the_same_seed(corpus: EmotionCorpus) -> None:
    made = experiment(corpus, EMOTION)
    found = trainings(corpus, EMOTION, "embeddings")
    assert list(found) == ["teacher", "embeddings_embed", "embeddings_head"]
    _, embed, head = found.values()
    assert embed["model.teacher_path"] == str(made.out / "checkpoints/emotion_teacher/checkpoint_last.pt")
    assert head["model.init_student_from"] == embed["checkpoint.save_dir"] + "/checkpoint_last.pt"
    assert "model.teacher_path" not in head
    assert {each["common.seed"] for each in found.values()} == {"5"}
    assert {each["+task.noise_prob"] for each in found.values()} == {"0.5"}


def test_all_methods_get_as_many_updates_as_their_recipe_says(corpus: EmotionCorpus) -> None:
    size = replace(QUICK, updates={**QUICK.updates, "student_embed": 9})
    larger = EmotionCorpus(corpus.data.parent, size, seed=1)
    updates = {
        name: each["optimization.max_update"]
        for name, each in trainings(larger, EMOTION, "sequential").items()
    }
    assert updates == {"teacher_sequential": "4", "sequential_embed": "9", "sequential_head": "4"}


def test_segments_are_those_of_the_teacher(corpus: EmotionCorpus) -> None:
    found = trainings(corpus, EMOTION, "sequential")
    assert {each["+task.segment_frames"] for each in found.values()} == {"10"}
    assert "+task.segment_frames" not in trainings(corpus, EMOTION, "embeddings")["teacher"]


def test_the_control_differs_from_lupi_by_its_pictures_alone(corpus: EmotionCorpus) -> None:
    control, lupi = (trainings(corpus, EMOTION, name) for name in ("mispaired", "embeddings"))
    for (name, own), other in zip(control.items(), lupi.values(), strict=True):
        different = {key for key in own if own[key] != other.get(key)}
        own_folders = {
            "checkpoint.save_dir",
            "hydra.run.dir",
            "model.teacher_path",
            "model.init_student_from",
        }
        seen = set() if name.endswith("head") else {"task.data", "+task.label_dir"}
        assert different - own_folders == seen
        assert not seen or own["task.data"] == str(corpus.mispaired)


def test_a_control_hears_as_many_updates_as_students_do(corpus: EmotionCorpus) -> None:
    def updates(task: Task, name: str) -> int:
        found = trainings(corpus, task, name).values()
        return sum(int(each["optimization.max_update"]) for each in found)

    for task in (EMOTION, SPEAKER):
        teacher = updates(task, "teacher")
        assert updates(task, "audio_only_longer") == updates(task, "embeddings") - teacher


def test_a_deaf_control_needs_no_pictures(corpus: EmotionCorpus) -> None:
    found = trainings(corpus, EMOTION, "heard")
    assert list(found) == ["audio_only", "heard_embed", "heard_head"]
    assert found["heard_embed"]["+task.modalities"] == "audio"


def test_speakers_are_verified_without_header(corpus: EmotionCorpus) -> None:
    found = trainings(corpus, SPEAKER, "embeddings")
    assert list(found) == ["teacher", "embeddings_embed"]
    assert {each["+task.label"] for each in found.values()} == {"spk"}
    clean, noisy = experiment(corpus, SPEAKER).scorings([method(SPEAKER, "embeddings")])
    assert clean.command[:2] == ("av-ssl", "verify")
    assert str(corpus.trials) in clean.command
    assert "--noise" not in clean.command
    assert noisy.command[-4:] == ("--noise", str(corpus.data / "noise/test.tsv"), "--snr", "0")


def test_emotions_are_classified_by_the_student_with_its_header(corpus: EmotionCorpus) -> None:
    clean, _ = experiment(corpus, EMOTION).scorings([method(EMOTION, "embeddings")])
    assert clean.command[1] == "classify"
    assert clean.command[2].endswith("emotion_embeddings_head/checkpoint_last.pt")
    assert clean.command[-1] == str(corpus.data / "test.emo")


def test_plus_signs_mark_the_keys_that_the_recipe_does_not_name(corpus: EmotionCorpus) -> None:
    """hydra refuses others."""
    for job in all_jobs(corpus):
        if not job.updates:
            continue
        config = job.command[job.command.index("--config-name") + 1]
        parts = [OmegaConf.load(RECIPES / f"{name}.yaml") for name in ("_common", config)]
        recipe = OmegaConf.to_container(OmegaConf.merge(*parts))
        for key in overrides(job):
            group, name = key.removeprefix("+").split(".", 1)
            known = (
                name in recipe[group] if group in ("task", "model", "criterion") else True
            )  # fairseq's own
            assert known == (not key.startswith("+")), (job.name, key)


def test_a_larger_corpus_makes_everything_run_again(corpus: EmotionCorpus) -> None:
    larger = EmotionCorpus(corpus.data.parent, replace(QUICK, train=41), seed=1)
    for before, after in zip(all_jobs(corpus), all_jobs(larger), strict=True):
        assert before.name == after.name
        assert before.fingerprint() != after.fingerprint()
