"""CTC prefix scores against the sum over all alignments."""

import itertools
import math

import pytest
import torch
from torch.nn.functional import ctc_loss

from av_ssl.recognition.search import CTCPrefixScorer

from .tiny_models import output_probabilities


def prefix_probability(totals: dict, prefix: tuple) -> float:
    return sum(p for output, p in totals.items() if output[: len(prefix)] == prefix)


def random_log_probs(clips, frames, vocabulary, seed, scale=2.0):
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(clips, frames, vocabulary, generator=generator)).log_softmax(-1)


def walk(scorer, prefixes):
    """Lead a scorer of one clip to the prefixes, one a place, all of one length."""
    here, beam = torch.tensor([0]), torch.arange(len(prefixes))[None]
    for tokens in zip(*prefixes, strict=True):
        scorer.advance(here, beam, torch.tensor([tokens]))


def logs(probabilities):
    return torch.tensor([[math.log(p) if p > 0 else -math.inf for p in row] for row in probabilities])


@pytest.mark.parametrize("length", [0, 1, 2, 3])
@pytest.mark.parametrize(("frames", "vocabulary", "seed"), [(1, 3, 0), (4, 4, 1), (5, 4, 2), (5, 3, 3)])
def test_scores_are_sums_over_alignments(frames, vocabulary, seed, length):
    """Of every prefix of a length, repetitions among them, and of every token behind it."""
    log_probs = random_log_probs(1, frames, vocabulary, seed)
    totals = output_probabilities(log_probs[0])
    tokens = range(1, vocabulary)
    prefixes = list(itertools.product(tokens, repeat=length))
    scorer = CTCPrefixScorer(log_probs, torch.tensor([frames]), beam=len(prefixes))
    walk(scorer, prefixes)
    expected = logs([[prefix_probability(totals, (*prefix, c)) for c in tokens] for prefix in prefixes])
    scores = scorer.prefixes()[0, :, 1:]
    torch.testing.assert_close(scores, expected, atol=1e-5, rtol=1e-5)
    complete = scorer.complete()[0]
    torch.testing.assert_close(complete, logs([[totals[p] for p in prefixes]])[0], atol=1e-5, rtol=1e-5)
    # What goes on and what ends here is all that there is.
    whole = torch.cat([scores, complete[:, None]], 1).logsumexp(1)
    expected = logs([[prefix_probability(totals, prefix) for prefix in prefixes]])[0]
    torch.testing.assert_close(whole, expected, atol=1e-5, rtol=1e-5)


def test_a_real_length():
    """150 frames and 60 tokens, as of a long clip, against torch's own CTC."""
    frames, length, vocabulary = 150, 60, 50
    log_probs = random_log_probs(1, frames, vocabulary, 0, scale=8.0)
    target = torch.randint(1, vocabulary, (1, length), generator=torch.Generator().manual_seed(0))
    scorer = CTCPrefixScorer(log_probs, torch.tensor([frames]), beam=1)
    scores = []
    for token in target[0]:
        scores.append(scorer.prefixes()[0, 0, token].item())
        scorer.advance(torch.tensor([0]), torch.tensor([[0]]), token.view(1, 1))
    expected = -ctc_loss(
        log_probs.double().transpose(0, 1), target, torch.tensor([frames]), torch.tensor([length]),
        reduction="none",
    )  # fmt: skip
    assert scorer.complete().item() == pytest.approx(expected.item(), rel=1e-6)
    assert all(later <= earlier for earlier, later in itertools.pairwise([*scores, expected.item()]))


def test_padding_and_dropped_clips_change_nothing():
    log_probs = random_log_probs(3, 6, 5, 4)
    lengths = torch.tensor([6, 3, 5])
    parents, tokens = torch.tensor([[1, 0], [0, 0], [1, 1]]), torch.tensor([[2, 1], [1, 1], [3, 4]])
    batch = CTCPrefixScorer(log_probs, lengths, beam=2)
    batch.advance(torch.arange(3), parents, tokens)
    batch.advance(torch.tensor([1, 2]), parents[1:], tokens[1:])  # the first clip is finished
    for row, clip in enumerate((1, 2)):
        alone = CTCPrefixScorer(log_probs[clip : clip + 1, : lengths[clip]], lengths[clip : clip + 1], beam=2)
        for _ in range(2):
            alone.advance(torch.tensor([0]), parents[clip : clip + 1], tokens[clip : clip + 1])
        torch.testing.assert_close(batch.prefixes()[row, :, 1:], alone.prefixes()[0, :, 1:])
        torch.testing.assert_close(batch.complete()[row], alone.complete()[0])


def test_impossible_stays_impossible():
    """Frames that cannot be a token, or nothing but one, give -inf, never nan."""
    probabilities = torch.tensor([[[0.5, 0.5, 0.0], [0.0, 0.0, 1.0], [0.0, 0.5, 0.5]]])
    totals = output_probabilities(probabilities[0].log())
    scorer = CTCPrefixScorer(probabilities.log(), torch.tensor([3]), beam=3)
    prefixes = [(1, 2), (2, 1), (2, 2)]
    walk(scorer, prefixes)
    expected = [[prefix_probability(totals, (*p, c)) for c in (1, 2)] for p in prefixes]
    torch.testing.assert_close(scorer.prefixes()[0, :, 1:], logs(expected))
    torch.testing.assert_close(scorer.complete()[0], logs([[totals[p] for p in prefixes]])[0])
    assert not scorer.prefixes().isnan().any()


def test_half_precision_input_is_scored_in_single():
    log_probs = random_log_probs(1, 5, 4, 0).bfloat16()
    scorer = CTCPrefixScorer(log_probs, torch.tensor([5]), beam=1)
    assert scorer.prefixes().dtype == scorer.complete().dtype == torch.float32
