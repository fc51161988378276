"""Joint beam search against the enumeration of all outputs."""

import pytest
import torch

from av_ssl.recognition.search import JointBeamSearch, SearchConfig

from .tiny_models import all_outputs, batch, hybrid, joint_scores, language_model, letters, only

WIDE = {"beam": 81, "nbest": 4}  # as many as there are outputs of four letters


def search(models, sample, cfg, lm=None):
    return JointBeamSearch(letters(), cfg, lm).generate(models, sample)


def found(hypotheses):
    return [(tuple(one["tokens"].tolist()), one["score"]) for one in hypotheses]


def best_of_all(models, sample, cfg, lm=None):
    frames = sample["net_input"]["padding_mask"].shape[1]
    scored = []
    for length in range(frames + 1):
        outputs = all_outputs(length)
        scores = joint_scores(models, sample, outputs, cfg, lm)
        scored += [((*output, 2), score) for output, score in zip(outputs, scores, strict=True)]
    return sorted(scored, key=lambda item: -item[1])


@pytest.mark.parametrize(
    ("ctc_weight", "lm_weight", "bonus"),
    [
        (0, 0, 0), (0, 0.4, 1.5), (0.1, 0, 0), (0.1, 0.4, 0), (0.6, 0, 1.5), (0.6, 0.4, -0.5), (1, 0, 0),
        (1, 0.4, 1.5),
    ],
)  # fmt: skip
def test_wide_beam_finds_the_best_of_all(ctc_weight, lm_weight, bonus):
    model, lm, sample = hybrid(1), language_model(2), batch([3, 4], seed=3)
    cfg = SearchConfig(**WIDE, ctc_weight=ctc_weight, lm_weight=lm_weight, length_bonus=bonus)
    for clip, hypotheses in enumerate(search([model], sample, cfg, lm)):
        best = best_of_all([model], only(sample, clip), cfg, lm if lm_weight else None)[: cfg.nbest]
        assert [tokens for tokens, _ in found(hypotheses)] == [tokens for tokens, _ in best]
        for hypothesis, (_, score) in zip(hypotheses, best, strict=True):
            assert hypothesis["score"] == pytest.approx(score, abs=1e-4)


@pytest.mark.parametrize("ctc_weight", [0.0, 0.3, 1.0])
def test_ensembles_average_probabilities(ctc_weight):
    models, sample = [hybrid(1), hybrid(2)], batch([3], seed=1)
    cfg = SearchConfig(**WIDE, ctc_weight=ctc_weight)
    best = best_of_all(models, sample, cfg)[: cfg.nbest]
    for (tokens, score), (expected, exact) in zip(found(search(models, sample, cfg)[0]), best, strict=True):
        assert tokens == expected
        assert score == pytest.approx(exact, abs=1e-4)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("ctc_weight", [0.0, 0.2, 1.0])
def test_narrow_beam_scores_what_it_returns(ctc_weight, seed):
    """Caches follow the hypotheses; positional scores add up; each ends with eos."""
    model, lm, sample = hybrid(seed), language_model(seed), batch([9, 7, 8], seed=seed)
    cfg = SearchConfig(beam=3, nbest=3, ctc_weight=ctc_weight, lm_weight=0.2)
    for clip, hypotheses in enumerate(search([model], sample, cfg, lm)):
        assert 1 <= len(hypotheses) <= 3
        scores = [one["score"] for one in hypotheses]
        assert scores == sorted(scores, reverse=True)
        for one in hypotheses:
            *output, end = one["tokens"].tolist()
            assert end == 2
            assert set(output) <= {4, 5, 6}
            (exact,) = joint_scores([model], only(sample, clip), [tuple(output)], cfg, lm)
            assert one["score"] == pytest.approx(exact, abs=1e-4)
            assert len(one["positional_scores"]) == len(one["tokens"])
            assert one["positional_scores"].sum().item() == pytest.approx(one["score"], abs=1e-4)


