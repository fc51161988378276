"""One call, and fairseq's own, on files laid out as AV-HuBERT's published ones; what they refuse."""

import argparse
import logging

import pytest
import torch
from fairseq.checkpoint_utils import load_model_ensemble_and_task
from omegaconf import OmegaConf

import av_ssl
import av_ssl.tasks
from av_ssl.methods.av_hubert import AVHubertConfig, AVHubertModel
from av_ssl.recognition.heads import Seq2SeqConfig, Seq2SeqModel
from tests.checkpoints.published_layout import (
    ENCODER,
    clusters,
    finetuned_state,
    pretrained_state,
    save,
)
from tests.methods.helpers import TINY, rebuild, source, tiny_av2vec

FINETUNED = ("av_hubert_seq2seq", "av_hubert_ctc")


# -- what is loaded ------------------------------------------------------------------------------------------


def test_both_ways_give_the_stored_tensors(published):
    stored = torch.load(published)["model"]
    ours = av_ssl.load(published).module
    (stock,), _, _ = load_model_ensemble_and_task([str(published)])
    assert type(ours) is type(stock)
    assert not ours.training
    assert ours.state_dict().keys() == stock.state_dict().keys()
    for name, tensor in ours.state_dict().items():
        assert torch.equal(tensor, stored[name]), name
        assert torch.equal(tensor, stock.state_dict()[name]), name


def test_configuration_comes_along(published):
    model = av_ssl.load(published)
    encoder = model
    if model.cfg._name in FINETUNED:
        encoder = (model.encoder if hasattr(model, "encoder") else model.w2v_encoder).w2v_model
        assert model.text_encoder.decode(model.text_encoder.encode("BIN blue at")) == "bin blue at"
    assert encoder.cfg.encoder_layers == 2
    assert encoder.cfg.image_mean == 0.421
    assert model.task_cfg["stack_order_audio"] == 4


def test_unknown_keys_cost_one_warning(tmp_path, caplog):
    path = save(pretrained_state(), tmp_path / "published.pt")
    with caplog.at_level(logging.WARNING):
        av_ssl.load(path)
        load_model_ensemble_and_task([str(path)])
    ours, stock = [record.getMessage() for record in caplog.records]
    assert "published.pt" in ours
    assert "layer_type, pos_conv_depth, required_seq_len_multiple" in ours
    assert stock.endswith("no_such_key")


def test_the_log_says_which_tensors_matched(tmp_path, caplog):
    content = finetuned_state(tmp_path)
    path = save(content, tmp_path / "published.pt")
    with caplog.at_level(logging.INFO):
        av_ssl.load(path)
    unused = "encoder.w2v_model.label_embs_concat, encoder.w2v_model.mask_emb"
    assert f"loaded {len(content['model']) - 2} tensors; missing: none; left over: {unused}" in caplog.text


def test_methods_that_downstream_code_calls(tmp_path):
    model = av_ssl.load(save(pretrained_state(), tmp_path / "published.pt"))
    batch = source([8, 6], 8)
    audio, video = batch["source"]["audio"], batch["source"]["video"]
    with torch.no_grad():
        both, padding = model.extract_finetune({"audio": audio, "video": video}, batch["padding_mask"])
        heard, _ = model.extract_finetune({"audio": audio, "video": None}, batch["padding_mask"])
        seen, _ = model.extract_finetune({"audio": None, "video": video}, batch["padding_mask"])
        last, _ = model.extract_features(
            source={"audio": audio, "video": video}, padding_mask=batch["padding_mask"], output_layer=2
        )
    assert both.shape == heard.shape == seen.shape == (2, 8, 16)
    assert padding is batch["padding_mask"]
    torch.testing.assert_close(model.encoder.layer_norm(last), both)
    assert not torch.allclose(heard, seen, atol=1e-2)


