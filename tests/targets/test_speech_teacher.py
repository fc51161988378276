"""Teachers against the models that they are made of, and against themselves in other batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from av_ssl.errors import DataError
from av_ssl.targets import speech_teacher as load_module
from av_ssl.targets.speech_teacher import (
    SpeechTeacher,
    TeacherSpec,
    load_teacher,
    make_teacher,
    position_means,
    weights_digest,
)
from tests.modules.recorder import Recorder
from tests.targets.tiny_teachers import FAMILIES, WHISPER_SECONDS, save_teacher, tiny_teacher

pytest.importorskip("transformers")

EVERY = [*FAMILIES, "whisper"]


def teacher(family: str, layers: str = "top:2", dtype=torch.float32, **settings) -> SpeechTeacher:
    model, extractor = tiny_teacher(family)
    return make_teacher(model, extractor, TeacherSpec(family, layers, **settings)).to("cpu", dtype)


def waveform(lengths: list[int], frames: int | None = None) -> torch.Tensor:
    """Clips of noise whose loudness differs, zeros behind them."""
    rng = np.random.default_rng(0)
    batch = np.zeros((len(lengths), 640 * (frames or max(lengths))), np.int16)
    for row, (wave, length) in enumerate(zip(batch, lengths, strict=True)):
        wave[: 640 * length] = rng.normal(200, 500 * (row + 1), 640 * length)
    return torch.from_numpy(batch)


@torch.no_grad()
def hidden_states(family: str, wave: np.ndarray) -> list[torch.Tensor]:
    """Of transformers itself, from its own feature extractor: outputs of all layers ``[S, C]``."""
    model, extractor = tiny_teacher(family)
    inputs = extractor(wave.astype(np.float32) / 32768, sampling_rate=16000, return_tensors="pt")
    if family == "whisper":
        model = model.get_encoder()
        inputs = {"input_features": inputs["input_features"]}
    blocks = model.layers if family == "whisper" else model.encoder.layers
    seen: list[torch.Tensor] = []
    for block in blocks:
        block.register_forward_hook(
            lambda module, args, output: seen.append(output[0] if isinstance(output, tuple) else output)
        )
    last = model(**inputs).last_hidden_state
    return [x[0, : 2 * len(wave) // 640] for x in [*seen[:-1], last]]


@pytest.mark.parametrize("family", EVERY)
def test_targets_are_the_models_own_layers(family: str):
    wave = waveform([20])
    layers = hidden_states(family, wave[0].numpy())
    made = teacher(family, "1-3", norm="none", combine="stack")
    targets = made(wave, [20])[0]
    count = 2 * 20 - made.missing
    assert made.dim == targets.shape[1] == 48
    np.testing.assert_allclose(targets[:count], torch.cat(layers, dim=1)[:count], atol=2e-4)
    averaged = teacher(family, "2,3")(wave, [20])[0, :count]
    normal = [F.instance_norm(x[:count].T[None])[0].T for x in layers[1:]]
    np.testing.assert_allclose(averaged, (normal[0] + normal[1]) / 2, atol=2e-3)


@pytest.mark.parametrize("family", EVERY)
@pytest.mark.parametrize("frames", [5, 61])
def test_two_targets_a_frame_less_the_window_that_does_not_fill(family: str, frames: int):
    made = teacher(family, "1")
    targets = made(waveform([frames]), [frames])
    assert made.missing == (0 if family == "whisper" else 1)
    assert targets.shape == (1, 2 * frames, 16)
    absent = targets[0].abs().sum(1) == 0
    assert absent.tolist() == [False] * (2 * frames - made.missing) + [True] * made.missing


@pytest.mark.parametrize("family", EVERY)
def test_targets_do_not_depend_on_the_batch(family: str):
    """Neither on other clips, nor on padding, nor on the length of the batch."""
    lengths = [30, 12, 30, 21]
    wave = waveform(lengths, 40)
    made = teacher(family, "top:2")
    together = made(wave, lengths)
    for row, length in enumerate(lengths):
        alone = made(wave[row : row + 1, : 640 * length], [length])
        np.testing.assert_allclose(together[row, : 2 * length], alone[0], atol=2e-3)
        assert together[row, 2 * length :].abs().sum() == 0


def test_padding_is_silent_whatever_it_holds():
    lengths = [30, 12]
    wave = waveform(lengths)
    dirty = wave.clone()
    dirty[1, 640 * 12 :] = 9000
    for family in ("wavlm", "hubert", "whisper"):
        made = teacher(family)
        np.testing.assert_allclose(made(dirty, lengths), made(wave, lengths), atol=2e-3)


def test_layers_above_the_highest_wanted_do_not_run():
    low = teacher("wavlm", "1-2", norm="none", combine="stack")
    whole = teacher("wavlm", "1-3", norm="none", combine="stack")
    assert len(low.blocks) == 2
    wave = waveform([10])
    np.testing.assert_allclose(low(wave, [10]), whole(wave, [10])[..., :32], atol=1e-5)


def test_frozen_in_eval_mode_and_without_gradient():
    made = teacher("wav2vec2")
    assert not made.model.training
    assert not any(parameter.requires_grad for parameter in made.model.parameters())
    targets = made(waveform([10]), [10])
    assert not targets.requires_grad
    assert not targets.is_inference()  # a loss may save it for its backward pass
    assert torch.equal(targets, made(waveform([10]), [10]))


@pytest.mark.parametrize("family", ["wavlm", "whisper"])
def test_bfloat16_is_close(family: str):
    wave = waveform([40, 25])
    exact, rough = (
        teacher(family, dtype=dtype, norm="none")(wave, [40, 25]) for dtype in (torch.float32, torch.bfloat16)
    )
    assert rough.dtype == torch.float32
    error = (rough - exact).square().mean().sqrt() / exact.square().mean().sqrt()
    assert error < 0.05


def test_convolutions_that_bfloat16_gets_wrong_are_computed_in_float32():
    made = teacher("wavlm", dtype=torch.bfloat16)
    with Recorder() as recorder:
        made(waveform([40]), [40])
    positional = made.model.config.num_conv_pos_embeddings
    assert {dtype for dtype, kernel in recorder.seen if kernel[-1] == positional} == {torch.float32}
    assert torch.bfloat16 in recorder.dtypes


def test_whisper_gets_a_long_clip_in_several_windows():
    frames = 25 * WHISPER_SECONDS
    made = teacher("whisper", norm="none")
    wave = waveform([frames + 10, 20])
    targets = made(wave, [frames + 10, 20])
    assert targets.shape == (2, 2 * frames + 20, 16)
    first, rest = wave[:1, : 640 * frames], wave[:1, 640 * frames :]
    parts = torch.cat([made(first, [frames]), made(rest, [10])], dim=1)
    np.testing.assert_allclose(targets[:1], parts, atol=1e-4)
    np.testing.assert_allclose(targets[1, :40], made(wave[1:, : 640 * 20], [20])[0], atol=1e-4)


def test_position_means_of_clips_of_many_lengths():
    clips = [np.full((length, 2), value, np.float32) for length, value in [(3, 1), (2, 4), *[(1, 7)] * 18]]
    means = position_means(clips)
    np.testing.assert_allclose(means, [[6.55, 6.55], [2.5, 2.5]])  # of 20 clips one is longer than two frames
    assert means.dtype == np.float32
    assert position_means([]).shape[0] == 0


def test_what_clips_share_at_a_position_is_not_in_the_targets(tmp_path):
    lengths = [20, 20, 20, 12]
    plain, wave = teacher("whisper"), waveform(lengths)
    targets = plain(wave, lengths)
    np.save(tmp_path / "positions.npy", position_means([x[:24].numpy() for x in targets]))
    removed = teacher("whisper", positions=tmp_path / "positions.npy")(wave, lengths)
    usual = torch.from_numpy(np.load(tmp_path / "positions.npy"))
    expected = targets[0, :40] - usual[np.minimum(np.arange(40), 23)]
    expected = (expected - expected.mean(0)) / (expected.var(0, correction=0) + 1e-5).sqrt()
    np.testing.assert_allclose(removed[0, :40], expected, atol=1e-4)
    assert not removed[3, 24:].any()
    before, after = (x[:, :24].mean(0).square().mean() for x in (targets, removed))
    assert after < 0.3 * before


def test_a_file_of_positions_that_is_gone(tmp_path):
    with pytest.raises(DataError, match=r"positions\.npy: .*make the teacher's folder again"):
        teacher("hubert", positions=tmp_path / "positions.npy")(waveform([8]), [8])


@pytest.mark.parametrize(
    ("text", "chosen", "written"),
    [
        ("top:8", [*range(17, 25)], "17-24"),
        ("last", [24], "24"),
        ("9-11", [9, 10, 11], "9-11"),
        ("15,9", [9, 15], "9,15"),
        ("last,3,3-4", [3, 4, 24], "3,4,24"),
        ("all", [*range(1, 25)], "1-24"),
    ],
)
def test_layers(text: str, chosen: list[int], written: str):
    """The same layers are written in one way."""
    assert TeacherSpec("m", text).chosen_layers(24) == chosen
    assert TeacherSpec("m", text).resolved(24) == TeacherSpec("m", written)


@pytest.mark.parametrize("text", ["", "some", "top", "top:x", "3-", "5-3", "4,5-3", "0", "0-3", "-1"])
def test_malformed_layers(text: str):
    with pytest.raises(DataError, match="teacher m: layers are"):
        TeacherSpec("m", text)


def test_layers_that_the_model_lacks():
    with pytest.raises(DataError, match="the model has layers 1 to 3"):
        teacher("wavlm", "4")
    with pytest.raises(DataError, match="the model has layers 1 to 3"):
        teacher("wavlm", "top:4")


def test_unknown_settings():
    with pytest.raises(DataError, match="norm is 'batch'; choose one of instance, none"):
        TeacherSpec("m", norm="batch")
    with pytest.raises(DataError, match="combine is 'sum'"):
        TeacherSpec("m", combine="sum")
    with pytest.raises(DataError, match="precision is 'nn'"):  # it may be read from a folder of others
        TeacherSpec("m", precision="nn")


@pytest.mark.parametrize("family", ["hubert", "whisper"])
def test_loads_from_a_folder(tmp_path, family: str):
    folder = save_teacher(tmp_path / "teacher", family)
    loaded = load_teacher(TeacherSpec(str(folder), "top:2"))
    wave = waveform([15])
    assert torch.equal(loaded(wave, [15]), teacher(family)(wave, [15]))


def test_digest_knows_the_weights_and_not_their_names():
    first, same, other = (tiny_teacher("hubert", seed)[0] for seed in (0, 0, 1))
    assert weights_digest(first) == weights_digest(same) != weights_digest(other)


def save_without(folder, family: str, *names: str):
    """A teacher's folder whose file of weights lacks some tensors."""
    from safetensors.torch import load_file, save_file

    path = save_teacher(folder, family) / "model.safetensors"
    tensors = load_file(path)
    absent = [name for name in tensors if name.startswith(names)]
    assert absent
    save_file({name: tensors[name] for name in tensors if name not in absent}, path, {"format": "pt"})
    return TeacherSpec(str(folder), "top:2")


