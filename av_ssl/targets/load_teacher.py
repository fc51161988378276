"""Opening a teacher's checkpoint with Hugging Face ``transformers``; nothing is downloaded."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from av_ssl.data.reading import SAMPLE_RATE
from av_ssl.errors import DataError
from av_ssl.targets.speech_teacher import SpeechTeacher, WaveformTeacher, WhisperTeacher
from av_ssl.targets.teacher_spec import TeacherSpec

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