def test_two_label_sets_of_a_model_trained_here(tmp_path):
    sets = [clusters(20), clusters(7)]
    cfg = AVHubertConfig(**ENCODER, image_mean=0.421, image_std=0.165)
    trained = AVHubertModel(cfg, [len(one) for one in sets])
    content = pretrained_state()
    content["model"] = trained.state_dict()
    content["task_state"] = {"label_symbols": [list(one.symbols) for one in sets]}
    model = av_ssl.load(save(content, tmp_path / "two.pt"))
    assert model.classes == [24, 11]
    assert torch.equal(model.final_proj.weight, trained.final_proj.weight)


# -- sizes of the published models ---------------------------------------------------------------------------

BASE = {"layer_norm_first": True, "final_dim": 256, "image_mean": 0.421, "image_std": 0.165}
LARGE = {
    **BASE, "encoder_layers": 24, "encoder_embed_dim": 1024, "encoder_ffn_embed_dim": 4096,
    "encoder_attention_heads": 16,
}  # fmt: skip
TIED = {"share_decoder_input_output_embed": True, "decoder_normalize_before": True}
LARGE_DECODER = {
    **TIED, "decoder_layers": 9, "decoder_embed_dim": 1024, "decoder_ffn_embed_dim": 4096,
    "decoder_attention_heads": 8,
}  # fmt: skip


@pytest.mark.parametrize(
    ("sizes", "tensors", "parameters"), [(BASE, 346, 103_330_280), (LARGE, 538, 325_398_504)]
)
def test_pretrained_models_have_the_published_size(sizes, tensors, parameters):
    with torch.device("meta"):
        model = AVHubertModel(AVHubertConfig(**sizes), [2004])
    assert len(model.state_dict()) == tensors
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


@pytest.mark.parametrize(
    ("sizes", "decoder", "tensors", "parameters"),
    [(BASE, TIED, 504, 57_480_192), (LARGE, LARGE_DECODER, 774, 152_196_096)],
)
def test_finetuned_models_have_the_published_size(sizes, decoder, tensors, parameters):
    own = {"w2v_args": {"model": sizes}, "normalize": True, **decoder}
    cfg = OmegaConf.merge(OmegaConf.structured(Seq2SeqConfig()), own)
    with torch.device("meta"):
        model = rebuild(Seq2SeqModel, cfg, clusters(996))
    unused = 2  # mask_emb and label_embs_concat of the encoder, which are published and of no use
    assert len(model.state_dict()) + unused == tensors
    assert sum(parameter.numel() for parameter in model.decoder.parameters()) == parameters


# -- decoding without any file but the checkpoint ------------------------------------------------------------


@pytest.mark.parametrize("name", FINETUNED)
def test_decodes_without_dictionary_or_pretrained_checkpoint(tmp_path, name):
    path = save(finetuned_state(tmp_path, name), tmp_path / "published.pt")
    models, _, task = load_model_ensemble_and_task([str(path)])
    options = argparse.Namespace(beam=3, max_len_a=1.0, max_len_b=5, lenpen=1.0)
    generator = task.build_generator(models, options)
    batch = source([8, 6], 8)
    batch["src_tokens"], batch["src_lengths"] = torch.zeros(2, 8, dtype=torch.long), torch.tensor([8, 6])
    hypotheses = task.inference_step(generator, [model.eval() for model in models], {"net_input": batch})
    assert len(hypotheses) == 2
    for best, *_ in hypotheses:
        words = task.build_bpe(None).decode(task.target_dictionary.string(best["tokens"]))
        assert isinstance(words, str)
        assert "\u2581" not in words


def test_av2vec_with_its_teacher(tmp_path):
    model = tiny_av2vec()
    model.teacher = model.make_teacher()
    cfg = {"model": {"_name": "av2vec", **TINY}, "task": {"_name": "av_pretraining", "normalize": True}}
    torch.save({"cfg": cfg, "model": model.state_dict()}, tmp_path / "av2vec.pt")
    loaded = av_ssl.load(tmp_path / "av2vec.pt")
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
