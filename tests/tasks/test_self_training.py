"""Self-training from end to end: the script, the commands it calls and fairseq's, on a small corpus."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from av_ssl.manifest import read_manifest
from tests.stock import REPOSITORY
from tests.tiny_checkpoints import write_recogniser

from .conftest import SCHEDULE, run_printed


@pytest.mark.slow
def test_a_model_is_trained_on_labels_and_pseudo_labels(data: Path, pretrained: Path, tmp_path: Path):
    unlabelled = tmp_path / "unlabelled"
    unlabelled.mkdir()
    manifest = (data / "train.tsv").read_text()
    (unlabelled / "train.tsv").write_text(manifest.replace("\ntrain_", "\nother_"))
    recogniser = write_recogniser(tmp_path / "asr.pt", "av_hubert_ctc", ("audio",))
    out = tmp_path / "out"
    output = run_printed(
        REPOSITORY / "examples/self_training/run.sh", recogniser, unlabelled, data, pretrained, out,
        "--config", REPOSITORY / "examples/toy/conf/finetune.yaml", "--gpus", "0", "--updates", "2",
        "--keep", "0.5", "--beam", "2", "--", "task.image_crop_size=22", "dataset.max_tokens=150", *SCHEDULE,
        "dataset.num_workers=0", "dataset.disable_validation=false",
    )  # fmt: skip
    clips = read_manifest(out / "data" / "train.tsv")
    assert [clip.id.split("_")[0] for clip in clips] == ["train"] * 12 + ["other"] * 6
    report = json.loads((out / "data" / "pseudo_labels" / "report.json").read_text())
    assert report["dropped"]["beyond the share that is kept"]["clips"] == 6
    assert "Generate test with beam=50: WER: " in (out / "decode" / "generate-test.txt").read_text() + output
