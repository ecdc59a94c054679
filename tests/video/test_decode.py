"""Real files through both readers, in any order, from threads and forks, and every file that is bad."""

import multiprocessing
import subprocess
import sys
import threading
from fractions import Fraction

import av
import numpy as np
import pytest

from resetta.video import decode
from resetta.video.decode import BadVideo, close_readers, open_video, probe, read_frames, write_video

T, H, W = 60, 48, 40
FILES = {
    "rgb.mp4": {},
    "yuv.mp4": {"codec": "libx264", "lossless": False},
    "ffv1.mkv": {"codec": "ffv1"},
    "vp9.webm": {"codec": "libvpx-vp9", "lossless": False},
    "mpeg4.avi": {"codec": "mpeg4", "lossless": False},
}
has_decord = pytest.mark.skipif(
    subprocess.run([sys.executable, "-c", "import decord"], capture_output=True).returncode != 0,
    reason="decord has no wheel here",
)


def _frames():
    t, y, x = np.mgrid[:T, :H, :W]
    return np.stack([5 * t + 3 * y, 2 * t + 5 * x, t + y + x], -1).astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    directory = tmp_path_factory.mktemp("videos")
    for name, options in FILES.items():
        write_video(directory / name, _frames(), **options)
    return directory


@pytest.fixture(autouse=True)
def _closed():
    yield
    close_readers()


@has_decord
@pytest.mark.parametrize("name", FILES)
def test_both_readers_see_the_same(folder, name):
    order = [7, 3, 3, T - 1, 0, 25, 24]
    ours, theirs = (read_frames(folder / name, order, backend) for backend in ("pyav", "decord"))
    assert ours.shape == (7, H, W, 3)
    if name == "mpeg4.avi":  # an inexact transform
        assert np.abs(ours.astype(int) - theirs).max() <= 2
    else:
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("backend", ["pyav", pytest.param("decord", marks=has_decord)])
@pytest.mark.parametrize("name", ["rgb.mp4", "ffv1.mkv"])
def test_lossless_files_are_read_bit_exactly(folder, name, backend):
    order = np.random.default_rng(0).integers(0, T, 30)
    np.testing.assert_array_equal(read_frames(folder / name, order, backend), _frames()[order])
    assert probe(folder / name, backend)[:3] == (T, H, W)


def test_what_decord_cannot_open_is_read_all_the_same(tmp_path):
    try:
        write_video(tmp_path / "av1.mkv", _frames()[:8], codec="libsvtav1", lossless=False)
    except (av.FFmpegError, ValueError):
        pytest.skip("this PyAV cannot write AV1")
    assert open_video(tmp_path / "av1.mkv").backend == "pyav"
    assert probe(tmp_path / "av1.mkv").frames == 8


@has_decord
def test_what_decord_cannot_decode_is_read_all_the_same(tmp_path):
    small = _frames()[:8, :16, :16]
    write_video(tmp_path / "small.mp4", small)
    with pytest.raises(BadVideo, match="decord cannot decode frames"):
        read_frames(tmp_path / "small.mp4", [3], "decord")
    reader = open_video(tmp_path / "small.mp4")
    np.testing.assert_array_equal(reader.read([3, 7]), small[[3, 7]])
    assert reader.backend == "pyav"
    np.testing.assert_array_equal(read_frames(tmp_path / "small.mp4", [7]), small[7:])


def test_threads_have_readers_of_their_own(folder):
    expected = _frames()
    wrong = []

    def work(seed):
        order = np.random.default_rng(seed).integers(0, T, (10, 3))
        for part in order:
            if not np.array_equal(read_frames(folder / "rgb.mp4", part), expected[part]):
                wrong.append(part)
        close_readers()

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "readers deadlocked"
    assert wrong == []


def test_after_a_fork_files_are_opened_again(folder):
    """In a process of its own: a fork beside JAX's threads is not what is tested here."""
    script = (
        "import multiprocessing\n"
        "from resetta.video.decode import read_frames\n"
        f"path, last = {str(folder / 'rgb.mp4')!r}, {T - 1}\n"
        "first = int(read_frames(path, [last]).sum())\n"
        "def child(queue): queue.put(int(read_frames(path, [last]).sum()))\n"
        "context = multiprocessing.get_context('fork')\n"
        "queue = context.Queue()\n"
        "process = context.Process(target=child, args=(queue,))\n"
        "process.start()\n"
        "assert queue.get(timeout=60) == first\n"
        "process.join()\n"
    )
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("no fork on this system")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_only_a_few_files_stay_open(tmp_path):
    paths = [tmp_path / f"{k}.mp4" for k in range(12)]
    for k, path in enumerate(paths):
        write_video(path, _frames()[:2] + np.uint8(k))
        np.testing.assert_array_equal(read_frames(path, [1])[0], _frames()[1] + np.uint8(k))
    assert len(decode._handles.open) == decode.HANDLES == 8
    close_readers()
    assert not decode._handles.open


