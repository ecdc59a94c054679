"""Walks through mazes: a true maze, shortest ways, actions that lead on, and one picture for a pose."""

from collections import deque

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resetta.video.data import make_data
from resetta.video.generated import GeneratedData
from resetta.video.measures import psnr
from resetta.video.worlds.maze import FORWARD, LEFT, RIGHT, MazeWalk, make_maze, routes
from resetta.video.worlds.raycast import FINE, PAINTS, Camera, Hits, cast, draw

WORLD = MazeWalk(size=32, cells=3, steps=2, turns=2)
IDS = np.arange(6)
FRAMES = 150
WAYS = np.array([[-1, 0], [0, 1], [1, 0], [0, -1]])  # north, east, south, west

maze = jax.jit(make_maze, static_argnums=(1, 2))
ways_of = jax.jit(routes)


@pytest.fixture(scope="module")
def data():
    return GeneratedData(WORLD)


@pytest.fixture(scope="module")
def clip(data):
    return data.read("train", IDS, np.zeros_like(IDS), FRAMES)


@pytest.fixture(scope="module")
def truth(data):
    return data.truth("train", IDS, np.zeros_like(IDS), FRAMES)


def passages_of(data, number):
    """The maze of a training clip, by its key."""
    key = jax.random.key(data.seed)
    for part in (0, 0, number):
        key = jax.random.fold_in(key, part)
    return np.asarray(maze(jax.random.split(key, 4)[0], data.world.cells, data.world.loops))


def distances(passages, goal):
    """Cells to go from everywhere, breadth first; -1 where no way leads."""
    cells = round(len(passages) ** 0.5)
    away = np.full(len(passages), -1)
    away[goal], queue = 0, deque([goal])
    while queue:
        cell = queue.popleft()
        for side, (down, right) in enumerate(WAYS):
            beside = cell + down * cells + right
            if passages[cell, side] and away[beside] < 0:
                away[beside] = away[cell] + 1
                queue.append(beside)
    return away


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([(5, 0.0), (5, 0.25), (4, 1.0)]))
def test_a_maze_is_connected_closed_at_the_border_and_has_as_many_loops_as_asked(seed, kind):
    cells, loops = kind
    passages = np.asarray(maze(jax.random.key(seed), cells, loops))
    assert (distances(passages, 0) >= 0).all()
    grid = passages.reshape(cells, cells, 4)
    borders = np.concatenate([grid[0, :, 0], grid[:, -1, 1], grid[-1, :, 2], grid[:, 0, 3]])
    assert not borders.any()
    np.testing.assert_array_equal(grid[1:, :, 0], grid[:-1, :, 2])  # from both sides
    np.testing.assert_array_equal(grid[:, 1:, 3], grid[:, :-1, 1])
    inner, tree = 2 * cells * (cells - 1), cells**2 - 1
    assert passages.sum() == 2 * (tree + round(loops * (inner - tree)))


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6))
def test_routes_are_shortest(seed):
    passages = np.asarray(maze(jax.random.key(seed), 5, 0.25))
    towards = np.asarray(ways_of(jnp.asarray(passages)))
    for goal in range(25):
        away = distances(passages, goal)
        for here in range(25):
            if here != goal:
                side = towards[here, goal]
                assert passages[here, side]
                assert away[here + WAYS[side] @ [5, 1]] == away[here] - 1


def test_mazes_differ():
    drawn = {np.asarray(maze(jax.random.key(seed), 5, 0.0)).tobytes() for seed in range(30)}
    assert len(drawn) == 30


def test_an_action_leads_from_its_frame_to_the_next(clip, truth):
    pose, actions = truth["pose"].astype(float), clip.actions
    assert {*np.unique(actions)} == {FORWARD, LEFT, RIGHT}
    moved = np.diff(pose[..., :2], axis=0)
    turned = np.diff(pose[..., 2], axis=0)
    ahead = np.stack([-np.cos(pose[:-1, :, 2]), np.sin(pose[:-1, :, 2])], axis=-1) / WORLD.steps
    forward = actions[:-1] == FORWARD
    np.testing.assert_allclose(moved, np.where(forward[..., None], ahead, 0), atol=1e-6)
    expected = np.select([forward, actions[:-1] == RIGHT], [0, 1], -1) * np.pi / 2 / WORLD.turns
    np.testing.assert_allclose(np.exp(1j * turned), np.exp(1j * expected), atol=1e-6)


