"""What distillation promises: inputs, gradients, what a checkpoint holds."""

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

import av_ssl
from av_ssl.errors import DataError
from av_ssl.methods.distillav import (
    DistillAVConfig,
    DistillAVCriterion,
    DistillAVCriterionConfig,
    DistillAVModel,
)
from av_ssl.methods.fused_encoder import AudioVisualEncoder
from av_ssl.methods.teacher_heads import attach_teacher_shapes, teacher_losses
from av_ssl.targets.speech_teacher import TeacherSpec, make_teacher
from tests.methods.helpers import CALM, TINY, source
from tests.targets.teacher_folders import CLUSTERS, DIM, write_teacher_folder
from tests.targets.tiny_teachers import tiny_teacher

LENGTHS = [20, 14]
OF_AV2VEC = ("average_top_k_layers", "ema_anneal_end_step")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return two_teachers(tmp_path_factory.mktemp("teachers"))


def tiny(folders: list[str], **overrides) -> DistillAVModel:
    torch.manual_seed(0)
    encoder = {key: value for key, value in TINY.items() if key not in OF_AV2VEC}
    values = {**encoder, **CALM, "final_dim": 8, "teachers": folders, **overrides}
    cfg = OmegaConf.merge(OmegaConf.structured(DistillAVConfig()), values)
    attach_teacher_shapes(cfg)
    return DistillAVModel(cfg)


def save(model: DistillAVModel, path: Path) -> Path:
    """A checkpoint to load or to fine-tune from."""
    cfg = {"model": {**OmegaConf.to_container(model.cfg, enum_to_str=True), "_name": "distillav"},
           "task": {"_name": "av_pretraining", "normalize": True, "image_crop_size": 22},
           "criterion": {"_name": "distillav"}}  # fmt: skip
    torch.save({"args": None, "cfg": cfg, "model": model.state_dict()}, path)
    return path


def two_teachers(folder: Path) -> list[str]:
    first = write_teacher_folder(folder / "wavlm")
    return [str(first), str(write_teacher_folder(folder / "whisper", missing=0, dim=4, seed=1))]


