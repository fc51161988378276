"""The encoder of a pre-trained model that fine-tuning starts from.

By default that is a fused one.  The class of a model with another kind of encoder says so in its attribute
``encoder_family``, as RAVEn's does.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fairseq.dataclass import FairseqDataclass
from fairseq.models import MODEL_REGISTRY
from torch import Tensor, nn

from av_ssl.checkpoints.files import CheckpointError
from av_ssl.checkpoints.stored import compare, parts, pretraining_only
from av_ssl.methods.encoder_model import EncoderModel
from av_ssl.methods.fused_encoder import AudioVisualEncoder, AudioVisualEncoderConfig
from av_ssl.targets.ema import under_prefix

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EncoderFamily:
    """Methods whose checkpoints hold the same kind of encoder in the same place.

    Attributes:
        holds: what that is, for messages.
        config: the encoder's configuration; its keys are among the pre-trained model's.
        build: makes the encoder from configuration and stream.
        not_taken: prefixes of tensors of the encoder's that start at random in fine-tuning.
        prefix: before the encoder's names in the checkpoint; ``{}`` is the stream.
        streams: those that there is an encoder of; none for encoders that take both at once.
    """

    holds: str
    config: type[FairseqDataclass]
    build: Callable[[Any, Any], EncoderModel]
    not_taken: tuple[str, ...] = ()
    prefix: str = ""
    streams: tuple[str, ...] = ()

    def choose_stream(self, model_cfg: Mapping[str, Any], modalities: str, path: str) -> str | None:
        """The stream of the encoder that a task of these ``modalities`` needs; None for fused encoders."""
        if not self.streams:
            return None
        streams = [model_cfg["modality"]] if "modality" in model_cfg else self.streams
        if modalities not in streams:
            either = " or ".join(streams)
            raise CheckpointError(
                f"task.modalities={modalities}, but {path} holds {self.holds} of one stream ({either}): set "
                f"task.modalities={either}"
            )
        return modalities

    def taken(self, tensors: Mapping[str, Tensor], stream: str | None) -> dict[str, Tensor]:
        """Those of a pre-trained model's tensors that fine-tuning starts from, under the encoder's names."""
        return self.kept(under_prefix(tensors, self.prefix.format(stream)))

    def kept(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The encoder's tensors without those that are not taken and those of pre-training only."""
        left_behind = (*self.not_taken, *pretraining_only())
        return {name: value for name, value in tensors.items() if not name.startswith(left_behind)}


FUSED = EncoderFamily(
    "a fused audio-visual encoder (av_hubert, av2vec, distillav)",
    AudioVisualEncoderConfig,
    lambda cfg, stream: AudioVisualEncoder(cfg),
)


def family_of(model_cfg: Mapping[str, Any]) -> EncoderFamily:
    """The family of a stored model's configuration, as the class of that name declares it."""
    model = MODEL_REGISTRY.get(str(model_cfg.get("_name")))
    family: EncoderFamily = getattr(model, "encoder_family", FUSED)
    return family


def load_pretrained(
    encoder: EncoderModel,
    path: str,
    tensors: Mapping[str, Tensor],
    family: EncoderFamily = FUSED,
    stream: str | None = None,
) -> None:
    """Load a pre-training checkpoint's tensors into an encoder; those that are not taken stay at random."""
    own, wanted = family.kept(nn.Module.state_dict(encoder)), family.taken(tensors, stream)
    known = parts(own)
    wanted = {name: x for name, x in wanted.items() if name.partition(".")[0] in known}  # no other heads
    found = compare(own, wanted)
    if any(found):
        raise CheckpointError(f"{path} does not hold {family.holds} of this configuration: {found}")
    nn.Module.load_state_dict(encoder, wanted, strict=False)
    logger.info("loaded %d tensors of %s; %d were not used", len(wanted), path, len(tensors) - len(wanted))
