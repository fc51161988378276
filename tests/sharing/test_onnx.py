"""Recognisers as ONNX files: the same numbers as torch's, without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

import av_ssl
from av_ssl.checkpoints.files import read_stored
from av_ssl.cli.main import main
from av_ssl.data.reading import audio_features
from av_ssl.errors import DataError, MediaError
from av_ssl.manifest import read_manifest
from av_ssl.media.recording import Part
from av_ssl.sharing.onnx import (
    FilterbankLayer,
    check_against_torch,
    export_onnx,
    log_probs_by_torch,
    network_of,
)
from av_ssl.transcription.onnx_recogniser import OnnxRecogniser
from av_ssl.transcription.recogniser import RecogniserSpec, SearchOptions
from tests.data_folder import write_split
from tests.tiny_checkpoints import write_raven_recogniser, write_recogniser

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

KINDS: dict[str, Any] = {
    "av": lambda path: write_recogniser(path, "av_hubert_ctc"),
    "hybrid video": lambda path: write_recogniser(path, "hybrid_ctc_attention", ("video",)),
    "waveform": lambda path: write_raven_recogniser(path, "audio"),
    "raven video": lambda path: write_raven_recogniser(path, "video"),
}


def test_an_exporter_that_is_too_old_is_not_tried(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "__version__", "2.1.2+cpu")
    with pytest.raises(DataError, match=r"torch 2\.6 .*2\.1\.2"):
        export_onnx(read_stored(KINDS["av"](tmp_path / "model.pt")), tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A checkpoint of each kind, and its ONNX file beside it, which the exporter has compared with torch."""
    folder = tmp_path_factory.mktemp("onnx")
    found = {}
    for number, (kind, write) in enumerate(KINDS.items()):
        parent = folder / str(number)
        parent.mkdir()
        found[kind] = write(parent / "model.pt")
        assert main(["model", "convert", str(found[kind]), str(parent / "model.onnx")]) == 0
    return found


def part(frames: int, seed: int = 0) -> Part:
    rng = np.random.default_rng(seed)
    samples = rng.integers(-3000, 3000, frames * 640, dtype=np.int16)
    return Part(0.0, rng.integers(0, 256, (frames, 24, 24), dtype=np.uint8), samples)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize(("loudness", "atol"), [(5, 1e-4), (30000, 1e-4), (0, 2e-3)])
