"""Films and strips, read back pixel by pixel: which frame of which film is shown where, and when."""

import dataclasses
import functools

import av
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy import ndimage

from resetta.experiments import media, video_film
from resetta.experiments.run_dir import RunDir
from resetta.experiments.video_film import film_run, strip, write_film
from resetta.video.clip import ActionSpace, Clip, to_float

GREY, ORANGE = (100, 116, 139), (217, 72, 15)  # borders: given frames, predicted ones


def read(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        return np.stack(frames), stream.average_rate


def panels(picture, color):
    """The insides of all borders of this colour, row by row."""
    found, _ = ndimage.label((picture == color).all(-1), structure=np.ones((3, 3)))
    boxes = [box for box in ndimage.find_objects(found) if all(s.stop - s.start > 20 for s in box)]
    boxes.sort(key=lambda box: (box[0].start, box[1].start))
    return [
        picture[rows.start + 2 : rows.stop - 2, columns.start + 2 : columns.stop - 2]
        for rows, columns in boxes
    ]


def noise(seed, length, size=8, channels=1):
    return np.random.default_rng(seed).integers(0, 256, (length, size, size, channels), dtype=np.uint8)


def enlarged(frame, times):
    colors = np.broadcast_to(frame, (*frame.shape[:2], 3))
    return np.kron(colors, np.ones((times, times, 1), np.uint8))


def test_panels_show_their_films_in_step(tmp_path):
    true, drawn = noise(0, 6), noise(1, 6, channels=3)
    stem = tmp_path / "film.of_two"  # a dot in the name is no ending
    paths = write_film(
        stem, [[("true", true), ("predicted", drawn)]], context=2, fps=4, size=32, lossless=True
    )
    assert [path.name for path in paths] == ["film.of_two.mp4", "film.of_two.gif"]
    film, rate = read(paths[0])
    assert rate == 4
    assert len(film) == 6 + 4  # the last picture is held a second
    for t, picture in enumerate(film):
        given, predicted = panels(picture, GREY), panels(picture, ORANGE)
        assert (len(given), len(predicted)) == ((2, 0) if t < 2 else (0, 2))
        for panel, frames in zip(given or predicted, (true, drawn), strict=True):
            np.testing.assert_array_equal(panel, enlarged(frames[min(t, 5)], 4))
    with Image.open(paths[1]) as gif:
        durations = []
        for k in range(gif.n_frames):
            gif.seek(k)
            durations.append(gif.info["duration"])
        assert gif.size == film.shape[2:0:-1]
    assert sum(durations) == 10 * 250  # pictures that are alike may be one, for longer


def test_a_film_counts_from_the_first_predicted_frame(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(media._Layout, "panel", lambda *args: said.append(args[-2]))
    write_film(tmp_path / "film", [[("true", noise(0, 5))]], context=2, fps=1, size=16)
    assert said == ["context", "context", "frame +1", "frame +2", "frame +3"]


@pytest.mark.parametrize(("size", "shown"), [(32, 32), (19, 16), (21, 24), (1, 8)])
def test_pixels_stay_squares(size, shown):
    picture = strip([noise(0, 2, 8, 3)], context=1, size=size)
    assert picture.shape == (18 + shown + 8, 2 * (shown + 8), 3)


def test_a_film_that_ends_earlier_waits(tmp_path):
    """Sampling goes on beyond the true clip, whose panel is then dimmed."""
    true, drawn = noise(0, 3), noise(1, 6)
    path, _ = write_film(tmp_path / "f", [[("true", true), ("on", drawn)]], 1, fps=1, size=32, lossless=True)
    film, _ = read(path)
    assert len(film) == 7
    np.testing.assert_array_equal(panels(film[2], ORANGE)[0], enlarged(true[2], 4))
    alone = panels(film[5], ORANGE)  # the other's border is dimmed too
    assert len(alone) == 1
    np.testing.assert_array_equal(alone[0], enlarged(drawn[5], 4))


def test_rows_of_unequal_films_are_stacked(tmp_path):
    first, second = [noise(k, 3) for k in range(2)], [noise(2, 5)]
    rows = [[(str(k), film) for k, film in enumerate(row)] for row in (first, second)]
    film, _ = read(write_film(tmp_path / "f", rows, 1, fps=2, size=32, lossless=True)[0])
    assert len(film) == 5 + 2
    for t, picture in enumerate(film[1:], 1):
        shown = panels(picture, ORANGE)
        for panel, frames in zip(shown, [*first, *second], strict=True):
            np.testing.assert_array_equal(panel, enlarged(frames[min(t, len(frames) - 1)], 4))


def test_long_films_are_no_gif(tmp_path):
    for length, suffixes in ((149, [".mp4", ".gif"]), (150, [".mp4"])):  # and a picture held for a second
        paths = write_film(tmp_path / str(length), [[("a", noise(0, length))]], 1, fps=1, size=8)
        assert [path.suffix for path in paths] == suffixes
        assert len(read(paths[0])[0]) == length + 1


@pytest.mark.parametrize(("length", "context"), [(13, 3), (4, 3), (300, 36)])
def test_a_strip_says_which_frames_it_shows(length, context, monkeypatch):
    written = []
    draw = ImageDraw.ImageDraw.text
    monkeypatch.setattr(
        ImageDraw.ImageDraw,
        "text",
        lambda self, xy, text, **kw: (written.append((xy, text)), draw(self, xy, text, **kw)),
    )
    levels = np.arange(length) % 256
    films = [
        np.broadcast_to(x.astype(np.uint8)[:, None, None, None], (length, 8, 8, 1))
        for x in (levels, 255 - levels)
    ]
    picture = strip(films, context, size=40)
    assert picture.dtype == np.uint8
    cell = 40 + 4 + 4  # with a border and a margin
    assert picture.shape == (18 + 2 * cell, cell * len(written), 3)
    labels = [text for _, text in written]
    assert labels[0] == f"context ({context})"
    ahead = [int(label) for label in labels[1:]]
    assert all(label[0] == "+" for label in labels[1:])
    assert ahead == sorted(set(ahead))
    assert len(ahead) <= 9
    assert (ahead[0], ahead[-1]) == (1, length - context)
    for column, ((x, _), k) in enumerate(zip((xy for xy, _ in written), [0, *ahead], strict=True)):
        assert x == (column + 0.5) * cell
        time = context - 1 + k
        assert (picture[18 + cell // 2, int(x)] == time % 256).all()
        assert (picture[18 + cell + cell // 2, int(x)] == 255 - time % 256).all()
        assert tuple(picture[18 + 2, column * cell + 2]) == (ORANGE if column else GREY)
    assert (picture[:18] != picture[0, 0]).any()  # something is written there


@dataclasses.dataclass(frozen=True)
class Levels:
    """Frame t of clip i has the level 100 i + 10 t; clips have no actions."""

    size: int = 16
    channels: int = 1
    actions: ActionSpace = ActionSpace()  # noqa: RUF009

    def count(self, split):
        return 2

    def lengths(self, split, ids):
        return np.array([9, 9])[ids]

    def read(self, split, ids, starts, frames):
        levels = (100 * ids + 10 * (starts + np.arange(frames)[:, None])).astype(np.uint8)
        pixels = np.broadcast_to(levels[..., None, None, None], (*levels.shape, 16, 16, 1))
        return Clip(pixels, None, np.zeros(levels.shape, bool))


@dataclasses.dataclass(frozen=True)
class Darker:
    """Every frame is 5 levels darker than the one before."""

    size: int = 16
    channels: int = 1
    actions: ActionSpace = ActionSpace()  # noqa: RUF009
    streams: bool = False

    def condition(self, variables, clip):
        return to_float(clip.frames[-1])

    def step(self, variables, memory, action, key):
        memory = memory - jnp.float32(5 / 127.5)
        return memory, memory


@pytest.mark.parametrize("split", ["test", "train"])
def test_what_a_run_is_filmed_as(split, tmp_path, monkeypatch):
    monkeypatch.setattr(video_film, "write_film", functools.partial(write_film, lossless=True))
    run = RunDir(tmp_path, {"data": {}}, resumed=True)
    written = film_run(Darker(), Levels(), {}, run, context=3, frames=7, clips=3, split=split, fps=2, size=64)
    names = [f"prediction_{split}.mp4", f"prediction_{split}.gif", f"strip_{split}.png"]
    assert [path.name for path in written] == names
    assert sorted(path.name for path in run.media.iterdir()) == sorted(names)
    film, rate = read(written[0])
    assert (len(film), rate) == (7 + 2, 2)
    for t, picture in enumerate(film):
        t = min(t, 6)
        shown = panels(picture, GREY if t < 3 else ORANGE)
        assert [panel.shape for panel in shown] == [(64, 64, 3)] * 4  # two clips, true and predicted
        expected = []
        for clip in (0, 1):
            true = 100 * clip + 10 * t
            expected += [true, true if t < 3 else 100 * clip + 20 - 5 * (t - 2)]
        assert [int(panel.mean()) for panel in shown] == expected
        assert all(panel.min() == panel.max() for panel in shown)
    with Image.open(written[2]) as image:
        picture = np.asarray(image)
    cell = 96 + 8
    # words above and to the left; the context's last, and four predictions
    assert picture.shape == (18 + 4 * cell, 18 + 5 * cell, 3)
    middle = picture[18 + cell // 2 :: cell, 18 + cell // 2 :: cell, 0]
    beside = [(picture[18 + k * cell : 18 + (k + 1) * cell, :18] < 200).any((1, 2)) for k in range(4)]
    assert [word.any() for word in beside] == [True] * 4
    true, predicted, *_ = (np.flatnonzero(word) for word in beside)
    assert np.ptp(true) < np.ptp(predicted) < cell  # the shorter word is above
    assert abs(true.mean() - cell / 2) < 8
    np.testing.assert_array_equal(
        middle,
        [[20, 30, 40, 50, 60], [20, 15, 10, 5, 0], [120, 130, 140, 150, 160], [120, 115, 110, 105, 100]],
    )


def test_clips_that_are_too_short_are_said(tmp_path):
    run = RunDir(tmp_path, {"data": {}}, resumed=True)
    with pytest.raises(ValueError, match="no test clip has the 12 frames"):
        film_run(Darker(), Levels(), {}, run, context=3, frames=12)
    assert not run.media.exists()
