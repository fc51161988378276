"""What AV-HuBERT's task makes of its keys, manifests and labels."""

import shutil

import pytest
from fairseq import tasks
from omegaconf import OmegaConf

import av_ssl.tasks  # noqa: F401  (registers everything)
from tests.data_folder import write_labels

PRETRAINING = {"label_rate": 25, "sample_rate": 25, "stack_order_audio": 4, "labels": ["km"]}
FINETUNING = {
    "fine_tuning": True,
    "is_s2s": True,
    "stack_order_audio": 4,
    "labels": ["wrd"],
    "pad_audio": True,
}


def task_of(data, **keys):
    own = {"_name": "av_hubert_pretraining", "data": str(data), **keys}
    return tasks.setup_task(OmegaConf.create({"task": own}).task)


def read_train(data, folder, **keys):
    task = task_of(data, label_dir=str(folder), image_crop_size=22, **{**PRETRAINING, **keys})
    task.load_dataset("train")
    return task.dataset("train")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({**PRETRAINING, "stack_order_audio": 1}, "stack_order_audio is 1.*set it to 4"),
        ({**PRETRAINING, "sample_rate": 16000}, "sample_rate is 16000.*set it to 25"),
        ({**PRETRAINING, "label_rate": -1}, "label_rate is -1.*labels a second"),
        ({**PRETRAINING, "modalities": ["video", "text"]}, "modalities is .*take"),
        ({**PRETRAINING, "modalities": []}, "modalities is .*take"),
        ({**FINETUNING, "labels": ["wrd", "phn"]}, "one set of transcripts"),
        ({**FINETUNING, "tokenizer_bpe_name": "gpt2"}, "only sentencepiece"),
    ],
)
def test_unsupported_settings_are_refused(data, keys, message):
    with pytest.raises(ValueError, match=message):
        task_of(data, **keys)


def test_fine_tuning_becomes_recognition(data):
    task = task_of(data, **FINETUNING, modalities=["audio"], noise_snr="(-5,5)", max_sample_size=500)
    assert (task.cfg.modalities, task.cfg.labels, task.cfg.noise_snr) == ("audio", "wrd", "(-5,5)")
    assert task.text_encoder.tokenizer is not None  # spm.model beside the dictionary
    assert task.cfg.max_trim_sample_size == 500


def test_without_sentencepieces_labels_are_symbols(data, tmp_path):
    (tmp_path / "train.phn").write_text("a b\n" * 12)
    (tmp_path / "dict.phn.txt").write_text("a 1\nb 1\n")
    shutil.copy(data / "spm.model", tmp_path)  # of other labels
    task = task_of(data, **{**FINETUNING, "is_s2s": False, "labels": ["phn"]}, label_dir=str(tmp_path))
    task.load_dataset("train")
    labels = task.dataset("train").text
    assert labels[0].tolist() == [4, 5, task.target_dictionary.eos()]


def test_a_frame_has_the_label_of_its_beginning(data, labels):
    dataset = read_train(data, labels, labels=["mfcc"], label_rate=100)
    line = (labels / "train.mfcc").read_text().splitlines()[0].split()
    assert dataset.frame_labels[0][0].tolist() == [4 + int(cluster) for cluster in line[::4]]


def test_two_label_sets(data, labels, tmp_path):
    folder = shutil.copytree(labels, tmp_path / "labels")
    write_labels(data, folder, "other", 25, clusters=3)
    dataset = read_train(data, folder, labels=["km", "other"])
    assert len(dataset.frame_labels) == 2
    sample = dataset.collater([dataset[0], dataset[1]])
    assert [target.shape[0] for target in sample["target_list"]] == [2, 2]
    assert sample["target_list"][1].max() <= 6


def test_clip_with_labels_of_another_length_is_left_out(data, labels, tmp_path):
    folder = shutil.copytree(labels, tmp_path / "labels")
    lines = (folder / "train.km").read_text().splitlines()
    lines[3] = " ".join(lines[3].split()[:-3])  # 0.12 s less
    lines[4] = " ".join(lines[4].split()[:-2])  # 0.08 s are tolerated
    (folder / "train.km").write_text("\n".join(lines) + "\n")
    dataset = read_train(data, folder)
    assert [clip.id for clip in dataset.clips] == [f"train_{n}" for n in range(12) if n != 3]
    assert len(dataset.frame_labels[0][3]) == dataset.clips[3].frames - 2
