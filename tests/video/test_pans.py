"""A camera over photographs: exact whatever the window, of what lies in the package alone."""

import importlib.metadata
import socket

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

from resetta.video.data import make_data
from resetta.video.generated import GeneratedData
from resetta.video.worlds import pans
from resetta.video.worlds.pans import HELD_OUT, TRAINING, PhotoPans, photographs

SMALL = PhotoPans(size=16)


def drawn(world, seed, start, frames, held_out=False):
    pictures, actions, truth = world.clip(jax.random.key(seed), jnp.int32(start), frames, held_out)
    assert actions is None
    return np.asarray(pictures), {name: np.asarray(value) for name, value in truth.items()}


def test_every_photograph_is_a_file_of_the_scikit_image_wheel():
    files = importlib.metadata.files("scikit-image")
    assert files is not None
    shipped = {file.name for file in files if "skimage/data/" in file.as_posix()}
    assert {*TRAINING, *HELD_OUT} <= shipped


def test_no_connection_is_tried(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a connection was tried")

    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)
    photographs.cache_clear()
    pictures, _ = drawn(SMALL, 0, 0, 2)
    assert photographs.cache_info().misses == 1
    assert pictures.std() > 0


def test_a_missing_photograph_is_named(monkeypatch):
    monkeypatch.setattr(pans, "HELD_OUT", ("nothing.png",))
    photographs.cache_clear()
    with pytest.raises(ValueError, match=r"nothing\.png is missing from scikit-image"):
        photographs(16)


def test_photographs_are_all_different_and_their_middle_squares():
    photos = photographs(64).astype(float)
    assert photos.shape == (len(TRAINING) + len(HELD_OUT), 64, 64, 3)
    for i, photo in enumerate(photos):
        assert photo.std() > 5
        for other in photos[:i]:
            assert np.abs(photo - other).mean() > 10
    # against means over 8 x 8 pixels of one that needs no cropping
    from PIL import Image

    path = importlib.metadata.distribution("scikit-image").locate_file("skimage/data/astronaut.png")
    with Image.open(str(path)) as image:
        blocks = np.asarray(image.convert("RGB"), float).reshape(64, 8, 64, 8, 3).mean((1, 3))
    assert np.abs(photos[0] - blocks).mean() < 4


@pytest.mark.parametrize("held_out", [False, True])
def test_the_same_video_whatever_the_window(held_out):
    whole, truth = drawn(SMALL, 5, 0, 40, held_out)
    assert whole.shape == (40, 16, 16, 3)
    assert whole.dtype == np.uint8
    assert (np.abs(np.diff(whole.astype(int), axis=0)).reshape(39, -1).max(1) > 0).all()
    for start, frames in ((0, 1), (7, 5), (39, 1)):
        part, known = drawn(SMALL, 5, start, frames, held_out)
        np.testing.assert_array_equal(part, whole[start : start + frames])
        for name in truth:
            np.testing.assert_array_equal(known[name], truth[name][start : start + frames])


def test_compiled_and_in_a_batch_it_is_the_same_video_even_far_away():
    far = 2**31 - 100
    ids, starts = np.arange(6), np.array([0, 3, 1000, 10**6, 10**9, far])
    data = GeneratedData(SMALL, seed=2)
    clip = data.read("train", ids, starts, 3)
    assert clip.frames.shape == (3, 6, 16, 16, 3)
    assert clip.actions is None
    for b, start in enumerate(starts):
        key = jax.random.key(2)
        for part in (0, 0, ids[b]):
            key = jax.random.fold_in(key, part)
        pictures, _, truth = SMALL.clip(key, jnp.int32(start), 3, False)
        np.testing.assert_array_equal(clip.frames[:, b], pictures)
        np.testing.assert_array_equal(
            data.truth("train", ids, starts, 3)["position"][:, b], truth["position"]
        )


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 2**31 - 10), st.booleans())
def test_frames_are_the_photograph_bilinearly_at_the_true_place(seed, start, held_out):
    pictures, truth = drawn(SMALL, seed, start, 2, held_out)
    for picture, centre, zoom, photo in zip(
        pictures, truth["position"], truth["zoom"], truth["photo"], strict=True
    ):
        offsets = (np.arange(16) - 7.5) / float(zoom)
        rows, columns = centre.astype(float)[:, None] + offsets
        assert min(rows[0], columns[0]) >= -1e-3  # never beyond the photograph
        assert max(rows[-1], columns[-1]) <= SMALL.canvas - 1 + 1e-3
        grid = np.meshgrid(rows, columns, indexing="ij")
        levels = photographs(SMALL.canvas)[photo].astype(float)
        seen = np.stack(
            [map_coordinates(levels[..., c], grid, order=1, mode="nearest") for c in range(3)], -1
        )
        # half a level of rounding, and places to 1/512 pixel in slopes of up to 255 a pixel, in both axes
        assert np.abs(picture - seen).max() <= 0.5 + 2 * 255 / 512
        assert np.abs(picture - seen).mean() < 0.4


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 2**31 - 10))
def test_the_motion_is_of_sines_without_drift(seed, start):
    world = PhotoPans(size=16, zoom=3.0)
    _, truth = drawn(world, seed, start, 4)
    _, at, speed = jax.random.split(jax.random.key(seed), 3)
    phase = [int(p) for p in jax.random.bits(at, (3,), jnp.uint32)]
    low, high = (round(v / (2 * np.pi * 96) * 2**32) for v in (1.0, 3.0))
    rate = [int(r) for r in jax.random.randint(speed, (3,), low, high + 1)]
    for t in range(4):
        turns = [((p + (start + t) * r) % 2**32) / 2**32 for p, r in zip(phase, rate, strict=True)]
        waves = np.sin(2 * np.pi * np.array(turns))
        np.testing.assert_allclose(truth["position"][t], 31.5 + 24 * waves[:2], atol=1e-3)
        np.testing.assert_allclose(1 / truth["zoom"][t], 2 / 3 + waves[2] / 3, atol=1e-4)


