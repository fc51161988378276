"""Where gradients go, what stays as it is, and what a student needs when it is used."""

import copy
import re

import pytest
import torch
from omegaconf import OmegaConf

from av_ssl.classification.lupi import (
    LupiCriterion,
    LupiCriterionConfig,
    LupiStudent,
    LupiStudentConfig,
    check_losses,
)
from tests.models.classifiers import TINY, batch, classifier, student, task


def criterion(**options):
    return LupiCriterion(OmegaConf.merge(OmegaConf.structured(LupiCriterionConfig()), options), None)


def sample(segment=4, seed=0):
    net_input = batch([9, 4], segment=segment, seed=seed)
    return {"net_input": net_input, "target": torch.tensor([0, 2]), "ntokens": 13, "nsentences": 2}


def moved_parts(model, **weights):
    """Parts of the student that the weighted terms of the loss train."""
    model.zero_grad()
    loss, _, _ = criterion(**{"alpha": 0.0, "beta": 0.0, "gamma": 0.0, **weights})(model, sample())
    loss.backward()
    return {
        name
        for name in ("encoder", "aggregator", "header")
        if any(p.grad is not None and p.grad.abs().sum() > 0 for p in getattr(model, name).parameters())
    }


def test_decoupled_labels_train_the_header_alone():
    model = student(classifier(segment_frames=4), segment_frames=4)
    assert moved_parts(model, gamma=1.0) == {"header"}
    assert moved_parts(model, alpha=1.0) == {"encoder"}
    assert moved_parts(model, beta=1.0) == {"encoder", "aggregator"}


def test_options_of_the_gradient():
    teacher = classifier(segment_frames=4)
    cut_off = student(teacher, segment_frames=4, agg_grad_to_encoder=False)
    assert moved_parts(cut_off, beta=1.0) == {"aggregator"}
    joint = student(teacher, segment_frames=4, grad_policy="joint")
    assert moved_parts(joint, gamma=1.0) == {"encoder", "aggregator", "header"}
    by_labels = student(teacher, segment_frames=4, agg_trained_by="labels")
    assert moved_parts(by_labels, gamma=1.0) == {"aggregator", "header"}
    assert moved_parts(by_labels, alpha=1.0) == {"encoder"}


@pytest.mark.parametrize("options", [{"agg_trained_by": "labels"}, {"agg_grad_to_encoder": False}])
def test_joint_training_leaves_nothing_out(options):
    with pytest.raises(ValueError, match="labels train everything"):
        student(segment_frames=4, grad_policy="joint", **options)


def test_options_that_make_no_sense():
    with pytest.raises(ValueError, match="there is no aggregator"):
        student(agg_trained_by="labels")
    for phase in ("embed", "concurrent"):
        with pytest.raises(
            ValueError, match=r"model\.hint_dim: the header gets the embeddings before the map"
        ):
            student(hint_dim=8, phase=phase)


