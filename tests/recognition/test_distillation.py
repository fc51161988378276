"""Recognisers that keep learning from speech teachers: when they do, what it costs the others."""

from pathlib import Path

import pytest
import torch
from fairseq import criterions
from fairseq.logging import metrics
from omegaconf import OmegaConf

import av_ssl.tasks  # noqa: F401  (registers everything)
from av_ssl.errors import DataError
from av_ssl.methods.teacher_heads import attach_teacher_shapes, teacher_losses
from av_ssl.recognition.distillation import DistillationFineTuning, DistillationFineTuningConfig, Recorder
from av_ssl.recognition.encoder import read_pretrained
from av_ssl.recognition.heads import (
    CTCConfig,
    CTCModel,
    HybridConfig,
    HybridModel,
    Seq2SeqConfig,
    Seq2SeqModel,
)
from av_ssl.tasks.recognition import WORD_ERRORS, WORDS, RecognitionConfig, RecognitionTask
from tests.dictionaries import dictionary_of
from tests.methods.helpers import DECODER, source
from tests.methods.test_distillav import net_input as pretraining_input
from tests.methods.test_distillav import save, tiny, two_teachers
from tests.targets.teacher_folders import write_teacher_folder

LENGTHS = [20, 14]
CALM = {"decoder_dropout": 0.0, "decoder_attention_dropout": 0.0, "ctc_dropout": 0.0}  # fmt: skip
KINDS = {
    "seq2seq": (Seq2SeqModel, Seq2SeqConfig, DECODER, {"_name": "label_smoothed_cross_entropy"}),
    "ctc": (CTCModel, CTCConfig, {}, {"_name": "ctc"}),
    "hybrid": (HybridModel, HybridConfig, {**DECODER, **CALM, "share_decoder_input_output_embed": False},
               {"_name": "hybrid_ctc_attention"}),
}  # fmt: skip


class Task:
    def __init__(self, pretrained=None) -> None:
        self.pretrained = pretrained
        self.target_dictionary = dictionary_of("abcdef")
        self.source_dictionary = None


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return two_teachers(tmp_path_factory.mktemp("teachers"))


@pytest.fixture(scope="module")
def checkpoint(folders, tmp_path_factory):
    return save(tiny(folders), tmp_path_factory.mktemp("pretrained") / "model.pt")


def configuration(kind: str, checkpoint: Path, folders: list[str], **overrides):
    """A whole configuration as the stock command makes it."""
    _, config, values, recognition = KINDS[kind]
    model = {**values, "w2v_path": str(checkpoint), "normalize": True, "teachers": folders, **overrides}
    criterion = {"recognition": recognition, "max_update": 100}
    cfg = OmegaConf.create(
        {
            "model": OmegaConf.merge(OmegaConf.structured(config()), model),
            "criterion": OmegaConf.merge(OmegaConf.structured(DistillationFineTuningConfig()), criterion),
            "optimization": {"sentence_avg": True, "max_update": 100},
            "task": {"normalize": True},
            "dataset": {"batch_size": None},
            "common_eval": {"post_process": None},
        }
    )
    attach_teacher_shapes(cfg.model)
    return cfg


def build(kind: str, cfg, training: bool = True):
    pretrained = read_pretrained(cfg.model) if training else None
    torch.manual_seed(0)
    return KINDS[kind][0].build_model(cfg.model, Task(pretrained))


def criterion_of(cfg) -> DistillationFineTuning:
    return DistillationFineTuning.build_criterion(cfg.criterion, Task())


def encoder_of(model):
    return model.w2v_encoder if isinstance(model, CTCModel) else model.encoder


def sample(folders: list[str], video_only: bool = False) -> dict:
    pretraining = tiny(folders)
    teachers = pretraining_input(pretraining, LENGTHS)["teachers"]
    batch = source(LENGTHS, max(LENGTHS))
    if video_only:
        batch["source"]["audio"] = None
    target = torch.tensor([[4, 5, 6, 2], [7, 8, 2, 1]])
    previous = torch.tensor([[2, 4, 5, 6], [2, 7, 8, 1]])
    net_input = {**batch, "teachers": teachers, "prev_output_tokens": previous}
    return {"net_input": net_input, "target": target, "ntokens": 7, "nsentences": 2, "id": torch.arange(2)}


