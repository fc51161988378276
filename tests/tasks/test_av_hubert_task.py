"""What AV-HuBERT's task makes of its keys, manifests and labels."""

import logging
import shutil

import pytest
from fairseq import tasks
from omegaconf import OmegaConf

import av_ssl.tasks  # noqa: F401  (registers everything)
from av_ssl.errors import DataError
from tests.data_folder import write_labels

PRETRAINING = {"label_rate": 25, "sample_rate": 25, "stack_order_audio": 4, "labels": ["km"]}
FINETUNING = {
    "fine_tuning": True,
    "is_s2s": True,
    "stack_order_audio": 4,
    "labels": ["wrd"],
    "pad_audio": True,
}


@pytest.fixture(scope="module")
def labels(data, tmp_path_factory):
    """`mfcc` at 100 Hz and `km` at 25 Hz."""
    folder = tmp_path_factory.mktemp("labels")
    write_labels(data, folder, "mfcc", 100)
    write_labels(data, folder, "km", 25)
    return folder


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


def test_wrong_label_rate_is_named(data, labels):
    with pytest.raises(DataError, match=r"train\.km.*label_rate"):
        read_train(data, labels, label_rate=100)


def test_missing_line_of_labels(data, labels, tmp_path):
    folder = shutil.copytree(labels, tmp_path / "labels")
    lines = (folder / "train.km").read_text().splitlines()
    (folder / "train.km").write_text("\n".join(lines[1:]) + "\n")
    with pytest.raises(DataError, match=r"train.km has 11 lines, train.tsv lists 12 clips"):
        read_train(data, folder)


@pytest.mark.parametrize(("clusters", "fatal"), [(2, True), (100, False)])
def test_dictionary_without_cluster_0(data, tmp_path, caplog, clusters, fatal):
    """AV-HuBERT's one-line recipe for the dictionary began at 1."""
    write_labels(data, tmp_path, "km", 25, clusters)
    (tmp_path / "dict.km.txt").write_text("".join(f"{cluster} 1\n" for cluster in range(1, clusters)))
    if fatal:
        with pytest.raises(DataError, match=r"train\.km.*not in the dictionary"):
            read_train(data, tmp_path)
    else:
        with caplog.at_level(logging.WARNING):
            read_train(data, tmp_path)
        assert "they count as <unk>" in caplog.text


def test_columns_in_between_and_colons_in_paths(data, labels, tmp_path):
    """Both occur in AV-HuBERT's manifests; its own reader falls over the colon."""
    folder = tmp_path / "clips 12:30"
    folder.mkdir()
    lines = (data / "train.tsv").read_text().splitlines()
    rows = [line.split("\t") for line in lines[1:]]
    for _, video, audio, *_ in rows:
        (folder / video).symlink_to(data / video)
        (folder / audio).symlink_to(data / audio)
    text = "".join("\t".join([*row[:3], "speaker", *row[3:]]) + "\n" for row in rows)
    (tmp_path / "train.tsv").write_text(f"{folder}\n{text}")
    dataset = read_train(tmp_path, labels)
    assert [clip.frames for clip in dataset.clips] == [int(row[3]) for row in rows]
    assert dataset[0].video.shape[0] == dataset.clips[0].frames
