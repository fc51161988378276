"""Folders to share models in, written and read by `save_pretrained` and `from_pretrained`."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
import yaml

import av_ssl
from av_ssl.analysis.plan import read_recipe
from av_ssl.checkpoints.files import read_stored
from av_ssl.cli.main import main
from av_ssl.errors import DataError
from av_ssl.sharing.folder import training_recipe
from tests.checkpoints.published_layout import Call
from tests.classification.tiny import TASK, classifier
from tests.classification.tiny import TINY as CLASSIFIER
from tests.data_folder import write_data
from tests.methods.helpers import source
from tests.stock import run_interpreter
from tests.tiny_checkpoints import write_checkpoint, write_recogniser

hub = pytest.importorskip("huggingface_hub")
pytest.importorskip("safetensors")


def write_classifier(path: Path) -> Path:
    cfg = {"model": {"_name": "av_classifier", **CLASSIFIER}, "task": TASK}
    names = {"class_names": ["calm", "glad", "sour"]}
    torch.save({"cfg": cfg, "model": classifier().state_dict(), "task_state": names}, path)
    return path


WRITERS: dict[str, Any] = {
    "encoder": write_checkpoint,
    "recogniser": lambda path: write_recogniser(path, "av_hubert_ctc"),
    "seq2seq": write_recogniser,
    "hybrid": lambda path: write_recogniser(path, "hybrid_ctc_attention"),
    "classifier": write_classifier,
}


@pytest.fixture(scope="module", params=WRITERS)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return WRITERS[request.param](tmp_path_factory.mktemp(request.param) / "model.pt")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recogniser."""
    folder = tmp_path_factory.mktemp("shared")
    av_ssl.load(write_recogniser(folder / "model.pt", "av_hubert_ctc")).save_pretrained(folder / "vsr")
    return folder / "vsr"


def outputs(model: Any) -> list[torch.Tensor]:
    batch = source([8, 6], 8)
    batch = {key: batch[key] for key in ("source", "padding_mask")}
    with torch.no_grad():
        if hasattr(model.module, "decoder"):
            encoded = model.encoder(**batch)
            heads = [model.decoder(torch.tensor([[2, 5], [2, 7]]), encoder_out=encoded)[0]]
            return heads + ([model.ctc_log_probs(encoded)] if hasattr(model.module, "ctc") else [])
        if hasattr(model.module, "extract_finetune"):
            return [model.extract_finetune(**batch)[0]]
        found = model(**batch)
    return [value for value in found.values() if isinstance(value, torch.Tensor)]


@pytest.mark.parametrize("by_command", [False, True])
def test_outputs_stay_the_same_to_the_bit(checkpoint, tmp_path, by_command):
    first, folder = av_ssl.load(checkpoint), tmp_path / "folder"
    if by_command:
        assert main(["model", "convert", str(checkpoint), str(folder)]) == 0
    else:
        first.save_pretrained(folder)
    assert {path.name for path in folder.iterdir()} == {"model.safetensors", "config.json", "README.md"}
    again = av_ssl.from_pretrained(folder)
    assert again.cfg == first.cfg
    assert again.task_cfg == first.task_cfg
    assert again.class_names == first.class_names
    for a, b in zip(outputs(first), outputs(again), strict=True):
        assert torch.equal(a, b)
    if first.text_encoder is not None:
        assert again.text_encoder.dictionary.symbols == first.text_encoder.dictionary.symbols
        assert again.text_encoder.tokenizer == first.text_encoder.tokenizer


def test_weights_that_changed_are_saved(shared, tmp_path):
    model = av_ssl.from_pretrained(shared)
    model.module.w2v_encoder.proj.bias.data[5] = 7
    model.save_pretrained(tmp_path)
    assert av_ssl.from_pretrained(tmp_path).w2v_encoder.proj.bias[5] == 7


def test_a_folder_is_a_model_for_every_command(shared, tmp_path):
    assert main(["model", "convert", str(shared), str(tmp_path / "back.pt")]) == 0
    assert av_ssl.load(tmp_path / "back.pt").cfg == av_ssl.load(shared).cfg
    data = write_data(tmp_path / "data", {"train": 3})
    for command, model, *options in (
        (["transcribe"], str(shared), str(data), "--subset", "train", "--out", str(tmp_path / "text")),
        (["features"], str(shared), str(data), "--subset", "train", "--out", str(tmp_path / "features")),
        (["targets", "clusters"], str(data), "--checkpoint", str(shared), "--layer", "1", "--clusters", "2",
         "--splits", "train"),
    ):  # fmt: skip
        assert main([*command, model, *options]) == 0
    samples = np.zeros(640 * 30, np.int16)
    expected = av_ssl.from_pretrained(shared).features(audio=samples)
    np.testing.assert_array_equal(av_ssl.features(shared, audio=samples), expected)


