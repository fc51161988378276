"""A plug-in small enough to train in a second."""

from __future__ import annotations

from pathlib import Path

import pytest

TASK = """
from dataclasses import dataclass, field
import torch
from fairseq.data import FairseqDataset
from fairseq.dataclass import FairseqDataclass
from fairseq.tasks import FairseqTask, register_task
from omegaconf import MISSING

@dataclass
class Shape(FairseqDataclass):
    width: int = 4

@dataclass
class ToyConfig(FairseqDataclass):
    data: str = MISSING
    clips: int = 8
    shape: Shape = field(default_factory=Shape)

class ToyDataset(FairseqDataset):
    def __init__(self, clips, width):
        self.items = torch.randn(clips, width, generator=torch.Generator().manual_seed(0))
    def __getitem__(self, index):
        return index
    def __len__(self):
        return len(self.items)
    def num_tokens(self, index):
        return 1
    def size(self, index):
        return 1
    def collater(self, indices):
        batch = self.items[indices]
        return {"id": torch.tensor(indices), "nsentences": len(indices), "ntokens": len(indices),
                "net_input": {"source": batch}, "target": batch.sum(1, keepdim=True)}

@register_task("toy", dataclass=ToyConfig)
class ToyTask(FairseqTask):
    def load_dataset(self, split, **kwargs):
        self.datasets[split] = ToyDataset(self.cfg.clips, self.cfg.shape.width)
    @property
    def source_dictionary(self):
        return None
    target_dictionary = source_dictionary
    def max_positions(self):
        return None
"""

MODEL = """
from dataclasses import dataclass
import torch
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.dataclass import FairseqDataclass
from fairseq.models import BaseFairseqModel, register_model

@dataclass
class ToyModelConfig(FairseqDataclass):
    fail: bool = False

@register_model("toy_model", dataclass=ToyModelConfig)
class ToyModel(BaseFairseqModel):
    def __init__(self, cfg, task):
        super().__init__()
        if cfg.fail:
            raise RuntimeError("the toy model was told to fail")
        self.layer = torch.nn.Linear(task.cfg.shape.width, 1)
    @classmethod
    def build_model(cls, cfg, task):
        return cls(cfg, task)
    def forward(self, source):
        return self.layer(source)

@register_criterion("toy_loss")
class ToyLoss(FairseqCriterion):
    def forward(self, model, sample, reduce=True):
        loss = ((model(**sample["net_input"]) - sample["target"]) ** 2).sum()
        count = sample["nsentences"]
        return loss, count, {"loss": loss.data, "ntokens": count, "nsentences": count, "sample_size": count}
    @staticmethod
    def reduce_metrics(logging_outputs):
        from fairseq import metrics
        count = sum(log["sample_size"] for log in logging_outputs)
        metrics.log_scalar("loss", sum(log["loss"] for log in logging_outputs) / count, count, round=3)
    @staticmethod
    def logging_outputs_can_be_summed():
        return True
"""

HYDRA_CONFIG = """
defaults:
  - _self_
common: {no_progress_bar: true, log_format: json, cpu: true}
checkpoint: {save_dir: checkpoints, save_interval: 1}
distributed_training: {distributed_world_size: 1, ddp_backend: no_c10d}
task:
  _name: toy
  data: ???
  shape: {width: 4}
dataset: {batch_size: 4, num_workers: 0, train_subset: train, valid_subset: valid}
criterion: {_name: toy_loss}
optimization: {max_epoch: 2, lr: [0.01]}
optimizer: {_name: adam, adam_betas: '(0.9,0.98)'}
lr_scheduler: {_name: fixed, warmup_updates: 0}
model: {_name: toy_model}
"""


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    """A plug-in with a hydra task, a model and a criterion, and beside it conf/toy.yaml that trains them."""
    files = {"tasks/__init__.py": "", "tasks/toy.py": TASK, "models/__init__.py": "", "models/toy.py": MODEL}
    folder = tmp_path / "toy_plugin"
    for name, text in {**files, "__init__.py": ""}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "toy.yaml").write_text(HYDRA_CONFIG)
    return folder
