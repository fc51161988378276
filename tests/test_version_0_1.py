"""Checkpoints of version 0.1 load, give the same outputs and resume; its folders are finished.

The files and the expected numbers in `fixtures/version_0_1` were written with version 0.1, by the program
`make.py` that commit 205ee19 holds beside them. The tests restore them in another folder: the paths that they
hold are gone.
"""

from __future__ import annotations

import json
import logging
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from fairseq.dataclass.configs import FairseqConfig
from fairseq_cli.hydra_train import _hydra_main
from omegaconf import DictConfig, OmegaConf

import av_ssl
from av_ssl.cli.main import main
from av_ssl.targets import teacher_dump
from tests.fixtures.version_0_1 import runs
from tests.fixtures.version_0_1.outputs import digest, outputs, stored_tensors
from tests.media.synthetic import run_in_process
from tests.stock import REPOSITORY, run_interpreter

TORCH = tuple(int(part) for part in torch.__version__.split(".")[:2])
pytestmark = pytest.mark.skipif(TORCH < (2, 6), reason="torch before 2.6 reads checkpoints without a check")

CLOSE = {"rtol": 1e-5, "atol": 1e-5}
TOLERANCES = {"confidences": {"rtol": 0, "atol": 2e-4}}
"""They are printed with four digits."""
NEEDS_TRANSFORMERS = ("distillav_online", "teacher", "teacher_online")
REPORT = "report.json"
"""Every call writes it again."""
PIECES = {
    "labels_mfcc": ["train.mfcc", "valid.mfcc"],
    "labels_layer": ["train.km", "valid.km"],
    "teacher": ["train_1_2.len", "valid_0_2.len"],
    "features": ["extra.index.tsv"],
    "transcripts": ["extra.hyp.tsv"],
    "pseudo_labels": ["train.tsv", "train.wrd"],
}
"""Files that say that a part of a folder is done: without them, the command makes that part again."""


