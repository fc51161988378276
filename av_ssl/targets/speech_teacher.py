"""Which layers of which speech model are a teacher's targets.

Whisper's log-mel spectrogram, on any device (Radford et al., 2022, section 2.2).

Frozen speech foundation models as teachers: WavLM, HuBERT, wav2vec 2.0, data2vec, the Whisper encoder.

What a clip's targets are must not depend on the company that it has in a batch: padding is masked where the
model can (a front-end with layer norm); clips of other lengths go through apart where it cannot (group norm
over time, data2vec's stacked positional convolutions); and Whisper hears every clip in its window of 30 s, of
which only the clip's frames count.

Opening a teacher's checkpoint with Hugging Face ``transformers``; nothing is downloaded.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from av_ssl.errors import DataError
from av_ssl.layout import FRAME_RATE, SAMPLE_RATE, SAMPLES_PER_FRAME
from av_ssl.targets.ema import averaged_targets, instance_norm

NORMS = ("instance", "none")
COMBINATIONS = ("average", "stack")


@dataclass(frozen=True)
class TeacherSpec:
    """A teacher and what is made of it.

    DistillAV averages eight layers of WavLM Large; which ones and how they are normalised is not public, so
    the defaults are our choice [ours].

    Args:
        model: name on the Hugging Face hub, or a local folder.
        layers: ``last``, ``all``, ``top:8``, ``17-24``, ``9`` or several of these with commas, from 1.
        norm: ``instance``: each layer and channel to zero mean and unit variance over the clip; ``none``.
        combine: ``average`` the layers, or ``stack`` their channels.

    Raises:
        DataError: a value is none of those.
    """

    model: str
    layers: str = "top:8"
    norm: str = "instance"
    combine: str = "average"

    def __post_init__(self) -> None:
        for key, value, known in (
            ("norm", self.norm, NORMS),
            ("combine", self.combine, COMBINATIONS),
        ):
            if value not in known:
                raise DataError(f"teacher {self.model}: {key} is {value!r}; take one of {', '.join(known)}")
        self._ranges(None)

    def settings(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    def chosen_layers(self, count: int) -> list[int]:
        """Layer numbers in order, of a model that has ``count``.

        Raises:
            DataError: the model lacks one of them.
        """
        return sorted({layer for part in self._ranges(count) for layer in part})

    def resolved(self, count: int) -> TeacherSpec:
        """The same for a model that has ``count``, with layers by number, in the one way to write them.

        Raises:
            DataError: the model lacks one of them.
        """
        chosen = self.chosen_layers(count)
        first, last = chosen[0], chosen[-1]
        contiguous = len(chosen) > 1 and len(chosen) == last - first + 1
        return replace(self, layers=f"{first}-{last}" if contiguous else ",".join(map(str, chosen)))

    def _ranges(self, count: int | None) -> list[range]:
        """Of a model whose number of layers may be unknown yet, so that only the form is read."""
        total = 10**6 if count is None else count
        try:
            parts = [_part(text, total) for text in self.layers.split(",")]
        except ValueError:
            raise DataError(
                f"teacher {self.model}: layers are {self.layers!r}; write last, all, top:8, 17-24, or 9,12,15"
            ) from None
        if any(not part or part[0] < 1 or part[-1] > total for part in parts):
            raise DataError(
                f"teacher {self.model}: layers are {self.layers!r}; "
                + ("they count from 1" if count is None else f"the model has layers 1 to {count}")
            )
        return parts


def _part(text: str, count: int) -> range:
    text = text.strip()
    if text == "last":
        return range(count, count + 1)
    if text == "all":
        return range(1, count + 1)
    if text.startswith("top:"):
        return range(count - int(text[4:]) + 1, count + 1)
    first, dash, last = text.partition("-")
    return range(int(first), int(last if dash else first) + 1)


FLOOR = 1e-10
RANGE = 8.0
"""Decades below a clip's loudest bin at which quieter ones are cut off."""


def log_mel(wave: Tensor, filters: Tensor, fft_size: int, hop: int) -> Tensor:
    """Spectrogram ``[B, M, N // hop]`` of samples float32 ``[B, N]`` on the scale of +-1.

    Args:
        filters: float32 ``[fft_size // 2 + 1, M]``.
        fft_size: samples of a window.
        hop: samples between windows.
    """
    window = torch.hann_window(fft_size, device=wave.device)
    spectrum = torch.stft(wave, fft_size, hop, window=window, return_complex=True)
    power = spectrum[..., :-1].abs().square()
    log_spectrum = (filters.T @ power).clamp(min=FLOOR).log10()
    loudest = log_spectrum.amax(dim=(1, 2), keepdim=True)
    return (torch.maximum(log_spectrum, loudest - RANGE) + 4.0) / 4.0


