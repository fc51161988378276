"""The input of models: the task's key against the model and the pre-trained checkpoint; time masks."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fairseq.tasks import FairseqTask
from omegaconf import OmegaConf

from av_ssl.data.clip_reader import TimeMask
from av_ssl.data.dataset import DataNeeds
from av_ssl.errors import DataError
from av_ssl.tasks.audio_visual import FEATURE_KEYS
from av_ssl.tasks.pretraining import PretrainingConfig, PretrainingTask
from av_ssl.tasks.recognition import RecognitionConfig, RecognitionTask


def pretraining(data, **keys):
    return PretrainingTask(OmegaConf.structured(PretrainingConfig(data=str(data), seed=1, **keys)))


def recognition(data, **keys):
    own = {"seed": 1, "image_crop_size": 22, "max_trim_sample_size": None, **keys}
    return RecognitionTask(OmegaConf.structured(RecognitionConfig(data=str(data), **own)))


class Model(torch.nn.Module):
    def __init__(self, needs=None):
        super().__init__()
        if needs is not None:
            self.data_needs = needs


WAVEFORM = DataNeeds(audio_input="waveform")


@pytest.mark.parametrize(
    ("audio_input", "model", "message"),
    [
        ("waveform", Model(WAVEFORM), None),
        ("filterbank", Model(), None),
        ("filterbank", Model(WAVEFORM), "task.audio_input is filterbank.*task.audio_input=waveform"),
        ("waveform", Model(), "task.audio_input is waveform.*task.audio_input=filterbank"),
    ],
)
def test_pretraining_task_and_model_agree(data, monkeypatch, audio_input, model, message):
    monkeypatch.setattr(FairseqTask, "build_model", lambda *_: model)
    task = pretraining(data, audio_input=audio_input)
    if message is None:
        assert task.build_model(SimpleNamespace()) is model
    else:
        with pytest.raises(ValueError, match=message):
            task.build_model(SimpleNamespace())


def test_pretraining_reads_waveforms_for_student_and_teacher(data):
    task = pretraining(
        data, audio_input="waveform", image_crop_size=22, max_trim_sample_size=None,
        noise_wav=str(data / "noise"), noise_prob=1.0,
    )  # fmt: skip
    task.needs = DataNeeds(clean_audio=True)
    task.load_dataset("train")
    dataset = task.dataset("train")
    source = dataset.collater([dataset[0], dataset[1]])["net_input"]["source"]
    assert source["audio"].dtype == source["audio_clean"].dtype == torch.int16
    assert source["audio"].shape == (2, 640 * source["video"].shape[2])
    assert not torch.equal(source["audio"], source["audio_clean"])


def test_clips_are_made_without_noise_for_models_that_ask_for_it_only(data, monkeypatch):
    heard = []
    for needs in (DataNeeds(clean_audio=True), DataNeeds()):
        monkeypatch.setattr(FairseqTask, "build_model", lambda *_, needs=needs: Model(needs))
        noise = {"noise_wav": str(data / "noise"), "noise_prob": 1.0}
        task = pretraining(data, image_crop_size=22, max_trim_sample_size=None, **noise)
        task.build_model(SimpleNamespace())
        task.load_dataset("train")
        heard.append(task.dataset("train")[0])
    assert heard[0].audio_clean is not None
    assert heard[1].audio_clean is None
    assert np.array_equal(heard[0].audio, heard[1].audio)  # the same noise is drawn


def test_decoding_hears_what_the_checkpoint_was_trained_on(data):
    assert "audio_input" in FEATURE_KEYS
    task = recognition(data)
    task.load_dataset("test", task_cfg=OmegaConf.create({"audio_input": "waveform", "image_crop_size": 20}))
    assert task.dataset("test").reader.audio_input == "waveform"
    old = recognition(data)
    old.load_dataset("test", task_cfg=OmegaConf.create({"normalize": False}))
    reader = old.dataset("test").reader
    assert (reader.audio_input, reader.normalize) == ("filterbank", False)


@pytest.mark.parametrize(
    ("trained", "given", "warned"),
    [
        ("audio", "video", True),
        (["audio"], "av", True),
        ("av", "video", False),
        (["video", "audio"], "av", False),
    ],
)
def test_decoding_warns_of_streams_that_the_checkpoint_was_not_trained_on(
    data, trained, given, warned, caplog
):
    task = recognition(data, modalities=given)
    task.load_dataset("test", task_cfg=OmegaConf.create({"modalities": trained, "image_crop_size": 22}))
    assert ("was trained on audio alone and now receives video" in caplog.text) == warned


def test_time_masks_in_training_only(data):
    task = recognition(data, time_mask_audio=0.6, time_mask_video=0.4, time_mask_video_stride=0.5)
    for split in ("train", "valid"):
        task.load_dataset(split)
    train, valid = task.dataset("train").reader, task.dataset("valid").reader
    assert (train.audio_time_mask, train.video_time_mask) == (TimeMask(0.6, 2.0), TimeMask(0.4, 0.5))
    assert valid.audio_time_mask is valid.video_time_mask is None
    assert task.dataset("valid")[0].video_mask is None
    assert task.dataset("train")[0].video_mask.any()


def test_time_masks_are_off_unless_asked_for(data):
    task = recognition(data)
    task.load_dataset("train")
    reader = task.dataset("train").reader
    assert reader.audio_time_mask is reader.video_time_mask is None
    with pytest.raises(ValueError, match=r"up to -0\.4 s .*time_mask_video"):
        recognition(data, time_mask_video=-0.4).load_dataset("train")


def test_a_further_test_list_takes_the_noise_of_test(data, tmp_path):
    (tmp_path / "test.tsv").write_text((data / "noise" / "test.tsv").read_text())
    task = pretraining(data, noise_wav=str(tmp_path), noise_prob=1.0)
    assert task.make_noise("test_unseen", train=False).paths == task.make_noise("test", train=False).paths
    for split in ("valid", "valid_unseen", "train_100"):  # noise of the test is not for training
        with pytest.raises(DataError, match=rf"{split}\.tsv"):
            task.make_noise(split, train=False)