def test_the_card(shared, tmp_path):
    folder = tmp_path / "vsr"
    folder.mkdir()
    (folder / "README.md").write_text("old")
    words = ["model", "convert", str(shared), str(folder), "--license", "mit", "--wer", "GRID, unseen=12.5"]
    assert main(words) == 1  # it may be the README of a project
    assert (folder / "README.md").read_text() == "old"
    (folder / "README.md").unlink()
    assert main(words) == 0
    card = hub.ModelCard.load(folder / "README.md")
    assert card.data.license == "mit"
    assert card.data.library_name == "av_ssl"
    (result,) = card.data.eval_results
    assert (result.dataset_name, result.metric_type, result.metric_value) == ("GRID, unseen", "wer", 12.5)
    for text in ("av_hubert_ctc, fine-tuned from av_hubert", "- Data: lrs3", "audio and video", "12.5 %"):
        assert text in card.text


def test_a_folder_may_have_a_dot_in_its_name(shared, tmp_path):
    (tmp_path / "asr.v2").mkdir()
    for name in ("vsr-1.0", "asr.v2"):
        assert main(["model", "convert", str(shared), str(tmp_path / name), "--license", "mit"]) == 0
        assert (tmp_path / name / "model.safetensors").is_file()


def test_options_of_a_card_that_is_not_written(shared, tmp_path, capsys):
    for option in ("--license=mit", "--wer=GRID=12.5"):
        assert main(["model", "convert", str(shared), str(tmp_path / "back.pt"), option]) == 1
        assert f"{option[:5]}" in capsys.readouterr().err
    for wrong in ("GRID", "GRID=nan", "GRID=-1"):
        with pytest.raises(SystemExit):
            main(["model", "convert", str(shared), str(tmp_path / "vsr"), "--wer", wrong])
    assert not list(tmp_path.iterdir())


TRAINING = {
    "common": {"seed": 7, "fp16": False, "log_interval": 100, "user_dir": "/somewhere"},
    "task": {"_name": "av_recognition", "data": "/my data/it's", "modalities": "video"},
    "model": {"_name": "av_hubert_ctc", "w2v_path": "a.pt", "layerdrop": 0.1, "w2v_args": {"x": 1}},
    "criterion": {"_name": "ctc", "zero_infinity": True},
    "optimizer": {"_name": "adam", "adam_betas": "(0.9, 0.98)", "lr": [0.001]},
    "lr_scheduler": {"_name": "fixed", "lr": [0.001]},
    "optimization": {"lr": [0.001, 1e-05], "max_update": 900, "clip_norm": 0},
    "bmuf": {"block_lr": 1.0},
}


def test_the_recipe_of_the_training(tmp_path):
    """Keys that are not the default, as fairseq-hydra-train reads them."""
    text = training_recipe({**TRAINING, "generation": None})
    chosen = {key: value for key, value in TRAINING["model"].items() if key != "w2v_args"}
    assert yaml.safe_load(text) == {
        "common": {"seed": 7},
        "task": TRAINING["task"],
        "model": chosen,
        "criterion": TRAINING["criterion"],
        "optimizer": {"_name": "adam", "adam_betas": "(0.9, 0.98)"},
        "lr_scheduler": {"_name": "fixed"},
        "optimization": {"lr": [0.001, 1e-05], "max_update": 900},
    }
    (tmp_path / "training.yaml").write_text(text)
    cfg = read_recipe(tmp_path / "training.yaml", tmp_path)
    for section in ("model", "criterion", "optimization"):
        given = {key: value for key, value in TRAINING[section].items() if key != "w2v_args"}
        assert {key: cfg[section][key] for key in given} == given


def test_the_command_works_alone(shared, tmp_path):
    """In a process in which nothing else has registered the plugin."""
    command = [sys.executable, "-m", "av_ssl.cli", "model", "convert", str(shared), str(tmp_path / "copy")]
    run_interpreter(command, 0, tmp_path)
    recipe = (tmp_path / "copy" / "README.md").read_text().partition("```yaml\n")[2].partition("```")[0]
    assert yaml.safe_load(recipe)["model"]["_name"] == "av_hubert_ctc"