FULL_SCALE = 32768.0
VARIANCE_FLOOR = 1e-7
"""Of normalised waveforms, as the models' own feature extractors have it."""

Rows = list[int] | slice


class SpeechTeacher:
    """Targets of waveforms: some layers' outputs, normalised, then averaged or stacked.

    It is not an ``nn.Module`` on purpose, and so never part of a student's parameters, distributed wrapper or
    checkpoint.  Layer l is the output of the l-th block; the last one is taken behind the final layer norm
    that a pre-norm model has.

    Args:
        model: of ``transformers``, with ``config``; its Transformer has ``layers``.
        spec: what is made of it.

    Attributes:
        dim: channels D of a target.
        per_frame: targets a video frame, r.
        missing: targets that a clip of T frames has fewer than r T, because the last window does not fill.
    """

    per_frame: int
    missing: int

    def __init__(self, model: Any, spec: TeacherSpec) -> None:
        self.spec = spec
        self.dtype = torch.float32
        self.model = model.float().eval().requires_grad_(False)
        self.layers = spec.chosen_layers(len(self.blocks))
        self.depth = len(self.blocks)
        del self.blocks[self.layers[-1] :]  # no need to run what lies above
        self.heard: dict[int, Tensor] = {}
        for number, block in enumerate(self.blocks, start=1):
            if number in self.layers:
                block.register_forward_hook(self._keep(number))
        channels = int(model.config.hidden_size)
        self.dim = channels * (len(self.layers) if spec.combine == "stack" else 1)

    def to(self, device: torch.device | str, dtype: torch.dtype) -> SpeechTeacher:
        """Move to a device and a precision; returns the teacher itself."""
        self.model.to(device, dtype)
        self.dtype = dtype
        return self

    @property
    def blocks(self) -> nn.ModuleList:
        """The Transformer's layers."""
        raise NotImplementedError

    def run(self, wave: Tensor, lengths: Sequence[int]) -> Tensor:
        """Run the model on samples float32 ``[B, N]``; returns its output behind the final layer norm."""
        raise NotImplementedError

    def batches(self, lengths: Sequence[int]) -> Iterator[Rows]:
        """Clips that go through together."""
        yield slice(None)

    @torch.no_grad()
    def __call__(self, waveform: Tensor, lengths: Sequence[int]) -> Tensor:
        """Targets of clean speech.

        Args:
            waveform: int16 ``[B, 640 T]``, 16 kHz.
            lengths: real video frames of each clip, at most T.

        Returns:
            float32 ``[B, r T, D]``; a clip of n frames has ``r n - missing`` targets, zeros behind them.
        """
        clips, frames = len(waveform), waveform.size(1) // SAMPLES_PER_FRAME
        targets = torch.zeros(clips, frames * self.per_frame, self.dim, device=waveform.device)
        for rows in self.batches(lengths):
            part = lengths[rows] if isinstance(rows, slice) else [lengths[row] for row in rows]
            longest = max(part)
            wave = waveform[rows, : longest * SAMPLES_PER_FRAME].float() / FULL_SCALE
            with torch.autocast(wave.device.type, enabled=False):
                targets[rows, : longest * self.per_frame] = self._targets(wave, part)
        return targets

    def _targets(self, wave: Tensor, lengths: Sequence[int]) -> Tensor:
        final = self.run(wave, lengths)
        if self.layers[-1] == self.depth:
            self.heard[self.depth] = final
        span = max(lengths) * self.per_frame
        layers = [fit_length(self.heard[number], span) for number in self.layers]
        self.heard.clear()
        counts = [length * self.per_frame - self.missing for length in lengths]
        padding = positions(span, wave.device) >= on_device(counts, wave.device)[:, None]
        normalize = self.spec.norm == "instance"
        if self.spec.combine == "stack":
            layers = [torch.cat([instance_norm(x, padding) if normalize else x for x in layers], dim=-1)]
            normalize = False
        targets = averaged_targets(layers, padding, normalize)
        return targets.masked_fill(padding[..., None], 0.0)

    def _keep(self, number: int) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            self.heard[number] = output[0] if isinstance(output, tuple) else output

        return hook


