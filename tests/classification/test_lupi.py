"""LUPI: losses and their weights, where gradients go, what stays frozen, what a student needs."""

import copy

import pytest
import torch
import torch.nn.functional as F

from av_ssl.classification import lupi
from av_ssl.classification.lupi import (
    FrozenTeacher,
    LupiStudent,
    LupiStudentConfig,
    check_training,
    embedding_distance,
    mean_over_segments,
    soft_label_loss,
)
from av_ssl.data.classes import ClassList
from av_ssl.errors import DataError
from tests.classification.tiny import (
    TASK,
    TINY,
    batch,
    classifier,
    configured,
    criterion,
    sample,
    student,
    task,
)

# -- losses --------------------------------------------------------------------------------------------------


class Outputs(torch.nn.Module):
    """A model that returns what it is given."""

    def __init__(self, output):
        super().__init__()
        self.output = output

    def forward(self, target, **net_input):
        return self.output


def outputs(segments=3):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    empty = torch.tensor([[False] * segments, [False] + [True] * (segments - 1)])
    logits = draw(2, 4)
    return {
        "enc": draw(2, segments, 5), "teacher_enc": draw(2, segments, 5), "empty": empty, "agg": draw(2, 6),
        "teacher_agg": draw(2, 6), "logits": logits, "margin_logits": logits - 0.5,
        "teacher_logits": draw(2, 4),
    }  # fmt: skip


def losses_of(output, target=(1, 3), **options):
    data = {"net_input": {}, "target": torch.tensor(target), "ntokens": 9, "nsentences": 2}
    return criterion(**options)(Outputs(output).eval(), data)


def test_terms_and_weights():
    output = outputs()
    loss, size, log = losses_of(output, alpha=2.0, beta=3.0, gamma=0.5)
    first = F.mse_loss(output["enc"][0], output["teacher_enc"][0])
    second = F.mse_loss(output["enc"][1, 0], output["teacher_enc"][1, 0])  # it has one segment
    aggregated = (output["agg"] - output["teacher_agg"]).square().mean(-1).sum()
    labels = F.cross_entropy(output["margin_logits"], torch.tensor([1, 3]), reduction="sum")
    torch.testing.assert_close(loss, 2 * (first + second) + 3 * aggregated + 0.5 * labels)
    assert size == 2
    torch.testing.assert_close(log["loss_enc"], first + second)
    torch.testing.assert_close(log["loss_distill"], 2 * (first + second) + 3 * aggregated)
    assert log["_confusion"].sum() == 2


def test_clips_of_unknown_class_learn_from_the_teacher_only():
    output = outputs()
    loss, _, log = losses_of(output, target=(-1, 3))
    known, _, _ = losses_of(output, target=(1, 3))
    share = F.cross_entropy(output["margin_logits"][:1], torch.tensor([1]))
    torch.testing.assert_close(known - loss, share)
    assert log["n_known"] == log["_confusion"].sum() == 1


def test_distances():
    u, v = torch.randn(7, 5), torch.randn(7, 5)
    unit = (F.normalize(u) - F.normalize(v)).square().sum(-1)
    torch.testing.assert_close(embedding_distance(u, v, "nmse"), unit)
    half = torch.full((1, 512), 100.0, dtype=torch.bfloat16)
    assert embedding_distance(half, -half, "mse").item() == 200**2  # computed in float32


def test_missing_segments_do_not_count():
    values = torch.tensor([[1.0, 3.0], [5.0, 99.0], [99.0, 99.0]])
    empty = torch.tensor([[False, False], [False, True], [True, True]])
    assert mean_over_segments(values, empty).tolist() == [2.0, 5.0, 0.0]


def test_soft_labels():
    output = outputs()
    options = {"alpha": 0.0, "beta": 0.0, "soft_labels": "paper", "imitation": 0.25, "temperature": 2.0}
    loss, _, log = losses_of(output, **options)
    probabilities = (output["teacher_logits"] / 2).softmax(-1)
    soft = F.cross_entropy(output["logits"], probabilities, reduction="none")
    torch.testing.assert_close(soft_label_loss(output["logits"], output["teacher_logits"], 2.0), soft)
    hard = F.cross_entropy(output["margin_logits"], torch.tensor([1, 3]), reduction="sum")
    torch.testing.assert_close(loss, 0.75 * hard + 0.25 * soft.sum())
    torch.testing.assert_close(log["loss_soft"], soft.sum())