def test_a_file_that_changed_is_opened_again(tmp_path):
    path = tmp_path / "a.mp4"
    write_video(path, _frames()[:2])
    read_frames(path, [0])
    write_video(path, _frames()[5:9])
    np.testing.assert_array_equal(read_frames(path, [3])[0], _frames()[8])


def _moov_first(path, target):
    """The same packets with the index in front, as it is on the web."""
    with av.open(str(path)) as source, av.open(str(target), "w", options={"movflags": "+faststart"}) as sink:
        stream = sink.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                sink.mux(packet)
    return target


def _sound(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.time_base = 8000, Fraction(1, 8000)
        for packet in [*stream.encode(frame), *stream.encode()]:
            container.mux(packet)
    return path


def _bad(kind, folder, directory):
    rgb = (folder / "rgb.mp4").read_bytes()
    path = directory / ("bad.mkv" if "mkv" in kind else "bad.mp4")
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "garbage":
        path.write_bytes(np.random.default_rng(0).bytes(5000))
    elif kind == "header only":
        path.write_bytes(rgb[:32])
    elif kind == "truncated before its index":
        path.write_bytes(rgb[: len(rgb) // 2])
    elif kind == "truncated after its index":
        whole = _moov_first(folder / "rgb.mp4", directory / "whole.mp4").read_bytes()
        path.write_bytes(whole[: len(whole) * 2 // 3])
    elif kind == "truncated mkv":
        whole = (folder / "ffv1.mkv").read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    elif kind == "only sound":
        _sound(path)
    elif kind == "a playlist":
        path.write_text(f"#EXTM3U\n#EXTINF:1,\n{folder / 'rgb.mp4'}\n")
    elif kind == "another playlist":
        path.write_text(f"ffconcat version 1.0\nfile {folder / 'rgb.mp4'}\n")
    elif kind == "missing":
        pass
    return path


BAD = [
    "empty",
    "garbage",
    "header only",
    "truncated before its index",
    "truncated after its index",
    "truncated mkv",
    "only sound",
    "a playlist",
    "another playlist",
    "missing",
]


@pytest.mark.parametrize("backend", ["auto", "pyav"])
@pytest.mark.parametrize("kind", BAD)
def test_bad_files_are_named(folder, tmp_path, kind, backend):
    path = _bad(kind, folder, tmp_path)
    with pytest.raises(BadVideo) as caught:
        probe(path, backend)
    assert path.name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_damage_inside_never_shortens_a_file_in_silence(folder, tmp_path):
    data = bytearray((folder / "rgb.mp4").read_bytes())
    middle = len(data) // 3
    data[middle : middle + 400] = bytes(400)
    path = tmp_path / "damaged.mp4"
    path.write_bytes(data)
    for backend in ("pyav", "auto"):
        try:
            got = read_frames(path, np.arange(T), backend)
        except BadVideo as error:
            got, named = np.zeros(T), str(error)
        else:
            named = path.name
        assert "damaged.mp4" in named
        assert len(got) == T


def test_mistakes_are_sentences(folder):
    with pytest.raises(ValueError, match="backend='ffmpeg' must be one of auto, decord, pyav"):
        open_video(folder / "rgb.mp4", "ffmpeg")
    with pytest.raises(ValueError, match=rf"frame {T} is not in .*rgb.mp4; use 0 to {T - 1}"):
        read_frames(folder / "rgb.mp4", [0, T])
    with pytest.raises(ValueError, match="frame -1 is not in"):
        read_frames(folder / "rgb.mp4", [-1])


def test_a_failed_write_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="cannot be written with codec='no_such_codec'"):
        write_video(tmp_path / "a.mp4", _frames(), codec="no_such_codec", lossless=False)
    assert list(tmp_path.iterdir()) == []
