import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterion
from fairseq.logging import metrics

from av_ssl.recognition.hybrid_criterion import (
    HybridCriterion,
    HybridCriterionConfig,
    ctc_losses,
    frames_needed,
)
from tests.dictionaries import dictionary_of

SYMBOLS = 12
FRAMES = (20, 14, 3)
TEXTS = ((5, 6, 6, 7), (8, 9), (4, 5, 6, 7))  # the last one is too long for its frames


@pytest.fixture
def task():
    return SimpleNamespace(target_dictionary=dictionary_of(range(SYMBOLS - 4)))


class Model:
    """Returns given logits, as `HybridModel` does."""

    def __init__(self, clips=range(3), training=True, dtype=torch.float32):
        self.clips, self.training = list(clips), training
        generator = torch.Generator().manual_seed(0)
        self.logits = torch.randn(3, 5, SYMBOLS, generator=generator)[self.clips].to(dtype).requires_grad_()
        ctc = torch.randn(3, max(FRAMES), SYMBOLS, generator=generator)[self.clips]
        self.ctc_logits = ctc.to(dtype).requires_grad_()
        self.padding = torch.arange(max(FRAMES)) >= torch.tensor(FRAMES)[self.clips, None]

    def __call__(self):
        return self.logits, {
            "ctc_logits": self.ctc_logits,
            "encoder_out": {"encoder_padding_mask": [self.padding]},
        }

    def get_normalized_probs(self, output, log_probs):
        return output[0].float().log_softmax(-1)

    def get_targets(self, sample, output):
        return sample["target"]


def sample_of(task, clips=range(3)):
    texts = [torch.tensor([*TEXTS[clip], task.target_dictionary.eos()]) for clip in clips]
    target = torch.full((len(texts), 5), task.target_dictionary.pad())
    for row, text in zip(target, texts, strict=True):
        row[: len(text)] = text
    ntokens = sum(map(len, texts))
    return {"net_input": {}, "target": target, "ntokens": ntokens, "nsentences": len(texts)}


def test_loss_is_the_stated_sum(task):
    """0.1 CTC + 0.9 KL, sums over tokens, mean over clips; CTC and KL are torch's, clip by clip."""
    model, sample = Model(), sample_of(task)
    loss, clips, log = HybridCriterion(HybridCriterionConfig(), task)(model, sample)
    expected_ctc, expected_kl = [], []
    wrong = 0.1 / (SYMBOLS - 1)
    for b, text in enumerate(TEXTS):
        log_probs = model.ctc_logits[b, : FRAMES[b], None].log_softmax(-1)
        expected_ctc.append(
            F.ctc_loss(
                log_probs, torch.tensor([text]), [FRAMES[b]], [len(text)],
                reduction="sum", zero_infinity=True,
            )
        )  # fmt: skip
        wanted = torch.full((len(text) + 1, SYMBOLS), wrong)
        wanted.scatter_(1, torch.tensor([*text, task.target_dictionary.eos()])[:, None], 0.9)
        expected_kl.append(
            F.kl_div(model.logits[b, : len(text) + 1].log_softmax(-1), wanted, reduction="sum")
        )
    entropy = -(0.9 * math.log(0.9) + 0.1 * math.log(wrong))
    attention = sum(expected_kl) + sample["ntokens"] * entropy
    assert clips == 3
    assert loss.item() == pytest.approx((0.1 * sum(expected_ctc) + 0.9 * attention).item(), rel=1e-5)
    assert log["ctc_loss"].item() == pytest.approx(sum(expected_ctc).item(), rel=1e-5)
    assert log["attention_loss"].item() == pytest.approx(attention.item(), rel=1e-5)


