"""A new method is one new file: it registers itself, loads, and can be fine-tuned."""

import textwrap

import pytest
import torch
from fairseq.data import Dictionary

import av_ssl
from av_ssl import methods
from av_ssl.recognition.heads import CTCConfig, CTCModel
from tests.methods.helpers import TINY, build, config, rebuild, source

METHOD = """
from dataclasses import dataclass, field

from fairseq.models import MODEL_REGISTRY, register_model
from torch import nn

from av_ssl.methods.fused_encoder import MaskedAudioVisualEncoder, RecipeConfig


@dataclass
class SeventhConfig(RecipeConfig):
    head_dim: int = field(default=5, metadata={"help": "channels of the head"})


@register_model("seventh_method", dataclass=SeventhConfig)
class SeventhModel(MaskedAudioVisualEncoder):
    pretraining_only = ("mask_emb", "seventh_head.")

    def __init__(self, cfg):
        super().__init__(cfg)
        self.seventh_head = nn.Linear(cfg.encoder_embed_dim, cfg.head_dim)

    @classmethod
    def build_model(cls, cfg, task=None):
        return cls(cfg)
"""


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    """A checkpoint of a method whose file lies in the folder of methods."""
    folder = tmp_path / "methods"
    folder.mkdir()
    (folder / "seventh.py").write_text(textwrap.dedent(METHOD))
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(folder)])
    methods.register_all()
    from av_ssl.methods.seventh import SeventhConfig, SeventhModel  # type: ignore[import-not-found]

    keys = {key: TINY[key] for key in TINY if hasattr(SeventhConfig(), key)}
    torch.manual_seed(0)
    cfg = {
        "model": {"_name": "seventh_method", **keys},
        "task": {"_name": "av_pretraining", "normalize": True},
    }
    path = tmp_path / "seventh.pt"
    torch.save({"cfg": cfg, "model": SeventhModel(SeventhConfig(**keys)).state_dict()}, path)
    return path


def test_a_new_method_loads_and_is_fine_tuned(checkpoint):
    pretrained = av_ssl.load(checkpoint)
    assert pretrained.cfg.head_dim == 5
    dictionary = Dictionary()
    cfg = config(CTCConfig, checkpoint)
    model = build(CTCModel, cfg, dictionary)
    own = model.w2v_encoder.w2v_model.state_dict()
    assert not [name for name in own if name.startswith(("mask_emb", "seventh_head"))]
    assert all(torch.equal(tensor, pretrained.state_dict()[name]) for name, tensor in own.items())
    model(**source([8, 6], 8))["encoder_out"].sum().backward()
    checkpoint.unlink()
    rebuild(CTCModel, cfg, dictionary).load_state_dict(model.state_dict())
