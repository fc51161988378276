from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from av_ssl.data.clip_reader import ClipReader, CropAndFlip
from av_ssl.data.collate import MEAN_GRAY
from av_ssl.data.dataset import AudioVisualDataset
from av_ssl.data.labels import FrameLabels, TextLabels
from av_ssl.data.masking import StreamMasking
from av_ssl.data.noise import NoiseMixer
from av_ssl.data.reading import read_crops
from av_ssl.data.spans import SpanMask
from av_ssl.data.text import TextEncoder
from av_ssl.errors import DataError
from av_ssl.manifest import Clip
from tests.dictionaries import dictionary_of

MASKING = StreamMasking(SpanMask(0.8, 10), SpanMask(0.3, 5), modality_dropout=0.5, audio_dropout=0.5)


def dataset(clips: list[Clip], **arguments) -> AudioVisualDataset:
    reading = {field.name for field in fields(ClipReader)} & arguments.keys()
    reader = {"crop": CropAndFlip(88, random=True)} | {name: arguments.pop(name) for name in reading}
    return AudioVisualDataset(clips=clips, reader=ClipReader(**reader), **arguments)


def collate(data: AudioVisualDataset, *indices: int) -> dict:
    return data.collater([data[index] for index in indices or range(len(data))])


# -- batches -------------------------------------------------------------------------------------------------


def test_batch_of_both_streams(clips: list[Clip]) -> None:
    batch = collate(dataset(clips, masking=MASKING))
    net_input = batch["net_input"]
    assert net_input["source"]["audio"].shape == (4, 104, 20)
    assert net_input["source"]["video"].shape == (4, 1, 20, 88, 88)
    assert net_input["source"]["video"].dtype == torch.uint8
    assert (~net_input["padding_mask"]).sum(1).tolist() == [12, 20, 20, 16]
    assert net_input["frame_index"].tolist() == torch.where(~net_input["padding_mask"].flatten())[0].tolist()
    assert net_input["masks"]["audio"].shape == (4, 20)
    assert batch["id"].tolist() == [0, 1, 2, 3]
    assert batch["utt_id"] == ["clip0", "clip1", "clip2", "clip3"]
    assert (batch["nsentences"], batch["ntokens"]) == (4, 68)
    assert "src_tokens" not in net_input
    assert "target" not in batch


def test_evaluation_sees_the_centre_of_the_images(clips: list[Clip]) -> None:
    video = collate(dataset(clips, crop=CropAndFlip(88), train=False))["net_input"]["source"]["video"]
    np.testing.assert_array_equal(video[0, 0, :12], read_crops(clips[0].video)[:, 4:92, 4:92])
    assert (video[0, 0, 12:] == MEAN_GRAY).all()


def test_one_stream(clips: list[Clip]) -> None:
    audio = collate(dataset([replace(clip, video=None) for clip in clips], modalities=("audio",)))
    assert audio["net_input"]["source"]["video"] is None
    assert audio["net_input"]["source"]["audio"].shape == (4, 104, 20)
    video = collate(dataset([replace(clip, audio=None) for clip in clips], modalities=("video",)))
    assert video["net_input"]["source"]["audio"] is None


def test_clips_cut_to_the_shortest(clips: list[Clip]) -> None:
    batch = collate(dataset(clips, pad=False, random_crop=True, max_frames=15))
    assert batch["net_input"]["source"]["audio"].shape == (4, 104, 12)
    assert not batch["net_input"]["padding_mask"].any()


def test_transcripts(clips: list[Clip], tmp_path: Path) -> None:
    (tmp_path / "train.wrd").write_text("a\nü a\na a a\nü\n", encoding="utf-8")
    labels = TextLabels(tmp_path / "train.wrd", TextEncoder(dictionary_of("aü")), clips)
    batch = collate(dataset([clips[1], clips[3]], labels=labels.select([1, 3]), max_frames=20))
    assert batch["target"].tolist() == [[5, 4, 2], [5, 2, 1]]
    assert batch["net_input"]["prev_output_tokens"].tolist() == [[2, 5, 4], [2, 5, 1]]
    assert batch["net_input"]["src_tokens"].tolist() == [[4] * 20, [4] * 16 + [1] * 4]
    assert batch["ntokens"] == 5
    with pytest.raises(ValueError, match=r"clips of 20 frames would be cut to 15.*max_trim_sample_size"):
        dataset(clips, labels=labels, max_frames=15)
    with pytest.raises(ValueError, match="set pad_audio=true"):
        dataset(clips, labels=labels, pad=False)
    with pytest.raises(ValueError, match="4 labels for 2 clips"):
        dataset(clips[:2], labels=labels)


def test_frame_labels_follow_the_random_cut(clips: list[Clip], tmp_path: Path) -> None:
    lines = [" ".join(map(str, range(clip.frames))) for clip in clips]
    (tmp_path / "train.km").write_text("\n".join(lines) + "\n")
    labels = FrameLabels(tmp_path / "train.km", dictionary_of(range(100)), clips, 25)
    data = dataset(clips, labels=[labels, labels], pad=False, random_crop=True, crop=CropAndFlip(96))
    batch = collate(data)
    first, second = batch["target_list"]
    assert torch.equal(first, second)
    assert first.shape == (4, 12)
    for row, clip, video in zip(first - 4, clips, batch["net_input"]["source"]["video"], strict=True):
        np.testing.assert_array_equal(video[0], read_crops(clip.video)[row[0] : row[0] + 12])
        assert row.tolist() == list(range(row[0], row[0] + 12))
    assert len(set(first[:, 0].tolist())) > 1


