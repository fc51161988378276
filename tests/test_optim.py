"""Learning rates by layer, clipping by group, in every precision; with fairseq's own schedulers."""

import copy
import math

import pytest
import torch
from fairseq import optim
from fairseq.dataclass.configs import FairseqConfig
from fairseq.optim.adam import FairseqAdamConfig
from fairseq.optim.lr_scheduler import build_lr_scheduler
from fairseq.optim.lr_scheduler.cosine_lr_scheduler import CosineLRScheduleConfig
from omegaconf import OmegaConf, open_dict
from torch import nn

from av_ssl.optim import Adam, GroupedAdamConfig, ParameterGroup, clip_together, group_of, mark_depths

LAYERS = 3


class Recogniser(nn.Module):
    """A front-end, layers and a final norm of a pre-trained encoder, and a head."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Module()
        self.encoder.front_end = nn.Linear(4, 4)
        self.encoder.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(LAYERS))
        self.encoder.after_norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 2)
        mark_depths(self.encoder, self.encoder.layers, [self.encoder.after_norm])

    def forward(self, x):
        x = self.encoder.front_end(x)
        for layer in self.encoder.layers:
            x = layer(x)
        return self.head(self.encoder.after_norm(x))


def config(common=(), clip_norm=0.0, lr=1e-3, **keys):
    cfg = OmegaConf.structured(FairseqConfig())
    with open_dict(cfg):
        cfg.optimization.lr = [lr]
        cfg.optimization.clip_norm = clip_norm
        cfg.common.update(dict(common))
        structure = GroupedAdamConfig() if keys.pop("grouped", True) else FairseqAdamConfig()
        name = "grouped_adam" if isinstance(structure, GroupedAdamConfig) else "adam"
        section = OmegaConf.structured(structure)
        cfg.optimizer = OmegaConf.merge(section, {"_name": name, "adam_betas": "(0.9, 0.98)", **keys})
    return cfg


def build(model, *args, **keys):
    cfg = config(*args, **keys)
    return optim.build_optimizer(cfg.optimizer, list(model.parameters()))


def rates(optimizer, model):
    """Learning rate of each of the model's parameters, by name."""
    by_id = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    return {name: by_id[id(parameter)] for name, parameter in model.named_parameters()}


def cosine(optimizer, lr, warmup, total):
    cfg = CosineLRScheduleConfig(
        warmup_updates=warmup, warmup_init_lr=0.0, lr=[lr], min_lr=1e-5, max_update=total, lr_shrink=1e-5 / lr
    )
    return build_lr_scheduler(OmegaConf.merge(OmegaConf.structured(cfg), {"_name": "cosine"}), optimizer)


def test_stock_cosine_is_ravens_schedule():
    """Linear from 0, cosine to a floor; lr_shrink = min_lr / lr keeps the restart behind its end harmless."""
    model = Recogniser()
    optimizer = build(model, lr=3e-3, lr_floor=1e-5)
    scheduler = cosine(optimizer, 3e-3, 40, 150)
    expected = {0: 0.0, 20: 1.5e-3, 40: 3e-3, 60: 2.76267e-3, 100: 1.29224e-3, 150: 1e-5}
    for update, lr in expected.items():
        assert scheduler.step_update(update) == pytest.approx(lr, rel=1e-5)
        assert set(rates(optimizer, model).values()) == {scheduler.lr}
    assert 0 < scheduler.step_update(160) < 1e-5


def test_layers_and_head_have_their_own_cosines():
    lr, head, decay, floor, warmup, total = 1e-3, 5e-3, 0.05, 1e-5, 40, 150
    model = Recogniser()
    optimizer = build(model, lr=lr, head_lr=head, layer_decay=decay, lr_floor=floor)
    scheduler = cosine(optimizer, lr, warmup, total)
    peaks = {
        "head.weight": head, "encoder.after_norm.bias": lr, "encoder.layers.2.weight": lr,
        "encoder.layers.1.weight": lr * decay, "encoder.layers.0.weight": floor,
        "encoder.front_end.bias": floor,
    }  # fmt: skip
    for update in (40, 60, 100, 150):
        scheduler.step_update(update)
        share = 0.5 * (1 + math.cos(math.pi * (update - warmup) / (total - warmup)))
        for name, peak in peaks.items():
            expected = floor + (peak - floor) * share
            assert rates(optimizer, model)[name] == pytest.approx(expected, rel=1e-6), (update, name)
        assert optimizer.get_lr() == pytest.approx(floor + (lr - floor) * share)
    for update in (0, 1, 20):  # the warm-up is a line to within the floor
        scheduler.step_update(update)
        for name, peak in peaks.items():
            error = rates(optimizer, model)[name] - peak * update / warmup
            assert abs(error) <= floor * abs(1 - peak / lr) + 1e-12


