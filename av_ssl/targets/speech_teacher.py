"""Frozen speech foundation models as teachers: WavLM, HuBERT, wav2vec 2.0, data2vec, the Whisper encoder.

A clip's targets must not depend on the other clips in the batch.  Padding is masked where the model can (a
front-end with layer norm).  Where it cannot (group norm over time, data2vec's stacked positional
convolutions), clips of different lengths are run separately.  Whisper gets every clip in its window of 30 s,
of which only the clip's frames count.

Checkpoints are opened with Hugging Face ``transformers``; nothing is downloaded.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from av_ssl.data.clip_reader import samples_of
from av_ssl.data.reading import frame_waveform
from av_ssl.device import device_of
from av_ssl.errors import DataError, MediaError, optional_package
from av_ssl.layout import FRAME_RATE, SAMPLE_RATE, SAMPLES_PER_FRAME
from av_ssl.manifest import Clip
from av_ssl.modules.convolution import right_convolutions
from av_ssl.targets.ema import averaged_targets, instance_norm

NORMS = ("instance", "none")
COMBINATIONS = ("average", "stack")
PRECISIONS = ("float32", "bfloat16", "float16")
WAVEFORM_MODELS = ("wavlm", "hubert", "wav2vec2", "data2vec-audio")
WHISPER = "whisper"
MASK_EMBEDDING = "masked_spec_embed"
NAMED_IN_ERROR = 5
FULL_SCALE = 32768.0
VARIANCE_FLOOR = 1e-7
"""Of normalised waveforms, as the models' own feature extractors have it."""
LEAST_CLIPS = 0.1
"""Share of the clips that must be as long for a mean."""
POWER_FLOOR = 1e-10
DECADES = 8.0
"""Whisper cuts off what is quieter than a clip's loudest bin by more than this."""

Rows = list[int] | slice


# -- which teacher -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TeacherSpec:
    """A teacher, its targets and where it runs; a :class:`~av_ssl.targets.feature_shards.FeatureSource`.

    DistillAV averages eight layers of WavLM Large; which ones and how they are normalised is not public, so
    the defaults are our choice [ours].

    Args:
        model: name on the Hugging Face hub, or a local folder.
        layers: ``last``, ``all``, ``top:8``, ``17-24``, ``9`` or several of these with commas, from 1.
        norm: ``instance``: each layer and channel to zero mean and unit variance over the clip; ``none``.
        combine: ``average`` the layers, or ``stack`` their channels.
        device: ``cpu``, or ``cuda``: the GPUs of the machine take turns.
        precision: ``float32``, ``bfloat16`` or ``float16``; ``auto``: bfloat16 where the device computes it
            fast (see ``computes_bfloat16``), else float32.
        positions: file of `position_means`, which are subtracted from the targets; the rest is normalised
            again. None: nothing is [ours].
    """

    model: str
    layers: str = "top:8"
    norm: str = "instance"
    combine: str = "average"
    device: str = "cpu"
    precision: str = "float32"
    positions: Path | None = None

    streams: ClassVar[tuple[str, ...]] = ("audio",)

    def __post_init__(self) -> None:
        if self.precision == "auto":
            chosen = "bfloat16" if computes_bfloat16(self.device) else "float32"
            object.__setattr__(self, "precision", chosen)
        for key, known in (("norm", NORMS), ("combine", COMBINATIONS), ("precision", PRECISIONS)):
            if (value := getattr(self, key)) not in known:
                raise DataError(f"teacher {self.model}: {key} is {value!r}; choose one of {', '.join(known)}")
        self._ranges(None)

    @property
    def rate(self) -> int:
        return self._on_cpu().per_frame * FRAME_RATE

    def recipe(self) -> dict[str, str]:
        """What decides the targets of a given checkpoint, as a teacher's folder keeps it."""
        recipe = {key: getattr(self, key) for key in ("model", "layers", "norm", "combine")}
        return recipe if self.positions is None else {**recipe, "positions": self.positions.name}

    def settings(self) -> dict[str, Any]:
        """What decides the targets, and their sizes; the checkpoint counts by its content."""
        teacher = self._on_cpu()
        return {
            "teacher": self.resolved(teacher.depth).recipe(),
            "weights": teacher.weights,
            "precision": self.precision,
            "dim": teacher.dim,
            "per_frame": teacher.per_frame,
            "missing": teacher.missing,
        }

    def open(self, rank: int = 0) -> SpeechTeacher:
        return _open(self, device_of(self.device, rank))

    def _on_cpu(self) -> SpeechTeacher:
        return replace(self, device="cpu", precision="float32").open()

    def chosen_layers(self, count: int) -> list[int]:
        """Layer numbers in order, of a model that has ``count``; raise DataError if it lacks one."""
        return sorted({layer for part in self._ranges(count) for layer in part})

    def resolved(self, count: int) -> TeacherSpec:
        """The same for a model of ``count`` layers, with layers by number in the one way to write them."""
        chosen = self.chosen_layers(count)
        first, last = chosen[0], chosen[-1]
        contiguous = len(chosen) > 1 and len(chosen) == last - first + 1
        return replace(self, layers=f"{first}-{last}" if contiguous else ",".join(map(str, chosen)))

    def _ranges(self, count: int | None) -> list[range]:
        """Ranges of layers; if the number of layers is not known yet, only the form is checked."""
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