class WaveformTeacher(SpeechTeacher):
    """wav2vec 2.0 and its kin: convolutions on the waveform, 50 Hz, 2T - 1 targets of T frames.

    Args:
        normalize: bring each clip to zero mean and unit variance, as the checkpoint's feature extractor says.
    """

    def __init__(self, model: Any, spec: TeacherSpec, normalize: bool) -> None:
        super().__init__(model, spec)
        self.normalize = normalize
        config = model.config
        data2vec = config.model_type == "data2vec-audio"
        self.alone = data2vec or config.feat_extract_norm == "group"
        self.per_frame = targets_a_frame(math.prod(config.conv_stride), spec)
        frames = 100
        self.missing = frames * self.per_frame - convolved(
            frames * SAMPLES_PER_FRAME, config.conv_kernel, config.conv_stride
        )

    @property
    def blocks(self) -> nn.ModuleList:
        blocks: nn.ModuleList = self.model.encoder.layers
        return blocks

    def batches(self, lengths: Sequence[int]) -> Iterator[Rows]:
        if not self.alone or len(set(lengths)) == 1:
            yield slice(None)
            return
        for length in sorted(set(lengths)):
            yield [row for row, other in enumerate(lengths) if other == length]

    def run(self, wave: Tensor, lengths: Sequence[int]) -> Tensor:
        samples = on_device([length * SAMPLES_PER_FRAME for length in lengths], wave.device)[:, None]
        real = positions(wave.size(1), wave.device) < samples
        if self.normalize:
            mean = (wave * real).sum(1, keepdim=True) / samples
            variance = ((wave - mean).square() * real).sum(1, keepdim=True) / samples
            wave = (wave - mean) * (variance + VARIANCE_FLOOR).rsqrt()
        mask = None if len(set(lengths)) == 1 else real.long()
        output: Tensor = self.model((wave * real).to(self.dtype), attention_mask=mask).last_hidden_state
        return output


class WhisperTeacher(SpeechTeacher):
    """Whisper's encoder: log-mel of a window of 30 s, 50 Hz, of which a clip of T frames takes the first 2T.

    A longer clip is heard in several windows, one after another [ours].

    Args:
        extractor: the checkpoint's feature extractor: window, hop, filters.
    """

    missing = 0

    def __init__(self, model: Any, spec: TeacherSpec, extractor: Any) -> None:
        super().__init__(model, spec)
        self.window = int(extractor.n_samples)
        self.fft_size, self.hop = int(extractor.n_fft), int(extractor.hop_length)
        self.filters = torch.as_tensor(extractor.mel_filters, dtype=torch.float32)
        self.per_frame = targets_a_frame(self.hop * model.conv1.stride[0] * model.conv2.stride[0], spec)

    @property
    def blocks(self) -> nn.ModuleList:
        blocks: nn.ModuleList = self.model.layers
        return blocks

    def run(self, wave: Tensor, lengths: Sequence[int]) -> Tensor:
        samples = on_device([length * SAMPLES_PER_FRAME for length in lengths], wave.device)[:, None]
        wave = wave * (positions(wave.size(1), wave.device) < samples)
        windows = math.ceil(wave.size(1) / self.window)
        wave = nn.functional.pad(wave, (0, windows * self.window - wave.size(1)))
        wave = wave.reshape(-1, self.window)
        self.filters = self.filters.to(wave.device)
        mel = log_mel(wave, self.filters, self.fft_size, self.hop)
        output: Tensor = self.model(mel.to(self.dtype)).last_hidden_state
        # The windows of a clip one after another.
        self.heard = {number: x.reshape(len(lengths), -1, x.size(-1)) for number, x in self.heard.items()}
        return output.reshape(len(lengths), -1, output.size(-1))


def targets_a_frame(stride: int, spec: TeacherSpec) -> int:
    """r, of a model that makes a vector of every ``stride`` samples.

    Raises:
        DataError: its frames do not fall on video frames.
    """
    if SAMPLES_PER_FRAME % stride:
        raise DataError(
            f"teacher {spec.model}: makes {SAMPLE_RATE / stride:.2f} vectors a second, which is no multiple "
            f"of the {FRAME_RATE} video frames; it cannot be a teacher here"
        )
    return SAMPLES_PER_FRAME // stride


def convolved(samples: int, kernels: Sequence[int], strides: Sequence[int]) -> int:
    """Length of the output of a stack of convolutions without padding."""
    for kernel, stride in zip(kernels, strides, strict=True):
        samples = (samples - kernel) // stride + 1
    return samples


def fit_length(x: Tensor, length: int) -> Tensor:
    """``[B, S, C]`` cut, or filled with zeros, to ``[B, length, C]``."""
    return nn.functional.pad(x[:, :length], (0, 0, 0, max(0, length - x.size(1))))


def positions(length: int, device: torch.device) -> Tensor:
    return torch.arange(length, device=device)


def on_device(numbers: list[int], device: torch.device) -> Tensor:
    """Without waiting for the device."""
    return torch.tensor(numbers).to(device, non_blocking=True)


WAVEFORM_MODELS = ("wavlm", "hubert", "wav2vec2", "data2vec-audio")
WHISPER = "whisper"
MASK_EMBEDDING = "masked_spec_embed"
NAMED_IN_ERROR = 5