@pytest.mark.parametrize(
    ("options", "losses", "message"),
    [
        ({"phase": "head"}, {"soft_labels": "paper"}, "model.phase=head has no teacher; soft labels are for"),
        (
            {"phase": "embed"},
            {"soft_labels": "paper"},
            "model.phase=embed has no header; soft labels are for",
        ),
        ({"phase": "embed"}, {"alpha": 0.0}, "nothing would train the encoder"),
        ({}, {"alpha": 0.0}, "nothing would train the encoder"),
        ({"segment_frames": 4, "agg_grad_to_encoder": False}, {"alpha": 0.0}, "would train the encoder"),
        (
            {"segment_frames": 4},
            {"beta": 0.0},
            "nothing would train the aggregator; set model.agg_trained_by",
        ),
        ({"segment_frames": 4, "phase": "embed", "grad_policy": "joint"}, {"beta": 0.0}, "the aggregator"),
    ],
)
def test_losses_that_leave_a_part_untrained(options, losses, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        check_losses(student(**options), criterion(**losses).cfg)


@pytest.mark.parametrize(
    ("options", "losses"),
    [
        ({"phase": "head"}, {}),
        ({"segment_frames": 4}, {"alpha": 0.0}),
        ({"segment_frames": 4, "phase": "embed", "agg_trained_by": "labels"}, {"beta": 0.0}),
        ({"segment_frames": 4, "phase": "head", "agg_trained_by": "labels"}, {"beta": 0.0}),
        ({"segment_frames": 4, "grad_policy": "joint"}, {"alpha": 0.0, "beta": 0.0, "soft_labels": "paper"}),
    ],
)
def test_losses_that_train_every_part(options, losses):
    check_losses(student(**options), criterion(**losses).cfg)


def test_the_teacher_never_changes():
    teacher = classifier(segment_frames=4, header_hidden=4, header_dropout=0.5)
    model = student(teacher, segment_frames=4)
    before = copy.deepcopy(teacher.state_dict())
    first = model.train().teacher(**batch([9, 4], segment=4))
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for step in range(20):
        model.train()
        loss, _, _ = criterion()(model, sample(seed=step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert not teacher.training
    assert all(p.grad is None for p in teacher.parameters())
    for name, value in teacher.state_dict().items():
        assert torch.equal(value, before[name]), name
    for key, value in model.teacher(**batch([9, 4], segment=4)).items():
        assert torch.equal(value, first[key])


def test_the_teacher_hears_clean_audio():
    teacher = classifier()
    model = student(teacher).eval()
    net_input = batch([6, 4])
    clean = model(**net_input)
    noisy = {**net_input["source"], "audio_clean": net_input["source"]["audio"]}
    noisy["audio"] = torch.randn_like(noisy["audio"])
    heard = model(**{**net_input, "source": noisy})
    torch.testing.assert_close(heard["teacher_enc"], clean["teacher_enc"])
    assert not torch.allclose(heard["enc"], clean["enc"])


def test_a_student_holds_no_teacher_and_no_video():
    model = student(classifier())
    names = list(model.state_dict())
    assert not [name for name in names if "teacher" in name or "video" in name]
    assert {name.split(".")[0] for name in names} == {"encoder", "header"}
    assert not [name for name, _ in model.named_modules() if "teacher" in name]
    alone = LupiStudent.build_model(model.cfg, task())
    alone.load_state_dict(model.state_dict())
    alone.eval(), model.eval()
    net_input = batch([6, 4])
    expected = model.embed(**net_input)
    net_input["source"]["video"] = None
    assert torch.equal(alone.embed(**net_input), expected)


def test_the_header_phase_trains_nothing_else():
    model = student(phase="head").train()
    assert not model.encoder.training
    assert model.header.training
    trained = {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {"header"}
    before = copy.deepcopy(model.encoder.state_dict())
    data = sample(segment=0)
    data["net_input"]["source"]["video"] = None
    loss, _, log = criterion()(model, data)
    loss.backward()
    assert all(torch.equal(value, before[name]) for name, value in model.encoder.state_dict().items())
    assert "loss_enc" not in log
    assert log["loss_class"] == loss.detach()


def test_labels_train_aggregator_and_header_in_the_header_phase():
    model = student(phase="head", segment_frames=4, agg_trained_by="labels").train()
    assert (model.encoder.training, model.aggregator.training) == (False, True)
    assert moved_parts(model, gamma=1.0) == {"aggregator", "header"}
    assert not any(p.requires_grad for p in model.encoder.parameters())
    kept = student(phase="head", segment_frames=4).train()
    assert not kept.aggregator.training
    assert moved_parts(kept, gamma=1.0) == {"header"}


def test_the_embedding_phase_has_no_header():
    model = student(classifier(), phase="embed")
    assert model.header is None
    loss, _, log = criterion()(model, sample(segment=0))
    assert "n_known" not in log
    assert log["loss_distill"] == loss.detach()


def test_what_each_phase_needs():
    def build(starts=True, teacher=None, **options):
        cfg = OmegaConf.merge(
            OmegaConf.structured(LupiStudentConfig()), {**TINY, "streams": "audio", **options}
        )
        return LupiStudent.build_model(cfg, task(starts_from_pretrained=starts, teacher=teacher))

    with pytest.raises(ValueError, match=r"phase=embed: name the teacher in model\.teacher_path"):
        build(phase="embed")
    with pytest.raises(ValueError, match=r"phase=head: it learns .* leave model\.teacher_path empty"):
        build(phase="head", teacher=object())
    with pytest.raises(ValueError, match=r"phase=head: name the student"):
        build(phase="head")
    for phase in ("embed", "head", "concurrent"):
        assert (
            build(starts=False, phase=phase, teacher_path="/none", init_student_from="/none").teacher is None
        )


def test_sizes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"embeddings have 10 channels: set model\.embed_dim"):
        student(classifier(embed_dim=10))
    with pytest.raises(ValueError, match="one has an aggregator, the other has none"):
        student(classifier(), segment_frames=4)
    with pytest.raises(ValueError, match=r"aggregated embeddings have 7 channels"):
        student(classifier(segment_frames=4, aggregate_dim=7), segment_frames=4)


def test_hints_may_be_of_another_size():
    model = student(classifier(embed_dim=10), hint_dim=10, grad_policy="joint")
    output = model(**batch([6, 4]))
    assert output["hint"].shape == output["teacher_enc"].shape
    loss, _, _ = criterion(gamma=0.0)(model, sample(segment=0))
    loss.backward()
    assert model.hint.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("norm", ["standardize", "l2", "layernorm", "none"])
def test_target_norms(norm):
    teacher = classifier()
    with torch.no_grad():
        teacher.encoder.norm.weight.copy_(torch.tensor([2.0, -3, 1, 1, 1, 1, 1, 1]))
        teacher.encoder.norm.bias.copy_(torch.arange(8.0))
        teacher.encoder.norm.momentum, teacher.encoder.norm.eps = 1.0, 1e-12
        net_input = batch([9, 9, 9, 9, 9, 9])
        teacher.eval().encoder.norm.train()
        teacher(**net_input)  # its statistics are those of this batch
    found = student(teacher, target_norm=norm).teacher(**net_input)["teacher_enc"][:, 0]
    raw = teacher(**net_input)["enc"][:, 0]
    if norm == "standardize":
        torch.testing.assert_close(found.mean(0), torch.zeros(8), atol=0.01, rtol=0)
        torch.testing.assert_close(found.var(0), torch.ones(8), atol=0.01, rtol=0)
    elif norm == "l2":
        torch.testing.assert_close(found.norm(dim=-1), torch.ones(6))
    elif norm == "layernorm":
        torch.testing.assert_close(found.mean(-1), torch.zeros(6), atol=1e-5, rtol=0)
    else:
        torch.testing.assert_close(found, raw)


@pytest.mark.slow
def test_a_few_clips_are_learned_by_heart():
    """Embeddings first, the header on top of them then."""
    teacher = classifier(segment_frames=4)
    net_input = batch([9, 4, 8, 6], segment=4)
    target = torch.tensor([0, 1, 2, 1])
    data = {"net_input": net_input, "target": target, "ntokens": 27, "nsentences": 4}
    for norm in teacher.modules():
        if isinstance(norm, torch.nn.modules.batchnorm._BatchNorm):
            norm.momentum = 1.0
    with torch.no_grad():
        teacher(**net_input)  # its statistics are those of these clips, so that it tells them apart
    embedded = fitted(student(teacher, segment_frames=4, phase="embed", audio_width=4), data, 300, lr=0.01)
    log = criterion()(embedded.eval(), data)[2]
    assert log["cos_enc"] / 4 > 0.95
    assert log["cos_agg"] / 4 > 0.95
    model = student(segment_frames=4, phase="head", audio_width=4)
    model.encoder.load_state_dict(embedded.encoder.state_dict())
    model.aggregator.load_state_dict(embedded.aggregator.state_dict())
    assert (
        fitted(model, data, 100, lr=0.1).eval()(**net_input)["logits"].argmax(-1).tolist() == target.tolist()
    )


def fitted(model, data, updates, lr):
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=lr)
    for _ in range(updates):
        model.train()
        loss, size, _ = criterion()(model, data)
        optimizer.zero_grad()
        (loss / size).backward()
        optimizer.step()
    return model


def test_clips_one_by_one_give_the_gradients_of_their_batch():
    """With the statistics of batch norm at rest: what accumulating gradients rests on."""
    model = student(classifier()).eval()
    whole = sample(segment=0)
    criterion()(model, whole)[0].backward()
    together = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    for clip, frames in enumerate([9, 4]):
        alone = batch([frames])
        for stream in ("audio", "video"):
            alone["source"][stream] = whole["net_input"]["source"][stream][clip : clip + 1].narrow(
                2, 0, frames
            )
        part = {**whole, "net_input": alone, "target": whole["target"][clip : clip + 1]}
        criterion()(model, part)[0].backward()
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.grad, together[name], atol=1e-5, rtol=1e-3)
