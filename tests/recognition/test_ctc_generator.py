"""Prefix beam search against the sum over all paths."""

import math

import pytest
import torch

from av_ssl.recognition.ctc_generator import CTCBeamSearch, as_fairseq
from av_ssl.recognition.prefix_search import greedy, log_add
from av_ssl.recognition.search import JointBeamSearch, SearchConfig
from tests.dictionaries import dictionary_of

from .tiny_models import output_probabilities


@pytest.fixture
def dictionary():
    return dictionary_of("ab")


def random_log_probs(frames: int, seed: int) -> torch.Tensor:
    torch.manual_seed(seed)
    logits = torch.randn(frames, 6) * 2
    logits[:, 1:4] = -math.inf
    return logits.log_softmax(-1)


@pytest.mark.parametrize("seed", range(5))
def test_wide_beam_finds_the_best_of_all(dictionary, seed):
    log_probs = random_log_probs(5, seed)
    expected = output_probabilities(log_probs, (0, 4, 5))
    found = CTCBeamSearch(dictionary, beam=200, prune=math.inf).search(log_probs)
    best = max(expected, key=expected.get)
    assert found[0][0] == best
    for prefix, score in found:
        assert score == pytest.approx(math.log(expected[prefix]), abs=1e-4)


def test_beam_beats_the_best_path(dictionary):
    """Three ways to say a, together likelier than the single likeliest path, which says nothing."""
    probabilities = torch.tensor([[0.6, 0, 0, 0, 0.4, 0], [0.6, 0, 0, 0, 0.4, 0]])
    log_probs = probabilities.log()
    assert greedy(log_probs.numpy()) == ((), pytest.approx(2 * math.log(0.6)))
    for beam in (2, 4):
        assert CTCBeamSearch(dictionary, beam=beam).search(log_probs)[0][0] == (4,)
    assert CTCBeamSearch(dictionary, beam=1).search(log_probs)[0][0] == ()


def test_generate_ignores_padding_and_specials(dictionary):
    class Model:
        def __call__(self, padding_mask):
            logits = torch.full((4, 2, 6), -5.0)  # [T, B, V]
            logits[..., 1] = 9.0  # pad is likeliest, and must never be output
            logits[0, :, 4] = logits[2:, :, 5] = logits[1, :, 0] = 5.0
            return logits

        def get_normalized_probs(self, logits, log_probs):
            return logits.softmax(-1)

    padding = torch.tensor([[False] * 4, [False] * 2 + [True] * 2])
    sample = {"net_input": {"padding_mask": padding, "prev_output_tokens": None}}
    hypotheses = CTCBeamSearch(dictionary, beam=3).generate([Model(), Model()], sample)
    assert [clip[0]["tokens"].tolist() for clip in hypotheses] == [[4, 5], [4]]
    assert len(hypotheses[0][0]["positional_scores"]) == 2


@pytest.mark.parametrize("tokens", [[], [4], [4, 5, 4]])
def test_all_tokens_share_the_score(tokens):
    found = as_fairseq(torch.tensor(tokens, dtype=torch.long), -6.0)
    assert found["positional_scores"].tolist() == [-6.0 / len(tokens) for _ in tokens]


def test_beam_must_be_positive(dictionary):
    with pytest.raises(ValueError, match="beam"):
        CTCBeamSearch(dictionary, beam=0)


def test_flat_posteriors_need_a_search_by_frames(dictionary):
    """Why this search exists beside joint search, which finds less probable outputs here."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 40, 6, generator=generator) * 2
    logits[..., 0] += 4
    log_probs = logits.log_softmax(-1)

    class Model:
        def __call__(self, padding_mask):
            return log_probs.transpose(0, 1)

        def get_normalized_probs(self, output, log_probs):
            return output if log_probs else output.exp()

    sample = {"net_input": {"padding_mask": torch.zeros(4, 40, dtype=torch.bool)}}
    by_frame = CTCBeamSearch(dictionary, beam=5).generate([Model()], sample)
    by_token = JointBeamSearch(dictionary, SearchConfig(beam=5, ctc_weight=1.0)).generate([Model()], sample)
    for clip in range(4):
        assert by_frame[clip][0]["score"] > by_token[clip][0]["score"] - 1e-3
    assert sum(clip[0]["score"] for clip in by_frame) > sum(clip[0]["score"] for clip in by_token) + 1


def test_log_add():
    assert log_add(-math.inf, -2.0) == -2.0
    assert log_add(math.log(0.25), math.log(0.5)) == pytest.approx(math.log(0.75))
