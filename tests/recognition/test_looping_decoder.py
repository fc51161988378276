"""What joint search is for: an attention decoder that loops or stops early, as on clips longer than those it
was trained on, is held to the frames by CTC."""

from types import SimpleNamespace

import pytest
import torch
from fairseq.models import FairseqIncrementalDecoder

from av_ssl.recognition.search import JointBeamSearch, SearchConfig

from .tiny_models import Features, batch, letters

A, B, C = 4, 5, 6
EOS = 2


class Bigrams(FairseqIncrementalDecoder):
    """A decoder that looks at the last token alone, so that it cannot know where in the clip it is.

    Args:
        likely: for each last token the probabilities of some next ones; the others share the rest.
    """

    def __init__(self, likely: dict[int, dict[int, float]]) -> None:
        super().__init__(letters())
        self.table = torch.full((7, 7), 1 / 7)
        for last, following in likely.items():
            self.table[last] = (1 - sum(following.values())) / (7 - len(following))
            for token, probability in following.items():
                self.table[last, token] = probability

    def forward(self, prev_output_tokens, encoder_out=None, incremental_state=None):
        return self.table.log()[prev_output_tokens[:, -1:]], None

    def max_positions(self) -> int:
        return 1000


def spoken(*frames: int) -> torch.Tensor:
    """CTC log-probabilities ``[1, T, V]`` of a clip in which each frame is 0.9 sure."""
    probabilities = torch.full((1, len(frames), 7), 0.1 / 6)
    probabilities[0, range(len(frames)), frames] = 0.9
    return probabilities.log()


def decode(likely, log_probs, ctc_weight):
    decoder = Bigrams(likely)
    model = SimpleNamespace(
        encoder=Features(), decoder=decoder, ctc_log_probs=lambda _: log_probs,
        get_normalized_probs=decoder.get_normalized_probs,
    )  # fmt: skip
    search = JointBeamSearch(letters(), SearchConfig(beam=5, ctc_weight=ctc_weight))
    ((best, *_),) = search.generate([model], batch([log_probs.shape[1]]))
    return best["tokens"].tolist()


LONG_CLIP = spoken(A, 0, B, 0, C, 0, A, 0, B, 0, C, 0)


def test_ctc_ends_a_loop():
    """The decoder goes on with a b c a b c ... and all but never ends."""
    loop = {
        EOS: {A: 0.9, EOS: 1e-9},
        A: {B: 0.9, EOS: 1e-9},
        B: {C: 0.9, EOS: 1e-9},
        C: {A: 0.9, EOS: 0.01},
    }
    assert decode(loop, LONG_CLIP, 0.0) == [A, B, C] * 4 + [EOS]
    assert decode(loop, LONG_CLIP, 0.3) == [A, B, C] * 2 + [EOS]


def test_ctc_forbids_to_stop_early():
    """The decoder has learned that outputs have three tokens."""
    short = {EOS: {A: 0.9}, A: {B: 0.9}, B: {C: 0.9}, C: {EOS: 0.9, A: 0.05}}
    assert decode(short, LONG_CLIP, 0.0) == [A, B, C, EOS]
    assert decode(short, LONG_CLIP, 0.3) == [A, B, C] * 2 + [EOS]


@pytest.mark.parametrize("ctc_weight", [0.0, 0.3])
def test_where_both_agree_nothing_changes(ctc_weight):
    sure = {EOS: {B: 0.9}, B: {A: 0.9}, A: {EOS: 0.9}}
    assert decode(sure, spoken(0, B, B, A, 0), ctc_weight) == [B, A, EOS]