def computes_bfloat16(device: str) -> bool:
    """Whether its hardware multiplies matrices of bfloat16: a GPU from Ampere on, a CPU with AMX (Linux)."""
    if device != "cpu":
        return torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0)
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and "amx_bf16" in cpuinfo.read_text(encoding="utf-8")


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


@lru_cache(maxsize=1)
def _open(spec: TeacherSpec, device: str) -> SpeechTeacher:
    return load_teacher(spec).to(device, getattr(torch, spec.precision))


# -- teachers ------------------------------------------------------------------------------------------------


class SpeechTeacher:
    """Targets of waveforms: the outputs of some layers, normalised, then averaged or stacked.

    It is not an ``nn.Module`` on purpose, and so never part of a student's parameters, distributed wrapper or
    checkpoint.  Layer l is the output of the l-th block; the last one is taken after the final layer norm
    that a pre-norm model has.

    Args:
        model: of ``transformers``, with ``config``; its Transformer has ``layers``.
        spec: which layers, and how they are combined.

    Attributes:
        weights: digest of the model's values.
        layers: numbers of the chosen layers.
        depth: number of layers of the model.
        dim: channels D of a target.
        per_frame: targets a video frame, r.
        missing: a clip of T frames has r T - missing targets, because its last windows are incomplete.
    """

    per_frame: int
    missing: int

    def __init__(self, model: Any, spec: TeacherSpec) -> None:
        self.spec = spec
        self.dtype = torch.float32
        self.model = model.float().eval().requires_grad_(False)
        self.layers = spec.chosen_layers(len(self.blocks))
        self.depth = len(self.blocks)
        del self.blocks[self.layers[-1] :]  # no need to run the layers above
        self.weights = weights_digest(self.model)
        self.outputs: dict[int, Tensor] = {}
        for number, block in enumerate(self.blocks, start=1):
            if number in self.layers:
                block.register_forward_hook(self._keep(number))
        channels = int(model.config.hidden_size)
        self.dim = channels * (len(self.layers) if spec.combine == "stack" else 1)

    def to(self, device: torch.device | str, dtype: torch.dtype) -> SpeechTeacher:
        self.model.to(device, dtype)
        self.dtype = dtype
        return self

    @property
    def blocks(self) -> nn.ModuleList:
        raise NotImplementedError

    @cached_property
    def usual(self) -> Tensor:
        """The targets ``[P, D]`` of most clips at each position, from the first on."""
        try:
            return torch.from_numpy(np.load(str(self.spec.positions), allow_pickle=False))
        except (OSError, ValueError) as error:
            raise DataError(
                f"{self.spec.positions}: cannot be read ({error}); make the teacher's folder again"
            ) from error

    def run(self, wave: Tensor, lengths: Sequence[int]) -> Tensor:
        """Run the model on samples float32 ``[B, N]``; return its output after the final layer norm."""
        raise NotImplementedError

    def batches(self, lengths: Sequence[int]) -> Iterator[Rows]:
        yield slice(None)

    def of(self, clip: Clip) -> NDArray[np.float32]:
        """Targets ``[r T - missing, D]`` of a clip alone, so that they do not depend on the batch.

        T is the manifest's number of video frames. The waveform is cut or filled with silence to 640 T
        samples, as in training with teachers that run online. MediaError if the clip cannot be read or is too
        short.
        """
        wave = frame_waveform(samples_of(clip), clip.frames)
        count = len(wave) * self.per_frame - self.missing
        if count <= 0:
            raise MediaError(f"{clip.audio}: has {clip.frames} video frames in the manifest, too few")
        samples = torch.from_numpy(wave.reshape(1, -1)).to(next(self.model.parameters()).device)
        return self(samples, [len(wave)])[0, :count].cpu().numpy()

    @torch.no_grad()
    def __call__(self, waveform: Tensor, lengths: Sequence[int]) -> Tensor:
        """Targets of clean speech.

        Args:
            waveform: int16 ``[B, 640 T]``, 16 kHz.
            lengths: real video frames of each clip, at most T.

        Returns:
            float32 ``[B, r T, D]``; a clip of n frames has ``r n - missing`` targets, zeros after them.
        """
        clips, frames = len(waveform), waveform.size(1) // SAMPLES_PER_FRAME
        targets = torch.zeros(clips, frames * self.per_frame, self.dim, device=waveform.device)
        for rows in self.batches(lengths):
            part = lengths[rows] if isinstance(rows, slice) else [lengths[row] for row in rows]
            longest = max(part)
            wave = waveform[rows, : longest * SAMPLES_PER_FRAME].float() / FULL_SCALE
            with torch.autocast(wave.device.type, enabled=False), right_convolutions(wave.device):
                targets[rows, : longest * self.per_frame] = self._targets(wave, part)
        return targets

    def _targets(self, wave: Tensor, lengths: Sequence[int]) -> Tensor:
        final = self.run(wave, lengths)
        if self.layers[-1] == self.depth:
            self.outputs[self.depth] = final
        span = max(lengths) * self.per_frame
        layers = [fit_length(self.outputs[number], span) for number in self.layers]
        self.outputs.clear()
        counts = [length * self.per_frame - self.missing for length in lengths]
        padding = positions(span, wave.device) >= on_device(counts, wave.device)[:, None]
        normalize = self.spec.norm == "instance"
        if self.spec.combine == "stack":
            layers = [torch.cat([instance_norm(x, padding) if normalize else x for x in layers], dim=-1)]
            normalize = False
        targets = averaged_targets(layers, padding, normalize)
        if self.spec.positions is not None:
            usual = self.usual.to(targets.device)
            places = positions(span, targets.device).clamp(max=len(usual) - 1)
            targets = instance_norm(targets - usual[places], padding)
        return targets.masked_fill(padding[..., None], 0.0)

    def _keep(self, number: int) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            self.outputs[number] = output[0] if isinstance(output, tuple) else output

        return hook


