import os

import av
import numpy as np
import pytest
from PIL import Image

from resetta.experiments.atomic import atomic
from resetta.experiments.media import side_by_side, write_gif, write_mp4, write_png


@pytest.fixture
def frames():
    film = np.full((7, 48, 64, 3), 250, np.uint8)
    for t in range(7):
        film[t, 10:30, 6 * t : 6 * t + 20] = (228, 87, 46)
    return film


def read(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)], stream.average_rate


def test_mp4_shows_what_was_written(tmp_path, frames):
    path = write_mp4(tmp_path / "new" / "film.mp4", frames, fps=25)
    decoded, rate = read(path)
    assert len(decoded) == 7
    assert rate == 25
    assert np.abs(np.stack(decoded).astype(int) - frames).mean() < 4
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.pix_fmt == "yuv420p"
        assert container.streams.video[0].codec_context.name == "h264"
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # faststart: a browser can begin before the end


def test_lossless_is_lossless_even_for_noise_and_odd_sizes(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (4, 33, 35, 3), dtype=np.uint8)
    decoded, _ = read(write_mp4(tmp_path / "noise.mp4", noise, fps=10, lossless=True))
    np.testing.assert_array_equal(decoded, noise)


def test_odd_sizes_are_padded_not_cropped(tmp_path, frames):
    decoded, _ = read(write_mp4(tmp_path / "odd.mp4", frames[:, :47, :63]))
    assert decoded[0].shape == (48, 64, 3)


def test_gif(tmp_path, frames):
    path = write_gif(tmp_path / "film.gif", frames, fps=20)
    with Image.open(path) as image:
        assert image.n_frames == 7
        assert image.info["loop"] == 0
        assert image.info["duration"] == 50
        image.seek(6)
        np.testing.assert_allclose(np.asarray(image.convert("RGB")).astype(int), frames[6], atol=12)
    assert path.stat().st_size < 8_000


def test_png_round_trip(tmp_path, frames):
    with Image.open(write_png(tmp_path / "a.png", frames[3])) as image:
        np.testing.assert_array_equal(np.asarray(image), frames[3])


@pytest.mark.parametrize("write", [write_mp4, write_gif])
def test_errors_are_one_sentence(tmp_path, frames, write):
    with pytest.raises(ValueError, match="no frames"):
        write(tmp_path / "a", [])
    with pytest.raises(ValueError, match="float64"):
        write(tmp_path / "a", frames / 255)
    with pytest.raises(ValueError, match="different shapes"):
        write(tmp_path / "a", [frames[0], frames[0, :20]])
    with pytest.raises(ValueError, match="fps=0"):
        write(tmp_path / "a", frames, fps=0)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="cannot write"):
        write(tmp_path / "file" / "film.mp4", frames)
    assert sorted(os.listdir(tmp_path)) == ["file"]


def test_a_failure_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("old")

    def fail():
        with atomic(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["report.html"]


def test_atomic_files_can_be_shared(tmp_path):
    mask = os.umask(0o022)
    try:
        with atomic(tmp_path / "a.txt") as temporary:
            temporary.write_text("x")
    finally:
        os.umask(mask)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o644


def test_side_by_side_holds_and_dims_the_shorter_film(frames):
    film = side_by_side([("trial 1", frames[:3]), ("trial 8", frames)], rewards=[[0, 1, 1], np.ones(7)])
    assert len(film) == 7
    assert film.dtype == np.uint8
    assert film.shape[1] > 48
    assert film.shape[2] > 128
    left, right = film[:, :, : film.shape[2] // 2], film[:, :, film.shape[2] // 2 :]
    np.testing.assert_array_equal(left[3], left[6])  # held
    assert (right[3] != right[6]).any()  # still running
    orange = (np.abs(left.astype(int) - (228, 87, 46)).max(-1) < 8).sum((1, 2))
    assert orange[2] >= 400  # the picture itself, untouched
    assert orange[3] < 40  # dimmed
    dark = (left.max(-1) < 100).sum((1, 2))
    assert dark[3] > dark[2] + 50  # the mark


def test_side_by_side_counts_returns(frames):
    two = [("a", frames), ("b", frames)]
    np.testing.assert_array_equal(
        side_by_side(two, rewards=[np.ones(7), np.ones(7)]), side_by_side(two, rewards=[[1.0] * 7] * 2)
    )
    changed = side_by_side(two, rewards=[np.ones(7), np.ones(7)]) != side_by_side(
        two, rewards=[[1] * 7, [1] * 6 + [5]]
    )
    assert not changed[:6].any()
    assert changed[6].any()
    assert not changed[6, :, : changed.shape[2] // 2].any()


def test_side_by_side_holds_the_end(frames):
    film = side_by_side([("a", frames)], captions=["held out"], hold=5)
    assert len(film) == 12
    np.testing.assert_array_equal(film[6], film[11])


def test_side_by_side_errors(frames):
    with pytest.raises(ValueError, match="at least one panel"):
        side_by_side([])
    with pytest.raises(ValueError, match=r"heights \[40, 48\]"):
        side_by_side([("a", frames), ("b", frames[:, :40])])
    with pytest.raises(ValueError, match="1 captions for 2 panels"):
        side_by_side([("a", frames), ("b", frames)], captions=["x"])
