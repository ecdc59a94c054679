"""Digits that bounce: exact at any frame, drawn from disjoint digits, and measured as one would by hand."""

import jax
import numpy as np
import pytest

from resetta.video.data import make_data
from resetta.video.generated import GeneratedData
from resetta.video.worlds.digits import MovingDigits, StochasticDigits
from resetta.video.worlds.glyphs import glyphs, instances
from resetta.video.worlds.matching import iou

SIZE, GLYPH, FRAMES, IDS = 32, 12, 40, np.arange(8)
ROOM = SIZE - GLYPH
OPTIONS = {"size": SIZE, "digit_size": GLYPH}


@pytest.fixture(scope="module", params=[MovingDigits, StochasticDigits])
def data(request):
    return GeneratedData(request.param(**OPTIONS))


@pytest.fixture(scope="module")
def truth(data):
    return data.truth("train", IDS, np.zeros_like(IDS), FRAMES)


def corners(truth):
    return truth["position"].astype(float) - (GLYPH - 1) / 2


def test_they_go_straight_at_real_valued_speeds_and_turn_at_the_border_alone(data, truth):
    at = corners(truth)
    assert at.min() >= 0
    assert at.max() <= ROOM
    moved = np.diff(at, axis=0)  # [T - 1, B, K, 2]
    slowest, fastest = 1.5 * SIZE / 64, 3.5 * SIZE / 64
    straight = (np.abs(np.diff(moved, axis=0)) < 0.02).all(-1)
    speeds = np.linalg.norm(moved[:-1], axis=-1)[straight]
    assert slowest - 0.01 < speeds.min() < speeds.max() < fastest + 0.01
    assert len({*np.round(speeds, 1)}) > 5
    near = ((at < fastest) | (at > ROOM - fastest)).any(-1)
    assert near[1:-1][~straight].all()
    assert 0.02 < (~straight).mean() < 0.5


def test_the_same_video_whatever_the_window(data, truth):
    starts = 10 + np.arange(len(IDS))
    part = data.truth("train", IDS, starts, FRAMES)
    for name in truth:
        for b in IDS:
            np.testing.assert_array_equal(part[name][: -starts[b], b], truth[name][starts[b] :, b])


def test_far_away_they_are_where_whole_numbers_say():
    world = MovingDigits(**OPTIONS)
    for start in (1_000_000, 2**31 - 1 - FRAMES):
        at = corners(GeneratedData(world).truth("train", IDS, np.full_like(IDS, start), FRAMES))
        for b in IDS[:2]:
            key = jax.random.key(0)
            for part in (0, 0, b):
                key = jax.random.fold_in(key, part)
            _, where, heading, speed = jax.random.split(key, 4)
            pixels = np.asarray(jax.random.randint(speed, (2,), 49152, 114689)) / 65536
            angle = np.asarray(jax.random.randint(heading, (2,), 0, 2**14)) * (2 * np.pi / 2**14)
            velocity = pixels[:, None] * np.stack([np.sin(angle), np.cos(angle)], -1).astype(np.float32)
            phase = np.asarray(jax.random.bits(where, (2, 2), "uint32"))
            for k, axis in np.ndindex(2, 2):
                step = round(float(np.float32(velocity[k, axis]) * np.float32(2**32 / (2 * ROOM))))
                for t in (0, FRAMES - 1):
                    turns = (int(phase[k, axis]) + (start + t) * step) % 2**32 / 2**32
                    assert at[t, b, k, axis] == pytest.approx(ROOM * (1 - abs(2 * turns - 1)), abs=0.003)


def test_held_out_clips_show_other_digits(data, truth):
    trained, held_out = ({*instances(kept).tolist()} for kept in (False, True))
    assert (len(trained), len(held_out), len(trained | held_out)) == (1400, 397, 1797)
    assert {*truth["instance"].ravel().tolist()} <= trained
    other = data.truth("test", IDS, np.zeros_like(IDS), FRAMES)["instance"]
    assert {*other.ravel().tolist()} <= held_out


def picture(*placed):
    """A frame with digits at whole pixels, `(instance, row, column)` of their upper left corners."""
    frame = np.zeros((1, 1, SIZE, SIZE, 1), np.uint8)
    for instance, row, column in placed:
        drawn = np.rint(glyphs(GLYPH).images[instance] * 255)[..., None]
        frame[0, 0, row : row + GLYPH, column : column + GLYPH] = drawn
    return frame


def test_measures_by_hand():
    world, middle = MovingDigits(**OPTIONS), (GLYPH - 1) / 2
    first, second = (7, 2, 3), (1200, 16, 18)
    truth = {
        "frame": picture(first, second),
        "position": np.array([first[1:], second[1:]], np.float32)[None, None] + middle,
        "instance": np.array([first[0], second[0]])[None, None],
    }

    def error(*placed):
        return world.measures(picture(*placed), truth)["position_error"].item()

    assert error(first, second) == pytest.approx(0, abs=0.25)
    assert world.measures(truth["frame"], truth)["iou"].item() == 1
    # one of two is off by 3, 4
    assert error((7, 5, 7), second) == pytest.approx(5 / 2, abs=0.25)
    # what is lost counts as lying in the middle of the canvas
    centre = (SIZE - 1) / 2
    away = [np.hypot(row + middle - centre, column + middle - centre) for _, row, column in (first, second)]
    assert error() == pytest.approx(np.mean(away), abs=1e-5)
    assert world.measures(picture(), truth)["iou"].item() == 0


def test_iou_of_pixels_counted():
    predicted, true = np.zeros((2, 2, 1, 1, 4, 1), np.uint8)
    predicted[0, 0, 0, :3], true[0, 0, 0, 1:] = 64, 255  # 3 and 3 pixels of a row, 2 of them both
    predicted[1, 0, 0, 0], true[1, 0, 0, 0] = 63, 63  # too dark to count: both are empty
    np.testing.assert_allclose(iou(predicted, true), [[2 / 4], [1]])


def test_made_by_name_with_options():
    data = make_data("stochastic_digits", size=32, digits=1, length=9)
    assert (data.size, data.channels, data.samples) == (32, 1, 8)
    assert make_data("moving_digits").samples == 1
    for options, message in [({"size": 8}, "size=8"), ({"digits": 0}, "digits=0"), ({"fastest": 99}, "99")]:
        with pytest.raises(ValueError, match=message):
            make_data("moving_digits", **options)
