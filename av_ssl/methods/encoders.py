"""The encoder in a pre-trained model that fine-tuning starts from: a fused one, or RAVEn's of one stream."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fairseq.dataclass import FairseqDataclass
from torch import Tensor, nn

from av_ssl.checkpoints.files import CheckpointError
from av_ssl.checkpoints.stored import compare, pretraining_only
from av_ssl.methods.fused_encoder import AudioVisualEncoder, AudioVisualEncoderConfig
from av_ssl.methods.raven.encoder import MODALITIES, RavenEncoder, RavenEncoderConfig
from av_ssl.targets.ema import under_prefix

logger = logging.getLogger(__name__)

Encoder = AudioVisualEncoder | RavenEncoder


@dataclass(frozen=True)
class EncoderFamily:
    """Methods whose checkpoints hold the same kind of encoder in the same place.

    Attributes:
        holds: what that is, for messages.
        config: the encoder's configuration; its keys are among the pre-trained model's.
        build: makes the encoder from configuration and stream.
        left_behind: gives prefixes of tensors that are not taken: these parts start at random in fine-tuning.
        prefix: before the encoder's names; ``{}`` is the stream.
        single_stream: whether the encoder takes one stream only.
    """

    holds: str
    config: type[FairseqDataclass]
    build: Callable[[Any, str], Encoder]
    left_behind: Callable[[], tuple[str, ...]]
    prefix: str = ""
    single_stream: bool = False

    def choose_stream(self, model_cfg: Mapping[str, Any], modalities: str, path: str) -> str | None:
        """The stream of the encoder that a task of these ``modalities`` needs; None for fused encoders.

        Raises:
            CheckpointError: the checkpoint at ``path`` has no such encoder.
        """
        if not self.single_stream:
            return None
        streams = [model_cfg["modality"]] if "modality" in model_cfg else list(MODALITIES)
        if modalities not in streams:
            either = " or ".join(streams)
            raise CheckpointError(
                f"task.modalities={modalities}, but {path} holds {self.holds} of one stream ({either}): set "
                f"task.modalities={either}"
            )
        return modalities

    def taken(self, tensors: Mapping[str, Tensor], stream: str | None) -> dict[str, Tensor]:
        """Those of a pre-trained model's tensors that fine-tuning starts from, under the encoder's names."""
        prefix = self.prefix.format(stream)
        return self.kept(under_prefix(tensors, prefix))

    def kept(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The encoder's tensors without what is left behind."""
        left_behind = self.left_behind()
        return {name: value for name, value in tensors.items() if not name.startswith(left_behind)}


FUSED = EncoderFamily(
    "a fused audio-visual encoder (av_hubert, av2vec, distillav)",
    AudioVisualEncoderConfig,
    lambda cfg, stream: AudioVisualEncoder(cfg),
    pretraining_only,
)
# RAVEn's final norm is not transferred, as in the authors' program.
RAVEN_ENCODER = EncoderFamily(
    "RAVEn's encoder", RavenEncoderConfig, RavenEncoder, lambda: ("after_norm.",), single_stream=True
)
RAVEN_STUDENTS = EncoderFamily(
    "RAVEn's encoders", RavenEncoderConfig, RavenEncoder, lambda: ("after_norm.",), "{}_student.", True
)
FAMILIES = {"raven_encoder": RAVEN_ENCODER, "raven": RAVEN_STUDENTS, "braven": RAVEN_STUDENTS}
"""By the pre-trained model's name; any other's encoder is fused."""


def family_of(model_cfg: Mapping[str, Any]) -> EncoderFamily:
    """The family of a stored model's configuration."""
    return FAMILIES.get(str(model_cfg.get("_name")), FUSED)


def load_pretrained(
    encoder: Encoder,
    path: str,
    tensors: Mapping[str, Tensor],
    family: EncoderFamily = FUSED,
    stream: str | None = None,
) -> None:
    """Load a pre-training checkpoint's tensors into the encoder; what is left behind stays at random.

    Args:
        family, stream: which encoder the checkpoint holds, and which of several.

    Raises:
        CheckpointError: tensors are missing, left over or of another shape: the checkpoint is of another
            method.
    """
    own, wanted = family.kept(nn.Module.state_dict(encoder)), family.taken(tensors, stream)
    found = compare(own, wanted)
    if any(found):
        raise CheckpointError(f"{path} does not hold {family.holds} of this configuration: {found}")
    nn.Module.load_state_dict(encoder, wanted, strict=False)
    logger.info("loaded %d tensors of %s; %d left behind", len(wanted), path, len(tensors) - len(wanted))
