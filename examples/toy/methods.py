"""The methods that are compared: for each the trainings that lead to its pre-trained model.

A new method is a YAML file in conf/ and one entry of :data:`METHODS`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from conditions import CONDITIONS, LONG_CONDITIONS, Condition
from stages import Labels, Stage, Teacher, label_stages


@dataclass(frozen=True)
class PseudoLabels:
    """Transcripts of the unlabelled clips, which a recogniser of another method makes.

    Args:
        method: whose recogniser.
        modalities: of that recogniser.
        keep: share of the clips that are trained on, the most confident ones.
    """

    method: Method
    modalities: str
    keep: float


@dataclass(frozen=True)
class Method:
    """Recognisers: what they start from, how they are trained and decoded.

    Args:
        name: on the command line, and of folders.
        title: in tables.
        stage: the training of the pre-trained model, which others may come before (see its labels).
        pretrained: whether fine-tuning takes the weights; else only the configuration.
        finetuning: more overrides of the fine-tuning.
        whole_encoder: fine-tuning trains all of it from the first update on; nothing rests as `sizes` has it.
        conditions: in which its recognisers are tested.
        baseline: what they are compared with; None: nothing.
        recipe: YAML file of the fine-tuning in conf/, without suffix.
        distilled: the teachers of the pre-training teach in fine-tuning, too.
        pseudo_labels: trained on beside the real labels.
        longer: times the updates of other fine-tunings.
        same_recognisers: those of this method are decoded, in another way; nothing is trained.
        decoding: more options of fairseq-generate.
    """

    name: str
    title: str
    stage: Stage
    pretrained: bool = True
    finetuning: tuple[str, ...] = ()
    whole_encoder: bool = False
    conditions: tuple[Condition, ...] = CONDITIONS
    baseline: Method | None = None
    recipe: str = "finetune"
    distilled: bool = False
    pseudo_labels: PseudoLabels | None = None
    longer: int = 1
    same_recognisers: Method | None = None
    decoding: tuple[str, ...] = ()

    @property
    def trained(self) -> Method:
        """The method whose recognisers these are."""
        return self.same_recognisers or self

    @property
    def modalities(self) -> list[str]:
        """Of its recognisers."""
        return list(dict.fromkeys(modalities for modalities, _ in self.conditions))


AV2VEC_STAGE = Stage("pretrain", "pretrain")
MFCC_LABELS = Labels("mfcc")
# Masking and modality dropout of AV-HuBERT's first and last iterations differ, as in its recipes.
AV_HUBERT_1_STAGE = Stage(
    "pretrain_av_hubert_1",
    "pretrain_av_hubert",
    MFCC_LABELS,
    (
        "+model.masking_type=feature",
        "model.mask_prob_image=0.8",
        "model.mask_length_image=10",
        "model.modality_dropout=0",
    ),
)
AV_HUBERT_1_LABELS = Labels("av_hubert_1", AV_HUBERT_1_STAGE, layer=3)
AV_HUBERT_2_STAGE = Stage("pretrain_av_hubert_2", "pretrain_av_hubert", AV_HUBERT_1_LABELS)
AV2VEC_MLM_STAGE = Stage(
    "pretrain_av2vec_mlm", "pretrain", AV_HUBERT_1_LABELS, ("+model.use_mlm=true", "+task.labels=[km]")
)

HUBERT, WHISPER = Teacher("hubert", MFCC_LABELS), Teacher("whisper", MFCC_LABELS)


def distillation(name: str, *teachers: Teacher, overrides: tuple[str, ...] = ()) -> Stage:
    """DistillAV with these teachers."""
    return Stage(f"pretrain_{name}", "pretrain_distillav", overrides=overrides, teachers=teachers)


DISTILLAV_STAGE = distillation("distillav", HUBERT, WHISPER)
DISTILLAV_ONE_STAGE = distillation("distillav_one", HUBERT)
DISTILLAV_FIXED_STAGE = distillation("distillav_fixed", HUBERT, WHISPER, overrides=("+model.balance=none",))

# RAVEn's authors add no noise in pre-training.
RAVEN_STAGE = Stage("pretrain_raven", "pretrain_raven", noise=False)
BRAVEN_STAGE = Stage(
    "pretrain_braven",
    "pretrain_raven",
    overrides=("model._name=braven", "criterion._name=braven"),
    noise=False,
)
RAVEN_SYMMETRIC_STAGE = Stage(
    "pretrain_raven_symmetric", "pretrain_raven", overrides=("+model.within_video=true",), noise=False
)

SCRATCH = Method("scratch", "from scratch", AV2VEC_STAGE, pretrained=False)
# AVSR has half the updates of ASR; this shows what of its gain is that pre-training saves updates.
SCRATCH_LONGER = Method(
    "scratch_longer",
    "from scratch, AVSR with twice the updates",
    AV2VEC_STAGE,
    pretrained=False,
    conditions=tuple(condition for condition in CONDITIONS if condition[0] == "av"),
    longer=2,
)
AV2VEC = Method("av2vec", "AV2vec", AV2VEC_STAGE, baseline=SCRATCH)
ON_WAVEFORMS = ("+task.audio_input=waveform",)
ONE_STREAM = tuple(condition for condition in CONDITIONS if condition[0] != "av")
RAVEN_SCRATCH = Method(
    "raven_scratch",
    "RAVEn's encoders from scratch",
    RAVEN_STAGE,
    pretrained=False,
    finetuning=ON_WAVEFORMS,
    conditions=ONE_STREAM,
)


def unimodal(name: str, title: str, stage: Stage) -> Method:
    """A pre-training of one encoder a stream, on raw audio."""
    # After so few updates their front-ends are not worth preserving: a linear probe says so, and error rates.
    return Method(
        name,
        title,
        stage,
        finetuning=ON_WAVEFORMS,
        whole_encoder=True,
        conditions=ONE_STREAM,
        baseline=RAVEN_SCRATCH,
    )


def decoded(name: str, title: str, ctc_weight: float, joint: Method | None = None) -> Method:
    """A recogniser with a CTC head and an attention decoder, scored by both as ``ctc_weight`` says."""
    return Method(
        name,
        title,
        AV2VEC_STAGE,
        conditions=LONG_CONDITIONS,
        recipe="finetune_hybrid",
        same_recognisers=joint,
        decoding=("--ctc-weight", str(ctc_weight)),
    )


HYBRID = decoded("hybrid", "CTC 0.1 + attention 0.9", 0.1)
# Twelve times the clips are far from learned in the updates of the others.
REAL_LABELS = Method(
    "av2vec_longer",
    "AV2vec, real labels, twice the updates",
    AV2VEC_STAGE,
    conditions=(("video", "clean"),),
    longer=2,
)
SELF_TRAINED = Method(
    "self_training",
    "AV2vec, real and pseudo-labels, twice the updates",
    AV2VEC_STAGE,
    conditions=(("video", "clean"),),
    baseline=REAL_LABELS,
    pseudo_labels=PseudoLabels(AV2VEC, "audio", keep=0.5),
    longer=2,
)


@dataclass(frozen=True)
class Comparison:
    """A table of word error rates.

    Args:
        title: above it.
        methods: its rows, first to last.
        columns: conditions.
    """

    title: str
    methods: tuple[Method, ...]
    columns: tuple[Condition, ...]


COMPARISONS = (
    Comparison(
        "Pre-training",
        (
            SCRATCH,
            SCRATCH_LONGER,
            AV2VEC,
            Method("av2vec_mlm", "AV2vec-MLM", AV2VEC_MLM_STAGE, baseline=SCRATCH),
            Method("av_hubert_1", "AV-HuBERT, 1st iteration", AV_HUBERT_1_STAGE, baseline=SCRATCH),
            Method("av_hubert_2", "AV-HuBERT, 2nd iteration", AV_HUBERT_2_STAGE, baseline=SCRATCH),
            RAVEN_SCRATCH,
            unimodal("raven", "RAVEn", RAVEN_STAGE),
            unimodal("raven_symmetric", "RAVEn, video predicts video too", RAVEN_SYMMETRIC_STAGE),
            unimodal("braven", "BRAVEn", BRAVEN_STAGE),
        ),
        CONDITIONS,
    ),
    Comparison(
        "Distillation",
        (
            SCRATCH,
            AV2VEC,
            Method("distillav", "DistillAV, HuBERT and Whisper", DISTILLAV_STAGE, baseline=SCRATCH),
            Method("distillav_one", "DistillAV, HuBERT", DISTILLAV_ONE_STAGE, baseline=SCRATCH),
            Method(
                "distillav_fixed", "DistillAV, gradients added up", DISTILLAV_FIXED_STAGE, baseline=SCRATCH
            ),
            Method(
                "distillav_finetuned",
                "DistillAV, in fine-tuning too",
                DISTILLAV_STAGE,
                baseline=SCRATCH,
                recipe="finetune_distillation",
                distilled=True,
            ),
        ),
        CONDITIONS,
    ),
    Comparison(
        "Self-training: pseudo-labels of an ASR model for lip-reading",
        (REAL_LABELS, SELF_TRAINED),
        SELF_TRAINED.conditions,
    ),
    Comparison(
        "Decoding of one recogniser, from AV2vec",
        (
            HYBRID,
            decoded("hybrid_attention", "attention alone", 0, HYBRID),
            decoded("hybrid_ctc", "CTC alone", 1, HYBRID),
        ),
        LONG_CONDITIONS,
    ),
)
METHODS = {method.name: method for comparison in COMPARISONS for method in comparison.methods}


def all_stages(methods: Iterable[Method]) -> list[Stage]:
    """Every training that the methods need, once, in an order in which each finds its labels."""
    needed = [one for method in methods for one in [*label_stages(method.stage), method.stage]]
    return list(dict.fromkeys(needed))