@pytest.mark.parametrize(
    ("family", "lacking"),
    [
        ("hubert", "encoder.layers.1.attention.k_proj.weight"),
        ("hubert", "encoder.pos_conv_embed.conv"),
        ("whisper", "encoder.conv1.bias"),
    ],
)
def test_incomplete_checkpoints_are_refused(tmp_path, family: str, lacking: str):
    spec = save_without(tmp_path / "teacher", family, lacking)
    with pytest.raises(
        DataError, match=rf"the checkpoint lacks \d of its tensors \({lacking}.*would be random"
    ):
        load_teacher(spec)


def test_what_a_teacher_does_not_use_may_be_missing(tmp_path):
    """Whisper's decoder, and the vector that stands for masked frames."""
    decoder = save_without(tmp_path / "whisper", "whisper", "decoder.")
    wave = waveform([15])
    assert torch.equal(load_teacher(decoder)(wave, [15]), teacher("whisper")(wave, [15]))
    spec = save_without(tmp_path / "hubert", "hubert", "masked_spec_embed")
    loaded = load_teacher(spec)
    assert torch.equal(loaded(wave, [15]), teacher("hubert")(wave, [15]))
    torch.manual_seed(1)
    assert weights_digest(load_teacher(spec).model) == weights_digest(loaded.model)


