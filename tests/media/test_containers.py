"""Files whose container says how to show or place what they hold; each is made here."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import soundfile

from av_ssl.data.reading import read_wave
from av_ssl.errors import MediaError
from av_ssl.media.audio import chosen_track, read_audio, read_sound
from av_ssl.media.container import MissingStreamError, check_complete, stated_seconds
from av_ssl.media.sound_clock import Run, place
from av_ssl.media.video import VideoReader, read_video, write_video
from tests.media.synthetic import add_sound, moving_face, noise_frames, tone, write_clip

# Four corners of different gray: every turn and reflection shows.
CORNERS = np.zeros((48, 64), np.uint8)
CORNERS[:24, :32], CORNERS[:24, 32:], CORNERS[24:, :32], CORNERS[24:, 32:] = 20, 90, 160, 230


def corners(frames: int = 3, scale: int = 1) -> np.ndarray:
    return np.repeat(np.kron(CORNERS, np.ones((scale, scale), np.uint8))[None, ..., None], 3, 3).repeat(
        frames, 0
    )


def with_matrix(path: Path, a: int, b: int, c: int, d: int) -> Path:
    """Write a display matrix into the track header of an mp4 file."""
    content = bytearray(path.read_bytes())
    place = content.index(b"tkhd") + 4 + 40  # after version, times, id, duration, layer and volume
    content[place : place + 36] = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    return path


def quadrants(image: np.ndarray) -> np.ndarray:
    height, width = image.shape
    rows, columns = (height // 4, 3 * height // 4), (width // 4, 3 * width // 4)
    return image[np.ix_(rows, columns)].astype(int)


@pytest.mark.parametrize("aspect", [Fraction(1), Fraction(10, 7), Fraction(8, 9)])
@pytest.mark.parametrize(
    ("matrix", "turn"),
    [
        ((1, 0, 0, 1), lambda x: x),
        ((-1, 0, 0, 1), np.fliplr),
        ((1, 0, 0, -1), np.flipud),
        ((-1, 0, 0, -1), lambda x: x[::-1, ::-1]),
        ((0, 1, 1, 0), np.transpose),
        ((0, -1, -1, 0), lambda x: x[::-1, ::-1].T),
        ((0, 1, -1, 0), lambda x: np.rot90(x, -1)),
        ((0, -1, 1, 0), np.rot90),
    ],
)
def test_orientations_and_pixels_that_are_not_square(tmp_path, matrix, turn, aspect):
    """Also both at once: a display matrix applies after the pixels are stretched."""
    clip = write_clip(tmp_path / "a.mp4", corners(), None, aspect=aspect)
    shown = read_video(with_matrix(clip, *matrix))[0]
    width, height = (round(64 * aspect), 48) if aspect > 1 else (64, round(48 / aspect))
    assert shown.shape == ((width, height) if matrix[0] == 0 else (height, width))
    np.testing.assert_allclose(quadrants(shown), quadrants(turn(CORNERS)), atol=4)


def test_pixels_of_absurd_shape_are_refused(tmp_path):
    clip = write_clip(tmp_path / "a.mp4", corners(), None, aspect=Fraction(6))
    with pytest.raises(MediaError, match=r"a\.mp4: .*6 times"):
        read_video(clip)


@pytest.mark.parametrize("times", [None, np.cumsum([0, 40, 80, 40, 40, 120, 40, 40]) / 1000])
def test_interlaced_frames_are_made_progressive(tmp_path, times):
    """A moving edge: the rows of the two fields lie apart in the file, not in what is read."""
    edges = np.zeros((16, 64, 96, 3), np.uint8)
    for field in range(16):
        edges[field, :, : 20 + 4 * field] = 200
    woven = edges[::2].copy()
    woven[:, 1::2] = edges[1::2, 1::2]
    options = {"flags": "+ildct+ilme", "x264-params": "tff=1"}
    shown = read_video(write_clip(tmp_path / "a.mkv", woven, None, options=options, times=times)).astype(int)
    stored = read_video(write_clip(tmp_path / "b.mkv", woven, None, times=times)).astype(int)
    combs = [np.abs(2 * x[:, 1:-1] - x[:, 2:] - x[:, :-2])[:-1].mean() for x in (shown, stored)]
    assert combs[0] < 0.25 * combs[1]
    assert len(shown) == len(stored)
    np.testing.assert_allclose(shown[1:-1].mean((1, 2)), stored[1:-1].mean((1, 2)), atol=5)


@pytest.mark.parametrize("second", [(96, 128), (128, 96)])
def test_a_picture_size_that_changes(tmp_path, second):
    """The second part has another size, or is that of a telephone that was turned; the shape is kept."""
    parts = [corners(5), np.repeat(np.full((1, *second, 3), 150, np.uint8), 5, 0)]
    for number, frames in enumerate(parts):
        write_clip(tmp_path / f"{number}.ts", frames, None, start=1 + 0.2 * number)
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join((tmp_path / f"{number}.ts").read_bytes() for number in (0, 1)))
    reader = VideoReader(joined)
    frames = np.stack(list(reader.frames(gray=True)))
    assert frames.shape == (10, 48, 64)
    np.testing.assert_allclose(quadrants(frames[2]), quadrants(CORNERS), atol=4)
    filled = frames[7] > 75
    assert filled.mean() == pytest.approx(1.0 if second == (96, 128) else 36 / 64, abs=0.03)
    image, place = reader.placed(list(reader.stored_frames())[7], gray=True)
    assert image.shape == second  # as stored, for crops of full resolution
    edge = (np.array([0, second[1]]) + 0.0) * place.ratio[0] + place.offset[0]
    assert edge[1] - edge[0] == pytest.approx(filled[24].sum(), abs=1)


def test_a_cover_picture_is_no_film(tmp_path):
    cover = np.full((1, 32, 32, 3), 200, np.uint8)
    both = write_clip(tmp_path / "both.mkv", corners(), tone(0.2), cover=cover)
    np.testing.assert_allclose(quadrants(read_video(both)[0]), quadrants(CORNERS), atol=4)
    assert len(read_video(both)) == 3
    only = write_clip(tmp_path / "only.mkv", None, tone(0.2), cover=cover)
    with pytest.raises(MissingStreamError, match=r"only\.mkv: .*cover"):
        read_video(only)
    assert len(read_audio(only)) == 3200


def test_joined_recordings_are_refused_by_name(tmp_path):
    part = write_clip(tmp_path / "part.ts", corners(50), tone(2.0)).read_bytes()
    joined = tmp_path / "joined.ts"
    joined.write_bytes(part + part)
    for read in (read_video, read_audio):
        with pytest.raises(MediaError, match=r"joined\.ts: .* go back from [12]\.\d+ to"):
            read(joined)


@pytest.mark.parametrize("second", [1.32, 1.4])
def test_an_encoder_that_is_restarted_loses_no_frame(tmp_path, second):
    """The stamps of the second part overlap by up to 0.1 s."""
    parts = [np.full((10, 48, 64, 3), level, np.uint8) for level in (50, 200)]
    for number, (images, start) in enumerate(zip(parts, (1.0, second), strict=True)):
        write_clip(tmp_path / f"{number}.ts", images, None, start=start)
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join((tmp_path / f"{number}.ts").read_bytes() for number in (0, 1)))
    levels = read_video(joined).mean((1, 2))
    assert (len(levels), int((levels > 120).sum())) == (20, 10)


def test_a_screen_recording_without_new_frames(tmp_path):
    """The last frame lasts as long as the others, not as the mean of them; the hole is reported."""
    times = np.concatenate([np.arange(10), np.arange(35, 50)]) / 25
    reader = VideoReader(write_clip(tmp_path / "a.mp4", corners(25), None, times=times))
    assert (len(list(reader.frames())), reader.frozen) == (50, pytest.approx(1.04, abs=0.001))
    assert len(list(reader.frames())) == 50
    assert reader.frozen == pytest.approx(1.04, abs=0.001)


@pytest.mark.parametrize("start", [0.0, 5.0])
def test_a_stream_that_was_recorded_has_the_length_of_its_packets(tmp_path, start):
    """What cannot seek back in its output, as a browser, states none."""
    whole = write_clip(tmp_path / "a.mkv", noise_frames(50), tone(2.0), start=start)
    written: list[bytes] = []
    pipe = SimpleNamespace(write=lambda piece: written.append(bytes(piece)) or len(piece))
    with av.open(str(whole)) as source, av.open(pipe, "w", format="matroska") as out:
        streams = {one.index: out.add_stream_from_template(one) for one in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                out.mux(packet)
    (tmp_path / "b.mkv").write_bytes(b"".join(written))
    with av.open(str(tmp_path / "b.mkv")) as container:
        assert container.duration is None
    assert stated_seconds(tmp_path / "b.mkv") == pytest.approx(2.0, abs=0.05)


def test_bytes_behind_the_last_box_and_pointers(tmp_path):
    whole = write_clip(tmp_path / "a.mp4", corners(), tone(0.2)).read_bytes()
    path = tmp_path / "phone.mp4"
    for trailer in (
        b"SEFHk\x00\x00\x00\x02\x00\x00\x00",
        b"\x7f\xff\xff\xffvndr" + bytes(40),
        bytes(16),
        b"abc",
    ):
        path.write_bytes(whole + trailer)
        assert len(read_video(path)) == 3
    path.write_bytes(whole[:-60])
    with pytest.raises(MediaError, match=r"phone\.mp4: .*truncated"):
        read_video(path)
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n")
    with pytest.raises(MediaError, match=r"phone\.mp4: .*git lfs pull"):
        read_audio(path)


@pytest.mark.parametrize("suffix", ["mkv", "avi", "wav"])
def test_a_cut_that_the_file_states(tmp_path, suffix):
    path = write_clip(tmp_path / f"a.{suffix}", None if suffix == "wav" else corners(), tone(0.2))
    whole = path.read_bytes()
    for trailer in (b"", b"abc"):
        path.write_bytes(whole + trailer)
        check_complete(path)
    for cut in (1, len(whole) // 2):
        path.write_bytes(whole[:-cut])
        with pytest.raises(MediaError, match=rf"a\.{suffix}: is truncated by {cut} bytes"):
            read_audio(path)


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "ts"])
def test_films_joined_byte_by_byte_are_refused(tmp_path, suffix):
    """Of mp4 and mov files FFmpeg reads the first; of others the times go back."""
    clip = write_clip(tmp_path / f"a.{suffix}", corners(30), tone(1.2))
    clip.write_bytes(clip.read_bytes() * 2)
    with pytest.raises(MediaError, match=rf"a\.{suffix}: .*ffmpeg -f concat"):
        read_video(clip)


@pytest.mark.parametrize("head", ["1a45dfa3", "1a45dfa38018538067ff", "1a45dfa300", b"RIFF".hex()])
def test_a_file_that_states_no_length(tmp_path, head):
    (tmp_path / "a").write_bytes(bytes.fromhex(head))
    check_complete(tmp_path / "a")


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("full", [False, True])
def test_gray_levels_of_both_ranges_and_of_ten_bits(tmp_path, deep, full):
    pixels = "yuv420p10le" if deep else "yuv420p"
    clip = write_clip(tmp_path / "a.mkv", corners(), None, pixels=pixels, full_range=full)
    np.testing.assert_allclose(quadrants(read_video(clip)[0]), quadrants(CORNERS), atol=3)


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    """Sound `[1, N]` that fits itself only in one place."""
    rough = np.random.default_rng(seed).normal(0, 0.1, round(seconds * 16000))
    return np.convolve(rough, np.ones(8) / 4, mode="same")[None].astype(np.float32)


def late(samples: np.ndarray, sound: np.ndarray, at: float, clock: float = 1.0) -> float:
    """Milliseconds by which 0.1 s of `sound` lie later in `samples` than they should."""
    first = round(at * 16000)
    piece = sound[0, first : first + 1600]
    expected = round(at * clock * 16000)
    low = max(0, expected - 3200)
    found = np.correlate(samples[low : expected + 4800].astype(float), piece, "valid").argmax()
    return (low + found - expected) / 16


@pytest.mark.parametrize(
    ("suffix", "gaps"),
    [(".mkv", {0.5: 0.1, 1.0: 0.06}), (".mp4", {0.7: 0.6}), (".ts", {0.3: 0.3, 1.2: 0.3}), (".mkv", {})],
)
def test_sound_lies_at_its_time_stamps(tmp_path, suffix, gaps):
    """Packets are missing, the rest is where its stamps are: samples before, between and after."""
    sound = noise(2.0)
    kept = add_sound(tmp_path / f"a{suffix}", sound, gaps, frames=noise_frames(8))
    result = read_sound(kept)
    missing = [(start, start + length) for start, length in gaps.items()]
    delay = 30 if suffix == ".ts" else 0  # of the mp2 encoder, in the stamps of no file
    for at in (0.1, 0.65 if suffix == ".ts" else 0.35, 1.65):
        assert late(result.samples, sound, at) == pytest.approx(delay, abs=1.5)
    for start, end in missing:
        inside = result.samples[round((start + 0.12) * 16000) : round((end - 0.12) * 16000)]
        assert not inside.any()
    assert result.gaps == pytest.approx(sum(gaps.values()), abs=0.08)
    assert type(result.gaps) is type(result.drift) is float  # numpy's numbers cannot go into report.json
    assert result.drift == 0


@pytest.mark.parametrize("clock", [1.04, 0.97, 1.004])
def test_sound_with_a_slow_or_fast_clock_is_stretched(tmp_path, clock):
    sound = noise(3.0)
    result = read_sound(add_sound(tmp_path / "a.mkv", sound, {}, clock=clock))
    for at in (0.2, 1.5, 2.7):
        assert late(result.samples, sound, at, clock) == pytest.approx(0, abs=3)
    assert len(result.samples) == pytest.approx(48000 * clock, rel=0.01)
    assert result.drift == pytest.approx(3 * abs(clock - 1), abs=0.02)


def test_a_part_of_the_sound_is_that_part(tmp_path):
    whole = read_audio(add_sound(tmp_path / "a.mkv", noise(4.0), {2.0: 0.3}))
    part = read_audio(tmp_path / "a.mkv", span=(1.6, 3.2))
    assert len(part) == 25600
    np.testing.assert_allclose(part, whole[25600:51200], atol=1)


def run(times: list[float | None], length: float = 0.02) -> Run:
    """Frames of 20 ms of rising samples at these times."""
    made = Run(16000)
    for time in times:
        made.stamp(time, length)
    made.pieces.append((np.arange(round(len(times) * length * 16000)) % 30000 + 1).astype(np.int16))
    return made


STEADY = [0.02 * k for k in range(50)]


@pytest.mark.parametrize(
    ("times", "start", "end"),
    [
        (STEADY, 0, 1.0),
        ([None] * 50, 0, 1.0),
        (
            [time + 0.002 * (-1) ** k for k, time in enumerate(STEADY)],
            0,
            1.0,
        ),  # a container of whole milliseconds
        ([time + (0.5 if k == 20 else 0) for k, time in enumerate(STEADY)], 0, 1.0),  # one wrong stamp
        ([time - 0.1 for time in STEADY], -0.1, 0.9),
        ([time + 0.3 for time in STEADY], 0.3, 1.3),
    ],
)
def test_samples_that_need_nothing_are_kept(times, start, end):
    made = run(times)
    sound = place([made])
    expected = made.pieces[0][max(0, round(-start * 16000)) :]
    assert len(sound.samples) == pytest.approx(round(end * 16000), abs=40)
    np.testing.assert_array_equal(sound.samples[-len(expected) :], expected)
    assert (sound.gaps, sound.drift) == (0, 0)


@pytest.mark.parametrize("unknown", [0, 4])
@pytest.mark.parametrize("second", [[5.0, 5.02], [4000.0, 4000.02]])
def test_sound_that_goes_far_back_or_ahead_is_an_error(second, unknown):
    """Frames without a time stamp before the jump do not hide it, as in joined FLAC files."""
    times = [6.0 + time for time in STEADY] + [second[0] + 0.02 * k for k in range(10)]
    times[len(STEADY) - unknown : len(STEADY)] = [None] * unknown
    with pytest.raises(ValueError, match="time stamps"):
        place([run(times)])


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_joined_ogg_files_lose_no_sound(tmp_path, subtype):
    """Libsndfile, which reads training clips, takes the first alone; times may go back for FFmpeg."""
    for number in range(2):
        path = tmp_path / f"{number}.ogg"
        soundfile.write(path, noise(1.0, seed=number)[0], 16000, format="OGG", subtype=subtype)
        assert len(read_wave(path)) == 16000
    joined = tmp_path / "joined.ogg"
    joined.write_bytes(b"".join((tmp_path / f"{number}.ogg").read_bytes() for number in range(2)))
    with pytest.raises(MediaError, match=r"joined.ogg: .*several Ogg streams.*ffmpeg"):
        read_wave(joined)
    if subtype == "VORBIS":
        return
    samples = read_audio(joined)
    assert len(samples) == pytest.approx(32000, abs=200)
    for number in range(2):
        assert abs(late(samples[16000 * number :], noise(1.0, seed=number), 0.4)) < 20


def test_a_format_that_changes_loses_no_sample(tmp_path):
    parts = [noise(1.0), np.repeat(noise(1.0, seed=1), 2, 0)]
    for number, sound in enumerate(parts):
        write_clip(tmp_path / f"{number}.ts", None, sound, start=float(number))
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join((tmp_path / f"{number}.ts").read_bytes() for number in (0, 1)))
    samples = read_audio(joined)
    assert len(samples) == pytest.approx(32000, abs=2400)
    for number, sound in enumerate(parts):
        assert abs(late(samples[16000 * number :], sound, 0.4)) < 100


@pytest.mark.parametrize(
    ("levels", "taken"), [((0, 1), 1), ((1e-4, 1), 1), ((1, 0), 0), ((0, 0, 1), 2), ((0, 0), 0)]
)
def test_the_first_track_with_sound_is_read(tmp_path, levels, taken):
    tracks = [level * tone(0.5, hertz=300.0 + 200 * number) for number, level in enumerate(levels)]
    path = write_clip(tmp_path / "a.mkv", None, *tracks[:1], more_sound=tracks[1:])
    sound = read_sound(path)
    assert chosen_track(path) == f"{taken + 1} of {len(tracks)}"
    assert sound.silent == (max(levels) == 0)
    if not sound.silent:
        pitch = np.abs(np.fft.rfft(sound.samples[:8000])).argmax() * 2
        assert pitch == pytest.approx(300 + 200 * taken, abs=4)


def test_surround_sound_with_a_silent_centre_is_heard(tmp_path):
    channels = np.zeros((6, 8000), np.float32)
    channels[:2] = tone(0.5)
    assert not read_sound(write_clip(tmp_path / "a.mkv", None, channels)).silent


def test_the_bytes_of_a_crop_do_not_depend_on_those_before_it(tmp_path):
    """x264's macroblock tree fails here on machines with AVX-512: it reads memory of earlier clips."""
    clips = [moving_face(40, shift)[:, 56:152, 56:152, 1] for shift in (0.5, 1.5)]
    digests = []
    for number, frames in enumerate((clips[0], clips[1], clips[0], clips[1])):
        write_video(tmp_path / f"{number}.mp4", frames)
        digests.append((tmp_path / f"{number}.mp4").read_bytes())
    assert digests[:2] == digests[2:]
