"""The model with a CTC head and an attention decoder."""

import pytest
import torch
from fairseq.sequence_generator import SequenceGenerator

from av_ssl.recognition.heads import HybridConfig, HybridModel
from tests.methods.helpers import build, config, source

DECODER = {
    "decoder_layers": 2,
    "decoder_embed_dim": 8,  # narrower than the encoder
    "decoder_ffn_embed_dim": 16,
    "decoder_attention_heads": 2,
}
HISTORY = torch.tensor([[2, 5, 6], [2, 7, 1]])


@pytest.fixture
def model(checkpoint, dictionary):
    return build(HybridModel, config(HybridConfig, checkpoint[0], **DECODER), dictionary).eval()


def test_both_heads_read_one_encoder(model, dictionary):
    batch = source([12, 9], 12)
    calls = []
    model.encoder.register_forward_hook(lambda *_: calls.append(1))
    logits, extra = model(**batch, prev_output_tokens=HISTORY)
    assert len(calls) == 1
    assert logits.shape == (2, 3, len(dictionary))
    assert extra["ctc_logits"].shape == (2, 12, len(dictionary))
    encoded = extra["encoder_out"]["encoder_out"][0]
    assert encoded.shape == (12, 2, 16)
    log_probs = model.ctc_log_probs(extra["encoder_out"])
    expected = model.ctc.proj(encoded[:9, 1]).log_softmax(-1)
    assert torch.allclose(log_probs[1, :9], expected, atol=1e-6)


def test_ctc_log_probs_of_padding_are_blank(model):
    batch = source([12, 9], 12)
    log_probs = model.half().ctc_log_probs(
        {"encoder_out": [torch.randn(12, 2, 16).half()], "encoder_padding_mask": [batch["padding_mask"]]}
    )
    assert log_probs.dtype == torch.float32
    assert torch.isfinite(log_probs).all()
    assert torch.all(log_probs[1, 9:, 0] == 0)
    assert torch.all(log_probs[1, 9:, 1:] < -1e4)
    assert torch.allclose(log_probs.exp().sum(-1), torch.ones(2, 12), atol=1e-5)


def test_padding_changes_nothing(model):
    short, long = source([12], 12), source([12], 20)
    long["source"]["audio"][..., :12] = short["source"]["audio"]
    long["source"]["video"][:, :, :12] = short["source"]["video"]
    with torch.no_grad():
        logits, extra = model(**short, prev_output_tokens=HISTORY[:1])
        padded, padded_extra = model(**long, prev_output_tokens=HISTORY[:1])
    assert torch.allclose(padded, logits, atol=1e-5)
    assert torch.allclose(padded_extra["ctc_logits"][:, :12], extra["ctc_logits"], atol=1e-5)


def test_decoder_is_ravens(model):
    layer = model.decoder.layers[0]
    assert layer.normalize_before
    assert model.decoder.layer_norm is not None
    assert model.decoder.embed_scale == pytest.approx(8**0.5)
    assert model.decoder.embed_out is not model.decoder.embed_tokens.weight
    assert model.decoder.embed_positions._float_tensor.item() == 0  # fairseq leaves it uninitialised
    assert layer.activation_fn is torch.nn.functional.relu
    assert layer.encoder_attn.k_proj.weight.shape == (8, 16)


def test_every_parameter_learns(checkpoint, dictionary):
    cfg = config(HybridConfig, checkpoint[0], **DECODER, feature_grad_mult=1.0)
    model = build(HybridModel, cfg, dictionary).train()
    logits, extra = model(**source([12, 9], 12), prev_output_tokens=HISTORY)
    (logits.square().mean() + extra["ctc_logits"][extra["ctc_logits"] > -1e4].square().mean()).backward()
    assert not [name for name, parameter in model.named_parameters() if parameter.grad is None]


@pytest.mark.parametrize("beam", [1, 3])
def test_beam_search_of_fairseq_scores_as_teacher_forcing(model, dictionary, beam):
    """Incremental decoding, reordering of hypotheses and the whole decoder at once agree."""
    batch = source([12, 9], 12)
    generator = SequenceGenerator([model], dictionary, beam_size=beam, max_len_b=6, normalize_scores=False)
    found = generator.generate([model], {"net_input": {**batch, "src_tokens": torch.full((2, 12), 4)}})
    for clip, hypotheses in enumerate(found):
        tokens = hypotheses[0]["tokens"]
        assert len(tokens) <= 7
        history = torch.cat([torch.tensor([dictionary.eos()]), tokens[:-1]]).expand(2, -1)
        log_probs = model(**batch, prev_output_tokens=history)[0][clip].log_softmax(-1)
        score = log_probs.gather(1, tokens[:, None]).sum()
        assert hypotheses[0]["score"].item() == pytest.approx(score.item(), abs=1e-4)