def load_teacher(spec: TeacherSpec) -> SpeechTeacher:
    """The teacher on the CPU in float32, frozen and in eval mode.

    Raises:
        DataError: ``transformers`` is not installed; the checkpoint is neither a folder nor in the Hugging
            Face cache, incomplete, of another kind, made for another sampling rate, or lacks the layers.
    """
    transformers = import_transformers()
    options = {"local_files_only": True}
    try:
        config = transformers.AutoConfig.from_pretrained(spec.model, **options)
        if config.model_type not in (*WAVEFORM_MODELS, WHISPER):
            raise DataError(
                f"teacher {spec.model}: is a {config.model_type} model; those that can teach are "
                f"{', '.join((*WAVEFORM_MODELS, WHISPER))}"
            )
        extractor = transformers.AutoFeatureExtractor.from_pretrained(spec.model, **options)
        model, found = transformers.AutoModel.from_pretrained(spec.model, output_loading_info=True, **options)
    except (OSError, ValueError, RuntimeError) as error:  # the last one where shapes differ
        if isinstance(error, DataError):
            raise
        raise DataError(_unusable(spec, error)) from error
    _check_complete(spec, model, found)
    return make_teacher(model, extractor, spec)


def make_teacher(model: Any, extractor: Any, spec: TeacherSpec) -> SpeechTeacher:
    """A teacher from a model of ``transformers`` and its feature extractor.

    Raises:
        DataError: see :func:`load_teacher`.
    """
    if int(extractor.sampling_rate) != SAMPLE_RATE:
        raise DataError(
            f"teacher {spec.model}: hears {extractor.sampling_rate} Hz; the clips have {SAMPLE_RATE} Hz"
        )
    if model.config.model_type == WHISPER:
        return WhisperTeacher(model.get_encoder(), spec, extractor)
    return WaveformTeacher(model, spec, bool(extractor.do_normalize))


def import_transformers() -> Any:
    """The package; raises DataError where it is not installed."""
    try:
        import transformers
    except ModuleNotFoundError as error:
        if error.name != "transformers":
            raise
        raise DataError("transformers is not installed; pip install 'av_ssl[teachers]'") from error
    return transformers


def weights_digest(model: nn.Module) -> str:
    """SHA-256 over all tensors' values, in hexadecimal; names and their order do not count, since they change
    with the version of ``transformers``."""
    parts = []
    for tensor in model.state_dict().values():
        values = tensor.detach().cpu().float().contiguous().numpy()
        parts.append(hashlib.sha256(values.tobytes()).digest())
    return hashlib.sha256(b"".join(sorted(parts))).hexdigest()


def _check_complete(spec: TeacherSpec, model: Any, found: Mapping[str, Iterable[str]]) -> None:
    """Raise DataError when the checkpoint lacks tensors that the teacher uses: they would be random ones.

    Args:
        found: names of tensors, ``missing_keys`` and ``unexpected_keys``.
    """
    missing, unexpected = set(found["missing_keys"]), set(found["unexpected_keys"])
    if model.config.model_type == WHISPER:
        missing = {name for name in missing if name.startswith("encoder.")}
    elif MASK_EMBEDDING in missing:
        # Some checkpoints lack it.  Teachers do not mask, and with random values their digest would change.
        model.masked_spec_embed = None
        missing.remove(MASK_EMBEDDING)
    missing = {name for name in missing if not _has_old_name(name, unexpected)}
    if missing:
        some = ", ".join(sorted(missing)[:NAMED_IN_ERROR])
        raise DataError(
            f"teacher {spec.model}: the checkpoint lacks {len(missing)} of its tensors ({some}), which would "
            "be random; fetch it again, or take one that is complete"
        )


def _has_old_name(tensor: str, others: Iterable[str]) -> bool:
    """Whether a weight-normed tensor is there by its old name.

    torch takes it by that one, although some versions of ``transformers`` call it missing.
    """
    for number, old in enumerate(("weight_g", "weight_v")):
        stem = tensor.removesuffix(f"parametrizations.weight.original{number}")
        if stem != tensor:
            return any(other.endswith(stem + old) for other in others)
    return False


def _unusable(spec: TeacherSpec, error: Exception) -> str:
    reason = str(error).partition("\n")[0]
    if Path(spec.model).is_dir():
        return (
            f"teacher {spec.model}: cannot be loaded ({reason}); the folder needs config.json, "
            "preprocessor_config.json and the weights"
        )
    if isinstance(error, OSError):
        return (
            f"teacher {spec.model}: is neither a folder nor in the Hugging Face cache ({reason}); fetch it "
            f"with `hf download {spec.model}`, or name a folder that holds it"
        )
    return (
        f"teacher {spec.model}: cannot be loaded from the Hugging Face cache ({reason}); take a model that "
        "teachers can be made of, or a newer transformers"
    )
