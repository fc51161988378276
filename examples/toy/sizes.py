"""How much is made, trained and tested: at full size, and to see that everything runs."""

from dataclasses import dataclass


@dataclass(frozen=True)
class FineTuning:
    """Updates in all, how many of them leave pre-trained weights as they are, and whether all of them leave
    the front-end so."""

    updates: int
    frozen: int = 0
    frozen_front_end: bool = False


@dataclass(frozen=True)
class Size:
    """How much of everything; fine-tuning by modalities."""

    train: int
    test: int
    labelled: int
    speakers: int
    pretrain_updates: int
    finetune: dict[str, FineTuning]
    clusters: int
    teacher_updates: int


# What was learned without labels rests while the new head learns its first bit: moved by a head that knows
# nothing, most of it is lost. Lip-readers lose by moving the front-end at all.
FULL_FINETUNING = {
    "video": FineTuning(900, frozen=150, frozen_front_end=True),
    "audio": FineTuning(900, frozen=150),
    "av": FineTuning(450, frozen=75),
}
QUICK_FINETUNING = {
    "video": FineTuning(12, frozen=2, frozen_front_end=True),
    "audio": FineTuning(12, frozen=2),
    "av": FineTuning(12, frozen=2),
}
FULL = Size(
    700, 100, 100, 40, pretrain_updates=900, finetune=FULL_FINETUNING, clusters=50, teacher_updates=600
)
QUICK = Size(40, 8, 16, 6, pretrain_updates=12, finetune=QUICK_FINETUNING, clusters=10, teacher_updates=12)