def test_without_groups_it_is_fairseqs_adam():
    models = [Recogniser(), Recogniser()]
    optimizers = [build(model, grouped=grouped) for model, grouped in zip(models, (True, False), strict=True)]
    x = torch.randn(8, 4)
    for update in range(3):
        for model, optimizer in zip(models, optimizers, strict=True):
            optimizer.set_lr(1e-3 / (update + 1))
            optimizer.zero_grad()
            model(x).square().sum().backward()
            optimizer.step()
    for ours, stock in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(ours, stock)


def test_the_fused_step_is_that_of_fairseqs_adam():
    """In float64, by fairseq's formula; the second parameter joins at update 3, as after a freeze."""
    torch.manual_seed(0)
    beta1, beta2, eps, decay, lr = 0.9, 0.98, 1e-3, 0.1, 1e-2
    parameters = [nn.Parameter(torch.randn(5, dtype=torch.float64)) for _ in range(2)]
    expected = [parameter.detach().clone() for parameter in parameters]
    averages = [(torch.zeros(5, dtype=torch.float64), torch.zeros(5, dtype=torch.float64)) for _ in range(2)]
    optimizer = Adam(parameters, lr, (beta1, beta2), eps, decay)
    for update in range(1, 7):
        for number, parameter in enumerate(parameters):
            age = update - 2 * number
            if age < 1:
                continue
            parameter.grad = torch.randn(5, dtype=torch.float64)
            mean, square = averages[number]
            mean.mul_(beta1).add_(parameter.grad, alpha=1 - beta1)
            square.mul_(beta2).addcmul_(parameter.grad, parameter.grad, value=1 - beta2)
            size = lr * math.sqrt(1 - beta2**age) / (1 - beta1**age)
            expected[number] -= decay * lr * expected[number] + size * mean / (square.sqrt() + eps)
        optimizer.step()
    torch.testing.assert_close([parameter.detach() for parameter in parameters], expected)
    assert optimizer.state[parameters[1]]["step"] == 4


def test_frozen_parameters_with_zeros_as_gradients_stay_as_they_are():
    """Several processes and half precision give zeros to what has no gradient: no decay, no steps counted."""
    frozen, moved = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    optimizer = Adam([frozen, moved], 1e-2, (0.9, 0.98), 1e-8, weight_decay=0.1)
    for _ in range(5):
        frozen.grad, moved.grad = torch.zeros(3), torch.ones(3)
        optimizer.step()
    assert frozen.tolist() == [1, 1, 1]
    assert frozen not in optimizer.state
    frozen.grad = torch.ones(3)
    optimizer.step()
    assert optimizer.state[frozen]["step"] == 1
    frozen.grad = torch.zeros(3)  # a gradient that happens to be zero later is one
    optimizer.step()
    assert optimizer.state[frozen]["step"] == 2


def two_students():
    """A model of two groups to clip by, whose gradients have norms 6 and 2."""
    model = nn.ModuleDict({"video": nn.Linear(2, 2, bias=False), "audio": nn.Linear(2, 2, bias=False)})
    for name in model:
        clip_together(model[name].parameters(), name)
    return model


def give_gradients(model, scale=1.0):
    for name, value in (("video", 3.0), ("audio", 1.0)):
        parameter = model[name].weight
        parameter.grad = torch.full_like(parameter, value * scale)


def gradients_at_the_step(optimizer):
    """What torch's optimizer sees, by position."""
    seen = []

    def record(*args, **kwargs):
        seen.extend(p.grad.float().norm().item() for g in optimizer.param_groups for p in g["params"])

    optimizer.optimizer.step = record
    return seen


def test_groups_are_clipped_by_their_own_norms():
    model = two_students()
    optimizer = build(model, group_clip_norm=3.0)
    seen = gradients_at_the_step(optimizer)
    give_gradients(model)
    assert optimizer.clip_grad_norm(0).item() == pytest.approx(40**0.5)
    optimizer.step()
    assert seen == pytest.approx([3.0, 2.0], rel=1e-5)