def test_filterbanks_of_whole_frames(normalize, loudness, atol):
    """In digital silence, whose deviation is zero, normalisation magnifies rounding."""
    wave = (loudness * np.sin(np.arange(640 * 7) * 0.1)).astype(np.int16)
    expected = audio_features(wave, None, normalize)
    found = FilterbankLayer(normalize)(torch.from_numpy(wave)[None])[0].T
    np.testing.assert_allclose(found.numpy(), expected, atol=atol, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("frames", [2, 47])
def test_any_length(files, kind, frames):
    path = files[kind]
    recogniser = OnnxRecogniser(path.with_suffix(".onnx"))
    network = network_of(read_stored(path))
    clip = part(frames)
    for streams in recogniser.stream_choices:
        given = (
            clip.samples if "audio" in streams else None,
            clip.frames if "video" in streams else None,
        )
        expected = log_probs_by_torch(network, *given)
        np.testing.assert_allclose(recogniser.log_probs(*given), expected, atol=1e-4, rtol=1e-4)


def test_the_transcript_is_that_of_the_checkpoint(files, tmp_path):
    """Text and confidence, of both streams, by the search that fairseq-generate uses."""
    write_split(tmp_path, "test", [30, 41])
    clips = read_manifest(tmp_path / "test.tsv")
    spec = RecogniserSpec(files["av"], search=SearchOptions(beam=5), device="cpu")
    expected = {each.id: each for each in spec.open().transcribe(clips)}
    recogniser = OnnxRecogniser(files["av"].with_suffix(".onnx"), beam=5)
    for clip in clips:
        samples, _ = soundfile.read(clip.audio, dtype="int16")
        (found,) = recogniser.recognise([Part(0, np.load(clip.video), samples)], ("audio", "video"))
        assert found.text == expected[clip.id].text
        assert found.confidence == pytest.approx(expected[clip.id].confidence, abs=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_word_times_lie_in_the_part(files, kind):
    recogniser = OnnxRecogniser(files[kind].with_suffix(".onnx"))
    (found,) = recogniser.recognise([part(40)], recogniser.streams, word_times=True)
    assert " ".join(word.word for word in found.words) == found.text
    assert all(0 <= word.start < word.end <= 40 / 25 and 0 <= word.score <= 1 for word in found.words)


def test_the_public_functions_take_the_file_too(files):
    samples, file = part(30).samples, files["waveform"].with_suffix(".onnx")
    assert av_ssl.transcribe(file, audio=samples).text == av_ssl.load(file).transcribe(audio=samples).text
    with pytest.raises(DataError, match=r"model\.onnx: an ONNX file gives text alone"):
        av_ssl.features(file, audio=samples)


def test_streams_of_another_model(files):
    recogniser = OnnxRecogniser(files["raven video"].with_suffix(".onnx"))
    assert list(recogniser.stream_choices) == [("video",)]
    with pytest.raises(DataError, match=r"model\.onnx: takes video, not audio"):
        recogniser.recognise([part(9)], ("audio",))
    with pytest.raises(MediaError, match=r"20x20 pixels are smaller than the 22 that .*model\.onnx"):
        recogniser.log_probs(None, np.zeros((9, 20, 20), np.uint8))
    with pytest.raises(MediaError, match=r"30x28 .*model\.onnx \(22 to 29\)"):
        recogniser.recognise([Part(0, np.zeros((9, 28, 30), np.uint8), None)], ("video",))


def test_a_part_that_is_too_short_has_no_words(files):
    recogniser = OnnxRecogniser(files["av"].with_suffix(".onnx"))
    (found,) = recogniser.recognise([part(1)], ("audio",), word_times=True)
    assert (found.text, found.words) == ("", ())


def damaged(path: Path, kind: str) -> None:
    if kind == "cut":
        path.write_bytes(path.read_bytes()[:-500])
    elif kind == "text":
        path.write_text("onnx")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "absent":
        path.unlink()
    else:
        proto = onnx.load(str(path))
        (entry,) = [entry for entry in proto.metadata_props if entry.key == kind.split()[0]]
        entry.value = "[[" if kind.endswith("no json") else json.dumps(["a"])
        onnx.save(proto, str(path))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("cut", "cannot be used by onnxruntime"),
        ("text", "cannot be used by onnxruntime"),
        ("empty", "cannot be used by onnxruntime"),
        ("absent", "no such file"),
        ("format", "no format 'av_ssl onnx 1'"),
        ("symbols", r"metadata are damaged \(1 symbols\)"),
        ("tokenizer", "metadata are damaged"),
        ("streams no json", "metadata are damaged"),
    ],
)
def test_damaged_files(files, tmp_path, kind, message):
    path = tmp_path / "model.onnx"
    path.write_bytes(files["av"].with_suffix(".onnx").read_bytes())
    damaged(path, kind)
    with pytest.raises(DataError, match=message) as error:
        OnnxRecogniser(path)
    assert "model.onnx" in str(error.value)
    assert "\n" not in str(error.value)


def test_what_cannot_be_converted(tmp_path, capsys):
    attention = write_recogniser(tmp_path / "attention.pt")
    assert main(["model", "convert", str(attention), str(tmp_path / "out.onnx")]) == 1
    assert "attention.pt: a model 'av_hubert_seq2seq' has no CTC head" in capsys.readouterr().err
    assert not (tmp_path / "out.onnx").exists()


def test_other_values_are_refused(files):
    path = files["waveform"]
    recogniser, network = OnnxRecogniser(path.with_suffix(".onnx")), network_of(read_stored(path))
    check_against_torch(recogniser, network)
    network.head.bias.data[5] += 1e-3
    with pytest.raises(DataError, match=r"model\.onnx: is not written, because for audio of 31 frames"):
        check_against_torch(recogniser, network)


@pytest.mark.parametrize("words", [["--task-option", "noise_prob=1"], ["--device", "cuda"]])
def test_options_that_an_onnx_file_cannot_follow(files, tmp_path, capsys, words):
    model, sound = files["av"].with_suffix(".onnx"), tmp_path / "sound.wav"
    soundfile.write(sound, part(50).samples, 16000)
    assert main(["transcribe", str(model), str(sound), *words]) == 1
    assert words[0] in capsys.readouterr().err


def test_the_command_needs_neither_torch_nor_fairseq(files, tmp_path):
    model, sound = files["av"].with_suffix(".onnx"), tmp_path / "sound.wav"
    clip = part(50)
    soundfile.write(sound, clip.samples, 16000)
    script = (
        "import sys\n"
        "for name in ('torch', 'fairseq', 'omegaconf', 'hydra', 'transformers'): sys.modules[name] = None\n"
        "from av_ssl.cli.main import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    words = ["transcribe", str(model), str(sound), "--words", "--format", "json"]
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (expected,) = OnnxRecogniser(model).recognise([clip], ("audio",), word_times=True)
    assert expected.text
    found = json.loads(done.stdout)
    assert [word["word"] for word in found["word_segments"]] == [word.word for word in expected.words]
