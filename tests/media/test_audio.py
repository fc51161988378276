"""16 kHz mono samples, cut to the frames."""

import shutil
import subprocess

import av
import numpy as np
import pytest
import soundfile

from av_ssl.errors import MediaError
from av_ssl.media.audio import fit_to_frames, frame_energy, read_audio, read_plain_wav, write_audio
from av_ssl.media.container import MissingStreamError
from tests.media.synthetic import noise_frames, tone, write_clip


def test_stereo_is_averaged(tmp_path):
    left = tone(0.5)
    clip = write_clip(tmp_path / "clip.mkv", None, np.concatenate([left, np.zeros_like(left)]))
    samples = read_audio(clip)
    assert samples.dtype == np.int16
    assert samples.shape == (8000,)
    np.testing.assert_allclose(samples, left[0] * 32767 / 2, atol=1.5)


def test_44_khz_is_resampled(tmp_path):
    samples = read_audio(
        write_clip(tmp_path / "clip.mkv", None, tone(1.0, 44100, 1000.0, channels=2), rate=44100)
    )
    assert abs(len(samples) - 16000) <= 1
    spectrum = np.abs(np.fft.rfft(samples[4000:12000]))
    assert spectrum.argmax() * 2 == 1000
    assert samples.max() == pytest.approx(0.3 * 32767, rel=0.01)


def test_sound_that_starts_later_than_the_frame_is_led_by_silence(tmp_path):
    clip = tmp_path / "late.mkv"
    with av.open(str(clip), "w") as container:
        video = container.add_stream("libx264", rate=25)
        video.width = video.height = 96
        video.pix_fmt = "yuv420p"
        audio = container.add_stream("pcm_s16le", rate=16000, layout="mono")
        for frame in noise_frames(25):
            container.mux(video.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(video.encode())
        frame = av.AudioFrame.from_ndarray(np.full((1, 8000), 5000, np.int16), format="s16", layout="mono")
        frame.sample_rate, frame.pts = 16000, 4000
        container.mux(audio.encode(frame))
        container.mux(audio.encode())
    samples = read_audio(clip)
    assert not samples[:3950].any()
    assert (samples[4050:] == 5000).all()
    assert len(samples) == pytest.approx(12000, abs=20)


def test_no_audio_and_no_file_are_named(tmp_path):
    clip = write_clip(tmp_path / "mute.mp4", noise_frames(), None)
    with pytest.raises(MissingStreamError, match=r"mute\.mp4: .*audio"):
        read_audio(clip)
    with pytest.raises(MediaError, match=r"absent\.wav"):
        read_audio(tmp_path / "absent.wav")


def test_wav_round_trip(tmp_path):
    samples = np.random.default_rng(0).integers(-32768, 32767, 5000).astype(np.int16)
    write_audio(tmp_path / "a.wav", samples)
    np.testing.assert_array_equal(read_audio(tmp_path / "a.wav"), samples)
    np.testing.assert_array_equal(read_plain_wav(tmp_path / "a.wav"), samples)
    write_audio(tmp_path / "b.wav", samples, rate=8000)
    assert read_plain_wav(tmp_path / "b.wav") is None
    with pytest.raises(ValueError, match="int16"):
        write_audio(tmp_path / "c.wav", samples.astype(np.float32))


def test_wav_files_that_would_be_read_wrongly(tmp_path):
    """Another scale, another order of bytes, and a header that states half of the samples."""
    wave = np.round(tone(1.0)[0] * 32767)
    for name, samples, options in (
        ("scale.wav", wave, {"subtype": "FLOAT"}),
        ("number.wav", np.append(wave / 32768, np.nan), {"subtype": "DOUBLE"}),
        ("order.wav", wave.astype(np.int16), {"endian": "BIG"}),
    ):
        soundfile.write(tmp_path / name, samples, 16000, **options)
        with pytest.raises(MediaError, match=rf"{name}: .*(full scale is 1|big-endian)"):
            read_audio(tmp_path / name)
    write_audio(tmp_path / "half.wav", wave.astype(np.int16))
    content = bytearray((tmp_path / "half.wav").read_bytes())
    content[40:44] = (16000).to_bytes(4, "little")
    (tmp_path / "half.wav").write_bytes(content)
    with pytest.raises(MediaError, match=r"half\.wav: .*16000 bytes behind"):
        read_audio(tmp_path / "half.wav")


@pytest.mark.parametrize(("samples", "frames"), [(1000, 3), (5000, 3), (1920, 3)])
def test_samples_fit_the_frames(samples, frames):
    sound = np.arange(samples).astype(np.int16)
    fitted = fit_to_frames(sound, frames)
    assert fitted.shape == (1920,)
    kept = min(samples, 1920)
    np.testing.assert_array_equal(fitted[:kept], sound[:kept])
    assert not fitted[kept:].any()


def test_energy_is_that_of_each_frame():
    sound = np.concatenate([np.zeros(640), np.full(640, 99.0), np.zeros(100)]).astype(np.int16)
    np.testing.assert_allclose(frame_energy(sound, 3), [0, np.log(100), 0], atol=1e-6)


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="no ffmpeg command")
def test_bit_equal_to_the_ffmpeg_command(tmp_path):
    clip = write_clip(tmp_path / "clip.mkv", None, tone(1.0, 44100, 700.0, channels=2), rate=44100)
    command = ["ffmpeg", "-v", "error", "-i", clip, "-ac", "1", "-ar", "16000", "-f", "s16le", "-"]
    expected = np.frombuffer(subprocess.run(command, check=True, capture_output=True).stdout, np.int16)
    samples = read_audio(clip)
    length = min(len(samples), len(expected))
    np.testing.assert_array_equal(samples[:length], expected[:length])