@pytest.mark.parametrize(
    ("option", "supported"),
    [
        ({"imitation": 1.5}, "imitation=1.5"),
        ({"temperature": 0.0}, "temperature=0.0"),
        ({"distance": "margin"}, "distance=margin .* mse or nmse"),
        ({"soft_labels": "hinton"}, "soft_labels=hinton .* none or paper"),
    ],
)
def test_options_of_the_criterion_that_are_refused(option, supported):
    with pytest.raises(DataError, match=rf"criterion\.{supported}"):
        criterion(**option)


# -- what the losses train -----------------------------------------------------------------------------------


def trained_parts(model, **weights):
    """Parts of the student that the weighted terms of the loss train."""
    model.zero_grad()
    loss, _, _ = criterion(**{"alpha": 0.0, "beta": 0.0, "gamma": 0.0, **weights})(model, sample())
    loss.backward()
    return {
        name
        for name in ("encoder", "aggregator", "header")
        if any(p.grad is not None and p.grad.abs().sum() > 0 for p in getattr(model, name).parameters())
    }


def test_labels_train_the_head_only_unless_joint():
    teacher = classifier(segment_frames=4)
    model = student(teacher, segment_frames=4)
    assert trained_parts(model, gamma=1.0) == {"header"}
    assert trained_parts(model, alpha=1.0) == {"encoder"}
    assert trained_parts(model, beta=1.0) == {"encoder", "aggregator"}
    joint = student(teacher, segment_frames=4, grad_policy="joint")
    assert trained_parts(joint, gamma=1.0) == {"encoder", "aggregator", "header"}


@pytest.mark.parametrize(
    ("options", "losses", "key"),
    [
        ({"phase": "head"}, {"soft_labels": "paper"}, "soft_labels=paper"),
        ({"phase": "embed"}, {"soft_labels": "paper"}, "soft_labels=paper"),
        ({"phase": "embed"}, {"alpha": 0.0}, "alpha=0.0"),
        ({}, {"alpha": 0.0}, "alpha=0.0"),
        ({"segment_frames": 4}, {"beta": 0.0}, "beta=0.0"),
        ({"segment_frames": 4, "phase": "embed", "grad_policy": "joint"}, {"beta": 0.0}, "beta=0.0"),
    ],
)
def test_losses_that_leave_a_part_untrained(options, losses, key):
    with pytest.raises(DataError, match=rf"criterion\.{key}"):
        check_training(student(**options), criterion(**losses).cfg)


@pytest.mark.parametrize(
    ("options", "losses"),
    [
        ({"phase": "head"}, {"alpha": 0.0}),
        ({"segment_frames": 4}, {"alpha": 0.0}),
        ({"segment_frames": 4, "grad_policy": "joint"}, {"alpha": 0.0, "beta": 0.0, "soft_labels": "paper"}),
    ],
)
def test_losses_that_train_every_part(options, losses):
    check_training(student(**options), criterion(**losses).cfg)


def test_clips_one_by_one_give_the_gradients_of_their_batch():
    """In eval mode, with fixed statistics of batch norm: accumulated gradients rely on it."""
    model = student(classifier()).eval()
    together = sample(segment=0)
    criterion()(model, together)[0].backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    for clip, frames in enumerate([9, 4]):
        alone = batch([frames])
        for stream in ("audio", "video"):
            clips = together["net_input"]["source"][stream][clip : clip + 1]
            alone["source"][stream] = clips.narrow(2, 0, frames)
        part = {**together, "net_input": alone, "target": together["target"][clip : clip + 1]}
        criterion()(model, part)[0].backward()
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.grad, expected[name], atol=1e-5, rtol=1e-3)


# -- teacher -------------------------------------------------------------------------------------------------


def test_the_teacher_never_changes():
    teacher = classifier(segment_frames=4, header_hidden=4, header_dropout=0.5)
    model = student(teacher, segment_frames=4)
    before = copy.deepcopy(teacher.state_dict())
    first = model.train().teacher(**batch([9, 4], segment=4))
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for step in range(3):
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