def test_speeds_are_real_numbers_in_their_range_and_the_whole_photograph_is_seen():
    world = PhotoPans(size=8, extent=3, slowest=2.0, fastest=4.0)
    seen = []
    for seed in range(6):
        _, truth = drawn(world, seed, 0, 2000)
        position = truth["position"].astype(float)
        greatest = np.abs(np.diff(position, axis=0)).max(0) * 64 / 8  # on a canvas of 64
        assert (greatest >= 1.98).all()
        assert (greatest <= 4.01).all()
        # pans are smooth: no bounce
        rate = greatest / 64
        assert (np.abs(np.diff(position, 2, axis=0)).max(0) * 8 < 1.1 * rate * greatest).all()
        np.testing.assert_allclose(position.min(0), 3.5, atol=0.05)
        np.testing.assert_allclose(position.max(0), 19.5, atol=0.05)
        assert 1 <= truth["zoom"].min() < 1.01
        assert 1.99 < truth["zoom"].max() <= 2
        # and never periodic within the time seen
        assert len(np.unique(np.round(position, 3), axis=0)) > 1900
        seen += [*greatest]
    assert len({round(s, 2) for s in seen}) > 6


def test_held_out_clips_show_other_photographs():
    data = GeneratedData(PhotoPans(size=8))
    ids, starts = np.arange(200), np.zeros(200, int)
    shown = [{*data.truth(split, ids, starts, 1)["photo"][0].tolist()} for split in ("train", "test")]
    assert shown == [{*range(len(TRAINING))}, {*range(len(TRAINING), len(TRAINING) + len(HELD_OUT))}]


def test_place_error_is_zero_of_the_truth_and_the_shift_of_a_shifted_frame():
    world = PhotoPans(size=32, zoom=1.0)
    data = GeneratedData(world)
    ids, starts = np.arange(12), np.arange(12) * 50
    truth = data.truth("train", ids, starts, 2)
    assert truth["zoom"].max() == truth["zoom"].min() == 1
    assert (data.measures(truth["frame"], truth)["place_error"] == 0).all()
    moved = np.empty_like(truth["frame"])
    expected = np.empty((2, 12))
    for at in np.ndindex(2, 12):
        photo = photographs(world.canvas)[truth["photo"][at]]
        corner = np.rint(truth["position"][at] - 15.5).astype(int)
        shift = np.where(corner < world.canvas // 2, [3, 4], [-3, -4])
        row, column = corner + shift
        moved[at] = photo[row : row + 32, column : column + 32]
        expected[at] = 5
    error = data.measures(moved, truth)["place_error"]
    assert error.shape == (2, 12)
    assert np.median(np.abs(error - expected)) == 0
    assert np.abs(error - expected).max() < 1.5  # a photograph's places are to a fraction of a pixel


def test_place_error_forgives_brightness_but_not_emptiness_or_other_places():
    data = GeneratedData(PhotoPans(size=32))
    ids, starts = np.arange(10), np.zeros(10, int)
    truth = data.truth("test", ids, starts, 2)
    dark = (truth["frame"] * 0.5 + 20).astype(np.uint8)
    assert np.median(data.measures(dark, truth)["place_error"]) == 0
    empty = np.full_like(truth["frame"], 90)
    np.testing.assert_allclose(data.measures(empty, truth)["place_error"], 8 * np.sqrt(2))
    other = data.read("train", ids, starts, 2).frames
    assert data.measures(other, truth)["place_error"].mean() > 5


def test_made_by_name_with_options():
    data = make_data("photo_pans", size=16, zoom=1.5, extent=3)
    assert (data.size, data.channels, data.actions.kind) == (16, 3, "none")
    assert "16x16 colour" in data.describe()[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 4}, r"size=4 is too small"),
        ({"extent": 1}, r"extent=1 must be 2 or more, and 64 or less"),
        ({"extent": 65}, r"extent=65 must be"),
        ({"slowest": 0.0}, r"slowest=0\.0 and .* <= 96"),
        ({"slowest": 4.0}, r"slowest=4\.0 and data\.fastest=3\.0"),
        ({"fastest": 97.0}, r"fastest=97\.0"),
        ({"zoom": 0.9}, r"zoom=0\.9 must be between 1"),
        ({"zoom": 17.0}, r"zoom=17\.0"),
    ],
)
def test_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        PhotoPans(**options)