def test_attention_part_is_fairseqs_criterion(task):
    cfg = HybridCriterionConfig(ctc_weight=0.0)
    sample = sample_of(task)
    stock = LabelSmoothedCrossEntropyCriterion.__new__(LabelSmoothedCrossEntropyCriterion)
    torch.nn.Module.__init__(stock)
    stock.padding_idx, stock.sentence_avg, stock.eps = task.target_dictionary.pad(), True, 0.1
    stock.ignore_prefix_size, stock.report_accuracy = 0, False
    expected, size, expected_log = stock(Model(), sample)
    loss, clips, log = HybridCriterion(cfg, task)(Model(), sample)
    assert (loss.item(), clips) == (pytest.approx(expected.item(), rel=1e-6), size)
    assert log["nll_loss"].item() == pytest.approx(expected_log["nll_loss"].item(), rel=1e-6)


def test_clips_without_alignment_cost_nothing_and_are_counted(task):
    model = Model()
    loss, _, log = HybridCriterion(HybridCriterionConfig(ctc_weight=1.0), task)(model, sample_of(task))
    loss.backward()
    assert log["unaligned"].item() == 1
    assert torch.isfinite(loss)
    assert model.ctc_logits.grad[2].abs().sum() == 0
    assert model.ctc_logits.grad[0].abs().sum() > 0
    assert model.ctc_logits.grad[1, FRAMES[1] :].abs().sum() == 0


def test_repeated_symbols_need_a_blank_between():
    targets = torch.tensor([[5, 5, 5, 2, 1], [5, 6, 2, 1, 1]])
    lengths = torch.tensor([3, 2])
    assert frames_needed(targets, lengths).tolist() == [5, 2]
    for frames, possible in ((4, False), (5, True)):
        padding = torch.zeros(1, frames, dtype=torch.bool)
        loss = ctc_losses(torch.zeros(1, frames, 8), padding, targets[:1], lengths[:1])
        assert (loss.item() > 0) == possible


def test_split_batch_gives_the_loss_of_the_whole(task):
    criterion = HybridCriterion(HybridCriterionConfig(), task)
    whole, clips, _ = criterion(Model(), sample_of(task))
    parts = [criterion(Model(part), sample_of(task, part)) for part in ([0], [1, 2])]
    assert sum(loss for loss, _, _ in parts).item() == pytest.approx(whole.item(), rel=1e-6)
    assert sum(size for _, size, _ in parts) == clips


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_are_scored_in_single(task, dtype):
    criterion = HybridCriterion(HybridCriterionConfig(), task)
    half = Model(dtype=dtype)
    loss, _, _ = criterion(half, sample_of(task))
    single = Model()
    single.logits, single.ctc_logits = half.logits.float(), half.ctc_logits.float()
    assert loss.dtype == torch.float32
    assert loss.item() == criterion(single, sample_of(task))[0].item()


def test_log(task):
    model = Model([0, 1], training=False)
    with torch.no_grad():  # the first clip is recognised by both heads, the second by none
        model.logits[0] = F.one_hot(torch.tensor([5, 6, 6, 7, 2]), SYMBOLS) * 50.0
        path = torch.tensor([0, 5, 5, 0, 6, 0, 6, 7, 7, *[0] * 11])
        model.ctc_logits[0] = F.one_hot(path, SYMBOLS) * 50.0
        model.logits[1] = F.one_hot(torch.tensor([4, 4, 4, 4, 4]), SYMBOLS) * 50.0
        model.ctc_logits[1] = F.one_hot(torch.tensor([0] * 20), SYMBOLS) * 50.0
    loss, _, log = HybridCriterion(HybridCriterionConfig(), task)(model, sample_of(task, [0, 1]))
    assert (log["unit_errors"], log["units"]) == (2, 6)
    with metrics.aggregate(new_root=True) as meters:
        HybridCriterion.reduce_metrics([log])
    values = meters.get_smoothed_values()
    assert values["uer"] == pytest.approx(100 * 2 / 6, abs=0.01)
    assert values["accuracy"] == pytest.approx(100 * 5 / 8, abs=0.01)
    assert values["loss"] == pytest.approx(loss.item() / 2, abs=1e-3)
    assert values["ppl"] == pytest.approx(2 ** values["nll_loss"], rel=0.01)


def test_weight_must_be_a_share(task):
    with pytest.raises(ValueError, match=r"ctc_weight is 1\.5"):
        HybridCriterion(HybridCriterionConfig(ctc_weight=1.5), task)