def test_the_teacher_receives_clean_audio():
    model = student(classifier()).eval()
    net_input = batch([6, 4])
    clean = model(**net_input)
    noisy = {**net_input["source"], "audio_clean": net_input["source"]["audio"]}
    noisy["audio"] = torch.randn_like(noisy["audio"])
    output = model(**{**net_input, "source": noisy})
    torch.testing.assert_close(output["teacher_enc"], clean["teacher_enc"])
    assert not torch.allclose(output["enc"], clean["enc"])


@pytest.mark.parametrize("norm", ["standardize", "none"])
def test_norm_of_targets(norm):
    teacher = classifier()
    with torch.no_grad():
        teacher.encoder.norm.weight.copy_(torch.tensor([2.0, -3, 1, 1, 1, 1, 1, 1]))
        teacher.encoder.norm.bias.copy_(torch.arange(8.0))
        teacher.encoder.norm.momentum, teacher.encoder.norm.eps = 1.0, 1e-12
        net_input = batch([9, 9, 9, 9, 9, 9])
        teacher.eval().encoder.norm.train()
        teacher(**net_input)  # its statistics are those of this batch
    found = FrozenTeacher(teacher, norm)(**net_input)["teacher_enc"][:, 0]
    if norm == "standardize":
        torch.testing.assert_close(found.mean(0), torch.zeros(8), atol=0.01, rtol=0)
        torch.testing.assert_close(found.var(0), torch.ones(8), atol=0.01, rtol=0)
    else:
        torch.testing.assert_close(found, teacher(**net_input)["enc"][:, 0])


def load_teacher(monkeypatch, teacher, task_cfg=None, own=None, **options):
    """What a student with these keys reads from a file with this teacher."""
    teacher.task_cfg = {**TASK, **(task_cfg or {})}
    monkeypatch.setattr(lupi, "load", lambda path: teacher)
    cfg = configured(LupiStudentConfig, **{**TINY, "streams": "audio", "teacher_path": "t.pt", **options})
    return FrozenTeacher.load(cfg, {**TASK, **(own or {})}, ("normalize", "image_crop_size"))


@pytest.mark.parametrize(
    ("own", "options", "message"),
    [
        ({"normalize": False}, {}, r"task\.normalize=False, .* t\.pt .* True"),
        ({"image_crop_size": 44}, {}, r"task\.image_crop_size=44, .* 88"),
        ({"segment_frames": 10}, {}, r"task\.segment_frames=10, .* 4"),
        ({"segment_hop": 2}, {}, r"task\.segment_hop=2, .* 4"),
        ({}, {"embed_dim": 10}, r"model\.embed_dim=10, .* 8"),
        ({}, {"aggregate_dim": 7}, r"model\.aggregate_dim=7, .* 6"),
    ],
)
def test_a_teacher_of_other_input_or_size_is_refused(monkeypatch, own, options, message):
    own = {"segment_frames": 4, **own}
    with pytest.raises(DataError, match=message):
        load_teacher(monkeypatch, classifier(segment_frames=4), {"segment_frames": 4}, own, **options)


def test_a_teacher_that_fits(monkeypatch):
    sequential = {"segment_frames": 4, "segment_hop": 4}
    teacher = classifier(segment_frames=4)
    assert load_teacher(monkeypatch, teacher, {"segment_frames": 4}, sequential).norm == "standardize"
    # Without segments there is no aggregator, whatever its size would be.
    whole = load_teacher(monkeypatch, classifier(), aggregate_dim=7, embedding_norm="none")
    assert whole.norm == "none"
    with pytest.raises(DataError, match=r"model\.embedding_norm=l2 .* standardize or none"):
        load_teacher(monkeypatch, classifier(), embedding_norm="l2")
    with pytest.raises(DataError, match=r"model\.teacher_path: t\.pt holds LupiStudent, .* with a head"):
        load_teacher(monkeypatch, student(phase="embed"))


@pytest.mark.parametrize("names", [["calm", "sour", "glad"], ["calm", "glad"]])
def test_soft_labels_need_the_same_classes(names):
    model = classifier()
    model.class_names = ["calm", "glad", "sour"]
    teacher = FrozenTeacher(model)
    teacher.check_classes(ClassList(["calm", "glad", "sour"], "classes.emo.txt"))
    with pytest.raises(DataError, match=r"classes\.emo\.txt .*calm, glad, sour"):
        teacher.check_classes(ClassList(names, "classes.emo.txt"))