def damage(folder: Path, kind: str) -> None:
    weights, config = folder / "model.safetensors", folder / "config.json"
    if kind.startswith("no "):
        {"no weights": weights, "no config": config}[kind].unlink()
    elif kind == "cut":
        weights.write_bytes(weights.read_bytes()[:-9])
    elif kind == "pickle":
        weights.write_bytes(pickle.dumps(Call(Path.touch, folder / "executed")))
    elif kind == "nested":
        config.write_text("[" * 200_000)
    elif kind == "list":
        config.write_text("[1]")
    else:
        content = json.loads(config.read_text())
        name, _, value = kind.partition("=")
        *parents, key = name.split(".")
        inner = content
        for parent in parents:
            inner = inner[parent]
        inner[key] = json.loads(value or "7")
        config.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("kind", "file"),
    [
        ("no weights", "model.safetensors"),
        ("no config", "config.json"),
        ("cut", "model.safetensors"),
        ("pickle", "model.safetensors"),
        ("nested", "config.json"),
        ("list", "config.json"),
        ("format", "config.json"),
        ("cfg", "config.json"),
        ("cfg.model", "model.safetensors"),
        ("cfg.model._name", "model.safetensors"),
        ("cfg.model._name=[]", "model.safetensors"),
        ("cfg.model.w2v_args", "model.safetensors"),
        ("text", "config.json"),
        ("text.symbols", "config.json"),
        ("text.tokenizer", "config.json"),
        ("label_sets", "config.json"),
    ],
)
def test_a_damaged_folder_is_one_line(shared, tmp_path, kind, file):
    folder = shutil.copytree(shared, tmp_path / "copy")
    damage(folder, kind)
    with pytest.raises(DataError) as error:
        av_ssl.from_pretrained(folder)
    assert str(error.value).startswith(str(folder))
    assert file in str(error.value)
    assert "\n" not in str(error.value)
    assert not (folder / "executed").exists()


def test_a_repository_of_a_hub(shared, tmp_path, monkeypatch):
    """From the cache of huggingface_hub, without a network."""
    repository = tmp_path / "models--someone--vsr"
    shutil.copytree(shared, repository / "snapshots" / ("0" * 40))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    assert av_ssl.from_pretrained("someone/vsr").cfg == av_ssl.load(shared).cfg
    for name in ("someone/else", "no name"):
        with pytest.raises(DataError, match=f"^{name}: is no folder, and cannot be downloaded"):
            av_ssl.from_pretrained(name)
    downloaded = repository / "snapshots" / ("0" * 40)
    damage(downloaded, "format")
    with pytest.raises(DataError, match=f"^{downloaded / 'config.json'}: "):
        av_ssl.from_pretrained("someone/vsr")


def test_an_upload(shared, tmp_path, monkeypatch):
    """With the methods of huggingface_hub's client that use the network replaced."""
    sent: list[Any] = []

    def create(self, repo_id, **options):
        return hub.RepoUrl(f"https://huggingface.co/{repo_id}")

    def upload(self, repo_id, folder_path, **options):
        sent.append((repo_id, sorted(path.name for path in Path(folder_path).iterdir())))

    monkeypatch.setattr(hub.HfApi, "create_repo", create)
    monkeypatch.setattr(hub.HfApi, "upload_folder", upload)
    model = av_ssl.from_pretrained(shared)
    model.save_pretrained(tmp_path, license="mit", push_to_hub=True, repo_id="me/vsr")
    assert sent == [("me/vsr", ["README.md", "config.json", "model.safetensors"])]
    for error in (hub.errors.HFValidationError("no\nname"), ConnectionError("no\nname")):
        monkeypatch.setattr(hub.HfApi, "create_repo", Mock(side_effect=error))
        with pytest.raises(DataError, match=rf"^{tmp_path}: cannot be written or uploaded \(no name\)$"):
            model.save_pretrained(tmp_path, push_to_hub=True)


def test_what_is_no_error_rate(shared, tmp_path):
    model = av_ssl.from_pretrained(shared)
    for rate in (float("nan"), -1, "12 %"):
        with pytest.raises(DataError, match="error_rates: that of 'GRID'"):
            model.save_pretrained(tmp_path / "vsr", error_rates={"GRID": rate})
    assert not list(tmp_path.iterdir())


def test_all_of_a_pretraining_checkpoint_is_kept(tmp_path):
    """The teacher, too, which only training uses."""
    stored = read_stored(write_checkpoint(tmp_path / "model.pt"))
    assert main(["model", "convert", str(tmp_path / "model.pt"), str(tmp_path / "folder")]) == 0
    assert read_stored(tmp_path / "folder").tensors.keys() == stored.tensors.keys()