def test_no_wall_is_crossed_and_turns_are_made_in_the_middle(data, clip, truth):
    for b in IDS:
        passages, pose = passages_of(data, b), truth["pose"][:, b].astype(float)
        cell = truth["cell"][:, b]
        np.testing.assert_array_equal(cell, np.floor(pose[:, :2]) @ [3, 1])
        crossed = np.flatnonzero(np.diff(cell))
        assert len(crossed) > 20
        for t in crossed:
            side = next(s for s in range(4) if WAYS[s] @ [3, 1] == cell[t + 1] - cell[t])
            assert np.abs(np.diff(np.floor(pose[t : t + 2, :2]), axis=0)).sum() == 1
            assert passages[cell[t], side]
        at_turns = pose[clip.actions[:, b] != FORWARD, :2] % 1
        assert (at_turns == 0.5).all()


def test_everywhere_is_visited(data):
    long = data.truth("test", IDS, np.zeros_like(IDS), 600)["cell"]
    assert all(len({*long[:, b].tolist()}) == 9 for b in IDS)


def test_a_pose_has_one_picture_and_first_seen_says_when(truth):
    seen_again = 0
    for b in IDS:
        first = {}
        for t in range(FRAMES):
            pose = tuple(truth["pose"][t, b].tolist())
            assert truth["first_seen"][t, b] == first.setdefault(pose, t)
            np.testing.assert_array_equal(truth["frame"][t, b], truth["frame"][first[pose], b])
            seen_again += first[pose] < t
        pictures = {truth["frame"][t, b].tobytes() for t in first.values()}
        assert len(pictures) > 0.9 * len(first)  # and another pose another one, but for views of plain walls
    assert seen_again > FRAMES
    np.testing.assert_array_equal(truth["time"], np.arange(FRAMES)[:, None] + 0 * IDS)


def test_the_same_video_whatever_the_window(data, clip, truth):
    start, frames = 63, 20
    at = np.full_like(IDS, start)
    part = data.truth("train", IDS[::-1], at, frames)
    for name in truth:
        np.testing.assert_array_equal(part[name][:, ::-1], truth[name][start : start + frames])
    actions = data.read("train", IDS[::-1], at, frames).actions[:, ::-1]
    np.testing.assert_array_equal(actions, clip.actions[start : start + frames])


def test_revisits_are_measured_apart_from_new_places(data, truth):
    after = {name: value[90:] for name, value in truth.items()}
    noise = np.random.default_rng(0).integers(0, 9, after["frame"].shape)
    predicted = np.clip(after["frame"].astype(int) + noise, 0, 255).astype(np.uint8)
    measured = data.measures(predicted, after)
    known = after["first_seen"] < 90
    assert 0 < known.sum() < known.size
    value = psnr(predicted, after["frame"])
    np.testing.assert_array_equal(measured["revisit_psnr"], np.where(known, value, np.nan))
    np.testing.assert_array_equal(measured["new_psnr"], np.where(known, np.nan, value))
    # frames from a pose that only the prediction's own frames have shown aren't revisits of the context
    later = (after["first_seen"] >= 90) & (after["first_seen"] < after["time"])
    assert later.any()
    assert np.isnan(measured["revisit_psnr"][later]).all()


def walls_of(passages):
    return jnp.asarray(~passages.reshape(-1))


CAMERA = Camera(size=32, cells=4, steps=3, turns=3, view=80.0)
poses = st.tuples(st.integers(0, 10**6), *[st.integers(1, 23)] * 2, st.integers(0, 11))


@jax.jit
def hits_of(walls, row, column, heading):
    return cast(CAMERA, walls, row, column, heading)