def position_means(features: Iterable[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Means ``[P, D]`` of the targets ``[n, D]`` of clips at each of P positions from their starts.

    A model that adds positions to its input keeps them in its outputs (Whisper: 21 to 38 % of the variance of
    normalised layers on clips of 3 s), and clusters of clips of similar length are positions first. Beyond P
    there are less than a tenth of the clips; the last mean stands for all of them.
    """
    total, count = np.zeros((0, 0)), np.zeros(0)
    for one in features:
        if len(one) > len(count):
            more = len(one) - len(count)
            total = np.pad(total.reshape(len(count), one.shape[1]), ((0, more), (0, 0)))
            count = np.pad(count, (0, more))
        total[: len(one)] += one
        count[: len(one)] += 1
    enough = int((count >= LEAST_CLIPS * count.max(initial=0)).sum())
    means: NDArray[np.float32] = (total[:enough] / count[:enough, None]).astype(np.float32)
    return means


class WaveformTeacher(SpeechTeacher):
    """wav2vec 2.0 and similar models: convolutions on the waveform, 50 Hz, 2T - 1 targets of T frames.

    ``normalize`` brings each clip to zero mean and unit variance, as the checkpoint's feature extractor says.
    """

    def __init__(self, model: Any, spec: TeacherSpec, normalize: bool) -> None:
        super().__init__(model, spec)
        self.normalize = normalize
        config = model.config
        data2vec = config.model_type == "data2vec-audio"
        self.one_length_only = data2vec or config.feat_extract_norm == "group"
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
        if not self.one_length_only or len(set(lengths)) == 1:
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

    A longer clip is run in several windows, one after another [ours].
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
        mel = self.log_mel(wave.reshape(-1, self.window))
        output: Tensor = self.model(mel.to(self.dtype)).last_hidden_state
        # The windows of a clip one after another.
        self.outputs = {n: x.reshape(len(lengths), -1, x.size(-1)) for n, x in self.outputs.items()}
        return output.reshape(len(lengths), -1, output.size(-1))

    def log_mel(self, wave: Tensor) -> Tensor:
        """Whisper's spectrogram (Radford et al., 2022, section 2.2): ``[B, bands, N // hop]`` of samples
        float32 ``[B, N]``, scaled to +-1.
        """
        self.filters = self.filters.to(wave.device)
        window = torch.hann_window(self.fft_size, device=wave.device)
        spectrum = torch.stft(wave, self.fft_size, self.hop, window=window, return_complex=True)
        power = spectrum[..., :-1].abs().square()
        log_spectrum = (self.filters.T @ power).clamp(min=POWER_FLOOR).log10()
        loudest = log_spectrum.amax(dim=(1, 2), keepdim=True)
        return (torch.maximum(log_spectrum, loudest - DECADES) + 4.0) / 4.0


def targets_a_frame(stride: int, spec: TeacherSpec) -> int:
    """Targets a video frame of a model that computes a vector of every ``stride`` samples."""
    if SAMPLES_PER_FRAME % stride:
        raise DataError(
            f"teacher {spec.model}: computes {SAMPLE_RATE / stride:.2f} vectors a second, which is no "
            f"multiple of the {FRAME_RATE} video frames; it cannot be a teacher here"
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
    """A tensor of the numbers, without waiting for the device."""
    return torch.tensor(numbers).to(device, non_blocking=True)


# -- loading -------------------------------------------------------------------------------------------------


def load_teacher(spec: TeacherSpec) -> SpeechTeacher:
    """The teacher on the CPU in float32, frozen and in eval mode.

    Raises DataError if ``transformers`` is not installed, or the checkpoint is neither a folder nor in the
    Hugging Face cache, incomplete, of another kind, made for another sampling rate, or lacks the layers.
    """
    transformers = optional_package("transformers", "teachers")
    options = {"local_files_only": True}
    try:
        config = transformers.AutoConfig.from_pretrained(spec.model, **options)
        if config.model_type not in (*WAVEFORM_MODELS, WHISPER):
            raise DataError(
                f"teacher {spec.model}: is a {config.model_type} model; supported are "
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
    """A teacher from a model of ``transformers`` and its feature extractor; errors of load_teacher."""
    if int(extractor.sampling_rate) != SAMPLE_RATE:
        raise DataError(
            f"teacher {spec.model}: takes audio of {extractor.sampling_rate} Hz, the clips have "
            f"{SAMPLE_RATE} Hz; choose another model"
        )
    if model.config.model_type == WHISPER:
        return WhisperTeacher(model.get_encoder(), spec, extractor)
    return WaveformTeacher(model, spec, bool(extractor.do_normalize))


def weights_digest(model: nn.Module) -> str:
    """SHA-256 over the values of all tensors, in hexadecimal.

    Names and their order do not count, since they change with the version of ``transformers``.
    """
    parts = []
    for tensor in model.state_dict().values():
        values = tensor.detach().cpu().float().contiguous().numpy()
        parts.append(hashlib.sha256(values.tobytes()).digest())
    return hashlib.sha256(b"".join(sorted(parts))).hexdigest()


def _check_complete(spec: TeacherSpec, model: Any, found: Mapping[str, Iterable[str]]) -> None:
    """Raise DataError if the checkpoint lacks tensors that the teacher uses: they would be random."""
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
            "be random; download it again, or choose a complete one"
        )


def _has_old_name(tensor: str, others: Iterable[str]) -> bool:
    """Whether a weight-normed tensor is there by its old name.

    torch loads it by that one, although some versions of ``transformers`` report it as missing.
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
    if Path(spec.model).is_file():
        return f"teacher {spec.model}: is a file; name the folder of a Hugging Face model"
    if isinstance(error, OSError):
        return (
            f"teacher {spec.model}: is neither a folder nor in the Hugging Face cache ({reason}); download "
            f"it with `hf download {spec.model}`, or name a folder that holds it"
        )
    return (
        f"teacher {spec.model}: cannot be loaded from the Hugging Face cache ({reason}); choose one of "
        f"{', '.join((*WAVEFORM_MODELS, WHISPER))}, or install a newer transformers"
    )
