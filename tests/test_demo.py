"""The page of `av-ssl demo`, in a browser."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from av_ssl.cli.main import main
from av_ssl.demo import Comparison, model_paths, with_babble
from av_ssl.errors import DataError
from av_ssl.model import Model
from tests.browser import CHROMIUM, DRIVER, browser, free_port, until
from tests.media.synthetic import noise_frames, talking_head, tone, write_clip
from tests.tiny_checkpoints import write_recogniser

WORD = 7
"""Id of the piece that the recogniser always finds."""


@pytest.fixture(scope="module")
def recogniser(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = write_recogniser(tmp_path_factory.mktemp("model") / "avsr.pt", "av_hubert_ctc")
    state = torch.load(path)
    state["model"]["w2v_encoder.proj.bias"][WORD] = 50
    torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def word(recogniser: Path) -> str:
    return str(Model(recogniser).text_encoder.dictionary[WORD]).replace("\u2581", "")


def test_each_set_of_streams_has_a_row(recogniser, word, tmp_path):
    crops, sound, rows = Comparison([Model(recogniser)]).of(talking_head(tmp_path / "talk.mp4", 20), 0)
    assert crops is not None
    assert crops.shape == (20, 24, 24)
    assert len(sound) >= 20 * 640
    assert [row[:2] for row in rows] == [["lips", word], ["sound", word], ["both", word]]
    assert all(row[2].startswith(f"{word} 0.") for row in rows)


def test_without_a_face_sound_remains(recogniser, word, tmp_path):
    clip = write_clip(tmp_path / "wall.mp4", noise_frames(20), tone(0.8))
    crops, _, rows = Comparison([Model(recogniser)]).of(clip, 30)
    assert crops is None
    assert [row[1] for row in rows] == ["", word, ""]
    assert rows[0][2] == "no face is seen"


@pytest.mark.parametrize("snr", [-5, 10])
def test_babble_is_as_loud_as_asked(snr):
    clean = np.random.default_rng(0).normal(0, 900, 16000).astype(np.int16)
    noise = with_babble(clean, snr).astype(float) - clean
    assert 20 * np.log10(clean.std() / noise.std()) == pytest.approx(snr, abs=0.1)
    assert with_babble(clean, 30) is clean


def test_models_of_a_finished_demo(tmp_path):
    for seed in (1, 2):
        for name in ("av2vec_av_100", "scratch_av_100", "av2vec_video_100"):
            path = tmp_path / f"seed_{seed}" / "checkpoints" / name / "checkpoint_last.pt"
            path.parent.mkdir(parents=True)
            path.touch()
    assert [path.parts[-4::2] for path in model_paths([tmp_path])] == [
        ("seed_1", "av2vec_av_100"),
        ("seed_1", "av2vec_video_100"),
    ]
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match=r"empty: holds no models; run make demo, or name models"):
        model_paths([empty])
    assert main(["demo", str(tmp_path / "none.pt")]) == 1


@pytest.fixture(scope="module")
def page(recogniser: Path, tmp_path_factory: pytest.TempPathFactory):
    """Address of the page, and the folder that its own one is in, which must be empty again at the end."""
    pytest.importorskip("gradio")
    folder, port = tmp_path_factory.mktemp("page"), free_port()
    environment = {**os.environ, "TMPDIR": str(folder)}
    command = [sys.executable, "-m", "av_ssl.cli", "demo", str(recogniser), "--port", str(port)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(f"http://127.0.0.1:{port}")
        yield f"http://127.0.0.1:{port}", folder
    finally:
        process.terminate()
        process.wait()
    assert not list(folder.iterdir())


@pytest.mark.skipif(DRIVER is None or CHROMIUM is None, reason="no Chromium with its chromedriver")
def test_a_clip_is_recognised_in_a_browser(page, word, tmp_path):
    address, folder = page
    with browser() as chromium:
        chromium.open(address)
        until(lambda: chromium.run("!!document.querySelector('input[type=file]')"), "the page")
        chromium.upload("input[type=file]", talking_head(tmp_path / "talk.mp4", 20))
        until(lambda: chromium.run("!!document.querySelector('video')"), "the clip")
        assert list(folder.rglob("talk.mp4"))
        chromium.run("document.querySelector('#recognise').click()")
        rows = until(
            lambda: [
                row
                for row in chromium.run("document.querySelector('#texts').innerText").split("\n")
                if row.startswith(word)
            ],
            "the text",
        )
        assert rows
        until(lambda: chromium.run("document.querySelectorAll('video').length == 2"), "the crop")
        assert not chromium.errors()
        requested = chromium.run("performance.getEntriesByType('resource').map(entry => entry.name)")
        assert all(url.startswith((address, "blob:", "data:")) for url in requested)


@pytest.mark.skipif(DRIVER is None or CHROMIUM is None, reason="no Chromium with its chromedriver")
def test_a_recording_of_the_webcam_is_recognised(page, word):
    """Chromium's own camera shows a pattern without a face, and beeps."""
    address, _ = page

    def press(label: str) -> Callable[[], bool]:
        find = (
            f"[...document.querySelectorAll('button')].find(e => /{label}/.test(e.ariaLabel + e.innerText))"
        )
        return lambda: chromium.run(f"(e => e ? (e.click(), true) : false)({find})")

    with browser("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream") as chromium:
        chromium.open(address)
        for label in ("Capture from camera", "Access Webcam", "Record"):
            until(press(label), label)
        time.sleep(5)  # it begins late on a busy machine
        until(press("Stop"), "the recording")
        until(lambda: chromium.run("document.querySelector('video')?.src"), "the clip")
        chromium.run("document.querySelector('#recognise').click()")
        texts = "document.querySelector('#texts').innerText"
        until(lambda: word in chromium.run(texts), "the text")
        assert "no face is seen" in chromium.run(texts)
        assert not chromium.errors()


def test_uploads_are_limited(page):
    address, folder = page
    boundary = b"x" * 20
    head = b'Content-Disposition: form-data; name="files"; filename="long.mp4"\r\n\r\n'
    body = b"--" + boundary + b"\r\n" + head + bytes(51 << 20) + b"\r\n--" + boundary + b"--\r\n"
    kind = {"Content-Type": f"multipart/form-data; boundary={boundary.decode()}"}
    request = urllib.request.Request(f"{address}/gradio_api/upload", body, kind)
    with pytest.raises(OSError, match=r"413|reset|Broken pipe"):
        urllib.request.urlopen(request)
    assert not list(folder.rglob("long.mp4"))
