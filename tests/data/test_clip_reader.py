"""Crops, waveforms and time masks on their way from files to batches; filterbanks: test_dataset."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from av_ssl.data.clip_reader import ClipReader, Crop, CropAndFlip, TimeMask
from av_ssl.data.collate import MEAN_GRAY
from av_ssl.data.dataset import AudioVisualDataset
from av_ssl.data.masking import UnimodalMasking
from av_ssl.data.noise import NoiseMixer
from av_ssl.data.reading import read_crops, read_wave
from av_ssl.data.spans import SpanMask
from av_ssl.errors import DataError, MediaError
from av_ssl.manifest import Clip

MASKING = UnimodalMasking(SpanMask(0.2, 3, min_spans=1), SpanMask(0.2, 3, min_spans=1))
TIME_MASKS = {"audio_time_mask": TimeMask(0.3, 0.4), "video_time_mask": TimeMask(0.2, 0.4)}


def reader(**arguments) -> ClipReader:
    return ClipReader(CropAndFlip(96), **{"audio_input": "waveform", **arguments})


def dataset(clips: list[Clip], how: ClipReader | None = None, **arguments) -> AudioVisualDataset:
    return AudioVisualDataset(clips=clips, reader=how or reader(), **arguments)


def collate(data: AudioVisualDataset) -> dict:
    return data.collater([data[index] for index in range(len(data))])


def source(data: AudioVisualDataset) -> dict:
    return collate(data)["net_input"]["source"]


# -- waveforms -----------------------------------------------------------------------------------------------


def test_batch_of_waveforms(clips: list[Clip]) -> None:
    heard = source(dataset(clips))
    assert (heard["audio"].shape, heard["audio"].dtype) == ((4, 20 * 640), torch.int16)
    for row, clip in zip(heard["audio"].numpy(), clips, strict=True):
        np.testing.assert_array_equal(row[: clip.samples], read_wave(clip.audio))
        assert not row[clip.samples :].any()
    assert heard["video"].shape == (4, 1, 20, 96, 96)


@pytest.mark.parametrize("samples", [3000, 20000])
def test_waveform_is_as_long_as_the_video(write_clip, samples: int) -> None:
    clip = replace(write_clip("a", 12, samples), frames=99)  # what the manifest says does not matter
    row = source(dataset([clip]))["audio"].numpy()[0]
    assert row.shape == (12 * 640,)
    kept = min(samples, 12 * 640)
    np.testing.assert_array_equal(row[:kept], read_wave(clip.audio)[:kept])
    assert not row[kept:].any()


def test_audio_alone_keeps_whole_frames(write_clip) -> None:
    clips = [replace(write_clip("a", 6, 4000), video=None), replace(write_clip("b", 3, 1920), video=None)]
    net_input = collate(dataset(clips, reader(modalities=("audio",))))["net_input"]
    assert net_input["source"]["audio"].shape == (2, 6 * 640)
    assert (~net_input["padding_mask"]).sum(1).tolist() == [6, 3]


def test_audio_of_less_than_a_frame_is_a_bad_clip(write_clip) -> None:
    clips = [replace(write_clip(name, 6, samples), video=None) for name, samples in (("a", 639), ("b", 3840))]
    data = dataset(clips, reader(modalities=("audio",)))
    assert data[0] is None
    assert f"{clips[0].audio}: has 639 samples" in data.bad_clips.reasons["a"]


@pytest.mark.parametrize(
    ("key", "how"), [("audio", {}), ("waveform", {"audio_input": "filterbank", "clean_waveform": True})]
)
def test_random_cut_keeps_sound_and_images_together(clips: list[Clip], key: str, how: dict) -> None:
    starts = set()
    for seed in range(6):
        cut = source(dataset(clips, reader(**how), pad=False, random_crop=True, max_frames=10, seed=seed))
        assert cut[key].shape == (4, 10 * 640)
        for wave, images, clip in zip(cut[key].numpy(), cut["video"].numpy(), clips, strict=True):
            start = next(k for k, frame in enumerate(read_crops(clip.video)) if (frame == images[0, 0]).all())
            np.testing.assert_array_equal(wave, read_wave(clip.audio)[start * 640 :][: 10 * 640])
            starts.add(start)
    assert len(starts) > 3


def test_unknown_input_is_refused() -> None:
    with pytest.raises(ValueError, match="audio_input is 'mfcc'; it must be one of filterbank, waveform"):
        reader(audio_input="mfcc")


# -- time masks ----------------------------------------------------------------------------------------------


def test_masked_stretches_are_silent_and_grey(clips: list[Clip]) -> None:
    plain, masked = source(dataset(clips)), source(dataset(clips, reader(**TIME_MASKS)))
    silent = masked["audio"] != plain["audio"]
    assert 0 < silent.float().mean() < 0.5
    assert not masked["audio"][silent].any()
    grey = (masked["video"] != plain["video"]).flatten(3).any(-1).squeeze(1)
    assert 0 < grey.float().mean() < 0.5
    assert (masked["video"].squeeze(1)[grey] == MEAN_GRAY).all()


def test_filterbanks_are_zero_after_normalising(clips: list[Clip]) -> None:
    how = {"audio_input": "filterbank", "modalities": ("audio",)}
    plain, masked = source(dataset(clips, reader(**how))), source(dataset(clips, reader(**how, **TIME_MASKS)))
    silent = (masked["audio"] != plain["audio"]).any(1)
    assert 0 < silent.float().mean() < 0.5
    assert masked["audio"].dtype == torch.float32
    assert not masked["audio"].transpose(1, 2)[silent].any()


def test_files_and_clean_audio_stay_whole(clips: list[Clip], noise: NoiseMixer) -> None:
    before = clips[1].video.read_bytes()
    heard = source(dataset(clips, reader(noise=noise, clean_audio=True, **TIME_MASKS)))
    assert torch.equal(heard["audio_clean"], source(dataset(clips))["audio"])
    assert clips[1].video.read_bytes() == before


def test_images_are_not_copied_before_the_batch(clips: list[Clip]) -> None:
    sample = dataset(clips, reader(**TIME_MASKS))[1]
    assert isinstance(sample.video, np.memmap)
    assert not sample.video.flags.writeable
    assert sample.video_mask.shape == (20,)
    cut = sample.cut(5)
    assert (len(cut.audio), len(cut.video), len(cut.video_mask)) == (5, 5, 5)


def test_masks_of_time_follow_the_cut(clips: list[Clip]) -> None:
    how = reader(video_time_mask=TimeMask(0.4, 0.2), modalities=("video",))
    settings = {"pad": False, "random_crop": True, "max_frames": 8}
    data, plain = dataset(clips, how, **settings), dataset(clips, reader(modalities=("video",)), **settings)
    grey = (source(data)["video"] == MEAN_GRAY).flatten(3).all(-1)
    assert grey.any()
    changed = source(data)["video"] != source(plain)["video"]
    assert torch.equal(changed.flatten(3).any(-1), grey)


# -- random numbers ------------------------------------------------------------------------------------------


def equal(first: dict, second: dict) -> bool:
    a, b = first["net_input"], second["net_input"]
    return all(
        torch.equal(a[part][key], b[part][key])
        for part, keys in {"source": ("audio", "audio_clean", "video"), "masks": a["masks"]}.items()
        for key in keys
    )


def test_any_number_of_workers_and_a_resumed_run_see_the_same(clips: list[Clip], noise: NoiseMixer) -> None:
    how = reader(noise=noise, clean_audio=True, **TIME_MASKS)
    data, resumed = (dataset(clips, how, masking=MASKING, random_crop=True, pad=False) for _ in range(2))
    epochs = []
    for epoch in (2, 3):
        data.set_epoch(epoch)
        epochs.append(collate(data))
    resumed.set_epoch(3)
    loader = DataLoader(resumed, batch_sampler=[[0, 1, 2, 3]] * 2, collate_fn=resumed.collater, num_workers=2)
    assert all(equal(epochs[1], batch) for batch in loader)
    assert not equal(*epochs)
    assert epochs[1]["net_input"]["masks"]["audio"].shape == (4, 12)


# -- clean speech for teachers -------------------------------------------------------------------------------


@pytest.mark.parametrize("modalities", [("audio", "video"), ("video",), ("audio",)])
def test_speech_teachers_hear_the_file_whatever_the_student_gets(
    clips: list[Clip], noise: NoiseMixer, modalities: tuple[str, ...]
) -> None:
    how = reader(
        audio_input="filterbank", modalities=modalities, noise=noise, clean_waveform=True, **TIME_MASKS
    )
    first, second = (source(dataset(clips, how, seed=seed)) for seed in (1, 2))
    assert (first["waveform"].shape, first["waveform"].dtype) == ((4, 20 * 640), torch.int16)
    assert torch.equal(first["waveform"], second["waveform"])
    for row, clip in zip(first["waveform"].numpy(), clips, strict=True):
        np.testing.assert_array_equal(row[: clip.samples], read_wave(clip.audio))
    if "audio" in modalities:
        assert not torch.equal(first["audio"], second["audio"])
    else:
        assert first["audio"] is None


def test_teachers_need_audio(clips: list[Clip]) -> None:
    mute = replace(clips[0], audio=None)
    with pytest.raises(DataError, match=r"line \d+ of its manifest\) has no audio.*teacher_source"):
        dataset([mute], reader(modalities=("video",), clean_waveform=True))


# -- crops ---------------------------------------------------------------------------------------------------


def test_evaluation_takes_the_centre() -> None:
    assert CropAndFlip(88).draw(96, 96, np.random.default_rng(0)) == Crop(4, 4, False)
    assert CropAndFlip(88).draw(88, 100, np.random.default_rng(0)) == Crop(0, 6, False)


def test_training_reaches_every_place_and_flips_half_the_time() -> None:
    rng = np.random.default_rng(0)
    crops = [CropAndFlip(88, random=True).draw(96, 96, rng) for _ in range(1000)]
    assert {crop.top for crop in crops} == {crop.left for crop in crops} == set(range(9))
    assert sum(crop.flip for crop in crops) == pytest.approx(500, abs=60)
    assert not any(CropAndFlip(88, True, flip_probability=0).draw(96, 96, rng).flip for _ in range(50))


def test_apply_slices_without_copying() -> None:
    video = np.random.default_rng(0).integers(0, 256, (3, 10, 12), np.uint8)
    crop = CropAndFlip(4)
    view = crop.apply(video, Crop(2, 5, False))
    np.testing.assert_array_equal(view, video[:, 2:6, 5:9])
    assert np.shares_memory(view, video)
    np.testing.assert_array_equal(crop.apply(video, Crop(2, 5, True)), video[:, 2:6, 8:4:-1])


@pytest.mark.parametrize(
    ("size", "height", "width"), [(88, 96, 64), (88, 288, 360), (44, 96, 96), (88, 44, 44), (88, 88, 118)]
)
def test_frames_that_are_no_mouth_crops_for_the_model_are_refused(size: int, height: int, width: int) -> None:
    with pytest.raises(MediaError, match=rf"{width}x{height} pixels .*{size}.*image_crop_size"):
        CropAndFlip(size).draw(height, width, np.random.default_rng(0))