@pytest.mark.parametrize("kind", KINDS)
def test_the_second_term_is_added_to_the_recognition_loss(kind, checkpoint, folders):
    cfg = configuration(kind, checkpoint, folders, feature_grad_mult=1.0)
    model, criterion = build(kind, cfg).train(), criterion_of(cfg)
    batch = sample(folders)
    loss, size, log = criterion(model, batch)
    plain, plain_size, _ = criterions.build_criterion(cfg.criterion.recognition, Task())(model, batch)
    recorder = Recorder(model)
    recorder(**batch["net_input"])
    mean = sum(map(sum, teacher_losses(recorder.distillation))) / sum(LENGTHS)
    assert log["distillation_loss"].item() == pytest.approx(2 * mean.item(), rel=1e-4)
    assert size == plain_size
    assert log["distillation_weight"] == pytest.approx(0.1 * 2)
    assert loss.item() == pytest.approx((plain + 0.1 * size * mean).item(), rel=1e-4)
    loss.backward()
    heads = encoder_of(model).w2v_model.teacher_heads
    assert heads[1].regression.weight.grad.abs().sum() > 0
    assert encoder_of(model).w2v_model.encoder.layers[0].fc1.weight.grad.abs().sum() > 0


def test_heads_continue_from_pretraining(checkpoint, folders, tmp_path, caplog):
    pretrained = tiny(folders)
    swapped = [folders[1], str(write_teacher_folder(tmp_path / "new", seed=5))]
    with caplog.at_level("INFO"):
        model = build("ctc", configuration("ctc", checkpoint, swapped))
    heads = model.w2v_encoder.w2v_model.teacher_heads
    assert torch.equal(heads[0].codebook, pretrained.teacher_heads[1].codebook)
    assert not torch.equal(heads[1].codebook, pretrained.teacher_heads[0].codebook)
    assert f"head for teacher {folders[1]}: as pre-trained" in caplog.text
    assert f"head for teacher {swapped[1]}: starts at random" in caplog.text


def test_heads_continue_from_a_fine_tuning_of_other_teachers(tmp_path, caplog):
    """Its heads are numbered by its own teachers, not by those of pre-training."""
    first, second = (str(write_teacher_folder(tmp_path / name, seed=seed)) for seed, name in enumerate("ab"))
    cfg = configuration("ctc", save(tiny([first, second]), tmp_path / "pretrained.pt"), [second])
    model = build("ctc", cfg)
    with torch.no_grad():
        model.w2v_encoder.w2v_model.teacher_heads[0].codebook.fill_(7.0)
    values = {**OmegaConf.to_container(cfg.model, enum_to_str=True), "_name": "av_hubert_ctc"}
    task = {"_name": "av_recognition", "modalities": "av", "normalize": True}
    symbols = {"symbols": ["<s>", "<pad>", "</s>", "<unk>", *"abcdef"], "tokenizer": None}
    content = {"cfg": {"model": values, "task": task}, "model": model.state_dict(), "task_state": symbols}
    torch.save(content, tmp_path / "fine_tuned.pt")
    for teachers, known in (([first], [False]), ([second], [True]), ([first, second], [False, True])):
        again = build("ctc", configuration("ctc", tmp_path / "fine_tuned.pt", teachers))
        heads = again.w2v_encoder.w2v_model.teacher_heads
        assert [bool((head.codebook == 7).all()) for head in heads] == known


def test_nothing_is_distilled_while_the_encoder_is_frozen(checkpoint, folders):
    cfg = configuration("seq2seq", checkpoint, folders, freeze_finetune_updates=5)
    model, criterion, batch = build("seq2seq", cfg).train(), criterion_of(cfg), sample(folders)
    model.set_num_updates(4)
    log = criterion(model, batch)[2]
    assert "distillation_loss" not in log
    assert "targets" not in vars(model.encoder)  # no teacher was opened
    model.set_num_updates(5)
    loss, _, log = criterion(model, batch)
    assert log["distillation_loss"] > 0
    loss.backward()
    assert model.encoder.w2v_model.encoder.layers[0].fc1.weight.grad.abs().sum() > 0


def test_a_lip_reader_learns_from_speech_teachers(checkpoint, folders):
    cfg = configuration("seq2seq", checkpoint, folders)
    model, batch = build("seq2seq", cfg).train(), sample(folders, video_only=True)
    assert batch["net_input"]["source"]["audio"] is None
    _, _, log = criterion_of(cfg)(model, batch)
    assert log["teacher0_targets"] == 2 * (19 + 13)


def test_validation_reports_it_and_does_not_count_it(checkpoint, folders):
    cfg = configuration("ctc", checkpoint, folders)
    model, batch = build("ctc", cfg).eval(), sample(folders)
    loss, _, log = criterion_of(cfg)(model, batch)
    plain, _, _ = criterions.build_criterion(cfg.criterion.recognition, Task())(model, batch)
    assert loss.item() == pytest.approx(plain.item())
    assert log["distillation_loss"] > 0


