"""Word error rate in validation: decoded from the criterion's own pass, counted in words, for every head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from fairseq.criterions.ctc import CtcCriterion, CtcCriterionConfig
from fairseq.logging import metrics
from omegaconf import OmegaConf

from av_ssl.recognition.generation import decode_output
from av_ssl.recognition.search import JointBeamSearch, SearchConfig
from av_ssl.tasks.recognition import RecognitionConfig, RecognitionTask
from tests.recognition.tiny_models import batch, hybrid, letters

WORDS = ("bin", "blue", "now")
LONGEST = 12


@pytest.fixture
def task(tmp_path: Path) -> RecognitionTask:
    (tmp_path / "dict.wrd.txt").write_text("".join(f"{word} 1\n" for word in WORDS))
    return RecognitionTask(OmegaConf.structured(RecognitionConfig(data=str(tmp_path), seed=1)))


class Speaks(torch.nn.Module):
    """A CTC model whose output are the given frames; it counts its passes."""

    def __init__(self, frames: list[list[int]]) -> None:
        super().__init__()
        self.frames, self.passes = torch.tensor(frames), 0

    def forward(self, padding_mask: torch.Tensor, **unused: Any) -> dict[str, Any]:
        self.passes += 1
        logits = 9.0 * torch.nn.functional.one_hot(self.frames, 4 + len(WORDS)).float()
        return {"encoder_out": logits.transpose(0, 1), "padding_mask": padding_mask}

    def get_normalized_probs(self, output: dict[str, Any], log_probs: bool) -> torch.Tensor:
        return output["encoder_out"].log_softmax(-1)


# Ids: 0 blank, 1 pad, 2 end, 4 bin, 5 blue, 6 now. Padding at the end of the second clip holds words.
FRAMES = [[4, 4, 0, 6, 0, 6], [5, 0, 0, 5, 6, 6]]
TARGET = [[4, 5, 6, 2], [5, 5, 2, 1]]  # one substitution, none
PADDING = [[False] * 6, [False] * 4 + [True] * 2]


def sample() -> dict[str, Any]:
    return {
        "id": torch.arange(2), "target": torch.tensor(TARGET), "ntokens": 5, "nsentences": 2,
        "net_input": {"padding_mask": torch.tensor(PADDING)},
    }  # fmt: skip


def test_ctc_in_one_pass(task: RecognitionTask) -> None:
    """fairseq's criterion would log 100 %: without ``post_process`` it takes pieces for letters of a word."""
    model = Speaks(FRAMES)
    criterion = CtcCriterion(CtcCriterionConfig(sentence_avg=True), task)
    _, _, log = task.valid_step(sample(), model, criterion)
    assert model.passes == 1
    with metrics.aggregate(new_root=True) as aggregator:
        task.reduce_metrics([log, log], criterion)
    assert aggregator.get_smoothed_values()["wer"] == 20.0  # 1 of 5 words, twice


def test_it_can_be_switched_off(task: RecognitionTask) -> None:
    task.cfg.valid_beam = 0
    _, _, log = task.valid_step(sample(), Speaks(FRAMES), lambda *_: (0, 1, {"loss": 0}))
    assert log == {"loss": 0}


@pytest.mark.parametrize("ctc_weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("beam", [1, 4])
def test_an_attention_decoder_reads_the_encoder_of_that_pass(beam: int, ctc_weight: float) -> None:
    model, clips = hybrid(), batch([9, 5, 7])
    net_input = {**clips["net_input"], "prev_output_tokens": torch.full((3, 2), letters().eos())}
    passes: list[Any] = []
    model.encoder.register_forward_hook(lambda *_: passes.append(1))
    lengths = (~net_input["padding_mask"]).sum(1)
    found = decode_output(model, model(**net_input), lengths, letters(), beam, ctc_weight, LONGEST)
    assert len(passes) == 1
    options = SearchConfig(beam, ctc_weight=ctc_weight, max_len_a=0, max_len_b=LONGEST)
    expected = JointBeamSearch(letters(), options).generate([model], clips)
    assert [tokens.tolist() for tokens in found] == [best["tokens"].tolist() for best, *_ in expected]