# -- noise ---------------------------------------------------------------------------------------------------


def test_teacher_hears_the_clean_audio(clips: list[Clip], noise: NoiseMixer) -> None:
    clean = collate(dataset(clips))["net_input"]["source"]["audio"]
    source = collate(dataset(clips, noise=noise, clean_audio=True))["net_input"]["source"]
    assert torch.equal(source["audio_clean"], clean)
    noisy = [not torch.equal(a, b) for a, b in zip(source["audio"], clean, strict=True)]
    assert 0 < sum(noisy) < 4
    assert "audio_clean" not in collate(dataset(clips, noise=noise))["net_input"]["source"]
    assert "audio_clean" not in collate(dataset(clips, clean_audio=True))["net_input"]["source"]


def test_noise_of_evaluation_belongs_to_the_clip(clips: list[Clip], noise: NoiseMixer) -> None:
    whole = dataset(clips, noise=noise, train=False)
    part = dataset(clips[2:], noise=noise, train=False)
    part.set_epoch(7)
    np.testing.assert_array_equal(whole[3].audio, part[1].audio)
    other = dataset(clips, noise=noise, train=False, seed=2)
    assert any(not np.array_equal(whole[k].audio, other[k].audio) for k in range(4))


# -- random numbers ------------------------------------------------------------------------------------------


def test_evaluation_is_the_same_in_every_epoch(clips: list[Clip]) -> None:
    data = dataset(clips, masking=MASKING, train=False)
    before = collate(data)["net_input"]
    data.set_epoch(5)
    after = collate(data)["net_input"]
    assert torch.equal(before["source"]["video"], after["source"]["video"])
    assert torch.equal(before["masks"]["audio"], after["masks"]["audio"])
    assert before["masks"]["dropped"] is after["masks"]["dropped"] is None


# -- bad clips -----------------------------------------------------------------------------------------------


def test_unreadable_clip_is_left_out_and_written_down(clips: list[Clip], tmp_path: Path) -> None:
    clips[1].video.write_bytes(b"damaged")
    data = dataset(clips, bad_clips_file=tmp_path / "run" / "bad_clips.train.tsv", masking=MASKING)
    batch = collate(data)
    assert batch["utt_id"] == ["clip0", "clip2", "clip3"]
    assert batch["net_input"]["masks"]["audio"].shape[0] == 3
    line = (tmp_path / "run" / "bad_clips.train.tsv").read_text()
    assert line.startswith(f"clip1\t{clips[1].video}: cannot be read")
    assert collate(data, 1)["utt_id"] == ["clip0"]  # an empty batch would scale the update wrongly
    assert collate(dataset(clips, train=False), 1) == {}
    assert collate(dataset(clips[1:2]), 0) == {}  # there is no other


def test_too_many_unreadable_clips_stop_a_worker(clips: list[Clip], tmp_path: Path) -> None:
    clips[1].video.write_bytes(b"damaged")
    clips[2].audio.unlink()
    data = dataset(clips, bad_clips_file=tmp_path / "bad.tsv")
    loader = DataLoader(data, batch_sampler=[[0], [1], [2], [3]], collate_fn=data.collater, num_workers=2)
    with pytest.raises(DataError, match="2 clips cannot be read") as caught:
        list(loader)
    assert "clip1" in str(caught.value)
    assert "clip2" in str(caught.value)


def test_small_images_name_the_file(clips: list[Clip]) -> None:
    data = dataset(clips, crop=CropAndFlip(100))
    assert data[0] is None
    assert str(clips[0].video) in data.bad_clips.reasons["clip0"]


# -- arguments and batching ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"modalities": ()}, "take audio, video or both"),
        ({"modalities": ("audio", "text")}, "take audio, video or both"),
        ({"modalities": ("video",), "masking": MASKING}, "load both streams"),
    ],
)
def test_contradictory_arguments_are_refused(clips: list[Clip], arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataset(clips, **arguments)


def test_absent_streams_are_refused(clips: list[Clip]) -> None:
    clips[2] = replace(clips[2], audio=None, line=4)
    with pytest.raises(DataError, match=r"clip clip2 \(line 4 of its manifest\) has no audio"):
        dataset(clips)
    with pytest.raises(ValueError, match="there are no clips"):
        dataset([])


def test_order_is_by_length_with_random_ties(clips: list[Clip]) -> None:
    data = dataset(clips)
    orders = set()
    for seed in range(20):
        np.random.seed(seed)
        orders.add(tuple(data.ordered_indices().tolist()))
    assert orders == {(1, 2, 3, 0), (2, 1, 3, 0)}
    assert dataset(clips, shuffle=False).ordered_indices().tolist() == [1, 2, 3, 0]


def test_sizes_for_batching(clips: list[Clip]) -> None:
    data = dataset(clips, max_frames=15)
    assert [data.size(k) for k in range(4)] == [12, 20, 20, 16]
    assert [data.num_tokens(k) for k in range(4)] == [12, 15, 15, 15]
    assert data.num_tokens_vec(np.arange(4)).tolist() == [12, 15, 15, 15]
    batches = data.batch_by_size(data.ordered_indices(), max_tokens=30)
    assert sorted(map(len, batches)) == [2, 2]
    assert not data.supports_prefetch


def test_flipped_images(clips: list[Clip]) -> None:
    flipped = dataset(clips, crop=CropAndFlip(96, random=True, flip_probability=1))
    video = collate(flipped, 0)["net_input"]["source"]["video"]
    np.testing.assert_array_equal(video[0, 0], read_crops(clips[0].video)[:, :, ::-1])