@pytest.mark.parametrize("kind", KINDS)
def test_word_errors_of_validation_come_from_the_same_pass(kind, checkpoint, folders, tmp_path):
    (tmp_path / "dict.wrd.txt").write_text("".join(f"{symbol} 1\n" for symbol in "abcdef"))
    task = RecognitionTask(OmegaConf.structured(RecognitionConfig(data=str(tmp_path), seed=1)))
    cfg, passes = configuration(kind, checkpoint, folders), []
    model, criterion = build(kind, cfg), criterion_of(cfg)
    model.register_forward_hook(lambda *_: passes.append(1))
    _, _, log = task.valid_step(sample(folders), model, criterion)
    with metrics.aggregate(new_root=True) as aggregator:
        task.reduce_metrics([log, log], criterion)
    values = aggregator.get_smoothed_values()
    assert len(passes) == 1
    assert values["wer"] == pytest.approx(100 * log[WORD_ERRORS] / log[WORDS])
    assert log[WORDS] == 5
    assert values["distillation_loss"] > 0


def test_logs_of_both_losses(checkpoint, folders):
    cfg = configuration("hybrid", checkpoint, folders)
    criterion, model = criterion_of(cfg), build("hybrid", cfg).train()
    log = criterion(model, sample(folders))[2]
    with metrics.aggregate(new_root=True) as aggregator:
        criterion.__class__.reduce_metrics([log, log])
        values = aggregator.get_smoothed_values()
    assert values["distillation_loss"] == pytest.approx((log["distillation_loss"] / 2).item(), abs=1e-3)
    assert values["distillation_weight"] == pytest.approx(0.1)
    assert {"ctc_loss", "attention_loss", "teacher1_accuracy"} <= values.keys()
    assert criterion.__class__.logging_outputs_can_be_summed()
    assert criterion.__class__.__name__ == "DistillationFineTuningOfHybridCriterion"


def test_a_model_that_is_only_used_has_nothing_of_the_teachers(checkpoint, folders):
    cfg = configuration("seq2seq", checkpoint, folders)
    trained = build("seq2seq", cfg)
    cfg.model.teachers = ["/does/not/exist"]
    used = build("seq2seq", cfg, training=False)
    assert used.encoder.data_needs.teachers is None
    assert not any("teacher_heads" in name for name in used.state_dict())
    used.load_state_dict(trained.state_dict(), strict=True, model_cfg=cfg.model)
    resumed = build("seq2seq", configuration("seq2seq", checkpoint, folders))
    with torch.no_grad():
        trained.encoder.w2v_model.teacher_heads[0].codebook.fill_(3)
    resumed.load_state_dict(trained.state_dict(), strict=True, model_cfg=cfg.model)
    assert (resumed.encoder.w2v_model.teacher_heads[0].codebook == 3).all()


def test_the_weight_over_the_updates():
    cfg = OmegaConf.structured(
        DistillationFineTuningConfig(
            distillation_weight=1.0, final_weight=0.0, warmup_updates=9, max_update=200
        )
    )
    criterion = DistillationFineTuning(cfg, None, torch.nn.Module())
    weights = [criterion.weight(update, 100) for update in (100, 104, 110, 150, 200, 300)]
    assert weights == pytest.approx([0.1, 0.96 * 0.5, 0.9, 0.5, 0.0, 0.0])
    cfg.final_weight, cfg.warmup_updates = None, 0
    assert [criterion.weight(update, 0) for update in (0, 100, 300)] == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.freeze_finetune_updates": 100}, "freezes the encoder in all of the 100 updates"),
        ({"model.teachers": []}, "model.teachers is empty, so distillation has no effect"),
        ({"criterion.distillation_weight": 0.0}, "criterion.distillation_weight is 0"),
        ({"criterion.recognition": None}, "criterion.recognition is not set"),
    ],
)
def test_configurations_in_which_it_would_do_nothing(checkpoint, folders, changes, message):
    cfg = configuration("ctc", checkpoint, folders)
    for key, value in changes.items():
        OmegaConf.update(cfg, key, value, merge=False)
    with pytest.raises(DataError, match=message):
        criterion_of(cfg)


def test_without_teachers_nothing_changes(checkpoint):
    assert not any(
        "teacher" in name for name in build("ctc", configuration("ctc", checkpoint, [])).state_dict()
    )
