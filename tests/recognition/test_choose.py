"""Which search decodes which model, and what is refused."""

import argparse
from types import SimpleNamespace

import pytest

from av_ssl.errors import DataError
from av_ssl.recognition.ctc_generator import CTCBeamSearch
from av_ssl.recognition.generation import check_stored_dictionary, choose_search
from av_ssl.recognition.search import JointBeamSearch
from tests.dictionaries import dictionary_of

from .tiny_models import language_model, letters

CTC = SimpleNamespace()
ATTENTION = SimpleNamespace(decoder=None)
HYBRID = SimpleNamespace(decoder=None, ctc_log_probs=None)


def choose(*models, lm=None, lm_weight=0.3, ctc_weight=0.1, length_bonus=0.0, **options):
    task = SimpleNamespace(ctc_weight=ctc_weight, length_bonus=length_bonus, pre_beam=1.5)
    return choose_search(models, letters(), task, argparse.Namespace(beam=7, **options), lm, lm_weight)


def test_each_model_gets_its_search():
    lm = language_model()
    assert choose(ATTENTION) is None
    assert choose(ATTENTION, lm=lm) is None
    assert choose(HYBRID, ctc_weight=0.0, lm=lm) is None
    assert isinstance(choose(CTC), CTCBeamSearch)
    assert isinstance(choose(CTC, lm=lm, lm_weight=0.0), CTCBeamSearch)
    joint = {
        0.1: choose(HYBRID, HYBRID), 1.0: choose(CTC, lm=lm), 0.0: choose(ATTENTION, length_bonus=1.0),
        0.4: choose(HYBRID, ctc_weight=0.4, lm=lm),
    }  # fmt: skip
    for weight, search in joint.items():
        assert isinstance(search, JointBeamSearch)
        assert search.cfg.ctc_weight == weight
        assert search.cfg.beam == 7
    assert joint[0.1].lm is None
    assert joint[0.4].lm is lm


def test_options_reach_the_search():
    cfg = choose(HYBRID, nbest=3, min_len=0, max_len_a=0.5, max_len_b=8, length_bonus=0.2).cfg
    assert (cfg.nbest, cfg.min_len, cfg.max_len_a, cfg.max_len_b, cfg.length_bonus) == (3, 0, 0.5, 8, 0.2)
    cfg = choose(HYBRID).cfg
    assert (cfg.nbest, cfg.min_len, cfg.max_len_a, cfg.max_len_b) == (1, 1, 0, 200)  # fairseq's defaults


def test_options_without_effect_are_refused():
    with pytest.raises(ValueError, match="--no-repeat-ngram-size, --lenpen"):
        choose(HYBRID, lenpen=0.5, no_repeat_ngram_size=2, temperature=1.0)
    assert choose(HYBRID, lenpen=0.5, ctc_weight=0.0) is None


def test_options_that_ctc_search_lacks(caplog):
    with pytest.raises(ValueError, match="--lenpen: CTC beam search has no such option"):
        choose(CTC, lenpen=0.5)
    choose(CTC, nbest=3, min_len=0, max_len_a=1.0, max_len_b=10, lenpen=1.0)  # bounds that never bind
    assert not caplog.text
    choose(CTC, min_len=5, max_len_a=0.5)
    assert "--min-len, --max-len-a, --max-len-b: without effect" in caplog.text


def test_a_language_model_without_weight_is_reported(caplog):
    assert choose(HYBRID, lm=language_model(), lm_weight=0.0).lm is None
    assert "--lm-weight" in caplog.text


@pytest.mark.parametrize("models", [(CTC, ATTENTION), (CTC, HYBRID), (ATTENTION, HYBRID)])
def test_mixed_ensembles_are_refused(models):
    with pytest.raises(ValueError, match="different heads"):
        choose(*models)


def test_a_language_model_over_other_symbols_is_refused():
    lm = language_model()
    lm.decoder.dictionary = dictionary_of("acb")
    for model in (ATTENTION, HYBRID, CTC):
        with pytest.raises(DataError, match=r"another dictionary, where id 5 is 'c', not 'b'"):
            choose(model, lm=lm)


def test_the_dictionary_that_fairseq_reads_is_checked(tmp_path):
    with pytest.raises(DataError, match=r"dict\.txt: does not exist; .* copy dict\.txt"):
        check_stored_dictionary(tmp_path, letters())
    (tmp_path / "dict.txt").write_text("a 3\nb 2\n")
    with pytest.raises(DataError, match=r"dict\.txt: the language model .* of 6 symbols instead of 7"):
        check_stored_dictionary(tmp_path, letters())
    (tmp_path / "dict.txt").write_text("a 3\nb 2\nc 1\n")  # counts do not matter
    check_stored_dictionary(tmp_path, letters())
