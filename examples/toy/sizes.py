"""How much is made, trained and tested: at full size, and to see that everything runs."""

from dataclasses import dataclass


@dataclass(frozen=True)
class FineTuning:
    """Updates in all, and how many of them leave pre-trained weights as they are."""

    updates: int
    frozen: int = 0


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


# Without pictures an update costs a third, and recognisers of noisy audio are far from converged after 450.
# The first updates of a new head would wash out what the audio encoder has learned: it is frozen meanwhile.
FULL_FINETUNING = {"video": FineTuning(450), "audio": FineTuning(900, frozen=300), "av": FineTuning(450)}
QUICK_FINETUNING = {"video": FineTuning(12), "audio": FineTuning(12, frozen=4), "av": FineTuning(12)}
FULL = Size(
    700, 100, 30, 40, pretrain_updates=900, finetune=FULL_FINETUNING, clusters=50, teacher_updates=600
)
QUICK = Size(40, 8, 16, 6, pretrain_updates=12, finetune=QUICK_FINETUNING, clusters=10, teacher_updates=12)