@pytest.mark.parametrize(("beam", "ctc_weight"), [(1, 0.1), (2, 0.0), (2, 1.0), (5, 0.1)])
def test_neither_padding_nor_neighbours_change_a_result(beam, ctc_weight):
    model, lm = hybrid(5), language_model(5)
    cfg = SearchConfig(beam=beam, nbest=2, ctc_weight=ctc_weight, lm_weight=0.3)
    sample = batch([10, 2, 7, 5], frames=14, seed=2)
    together = search([model], sample, cfg, lm)
    for clip, hypotheses in enumerate(together):
        alone = search([model], only(sample, clip), cfg, lm)[0]
        assert [tokens for tokens, _ in found(alone)] == [tokens for tokens, _ in found(hypotheses)]
        assert [s for _, s in found(alone)] == pytest.approx([s for _, s in found(hypotheses)], abs=1e-4)


@pytest.mark.parametrize("bonus", [0.0, 0.3])
@pytest.mark.parametrize("seed", range(3))
def test_stopping_early_changes_no_result(seed, bonus):
    """With many hypotheses asked for, the search goes on to the last length."""
    model, sample = hybrid(seed), batch([12, 9], seed=seed)
    cfg = {"beam": 3, "ctc_weight": 0.2, "length_bonus": bonus}
    short = search([model], sample, SearchConfig(**cfg, nbest=1))
    whole = search([model], sample, SearchConfig(**cfg, nbest=50))
    for early, late in zip(short, whole, strict=True):
        assert early[0]["tokens"].tolist() == late[0]["tokens"].tolist()
        assert early[0]["score"] == pytest.approx(late[0]["score"])
        assert len(late) < 50  # the place of the fiftieth stayed empty: nothing stopped the search


def test_lengths_are_bounded():
    model, sample = hybrid(3), batch([8, 3], seed=1)
    generous = SearchConfig(beam=4, length_bonus=50.0, ctc_weight=0.0)
    assert [len(clip[0]["tokens"]) for clip in search([model], sample, generous)] == [9, 4]
    bounded = SearchConfig(beam=4, length_bonus=50.0, ctc_weight=0.0, max_len_a=0.25, max_len_b=1)
    assert [len(clip[0]["tokens"]) for clip in search([model], sample, bounded)] == [4, 2]
    least = SearchConfig(beam=4, length_bonus=-50.0, ctc_weight=0.0, min_len=5)
    assert [len(clip[0]["tokens"]) for clip in search([model], sample, least)] == [6, 4]


def test_the_model_is_left_as_it_was():
    """After a search, a batch of training is not taken for a beam."""
    model, sample = hybrid(0), batch([6, 6])
    inputs = {**sample["net_input"], "prev_output_tokens": torch.tensor([[2, 4], [2, 5]])}
    before = model(**inputs)[0]
    search([model], sample, SearchConfig(beam=2))
    assert torch.equal(model(**inputs)[0], before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("ctc_weight", [0.0, 0.2, 1.0])
def test_a_gpu_finds_the_same(ctc_weight):
    model, lm, sample = hybrid(5), language_model(5), batch([10, 2, 7], seed=2)
    cfg = SearchConfig(beam=3, ctc_weight=ctc_weight, lm_weight=0.3)
    expected = search([model], sample, cfg, lm)
    inputs = sample["net_input"]
    on_gpu = {key: None if value is None else value.cuda() for key, value in inputs.items()}
    for clip, other in zip(
        search([model.cuda()], {"net_input": on_gpu}, cfg, lm.cuda()), expected, strict=True
    ):
        assert clip[0]["tokens"].tolist() == other[0]["tokens"].tolist()
        assert clip[0]["score"] == pytest.approx(other[0]["score"], abs=1e-3)


def test_too_few_positions_are_refused():
    sample = batch([12])
    with pytest.raises(ValueError, match=r"the decoder has 12 positions.*--max-len-b"):
        search([hybrid(positions=12)], sample, SearchConfig(beam=2))
    with pytest.raises(ValueError, match=r"the language model has 8 positions"):
        search([hybrid()], sample, SearchConfig(beam=2, lm_weight=0.1), language_model(positions=8))


@pytest.mark.parametrize(
    "wrong", [{"ctc_weight": 1.5}, {"beam": 0}, {"nbest": 0}, {"pre_beam": 0.5}, {"lm_weight": -1.0}]
)
def test_senseless_values_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SearchConfig(**wrong)