@pytest.fixture(scope="module")
def expected() -> dict[str, np.ndarray]:
    with np.load(runs.FOLDER / "expected.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def restored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    assert not Path(runs.ORIGIN).exists(), f"delete {runs.ORIGIN}: stored paths must lead nowhere"
    root = tmp_path_factory.mktemp("version_0_1")
    runs.restore(root)
    return root


@pytest.fixture
def root(restored: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where everything of version 0.1 lies; manifests hold for the folder `data` in it."""
    monkeypatch.chdir(restored / "data")
    monkeypatch.setattr(teacher_dump, "run_isolated", run_in_process)  # a worker would import torch
    return restored


def need(name: str) -> None:
    if name in NEEDS_TRANSFORMERS:
        pytest.importorskip("transformers")


@pytest.mark.parametrize("name", runs.RUNS)
def test_outputs_are_the_same(name: str, root: Path, expected: dict[str, np.ndarray]):
    need(name)
    found = outputs(name, root)
    keys = {key.partition("/")[2] for key in expected if key.startswith(f"{name}/")}
    assert found.keys() == keys - {"resumed"}
    for key, value in found.items():
        wanted = expected[f"{name}/{key}"]
        if key == "texts":
            assert value.tolist() == wanted.tolist()
        else:
            np.testing.assert_allclose(value, wanted, **TOLERANCES.get(key, CLOSE), err_msg=key)


@pytest.mark.parametrize("name", runs.RUNS)
def test_tensors_keep_their_names(name: str, root: Path):
    """All of a loaded model are in the file; what the file has besides serves pre-training, or teaches."""
    checkpoint = root / "checkpoints" / f"{name}.pt"
    model, stored = av_ssl.load(checkpoint).state_dict(), stored_tensors(checkpoint)
    assert model.keys() <= stored.keys()
    assert all(torch.equal(tensor, stored[key]) for key, tensor in model.items())
    assert all("_ema." in key or "teacher_heads." in key for key in stored.keys() - model.keys())


def test_loading_registers_the_models_in_a_fresh_interpreter(root: Path):
    """Here the other tests have imported `av_ssl.tasks` already."""
    code = "import sys, av_ssl; print(*(type(av_ssl.load(path).module).__name__ for path in sys.argv[1:]))"
    paths = [str(root / "checkpoints" / f"{name}.pt") for name in ("student_head", "raven", "ctc")]
    printed = run_interpreter([sys.executable, "-c", code, *paths], expect=0, folder=REPOSITORY)
    assert "LupiStudent " in printed


@pytest.mark.parametrize("name", runs.RUNS)
def test_training_resumes(
    name: str, root: Path, expected: dict[str, np.ndarray], caplog: pytest.LogCaptureFixture
):
    """One more update, from the stored optimizer, schedule, place in the data and random numbers."""
    need(name)
    with caplog.at_level(logging.INFO):
        _hydra_main(configuration(name, runs.overrides(name, root, updates=3)))
    assert "Loaded checkpoint" in caplog.text
    losses = json.loads((runs.FOLDER / "losses.json").read_text())
    assert runs.logged_loss(caplog.text, updates=3) == pytest.approx(losses[name], rel=1e-3, abs=2e-3)
    tensors = stored_tensors(root / "runs" / name / "checkpoint_last.pt")
    # Adam moves weights whose gradient is nearly zero by what is rounded; sums of them differ by some 1e-4.
    np.testing.assert_allclose(digest(tensors), expected[f"{name}/resumed"], rtol=1e-4, atol=5e-4)


@pytest.mark.parametrize("name", runs.COMMANDS)
def test_finished_folder_stays_as_it_is(name: str, root: Path, tmp_path: Path, monkeypatch):
    """The same command makes nothing: there is no clip from which it could."""
    need(name)
    bare = tmp_path / "bare"
    shutil.copytree(root, bare, ignore=shutil.ignore_patterns("runs", "clip_*"))
    rename_root(root, bare)
    monkeypatch.chdir(bare / "data")
    before = contents(bare / name)
    assert main(runs.command(name, bare)) == 0
    assert contents(bare / name) == before


@pytest.mark.parametrize("name", PIECES)
def test_missing_part_of_a_folder_is_made_again(name: str, root: Path, tmp_path: Path, monkeypatch):
    need(name)
    folder = tmp_path / "work"
    shutil.copytree(root, folder, ignore=shutil.ignore_patterns("runs"))
    rename_root(root, folder)
    monkeypatch.chdir(folder / "data")
    for piece in PIECES[name]:
        (folder / name / piece).unlink()
    assert main(runs.command(name, folder)) == 0
    assert contents(folder / name).keys() == contents(root / name).keys()
    for path in [*(folder / name / piece for piece in PIECES[name]), *(folder / name).glob("*.npy")]:
        wanted = root / path.relative_to(folder)
        if path.suffix == ".npy":
            np.testing.assert_allclose(np.load(path), np.load(wanted), rtol=2e-3, atol=2e-3)
        elif path.name.endswith(".hyp.tsv"):
            assert rows(path) == rows(wanted)
        else:
            assert path.read_bytes() == wanted.read_bytes()


def test_safetensors_hold_the_same_model(root: Path):
    original = av_ssl.load(root / "checkpoints/hybrid_av2vec.pt")
    model = av_ssl.load(root / "converted/hybrid.safetensors")
    tensors = model.state_dict()
    assert tensors.keys() == original.state_dict().keys()
    assert all(torch.equal(value, tensors[name]) for name, value in original.state_dict().items())
    texts = [each.text_encoder.dictionary.symbols for each in (original, model)]
    assert texts[0] == texts[1]


def test_converted_to_av_hubert(root: Path):
    clip = root / "data/clip_8"
    files = [
        av_ssl.features(root / path, clip.with_suffix(".npy"), clip.with_suffix(".wav"))
        for path in ("checkpoints/av2vec.pt", "converted/av_hubert.pt")
    ]
    np.testing.assert_array_equal(*files)


def test_stored_paths_are_gone(root: Path):
    """The checkpoints load all the same: data, pre-trained model and teacher are not read."""
    student = av_ssl.load(root / "checkpoints/student_embed.pt")
    recogniser = av_ssl.load(root / "checkpoints/ctc.pt")
    for path in (student.cfg.teacher_path, student.task_cfg["data"], recogniser.cfg.w2v_path):
        assert path.startswith(runs.ORIGIN)
        assert not Path(path).exists()


def configuration(name: str, overrides: list[str]) -> DictConfig:
    """What hydra makes of a YAML file and the parts that it names, in a tenth of the time."""
    own = OmegaConf.load(runs.FOLDER / "conf" / f"{name}.yaml")
    parts = [OmegaConf.load(runs.FOLDER / "conf" / f"{part}.yaml") for part in own.pop("defaults")]
    cfg = OmegaConf.merge(OmegaConf.structured(FairseqConfig()), *parts, own)
    cfg.merge_with_dotlist([f"common.user_dir={Path(av_ssl.__file__).parent}", *overrides])
    return cfg


def rename_root(before: Path, after: Path) -> None:
    """A teacher's folder names its model by path."""
    for path in after.glob("*/teacher.json"):
        path.write_text(path.read_text().replace(str(before), str(after)))


def contents(folder: Path) -> dict[str, bytes]:
    """Files by name, and what they hold but for reports."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {
        str(path.relative_to(folder)): b"" if path.name == REPORT else path.read_bytes() for path in files
    }


def rows(transcripts: Path) -> list[tuple[str, float, str]]:
    lines = [line.split("\t") for line in transcripts.read_text().splitlines()[1:]]
    return [(line[0], pytest.approx(float(line[1]), abs=1e-3), line[4]) for line in lines]