# -- student -------------------------------------------------------------------------------------------------


def test_a_student_needs_neither_teacher_nor_video():
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


@pytest.mark.parametrize("segment", [0, 4])
def test_the_head_phase_trains_nothing_else(segment):
    model = student(phase="head", segment_frames=segment).train()
    assert not model.encoder.training
    assert model.header.training
    assert {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad} == {"header"}
    before = copy.deepcopy(model.state_dict())
    data = sample(segment)
    data["net_input"]["source"]["video"] = None
    loss, _, log = criterion()(model, data)
    loss.backward()
    frozen = {name for name in before if not name.startswith("header.")}
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in frozen)
    assert "loss_enc" not in log
    assert log["loss_class"] == loss.detach()


def test_the_embedding_phase_needs_no_labels_and_has_no_head():
    model = student(classifier(), phase="embed")
    assert model.header is None
    data = sample(segment=0)
    loss, _, log = criterion()(model, data)
    assert "n_known" not in log
    assert log["loss_distill"] == loss.detach()
    unlabelled, _, _ = criterion()(model, {**data, "target": torch.tensor([-1, -1])})
    assert unlabelled == loss


@pytest.mark.parametrize(
    ("options", "teacher", "key"),
    [
        ({"phase": "embed"}, None, "teacher_path"),
        ({"phase": "concurrent"}, None, "teacher_path"),
        ({"phase": "head"}, object(), "teacher_path"),
        ({"phase": "head"}, None, "init_student_from"),
    ],
)
def test_what_each_phase_needs_for_training(options, teacher, key):
    cfg = configured(LupiStudentConfig, **{**TINY, "streams": "audio", **options})
    with pytest.raises(DataError, match=rf"model\.phase={options['phase']}: .*model\.{key}"):
        LupiStudent.build_model(cfg, task(for_training=True, teacher=teacher))
    cfg.teacher_path = cfg.init_student_from = "/none"
    assert LupiStudent.build_model(cfg, task()).teacher is None  # to be used


@pytest.mark.parametrize(
    ("option", "supported"),
    [
        ({"embedding_norm": "layernorm"}, "standardize or none"),
        ({"agg_grad_to_encoder": False}, "True"),
        ({"agg_trained_by": "labels"}, "teacher"),
        ({"hint_dim": 8}, "0"),
    ],
)
def test_removed_values_are_refused(option, supported):
    [(key, value)] = option.items()
    with pytest.raises(DataError, match=rf"model\.{key}={value} .* {supported}$"):
        student(**option)


@pytest.mark.slow
def test_a_few_clips_are_memorised():
    """First their embeddings, then their labels."""
    teacher = classifier(segment_frames=4)
    net_input, target = batch([9, 4, 8, 6], segment=4), torch.tensor([0, 1, 2, 1])
    data = {"net_input": net_input, "target": target, "ntokens": 27, "nsentences": 4}
    for norm in teacher.modules():
        if isinstance(norm, torch.nn.modules.batchnorm._BatchNorm):
            norm.momentum = 1.0
    with torch.no_grad():
        teacher(**net_input)  # with the statistics of these clips it distinguishes them
    embedded = fitted(student(teacher, segment_frames=4, phase="embed", audio_width=4), data, 100, lr=0.02)
    log = criterion()(embedded.eval(), data)[2]
    assert log["cos_enc"] / 4 > 0.95
    assert log["cos_agg"] / 4 > 0.95
    model = student(segment_frames=4, phase="head", audio_width=4)
    model.encoder.load_state_dict(embedded.encoder.state_dict())
    model.aggregator.load_state_dict(embedded.aggregator.state_dict())
    found = fitted(model, data, 30, lr=0.1).eval()(**net_input)["logits"].argmax(-1)
    assert found.tolist() == target.tolist()


def fitted(model, data, updates, lr):
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=lr)
    for _ in range(updates):
        model.train()
        loss, size, _ = criterion()(model, data)
        optimizer.zero_grad()
        (loss / size).backward()
        optimizer.step()
    return model