def test_weight_norm_has_two_names():
    model = tiny_teacher("hubert")[0]
    kernel = "encoder.pos_conv_embed.conv"
    missing = [f"{kernel}.parametrizations.weight.original{k}" for k in (0, 1)]
    old = [f"hubert.{kernel}.weight_{k}" for k in "gv"]
    spec = TeacherSpec("m", "1")
    load_module._check_complete(spec, model, {"missing_keys": missing, "unexpected_keys": old})
    with pytest.raises(DataError, match=r"lacks 1 of its tensors \(encoder.pos_conv_embed"):
        load_module._check_complete(spec, model, {"missing_keys": missing, "unexpected_keys": old[:1]})
    other = {"missing_keys": [f"{kernel}.bias"], "unexpected_keys": [f"foreign.{kernel}.bias"]}
    with pytest.raises(DataError, match=r"lacks 1 of its tensors \(encoder.pos_conv_embed.conv.bias"):
        load_module._check_complete(spec, model, other)


def test_a_cached_model_that_cannot_be_loaded_is_not_reported_as_missing(monkeypatch):
    import transformers

    def refuse(*args: object, **options: object) -> None:
        raise ValueError("model type `newest` is not known")

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", refuse)
    with pytest.raises(DataError, match=r"cannot be loaded from the Hugging Face cache .*newest.*newer"):
        load_teacher(TeacherSpec("some/model"))


def test_checkpoints_that_cannot_teach(tmp_path):
    import transformers

    with pytest.raises(
        DataError, match=r"neither a folder nor in the Hugging Face cache .*hf download no/such"
    ):
        load_teacher(TeacherSpec("no/such"))
    with pytest.raises(DataError, match=r"cannot be loaded .*needs config.json"):
        load_teacher(TeacherSpec(str(tmp_path)))
    config = transformers.BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1)
    config.save_pretrained(tmp_path / "text")
    with pytest.raises(DataError, match="is a bert model; supported are wavlm, hubert"):
        load_teacher(TeacherSpec(str(tmp_path / "text")))
    model, extractor = tiny_teacher("hubert")
    extractor.sampling_rate = 8000
    with pytest.raises(DataError, match="audio of 8000 Hz"):
        make_teacher(model, extractor, TeacherSpec("m", "1"))
