"""Checkpoints that become recognisers, and what these make of clips."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

import av_ssl
from av_ssl import inference
from av_ssl.checkpoints.loading import load
from av_ssl.data.collate import add_lengths
from av_ssl.data.reading import read_crops, read_wave
from av_ssl.device import device_of
from av_ssl.errors import DataError
from av_ssl.inference import frame_batches
from av_ssl.manifest import read_manifest
from av_ssl.media.recording import Part
from av_ssl.transcription.recogniser import RecogniserSpec, SearchOptions
from tests.tiny_checkpoints import write_recogniser


def transcribe(spec: RecogniserSpec, data: Path, max_frames: int = 1000):
    clips = read_manifest(data / "train.tsv")
    return {hypothesis.id: hypothesis for hypothesis in spec.open().transcribe(clips, max_frames)}


def test_ctc_greedy_is_the_best_path_with_its_probability(ctc, data):
    found = transcribe(RecogniserSpec(ctc, device="cpu", search=SearchOptions(beam=1)), data, max_frames=18)
    model = load(ctc)
    recogniser = RecogniserSpec(ctc, device="cpu", search=SearchOptions(beam=1)).open()
    clips = read_manifest(data / "train.tsv")
    dataset = recogniser.dataset(clips)
    batch = dataset.collater([dataset[0]])
    with torch.no_grad():
        log_probs = model.get_normalized_probs(model(**batch["net_input"]), log_probs=True)[:, 0]
    log_probs[:, 1:4] = -math.inf  # never output
    scores, path = log_probs.max(-1)
    tokens = [int(token) for token in torch.unique_consecutive(path) if token != 0]
    pieces = [model.text_encoder.dictionary[token] for token in tokens]
    assert tokens
    assert found["train_0"].text == model.text_encoder.decode(" ".join(pieces))
    assert found["train_0"].confidence == pytest.approx(math.exp(float(scores.sum()) / len(tokens)), rel=1e-4)
    assert found["train_0"].frames == 10


def test_attention_decoder_is_rated_by_the_mean_of_its_tokens(tmp_path, data):
    checkpoint = write_recogniser(tmp_path / "seq2seq.pt")
    spec = RecogniserSpec(checkpoint, device="cpu", search=SearchOptions(beam=2, max_len_a=0, max_len_b=4))
    recogniser = spec.open()
    clips = read_manifest(data / "train.tsv")[:1]
    (hypothesis,) = recogniser.transcribe(clips)
    dataset = recogniser.dataset(clips)
    batch = dataset.collater([dataset[0]])
    add_lengths(batch["net_input"], recogniser.task.target_dictionary.pad())
    ((best, *_),) = recogniser.task.inference_step(recogniser.generator, [recogniser.model], batch)
    tokens = best["tokens"][None]
    with torch.inference_mode():
        history = torch.cat([tokens.new_full((1, 1), 2), tokens[:, :-1]], dim=1)
        inputs = {key: batch["net_input"][key] for key in ("source", "padding_mask", "frame_index")}
        logits, _ = recogniser.model(**inputs, prev_output_tokens=history)
        likelihood = logits.float().log_softmax(-1).gather(-1, tokens[..., None])
    assert tokens[0, -1] == 2  # the end counts, too
    assert hypothesis.confidence == pytest.approx(math.exp(float(likelihood.mean())), rel=1e-3)
    longer = transcribe(
        RecogniserSpec(checkpoint, device="cpu", search=SearchOptions(beam=2, lenpen=2, max_len_b=4)), data
    )
    assert all(0 < one.confidence < 1 for one in longer.values())  # the length penalty is no probability


def test_a_model_with_both_heads_is_transcribed_with(tmp_path, data):
    checkpoint = write_recogniser(tmp_path / "hybrid.pt", "hybrid_ctc_attention", ("audio",))
    found = transcribe(
        RecogniserSpec(checkpoint, device="cpu", search=SearchOptions(beam=2, max_len_b=0)), data
    )
    assert len(found) == 9
    assert all(0 < one.confidence < 1 for one in found.values())


def test_streams_are_those_of_the_training_unless_named(tmp_path, data):
    checkpoint = write_recogniser(tmp_path / "vsr.pt", "av_hubert_ctc", ("video",))
    recogniser = RecogniserSpec(checkpoint, device="cpu").open()
    assert recogniser.streams == ("video",)
    assert recogniser.dataset(read_manifest(data / "train.tsv"))[0].audio is None
    for wrong in ("audio", "av"):
        with pytest.raises(DataError, match=rf"--modalities {wrong}: .*vsr\.pt .*video alone .* audio"):
            RecogniserSpec(checkpoint, wrong, "cpu").open()
    with pytest.raises(DataError, match=r"--modalities audio: .*video alone"):
        av_ssl.transcribe(checkpoint, audio=data / "train_0.wav")
    state = torch.load(checkpoint)
    del state["cfg"]["task"]["modalities"]
    torch.save(state, checkpoint)
    inference._open_model.cache_clear()
    with pytest.raises(DataError, match=r"vsr\.pt: .* name --modalities"):
        RecogniserSpec(checkpoint).open()
    assert av_ssl.transcribe(checkpoint, data / "train_0.npy", modalities="video").segments


def test_further_keys_of_the_task(ctc, data):
    clips = read_manifest(data / "train.tsv")
    spec = RecogniserSpec(ctc, device="cpu", task_options=("image_crop_size=20", "modalities=video"))
    assert spec.open().dataset(clips)[0].video.shape == (10, 20, 20)
    assert spec.open().streams == ("video",)
    assert spec.settings()["task options"] == ["image_crop_size=20", "modalities=video"]
    with pytest.raises(DataError, match=r"--task-option: .*ctc_wieght.*lists the keys"):
        RecogniserSpec(ctc, device="cpu", task_options=("ctc_wieght=1",)).open()


def test_batches_keep_to_the_budget(ctc, data):
    dataset = RecogniserSpec(ctc, device="cpu").open().dataset(read_manifest(data / "train.tsv"))
    batches = frame_batches(dataset, 40)
    assert sorted(index for batch in batches for index in batch) == list(range(9))
    assert all(len(batch) * max(dataset.size(index) for index in batch) <= 40 for batch in batches)
    assert batches == frame_batches(dataset, 40)


def test_the_device_is_a_gpu_only_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_of("auto") == "cpu"
    with pytest.raises(DataError, match="--device cuda"):
        device_of("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert device_of("auto", 6) == "cuda:2"
    assert device_of("cpu", 6) == "cpu"


# -- parts of a recording ------------------------------------------------------------------------------------


def parts_of(clips) -> list[Part]:
    return [
        Part(7.0 * number, read_crops(clip.video), read_wave(clip.audio)) for number, clip in enumerate(clips)
    ]


@pytest.fixture(scope="module")
def recognisers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recognisers")
    kinds = ("av_hubert_ctc", "av_hubert_seq2seq", "hybrid_ctc_attention")
    search = SearchOptions(beam=2, max_len_b=4)
    return {
        kind: RecogniserSpec(write_recogniser(folder / f"{kind}.pt", kind), None, "cpu", search)
        for kind in kinds
    }


@pytest.mark.parametrize("kind", ["av_hubert_ctc", "av_hubert_seq2seq", "hybrid_ctc_attention"])
def test_parts_in_memory_give_what_files_give(recognisers, data, kind):
    clips = read_manifest(data / "train.tsv")
    recogniser = recognisers[kind].open()
    expected = {one.id: one for one in recogniser.transcribe(clips, max_frames=1)}  # without padding
    found = recogniser.recognise(parts_of(clips), ("audio", "video"), word_times=True)
    assert [one.text for one in found] == [expected[clip.id].text for clip in clips]
    assert any(one.text for one in found)
    for one, clip in zip(found, clips, strict=True):
        assert one.confidence == pytest.approx(expected[clip.id].confidence, rel=1e-3)
        assert " ".join(word.word for word in one.words) == " ".join(one.text.split())
        times = [time for word in one.words for time in (word.start, word.end)]
        assert times == sorted(times)
        assert all(0 <= time <= clip.frames / 25 for time in times)
        assert all(0 < word.score <= 1 for word in one.words)
    (plain,) = recogniser.recognise(parts_of(clips[:1]), ("audio", "video"))
    assert plain.words == ()
    assert recogniser.recognise([], ("audio",)) == []


def test_the_encoder_runs_once_for_text_and_times(recognisers, data, monkeypatch):
    recogniser = recognisers["hybrid_ctc_attention"].open()
    encoder = recogniser.model.encoder
    runs = []
    monkeypatch.setattr(type(encoder), "encode", counted(type(encoder).encode, runs))
    recogniser.recognise(parts_of(read_manifest(data / "train.tsv")[:1]), ("audio",), word_times=True)
    assert len(runs) == 1
    assert "forward" not in vars(encoder)


def counted(function, calls):
    def call(*args, **kwargs):
        calls.append(1)
        return function(*args, **kwargs)

    return call


def test_streams_of_parts(ctc, tmp_path, data):
    (part,) = parts_of(read_manifest(data / "train.tsv")[:1])
    both = RecogniserSpec(ctc, device="cpu").open()
    assert both.stream_choices == [("audio", "video"), ("audio",), ("video",)]
    asked = RecogniserSpec(both.spec.checkpoint, "av", "cpu").open()
    assert asked.stream_choices == both.stream_choices  # sound is still there where the face is lost
    sound = both.ctc_log_probs([Part(0, None, part.samples)], ("audio",))
    np.testing.assert_array_equal(both.ctc_log_probs([part], ("audio",)), sound)
    assert sound[0].shape == (10, len(both.task.target_dictionary))
    assert not np.allclose(both.ctc_log_probs([part], ("audio", "video")), sound)
    lips = RecogniserSpec(write_recogniser(tmp_path / "vsr.pt", "av_hubert_ctc", ("video",)), device="cpu")
    assert lips.open().stream_choices == [("video",)]
    with pytest.raises(DataError, match=r"0\.00 s: frames of 16x16 pixels are smaller"):
        lips.open().recognise([Part(0, np.zeros((9, 16, 16), np.uint8), None)], ("video",))
    with pytest.raises(DataError, match=r"2\.50 s: frames of 360x288 pixels are no mouth crops"):
        lips.open().recognise([Part(2.5, np.zeros((9, 288, 360), np.uint8), None)], ("video",))


@pytest.mark.parametrize("kind", ["av_hubert_ctc", "av_hubert_seq2seq"])
def test_bfloat16_is_close_and_a_setting(tmp_path, data, kind):
    checkpoint = write_recogniser(tmp_path / "model.pt", kind)
    specs = [RecogniserSpec(checkpoint, device="cpu", precision=one) for one in ("float32", "bfloat16")]
    exact, half = (spec.settings() for spec in specs)
    assert half.pop("precision") == "bfloat16"
    assert exact == half
    clips = read_manifest(data / "train.tsv")[:1]
    outputs = []
    for spec in specs:
        recogniser = spec.open()
        dataset = recogniser.dataset(clips)
        batch = dataset.collater([dataset[0]])
        with torch.no_grad():
            x = recogniser._encoder(**batch["net_input"])["encoder_out"]
        outputs.append((x[0] if isinstance(x, list) else x).float())
        assert len(list(recogniser.transcribe(clips))) == 1
    error = (outputs[1] - outputs[0]).norm() / outputs[0].norm()
    assert 0 < error < 0.03