@pytest.mark.parametrize("precision", ["fp16", "bf16", "memory_efficient_fp16", "memory_efficient_bf16"])
def test_groups_are_clipped_after_gradients_are_unscaled(precision):
    """fairseq's half-precision wrappers keep gradients scaled by the loss scale and the batch size."""
    half = "bf16" if "bf16" in precision else "fp16"
    common = {precision: True, half: True, "fp16_no_flatten_grads": True, "fp16_init_scale": 4}
    cfg = config(common, group_clip_norm=3.0)
    model = two_students().to(torch.bfloat16 if half == "bf16" else torch.float16)
    wrapper = optim.MemoryEfficientFP16Optimizer if precision.startswith("memory") else optim.FP16Optimizer
    optimizer = wrapper.build_optimizer(cfg, list(model.parameters()))
    seen = gradients_at_the_step(optimizer)
    optimizer.zero_grad()
    loss_scale = 1 if half == "bf16" else 4
    give_gradients(model, scale=loss_scale * 8)
    optimizer._needs_sync = True
    optimizer.multiply_grads(1 / 8)  # as the trainer divides by the sample size
    assert float(optimizer.clip_grad_norm(0)) == pytest.approx(40**0.5, rel=1e-2)
    optimizer.step()
    assert seen == pytest.approx([3.0, 2.0], rel=1e-2)


@pytest.mark.parametrize("half", ["fp16", "bf16"])
def test_fp32_copies_keep_their_groups(half):
    cfg = config({half: True, "fp16_no_flatten_grads": True}, head_lr=5e-3, layer_decay=0.5)
    model = Recogniser().to(torch.bfloat16 if half == "bf16" else torch.float16)
    optimizer = optim.FP16Optimizer.build_optimizer(cfg, list(model.parameters()))
    optimizer.set_lr(1e-3)
    assert sorted({group["lr"] for group in optimizer.param_groups}) == [2.5e-4, 5e-4, 1e-3, 5e-3]
    assert optimizer.get_lr() == 1e-3


def test_flattened_parameters_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "current_device", lambda: None)  # fairseq flattens for each GPU
    params = list(Recogniser().half().parameters())
    with pytest.raises(RuntimeError, match="please set --fp16-no-flatten-grads"):
        optim.FP16Optimizer.build_optimizer(config({"fp16": True}), params)
    with pytest.raises(ValueError, match="--fp16-no-flatten-grads"):
        optim.FP16Optimizer.build_optimizer(config({"fp16": True}, layer_decay=0.5), params)


def run(model, optimizer, scheduler, updates):
    generator = torch.Generator().manual_seed(1)
    batches = torch.randn(10, 8, 4, generator=generator)
    for update in updates:
        optimizer.zero_grad()
        model(batches[update]).square().sum().backward()
        optimizer.clip_grad_norm(0)
        optimizer.step()
        scheduler.step_update(update + 1)


def test_resumed_run_is_bit_identical():
    def fresh():
        model = Recogniser()
        clip_together(model.encoder.parameters(), "encoder")
        optimizer = build(model, head_lr=5e-3, layer_decay=0.5, lr_floor=1e-5, group_clip_norm=1.0)
        return model, optimizer, cosine(optimizer, 1e-3, 2, 10)

    model, optimizer, scheduler = fresh()
    scheduler.step_update(0)
    run(model, optimizer, scheduler, range(4))
    saved = copy.deepcopy((model.state_dict(), optimizer.state_dict(), scheduler.state_dict()))
    run(model, optimizer, scheduler, range(4, 8))
    resumed, optimizer, scheduler = fresh()
    resumed.load_state_dict(saved[0])
    optimizer.load_state_dict(saved[1])
    scheduler.load_state_dict(saved[2])
    scheduler.step_update(4)
    run(resumed, optimizer, scheduler, range(4, 8))
    for one, other in zip(model.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("args", "keys", "message"),
    [
        ((), {"layer_decay": 0.0}, "layer_decay is 0.0"),
        ((), {"lr_floor": 1e-3}, "lr_floor is 0.001; it must be"),
        ((), {"head_lr": 0.0}, "head_lr is 0.0"),
        (({}, 5.0), {"group_clip_norm": 3.0}, "are both set"),
        (({"amp": True},), {"group_clip_norm": 3.0}, "does not go with common.amp"),
        ((), {"group_clip_norm": 3.0}, "set optimization.clip_norm to 3.0"),
    ],
)
def test_contradictions_are_refused(args, keys, message):
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        build(Recogniser(), *args, **keys)


@pytest.mark.parametrize("keys", [{"layer_decay": 0.5}, {"head_lr": 1e-2}])
def test_model_without_pretrained_encoder_is_refused(keys):
    with pytest.raises(ValueError, match="no parameter is marked"):
        build(nn.Linear(2, 2), **keys)


def test_marks_add_up():
    model = Recogniser()
    clip_together(model.encoder.parameters(), "student")
    assert group_of(model.encoder.front_end.weight) == ParameterGroup(depth=2, clip="student")
    assert group_of(model.head.weight) == ParameterGroup(depth=None, clip="")
