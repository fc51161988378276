"""The encoder inside any model of this package, whose layers can be looked at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from av_ssl.data.clip_reader import STREAMS
from av_ssl.errors import DataError
from av_ssl.models.av_encoder import AudioVisualEncoder, Source
from av_ssl.models.clip_encoder import FrontEnds
from av_ssl.models.raven_encoder import RavenEncoder

Layered = AudioVisualEncoder | RavenEncoder | FrontEnds


@dataclass(frozen=True)
class LayeredEncoder:
    """An encoder, and the streams that it is to be given.

    Args:
        encoder: in eval mode, on its device.
        streams: of `audio` and `video`.
    """

    encoder: Layered
    streams: tuple[str, ...]

    @property
    def depth(self) -> int:
        """Layers of its Transformer; 0 where there is none."""
        if isinstance(self.encoder, FrontEnds):
            return 0
        return len(self.encoder.layer_stack()[0])

    @property
    def channels(self) -> int:
        """C."""
        if isinstance(self.encoder, AudioVisualEncoder | RavenEncoder):
            return int(self.encoder.cfg.encoder_embed_dim)
        return cast(FrontEnds, self.encoder).output_dim

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.encoder.parameters()).device

    @torch.inference_mode()
    def layers(self, source: Source, wanted: tuple[int, ...]) -> Tensor:
        """Layers of one clip, float32 `[T, L, C]`; 0 is the input of the Transformer.

        Args:
            source: a batch of one, unpadded.
            wanted: layers, in the order in which they are to come.
        """
        states = self.encoder.hidden_states(source, None, last=max(wanted))
        return torch.stack([states[number][0].float() for number in wanted], dim=1)


def find_encoder(model: nn.Module, modalities: str | None, origin: str) -> LayeredEncoder:
    """The encoder of a loaded model (see :func:`~av_ssl.models.loading.load`).

    Args:
        model: pre-trained, fine-tuned, or a classifier.
        modalities: `audio`, `video`, `av`; None: what the model was trained with, all where that is unknown.
        origin: the checkpoint, for messages.

    Raises:
        DataError: the model has no encoder, several of which none is chosen, or none for these streams.
    """
    found = [part for part in model.modules() if isinstance(part, Layered)]
    choices = {streams: encoder for encoder in reversed(found) for streams in possible_streams(encoder)}
    if not choices:
        raise DataError(f"{origin}: {type(model).__name__} has no encoder whose layers can be read")
    stored = stored_modalities(getattr(model, "task_cfg", {}))
    # What the task had may be more than the model takes, as LUPI's students take sound alone.
    only = next(iter(choices)) if len(choices) == 1 else STREAMS["av"]
    wanted = STREAMS.get(modalities or stored or "", only)
    if modalities is None and wanted not in choices:
        wanted = only
    if wanted not in choices:
        names = [name for name, streams in STREAMS.items() if streams in choices]
        asked = f"--modalities {modalities}: " if modalities else "name --modalities: "
        raise DataError(
            f"{asked}{type(model).__name__} of {origin} has an encoder of {' and one of '.join(names)}"
        )
    return LayeredEncoder(choices[wanted], wanted)


def possible_streams(encoder: Layered) -> list[tuple[str, ...]]:
    """What an encoder can be given: fused ones any stream that they have a front-end for."""
    if isinstance(encoder, RavenEncoder):
        return [(encoder.modality,)]
    if isinstance(encoder, FrontEnds):
        return [tuple(stream for stream in STREAMS["av"] if getattr(encoder, stream) is not None)]
    has = {s for s in STREAMS["av"] if getattr(encoder, f"feature_extractor_{s}") is not None}
    return [streams for streams in STREAMS.values() if has.issuperset(streams)]


def stored_modalities(task_cfg: Mapping[str, Any]) -> str | None:
    """`audio`, `video` or `av` by a stored task, ours or AV-HuBERT's; None where it does not say."""
    stored = task_cfg.get("modalities")
    for name, streams in STREAMS.items():
        if stored == name or (isinstance(stored, list) and sorted(stored) == sorted(streams)):
            return name
    return None
