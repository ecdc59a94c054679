"""A digit behind a wall: hidden exactly as long as it is said to be, and the same one when it returns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resetta.video.data import make_data
from resetta.video.generated import GeneratedData
from resetta.video.scores import Scores
from resetta.video.worlds.glyphs import glyphs, instances
from resetta.video.worlds.occluder import OccluderRecall

WORLD = OccluderRecall(size=32, delay=(1, 2, 5))
IDS = np.arange(12)
FRAMES = 60
ROOM, GLYPH = 11, 8  # beside the wall of 10 columns; of the digit
WALL = slice(ROOM, 32 - ROOM)


@pytest.fixture(scope="module")
def data():
    return GeneratedData(WORLD)


@pytest.fixture(scope="module")
def truth(data):
    return data.truth("train", IDS, np.zeros_like(IDS), FRAMES)


def beside(frames):
    """The frames without their wall."""
    return np.concatenate([frames[..., :ROOM, :], frames[..., 32 - ROOM :, :]], axis=-2)


def test_it_is_hidden_for_exactly_its_delay_first_after_the_frames_shown(truth):
    assert {*truth["delay"][0].tolist()} == {1, 2, 5}
    for b in IDS:
        delay, hidden = truth["delay"][0, b], truth["out"][:, b] < 0
        assert (truth["delay"][:, b] == delay).all()
        assert not hidden[: WORLD.shown].any()
        edges = np.flatnonzero(np.diff(np.r_[False, hidden, False].astype(int))).reshape(-1, 2)
        assert edges[0, 0] == WORLD.shown
        lengths = edges[:-1, 1] - edges[:-1, 0]  # the last may go on beyond the frames
        assert len(lengths) >= 1
        assert (lengths == delay).all()
        # as often as it had been hidden before
        ended = np.searchsorted(edges[:, 1], np.arange(FRAMES), side="right")
        np.testing.assert_array_equal(truth["passes"][:, b], ended)
        assert (beside(truth["frame"][hidden, b]) == 0).all()
    whole = truth["whole"]
    assert whole[:, IDS].any(0).all()
    assert (truth["out"][whole] >= 0).all()


def test_frames_are_the_same_digit_drawn_at_the_true_place(truth):
    weights = np.arange(32)
    for t, b in zip(*np.nonzero(truth["whole"]), strict=True):
        corner = truth["position"][t, b].astype(float) - (GLYPH - 1) / 2
        assert 0 <= corner[1] <= ROOM - GLYPH or 32 - ROOM <= corner[1] <= 32 - GLYPH
        rows, columns = (np.maximum(0, 1 - np.abs(weights[:, None] - np.arange(GLYPH) - at)) for at in corner)
        levels = rows @ (255.0 * glyphs(GLYPH).images[truth["instance"][t, b]]) @ columns.T
        levels[:, WALL] = truth["frame"][t, b, :, WALL, 0]
        assert np.abs(truth["frame"][t, b, ..., 0] - levels).max() <= 0.5 + 1e-4
    for name in ("instance", "label"):
        assert (truth[name] == truth[name][0]).all()
    assert (truth["position"][..., 0] == truth["position"][0, :, 0]).all()
    np.testing.assert_array_equal(truth["label"], glyphs(GLYPH).labels[truth["instance"]])


def test_it_goes_at_one_real_valued_speed_turns_at_the_border_and_changes_sides(truth):
    speeds = []
    for b in IDS:
        seen = truth["out"][:, b] >= 0
        column = truth["position"][:, b, 1].astype(float)
        moved = np.abs(np.diff(column))[seen[1:] & seen[:-1]]
        speed = moved.max()
        turns = moved < speed - 0.01
        # at the border it goes on in the other direction within a frame
        assert turns.sum() <= truth["passes"][-1, b] + 1
        np.testing.assert_allclose(moved[~turns], speed, atol=1 / 128)
        assert 0.75 - 0.01 <= speed <= 1.25 + 0.01  # of 32 pixels
        speeds.append(speed)
        sides = [column[seen & (truth["passes"][:, b] == k)].mean() < 15.5 for k in range(2)]
        assert sides[0] != sides[1]
    assert len({round(s, 2) for s in speeds}) > 6


def test_the_bar_says_how_long_it_will_be_hidden(truth):
    bar = truth["frame"][:, :, :, 15, 0].astype(float)
    height = (bar - 32).sum(-1) / (224 - 32)  # in pixels
    for b in IDS:
        delay = truth["delay"][0, b]
        remain, left = [], delay
        for out in truth["out"][:, b]:
            left = delay if out >= 0 else left
            remain.append(left)
            left -= out < 0
        np.testing.assert_allclose(height[:, b], 32 * np.array(remain) / 5, atol=0.05)
    wall = truth["frame"][:, :, :, WALL, 0]
    assert (wall == wall[:, :, :, ::-1]).all()
    clocked = OccluderRecall(size=32, delay=4, clock=16)
    frames, _, _ = clocked.clip(jax.random.key(0), jnp.int32(0), 1, False)
    assert (np.asarray(frames)[0, :, 15, 0] == 224).sum() == 8


def test_the_same_video_whatever_the_window(data, truth):
    for start in (0, 7, 41):
        part = data.truth("train", IDS[::-1], np.full_like(IDS, start), 5)
        for name in truth:
            np.testing.assert_array_equal(part[name][:, ::-1], truth[name][start : start + 5])


def test_far_away_it_is_where_whole_numbers_say():
    far = 2**31 - 50
    pictures, _, known = WORLD.clip(jax.random.key(4), jnp.int32(far), 40, True)
    near = [np.asarray(WORLD.clip(jax.random.key(4), jnp.int32(s), 40, True)[2]["out"]) for s in (0, 40)]
    out = np.concatenate(near)
    hidden = np.flatnonzero((out < 0) & (np.r_[0, out[:-1]] >= 0))
    period = int(hidden[1] - hidden[0])
    # a period is there, the next one back
    same = far % (2 * period)
    again, _, then = WORLD.clip(jax.random.key(4), jnp.int32(same), 40, True)
    np.testing.assert_array_equal(pictures, again)
    np.testing.assert_array_equal(known["position"], then["position"])
    np.testing.assert_array_equal(known["passes"] - then["passes"], (far - same) // period)


def test_held_out_clips_show_other_digits(data):
    ids, starts = np.arange(300), np.zeros(300, int)
    shown = [{*data.truth(split, ids, starts, 1)["instance"][0].tolist()} for split in ("train", "test")]
    assert shown[0] <= {*instances(False).tolist()}
    assert shown[1] <= {*instances(True).tolist()}
    assert len(shown[0]) > 200


def test_the_true_frames_measure_perfectly(data, truth):
    measured = data.measures(truth["frame"], truth)
    for name in ("identity", "recall"):
        assert np.nanmin(measured[name]) == 1
    for name in ("position_error", "recall_error"):
        assert np.nanmax(measured[name]) < 0.6
    assert (measured["iou"] == 1).all()
    for name in ("identity", "position_error"):
        np.testing.assert_array_equal(np.isfinite(measured[name]), truth["whole"])
    # the first return alone, of the whole digit
    back = truth["whole"] & (truth["passes"] == 1)
    np.testing.assert_array_equal(np.isfinite(measured["recall"]), back)
    assert back.any(0).all()


def test_the_first_return_is_counted_from_the_first_predicted_frame(data, truth):
    for start in (WORLD.shown - 3, WORLD.shown, WORLD.shown + 1):
        window = {name: value[start:] for name, value in truth.items()}
        recall = data.measures(window["frame"], window)["recall"]
        # of a delay of 1, the digit comes out in the very frame after it was hidden
        np.testing.assert_array_equal(np.isfinite(recall), window["whole"] & (window["passes"] == 1))
    window = {name: value[WORLD.shown + 12 :] for name, value in truth.items()}
    recall = data.measures(window["frame"], window)["recall"]
    seen = (window["out"][0] > 0) & (window["passes"][0] == 1)
    assert seen.any()
    np.testing.assert_array_equal(
        np.isfinite(recall)[:, seen], (window["whole"] & (window["passes"] == 2))[:, seen]
    )


def test_another_digit_or_place_or_none_is_told_from_the_right_one(data, truth):
    whole = truth["whole"]
    b = 0
    other = np.flatnonzero(truth["label"][0] != truth["label"][0, b])[0]
    frames = truth["frame"].copy()
    t, u = (np.flatnonzero(whole[:, clip])[0] for clip in (b, other))
    (row, column), (high, left) = (
        np.rint(truth["position"][at] - (GLYPH - 1) / 2).astype(int) for at in ((t, b), (u, other))
    )
    patch = truth["frame"][u, other, high : high + GLYPH, left : left + GLYPH]
    frames[t, b] = 0
    frames[t, b, row : row + GLYPH, column : column + GLYPH] = patch
    assert data.measures(frames, truth)["identity"][t, b] == 0
    empty = data.measures(np.zeros_like(truth["frame"]), truth)
    assert np.nanmax(empty["identity"]) == 0
    centre = np.linalg.norm(truth["position"] - 15.5, axis=-1)
    np.testing.assert_allclose(empty["position_error"][whole], centre[whole], atol=1e-4)
    down = np.roll(truth["frame"], 3, axis=2)
    fits = whole & (truth["position"][..., 0] < 31 - 3 - GLYPH / 2)
    assert fits.any()
    np.testing.assert_allclose(data.measures(down, truth)["position_error"][fits], 3, atol=0.7)
    # a digit that never went behind is a ghost on the empty frame
    ghost = np.broadcast_to(truth["frame"][WORLD.shown - 7], truth["frame"].shape)
    assert data.measures(ghost, truth)["iou"][truth["out"] < 0].max() < 0.5


def test_recall_is_read_off_by_delay(data, truth):
    """A predictor that forgets after two frames."""
    assert data.groups == {"recall": "delay", "recall_error": "delay"}
    start = WORLD.shown
    window = {name: value[start:] for name, value in truth.items()}
    forgets = window["delay"][0] > 2
    frames = window["frame"] * ~forgets[:, None, None, None]
    scores = Scores(FRAMES - start)
    for half in (slice(0, 6), slice(6, 12)):
        part = {name: value[:, half] for name, value in window.items()}
        for who, shown in (("model", frames), ("copy_last", np.zeros_like(frames))):
            for name, values in data.measures(shown[:, half], part).items():
                scores.add(name, who, values)
        scores.add_fact("delay", part["delay"][0])
    entry = scores.by_fact("recall", "delay")
    assert entry["values"] == [1, 2, 5]
    assert sum(entry["clips"]) == 12
    assert entry["clips"] == entry["model_defined"] == [(truth["delay"][0] == d).sum() for d in (1, 2, 5)]
    assert entry["model"] == [1, 1, 0]
    assert entry["copy_last"] == [0, 0, 0]


def test_made_by_name_with_options():
    data = make_data("occluder_recall", size=32, delay=[2, 3], length=40)
    assert data.world == OccluderRecall(size=32, delay=(2, 3))
    assert (data.size, data.channels, data.actions.kind) == (32, 1, "none")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 8}, r"size=8 must be between 16 and 512"),
        ({"digit_size": 24}, r"digit_size=24 must be between 4 and 20 at size=64"),
        ({"delay": 0}, r"delay=0 must be 1 or more"),
        ({"delay": ()}, r"delay=\(\) must be 1 or more"),
        ({"delay": (2, 2)}, r"delay=\[2, 2\] has a number twice"),
        ({"clock": 16}, r"clock=16 must be between 32, the longest delay"),
        ({"slowest": 3.0}, r"slowest=3\.0 and data\.fastest=2\.5"),
        ({"shown": 11}, r"shown=11 does not fit .* in for 12 frames.* back after 18; use 12 to 18"),
        ({"shown": 19}, r"use 12 to 18"),
        ({"slowest": 0.5}, r"bring the two speeds closer together"),
    ],
)
def test_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        OccluderRecall(**options)
