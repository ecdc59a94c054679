"""Balls that bounce: what mechanics keeps is kept, and the same key is the same video, bit for bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import center_of_mass

from resetta.video.data import make_data
from resetta.video.generated import GeneratedData
from resetta.video.worlds.balls import BouncingBalls

WORLD = BouncingBalls(size=64)
IDS = np.arange(8)
FRAMES = 120
RADIUS = 6.0
COLOURS = np.eye(3, dtype=bool)  # red, green, blue


@pytest.fixture(scope="module")
def data():
    return GeneratedData(WORLD, seed=1)


@pytest.fixture(scope="module")
def truth(data):
    return data.truth("train", IDS, np.zeros_like(IDS), FRAMES)


def test_speeds_at_the_start_are_real_numbers_in_their_range(truth):
    speeds = np.linalg.norm(truth["velocity"][0], axis=-1)
    assert speeds.min() >= 1.5 - 1e-3
    assert speeds.max() <= 3.0 + 1e-3
    assert len({round(float(s), 3) for s in speeds.ravel()}) == speeds.size


def test_energy_is_kept_for_ever(data, truth):
    energy = (truth["velocity"].astype(float) ** 2).sum((-1, -2))
    assert truth["collision"].sum() > 50
    np.testing.assert_allclose(energy, np.broadcast_to(energy[0], energy.shape), rtol=1e-3)
    far = data.truth("train", IDS, np.full_like(IDS, 5000), 1)["velocity"].astype(float)
    np.testing.assert_allclose((far**2).sum((-1, -2))[0], energy[0], rtol=1e-2)


def test_momentum_is_kept_where_balls_meet_and_turned_by_borders_alone(truth):
    momentum = truth["velocity"].astype(float).sum(2)  # [T, B, 2], of equal masses
    before, after = momentum[:-1], momentum[1:]
    hit, at = truth["collision"], truth["position"].astype(float)
    # far enough from every border for the whole frame, before and after
    away = ((at > RADIUS + 5) & (at < 63 - RADIUS - 5)).all((2, 3))
    free = away[1:] & away[:-1] & hit[1:].any(-1)
    assert free.sum() > 5
    np.testing.assert_allclose(after[free], before[free], atol=1e-3)
    changed = np.abs(np.diff(truth["velocity"].astype(float), axis=0)).max(-1) > 1e-6
    assert (changed[free] == hit[1:][free]).mean() > 0.95  # and only those who met change their velocities
    assert (changed.sum((0, 1)) > 10).all()


def test_a_collision_changes_velocities_along_the_line_of_centres(truth):
    """Equal masses exchange what they have along it; across it nothing changes."""
    velocity, hit = truth["velocity"].astype(float), truth["collision"]
    at = truth["position"].astype(float)
    checked = 0
    for t, b in zip(*np.nonzero(hit.sum(-1) == 2), strict=True):
        one, other = np.flatnonzero(hit[t, b])
        places = at[t - 1 : t + 1, b][:, [one, other]]
        if t == 0 or (places < RADIUS + 4).any() or (places > 63 - RADIUS - 4).any():
            continue
        start, end = (velocity[u, b, one] - velocity[u, b, other] for u in (t - 1, t))
        gap, way = at[t - 1, b, one] - at[t - 1, b, other], start
        # when are the centres two radii apart? the first root of a parabola
        a, half, c = way @ way, gap @ way, gap @ gap - (2 * RADIUS) ** 2
        when = (-half - np.sqrt(half**2 - a * c)) / a
        assert -0.05 <= when <= 1.05
        line = gap + when * way
        line /= np.linalg.norm(line)
        expected = start - 2 * (start @ line) * line
        np.testing.assert_allclose(end, expected, atol=0.05)
        checked += 1
    assert checked > 10


def test_balls_never_overlap_nor_leave_the_frame(data, truth):
    far = data.truth("test", IDS, np.full_like(IDS, 3000), 60)
    for position in (truth["position"].astype(float), far["position"].astype(float)):
        assert position.min() >= RADIUS - 0.5 - 0.02  # pixel centres: the border is at -0.5
        assert position.max() <= 63.5 - RADIUS + 0.02
        one, other = np.triu_indices(3, 1)
        apart = np.linalg.norm(position[:, :, one] - position[:, :, other], axis=-1)
        assert apart.min() >= 2 * RADIUS - 0.05


def test_between_collisions_they_go_straight(truth):
    at, velocity = truth["position"].astype(float), truth["velocity"].astype(float)
    same = (velocity[1:] == velocity[:-1]).all(-1) & ~truth["collision"][1:]
    assert same.mean() > 0.5
    # drawn at places of 1/64 pixel
    np.testing.assert_allclose(np.diff(at, axis=0)[same], velocity[1:][same], atol=1 / 64 + 1e-3)


def test_the_same_video_whatever_the_window_bit_for_bit(data, truth):
    for start, frames in ((0, 1), (17, 9), (90, 30)):
        part = data.truth("train", IDS[::-1], np.full_like(IDS, start), frames)
        for name in truth:
            np.testing.assert_array_equal(part[name][:, ::-1], truth[name][start : start + frames])


def test_another_program_and_another_size_show_the_same_motion(data):
    """Chaos would tell of a single bit: hundreds of frames, in a program of one clip, and not compiled."""
    key = jax.random.key(1)
    for part in (0, 0, 3):
        key = jax.random.fold_in(key, part)
    _, _, alone = WORLD.clip(key, jnp.int32(400), 3, False)
    batch = data.truth("train", IDS, np.full_like(IDS, 400), 3)
    np.testing.assert_array_equal(batch["velocity"][:, 3], alone["velocity"])
    small = GeneratedData(BouncingBalls(size=16), seed=1)
    quarter = small.truth("train", IDS, np.full_like(IDS, 400), 3)
    np.testing.assert_array_equal(quarter["velocity"] * 4, batch["velocity"])


def test_each_ball_is_a_disc_of_its_own_colour_at_its_place(truth):
    frames = truth["frame"].astype(float)
    for t, b in ((0, 0), (50, 3), (119, 7)):
        for ball, colour in enumerate(COLOURS):
            levels = frames[t, b][..., colour][..., 0]
            np.testing.assert_allclose(center_of_mass(levels), truth["position"][t, b, ball], atol=0.05)
            assert levels.sum() / 255 == pytest.approx(np.pi * RADIUS**2, rel=0.02)
            assert levels.max() == 255


def test_measures(data, truth):
    true = data.measures(truth["frame"], truth)
    assert true["position_error"].shape == (FRAMES, len(IDS))
    assert true["position_error"].max() < 0.5
    assert (true["iou"] == 1).all()
    shifted = np.roll(truth["frame"], 2, axis=3)
    fits = (truth["position"][..., 1] < 63 - RADIUS - 3).all(-1)
    assert fits.sum() > 20
    np.testing.assert_allclose(data.measures(shifted, truth)["position_error"][fits], 2, atol=0.5)
    part = {name: value[:4] for name, value in truth.items()}
    # colours matter: with red and blue exchanged, those two are elsewhere
    swapped = data.measures(part["frame"][..., ::-1], part)["position_error"]
    apart = np.linalg.norm(part["position"][:, :, 0] - part["position"][:, :, 2], axis=-1)
    np.testing.assert_allclose(swapped, 2 * apart / 3, atol=0.5)
    nothing = data.measures(np.zeros_like(part["frame"]), part)
    centre = np.linalg.norm(part["position"] - 31.5, axis=-1).mean(-1)
    np.testing.assert_allclose(nothing["position_error"], centre, atol=1e-3)
    assert (nothing["iou"] == 0).all()


def test_one_ball_keeps_its_speed():
    data = make_data("bouncing_balls", size=32, balls=1, radius=8.0)
    velocity = data.truth("train", IDS, np.zeros_like(IDS), 80)["velocity"].astype(float)
    np.testing.assert_array_equal(np.abs(velocity), np.abs(velocity[:1]).repeat(80, 0))
    assert (np.sign(velocity) != np.sign(velocity[:1])).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 8}, r"size=8 must be between 16 and 512"),
        ({"balls": 0}, r"balls=0 must be between 1 and 6"),
        ({"balls": 7}, r"balls=7"),
        ({"radius": 16.0}, r"radius=16\.0 must be at least 2 and less than 16"),
        ({"balls": 5, "radius": 11.0}, r"less than 10\.6667"),
        ({"slowest": 4.0}, r"slowest=4\.0 and data\.fastest=3\.0"),
    ],
)
def test_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        BouncingBalls(**options)