def net_input(model: DistillAVModel, lengths=LENGTHS, frames: int | None = None, seed: int = 0) -> dict:
    """What the data pipeline gives, the targets of each teacher random but the same for every model."""
    frames = frames or max(lengths)
    masks = model.masking.draw(lengths, frames, np.random.default_rng(seed))
    generator = torch.Generator().manual_seed(7)
    teachers: dict = {"lengths": lengths, "index": [], "features": []}
    for folder in model.targets.folders:
        features = torch.zeros(len(lengths), 2 * frames, folder.dim, dtype=torch.float16)
        valid = torch.zeros(len(lengths), frames, dtype=torch.bool)
        for row, length in enumerate(lengths):
            count = 2 * length - folder.missing
            features[row, :count] = torch.randn(count, folder.dim, generator=generator).half()
            valid[row, : count // 2] = True
        teachers["index"].append(valid.flatten().nonzero().squeeze(1))
        teachers["features"].append(features)
    return {**source(lengths, frames, seed=seed), "masks": {**masks, "dropped": None}, "teachers": teachers}


def loss_of(model, batch):
    criterion = DistillAVCriterion(DistillAVCriterionConfig(), task=None)
    return criterion(model, {"net_input": batch, "ntokens": 1, "nsentences": 1})


def test_shares_tensors_with_the_plain_encoder(folders):
    model = tiny(folders)
    plain = AudioVisualEncoder(model.cfg)
    own = model.state_dict()
    assert all(own[name].shape == tensor.shape for name, tensor in plain.state_dict().items())
    parts = ("regression.weight", "regression.bias", "cluster_proj.weight", "cluster_proj.bias", "codebook")
    heads = [f"teacher_heads.{k}.{part}" for k in (0, 1) for part in parts]
    extra = own.keys() - plain.state_dict().keys()
    assert extra == {"mask_emb", "mask_emb_video", *heads}


def test_heads_targets_masks_and_balance_are_those_of_the_configuration(folders):
    targets = {"soft_label_temp": 0.3, "teacher_precision": "float16", "teacher_source": "online"}
    model = tiny(folders, logit_temp=0.2, gram="full", loss_on="union", **targets)
    assert (model.targets.dtype, model.targets.online) == (torch.float16, [True, True])
    slopes = [net.targets.clusters[1].slopes for net in (model, tiny(folders))]
    torch.testing.assert_close(3 * slopes[0], slopes[1])  # its soft_label_temp is 0.1
    assert [head.temperature for head in model.teacher_heads] == [0.2, 0.2]
    assert [head.codebook.shape for head in model.teacher_heads] == [(CLUSTERS, 8)] * 2
    assert (model.balancer.gram, model.masking.loss_on) == ("full", "union")
    masked = model.masking.draw([30, 20, 25], 30, np.random.default_rng(0))["audio"].sum(1)
    assert masked[0] == masked[1] == masked[2] > 0


def test_every_parameter_learns(folders):
    model = tiny(folders).train()
    loss, frames, log = loss_of(model, net_input(model))
    assert frames == sum(LENGTHS)
    assert [log[f"teacher{k}_targets"] for k in (0, 1)] == [2 * (19 + 13), 2 * (20 + 14)]
    loss.backward()
    assert torch.isfinite(loss)
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    assert model.balancer.weights.shape == (4,)
    assert torch.isfinite(model.balancer.weights).all()


@pytest.mark.parametrize("balance", ["aligned_mtl", "none"])
def test_heads_have_plain_gradients_the_encoder_balanced_ones(folders, balance):
    model = tiny(folders, balance=balance).train()
    batch = net_input(model)
    loss_of(model, batch)[0].backward()
    plain = copy.deepcopy(model)
    plain.balancer = None
    plain.zero_grad()
    plain.targets = model.targets
    loss_of(plain, batch)[0].backward()
    for name, parameter in model.named_parameters():
        expected = dict(plain.named_parameters())[name].grad
        if name.startswith("teacher_heads.") or balance == "none":
            np.testing.assert_allclose(parameter.grad, expected, atol=1e-5, err_msg=name)
    differs = not torch.allclose(
        model.encoder.layers[0].fc1.weight.grad, plain.encoder.layers[0].fc1.weight.grad
    )
    assert differs == (balance == "aligned_mtl")


def test_the_penalty_is_not_balanced(folders):
    """The gradient of the whole is that of the penalty and the weighted ones of the tasks."""
    model = tiny(folders).train()
    batch = net_input(model)
    loss_of(model, batch)[0].backward()
    whole = model.post_extract_proj.weight.grad.clone()
    weights = model.balancer.weights.tolist()
    model.balancer = None
    output = model(**batch)
    terms = [term for losses in teacher_losses(output) for term in losses]
    weighted = sum(weight * term for weight, term in zip(weights, terms, strict=True))
    model.zero_grad()
    (weighted + 10 * output["features_pen"] * sum(LENGTHS)).backward()
    np.testing.assert_allclose(model.post_extract_proj.weight.grad, whole, rtol=1e-3, atol=1e-4)


def test_padding_changes_neither_losses_nor_frames(folders):
    model = tiny(folders).eval()
    losses = []
    for frames in (20, 31):
        batch = net_input(model, frames=frames)
        for stream in ("audio", "video"):
            batch["masks"][stream] = torch.zeros(2, frames, dtype=torch.bool)
        short = source(LENGTHS, 20)["source"]
        batch["source"]["audio"].zero_()
        batch["source"]["audio"][..., :20] = short["audio"]
        batch["source"]["video"][:, :, :20] = short["video"]
        loss, size, _ = loss_of(model, batch)
        losses.append((loss.item(), size))
    assert losses[0] == (pytest.approx(losses[1][0], rel=1e-4), losses[1][1])


def test_two_streams_have_two_masks_and_two_embeddings(folders):
    model = tiny(folders, mask_equal_counts=False)
    masks = model.masking.draw([200] * 8, 200, np.random.default_rng(0))
    assert masks["audio"].float().mean() == pytest.approx(0.55, abs=0.05)  # 0.8 with overlaps
    assert masks["video"].float().mean() == pytest.approx(0.26, abs=0.04)
    assert not torch.equal(masks["audio"], masks["video"])
    assert masks["loss_index"].numel() == 1600  # all frames count, masked or not
    with torch.no_grad():
        model.mask_emb.fill_(5)
        model.mask_emb_video.fill_(7)
        batch = net_input(model)
        masked, _ = model.student_features(
            batch["source"], batch["padding_mask"], batch["masks"], batch["frame_index"]
        )
    assert (masked.audio[batch["masks"]["audio"]] == 5).all()
    assert (masked.video[batch["masks"]["video"]] == 7).all()


def test_targets_do_not_depend_on_what_the_student_gets(folders):
    model = tiny(folders).train()
    batch, other = net_input(model), net_input(model, seed=3)
    other["masks"]["dropped"] = "audio"
    for first, second in zip(model(**batch)["targets"], model(**other)["targets"], strict=True):
        assert torch.equal(first.vectors, second.vectors)
        assert torch.equal(first.posteriors, second.posteriors)
        assert not first.vectors.requires_grad


def test_nothing_of_the_teachers_is_in_model_or_checkpoint(folders):
    model = tiny(folders).train()
    before = set(model.state_dict())
    loss_of(model, net_input(model))
    assert set(model.state_dict()) == before
    sizes = {tuple(p.shape) for p in [*model.parameters(), *model.buffers()]}
    assert (CLUSTERS, DIM) not in sizes  # the centroids
    half = model.half()
    assert half.targets.clusters[0].slopes.dtype == torch.float32


def test_loads_without_the_teachers_folders(tmp_path):
    folder = write_teacher_folder(tmp_path / "teacher")
    model = tiny([str(folder)])
    save(model, tmp_path / "model.pt")
    for path in folder.iterdir():
        path.unlink()
    loaded = av_ssl.load(tmp_path / "model.pt").module
    assert isinstance(loaded, DistillAVModel)
    batch = source(LENGTHS, 20)
    expected, _ = model.eval().extract_features(batch["source"], batch["padding_mask"])
    features, _ = loaded.extract_features(batch["source"], batch["padding_mask"])
    assert torch.equal(features, expected)
    loaded.remove_pretraining_modules()
    assert not any("teacher" in name for name in loaded.state_dict())
    with pytest.raises(DataError, match=r"teacher.json: "):
        _ = loaded.targets


def test_optimizers_do_not_get_the_teachers(folders):
    pytest.importorskip("transformers")
    model = tiny(folders)
    teacher = make_teacher(*tiny_teacher("wavlm"), TeacherSpec("m", "1"))
    model.targets.teachers[0] = teacher  # as when it runs in training
    optimizer = torch.optim.Adam(model.parameters())
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert trained == {id(p) for p in model.parameters()}
    assert trained.isdisjoint(id(p) for p in teacher.model.parameters())
    assert teacher.model not in set(model.modules())


def test_losses_start_at_those_of_random_heads(folders):
    """Cross-entropy at ln K; a channel's squared error at the variance of target and of prediction, which has
    1/3 behind layer norm and a linear layer as torch initialises it, C weights in +-1/sqrt(C)."""
    model = tiny(folders, final_dim=256).eval()
    _, _, log = loss_of(model, net_input(model))
    for k in (0, 1):
        count = log[f"teacher{k}_targets"]
        assert log[f"teacher{k}_clusters"].item() / count == pytest.approx(math.log(CLUSTERS), abs=0.15)
        assert log[f"teacher{k}_regression"].item() / count == pytest.approx(1 + 1 / 3, abs=0.4)


def test_no_teachers():
    with pytest.raises(ValueError, match=r"model.teachers is empty: .*av-ssl targets teacher"):
        tiny([])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_batch_without_loss_has_no_gradient(folders, dtype):
    """fairseq multiplies the loss of a worker that has run out of data by zero."""
    model = tiny(folders).to(dtype).train()
    (loss_of(model, net_input(model))[0] * 0).backward()
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


def test_bfloat16_step(folders):
    model = tiny(folders).to(torch.bfloat16).train()
    output = model(**net_input(model))
    assert output["predictions"][0].vectors.dtype == output["targets"][0].vectors.dtype == torch.float32
    loss, _, _ = loss_of(model, net_input(model))
    loss.backward()
    assert torch.isfinite(model.encoder.layers[0].fc1.weight.grad).all()


@pytest.mark.slow
def test_learns_a_handful_of_clips(folders):
    model = tiny(folders, feature_grad_mult=1.0, encoder_layers=1, encoder_embed_dim=32).train()
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    batches = [net_input(model, [10] * 2, seed=seed) for seed in range(2)]
    for batch in batches:  # the same clips, masked in two ways
        batch["source"] = batches[0]["source"]
    curves: list[list[float]] = []
    for update in range(150):
        output = model(**batches[update % 2])
        losses = teacher_losses(output)
        optimizer.zero_grad()
        (torch.stack([sum(loss) for loss in losses]).sum() / 20).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        excess = [
            loss.clusters.item() + (target.posteriors * target.posteriors.log()).nan_to_num().sum().item()
            for loss, target in zip(losses, output["targets"], strict=True)
        ]
        curves.append([*(loss.regression.item() for loss in losses), *excess])
    first, last = np.array(curves[:2]).mean(0), np.array(curves[-10:]).mean(0)
    assert (last < 0.5 * first).all(), last / first


def test_masks_matter_through_the_encoder_alone(folders, monkeypatch):
    """All frames count, masked or not: with the same output of the encoder, other masks are the same loss."""
    model = tiny(folders).eval()
    first, other = net_input(model), net_input(model, seed=3)
    other = {**first, "masks": other["masks"]}
    assert not torch.equal(first["masks"]["audio"], other["masks"]["audio"])
    assert loss_of(model, first)[0] != loss_of(model, other)[0]
    plain = model.student_features
    monkeypatch.setattr(
        model,
        "student_features",
        lambda source, padding, masks, index: plain(source, padding, first["masks"], index),
    )
    losses = [loss_of(model, batch)[:2] for batch in (first, other)]
    assert torch.equal(losses[0][0], losses[1][0])
    assert losses[0][1] == losses[1][1] == sum(LENGTHS)


def test_modality_dropout_frequencies(folders):
    masking = tiny(folders).masking
    rng = np.random.default_rng(0)
    drawn = [masking.draw([10], 10, rng)["dropped"] for _ in range(2000)]
    shares = [drawn.count(stream) / 2000 for stream in (None, "audio", "video")]
    np.testing.assert_allclose(shares, [0.5, 0.25, 0.25], atol=0.04)