def nearest_wall(passages, row, column, angle):
    """In floating point, against every wall there is: distance in units, the end's place, and the walls
    that lie as near."""
    down, right = -np.cos(angle), np.sin(angle)
    found = []
    for cell in range(16):
        for side in range(4):
            if passages[cell, side]:
                continue
            # the wall's end points, along rows or along columns
            top, left = cell // 4 * 6, cell % 4 * 6
            upright = side in (1, 3)
            line = (left + 6 * (side == 1)) if upright else (top + 6 * (side == 2))
            at, way, other, across, low = (
                (column, right, row, down, top) if upright else (row, down, column, right, left)
            )
            # seen from inside its cell only
            if abs(way) < 1e-9 or (way > 0) != (side in (1, 2)):
                continue
            along = (line - at) / way
            place = other + along * across - low
            if along >= 0 and -1e-9 <= place <= 6 + 1e-9:
                found.append((along, place, 4 * cell + side))
    return sorted(found)


@settings(max_examples=25, deadline=None)
@given(poses)
def test_rays_end_where_a_slow_search_through_all_walls_says(pose):
    seed, row, column, heading = pose
    # never in a wall
    row, column = (at + (at % 6 == 0) for at in (row, column))
    passages = np.asarray(maze(jax.random.key(seed), 4, 0.3))
    hits = jax.tree.map(np.asarray, hits_of(walls_of(passages), row, column, heading))
    forward = heading * np.pi / 6
    across = (np.arange(64) + 0.5 - 32) / (32 / np.tan(np.radians(40)))
    corners = 0
    for ray, slope in enumerate(across):
        along, place, face = nearest_wall(passages, row, column, forward + np.arctan(slope))[0]
        if min(place, 6 - place) < 0.02:  # a ray into a corner may end on either wall
            corners += 1
            continue
        assert hits.face[ray] == face
        # of the way along the heading
        np.testing.assert_allclose(hits.distance[ray] / FINE, along / np.hypot(1, slope), atol=0.01)
        np.testing.assert_allclose(hits.place[ray] / FINE, place, atol=0.02)
    assert corners < 16


def plain_hits(distance, face=0):
    """Rays that all end at one distance, in cells."""
    whole = jnp.full(64, round(distance * 6 * FINE), jnp.int32)
    return Hits(whole, jnp.full(64, 2 * FINE, jnp.int32), jnp.full(64, face, jnp.int32))


@pytest.mark.parametrize("distance", [0.6, 1.0, 2.5])
def test_walls_stand_as_high_as_perspective_says_and_darken(distance):
    paint = jnp.zeros(64, jnp.int32)  # red, striped across
    picture = np.asarray(draw(CAMERA, plain_hits(distance), paint)).astype(float)
    assert (picture == picture[:, :1]).all()
    red = picture[:, 0, 0] - picture[:, 0, 2] > 40
    expected = 0.75 / distance * 16 / np.tan(np.radians(40))  # pixels of 32
    assert abs(red.sum() - min(expected, 32)) <= 2
    assert red[15]
    assert red[16]
    far = np.asarray(draw(CAMERA, plain_hits(distance + 0.5), paint)).astype(float)
    assert far[15:17].sum() < picture[15:17].sum()
    if not red[0]:
        assert (picture[0, 0] != picture[-1, 0]).any()  # ceiling and floor


def test_every_paint_looks_different():
    assert PAINTS == 64
    across = jnp.linspace(0.1, 5.9, 64)
    hits = plain_hits(0.8)._replace(place=(across * FINE).astype(jnp.int32))
    pictures = {
        np.asarray(draw(CAMERA, hits, jnp.full(64, paint, jnp.int32))).tobytes() for paint in range(PAINTS)
    }
    assert len(pictures) == PAINTS


def test_made_by_name_with_options():
    data = make_data("maze_walk", size=32, cells=4)
    assert (data.size, data.channels, data.actions.kind, data.actions.size) == (32, 3, "discrete", 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 33}, r"size=33 must be even"),
        ({"cells": 1}, r"cells=1 must lie between 2 and 16"),
        ({"steps": 9}, r"steps=9 must lie between 1 and 8"),
        ({"turns": 0}, r"turns=0"),
        ({"loops": 1.5}, r"loops=1\.5 is a share"),
        ({"view": 10.0}, r"view=10\.0 degrees"),
    ],
)
def test_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        MazeWalk(**options)
