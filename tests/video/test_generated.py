"""Data by name, and a world as a data set."""

import dataclasses
import sys
import threading
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resetta.video.clip import ActionSpace
from resetta.video.data import ENDLESS, data_names, data_options, make_data
from resetta.video.generated import GeneratedData
from resetta.video.stream import Streams, Windows, read_windows

HERE = sys.modules[__name__]


@dataclasses.dataclass(frozen=True)
class Stripes:
    """A level of grey drawn from the key, plus the frame's number; the action is the number modulo 4."""

    size: int = 4
    step: int = 1
    levels: tuple[int, ...] = (0, 1)

    channels: ClassVar[int] = 3
    actions: ClassVar[ActionSpace] = ActionSpace("discrete", 4)

    def clip(self, key, start, frames, held_out):
        times = start + jnp.arange(frames)
        level = jax.random.randint(key, (), 0, 200) + (1000 if held_out else 0)
        tall = jnp.broadcast_to(jnp.arange(self.size)[:, None, None], (self.size, self.size, 3))
        pixels = (level + self.step * times)[:, None, None, None] + tall
        return pixels.astype(jnp.uint8), times % 4, {"time": times, "level": jnp.full(frames, level)}

    def measures(self, predicted, truth):
        return {"error": np.abs(predicted[:, :, 0, 0, 0] - truth["level"]).astype(float)}


@dataclasses.dataclass(frozen=True)
class Plain(Stripes):
    """Without actions, in grey."""

    channels: ClassVar[int] = 1
    actions: ClassVar[ActionSpace] = ActionSpace()

    def clip(self, key, start, frames, held_out):
        pixels, _, truth = super().clip(key, start, frames, held_out)
        return pixels[..., :1], None, truth


@dataclasses.dataclass
class Changeable:
    size: int = 4


@dataclasses.dataclass(frozen=True)
class Wrong(Stripes):
    channels: ClassVar[int] = 1


class Own:
    """A data set of a user's own."""

    def __init__(self, path, *, rate: float = 1.0, **more):
        self.path, self.rate, self.more = path, rate, more

    def read(self, split, ids, starts, frames):
        raise NotImplementedError


def make_stripes(step: int = 2):
    return Stripes(step=step)


def make_nothing():
    return 3


@pytest.fixture
def here(monkeypatch):
    """The name by which this module is imported, whatever the test runner calls it."""
    monkeypatch.setitem(sys.modules, "own_data", HERE)
    return "own_data"


IDS = np.array([0, 1, 7])
STARTS = np.array([0, 5, 2])


def test_a_clip_is_the_worlds_own_video_of_its_key():
    data = GeneratedData(Stripes(), seed=3)
    clip = data.read("train", IDS, STARTS, 6)
    assert isinstance(clip.frames, np.ndarray)
    assert isinstance(clip.actions, np.ndarray)
    assert clip.frames.shape == (6, 3, 4, 4, 3)
    assert clip.frames.dtype == np.uint8
    for b, (number, start) in enumerate(zip(IDS, STARTS, strict=True)):
        key = jax.random.key(3)
        for part in (0, 0, number):  # train; the upper and the lower half of the number
            key = jax.random.fold_in(key, part)
        frames, actions, truth = Stripes().clip(key, start, 6, False)
        np.testing.assert_array_equal(clip.frames[:, b], frames)
        np.testing.assert_array_equal(clip.actions[:, b], actions)
        known = data.truth("train", IDS, STARTS, 6)
        np.testing.assert_array_equal(known["time"][:, b], truth["time"])
        np.testing.assert_array_equal(known["frame"], clip.frames)
    np.testing.assert_array_equal(clip.reset.sum(0), [1, 0, 0])
    assert clip.reset[0, 0]


def test_a_clip_does_not_depend_on_how_it_is_read():
    data = GeneratedData(Stripes())
    whole = data.read("test", np.array([4]), np.array([0]), 12)
    part = data.read("test", np.array([9, 4]), np.array([0, 3]), 5)
    np.testing.assert_array_equal(part.frames[:, 1], whole.frames[3:8, 0])
    np.testing.assert_array_equal(part.actions[:, 1], whole.actions[3:8, 0])


def levels(data, split, ids):
    return data.truth(split, np.asarray(ids), np.zeros(len(ids), int), 1)["level"][0]


def test_training_reads_the_same_without_a_copy_to_the_host():
    data, ids = GeneratedData(Stripes()), np.arange(2)
    read, kept = (read_windows(data, "train", ids, ids, 3, on_device=where) for where in (False, True))
    assert isinstance(kept.frames, jax.Array)
    assert isinstance(read.frames, np.ndarray)
    jax.tree.map(np.testing.assert_array_equal, read, kept)


def test_no_two_clips_share_a_key():
    seen = []

    @dataclasses.dataclass(frozen=True)
    class Keys(Stripes):
        def clip(self, key, start, frames, held_out):
            pixels, actions, _ = super().clip(key, start, frames, held_out)
            return pixels, actions, {"key": jnp.broadcast_to(jax.random.key_data(key), (frames, 2))}

    ids = np.array([0, 1, 2, 255, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**32 + 1, 2**62])
    for seed in (0, 1):
        for split in ("train", "test"):
            keys = GeneratedData(Keys(), seed).truth(split, ids, np.zeros(len(ids), int), 1)["key"][0]
            seen += [tuple(key) for key in keys]
    assert len({*seen}) == len(seen) == 40


def test_only_the_test_split_is_held_out():
    data = GeneratedData(Stripes())
    assert (levels(data, "train", range(50)) < 200).all()
    assert (levels(data, "test", range(50)) >= 1000).all()


def test_seeds_give_other_videos_and_the_same_seed_the_same():
    one, same, other = (levels(GeneratedData(Stripes(), seed), "train", range(20)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).mean() > 0.8


def test_a_program_is_compiled_once_for_a_shape():
    traced = []

    @dataclasses.dataclass(frozen=True)
    class Counted(Stripes):
        def clip(self, key, start, frames, held_out):
            traced.append((frames, held_out))
            return super().clip(key, start, frames, held_out)

    for seed in range(3):  # neither seeds nor clips nor starts are compiled in
        data = GeneratedData(Counted(), seed)
        data.read("train", IDS + seed, STARTS, 4)
        data.truth("train", IDS, STARTS + seed, 4)
    assert traced == [(4, False)]
    streams = Streams(data, "train", 3, 5, length=9)
    cursor = streams.first()
    for _ in range(9):
        _, cursor = streams.next(cursor)
    assert traced == [(4, False), (6, False)]


def test_threads_read_the_same():
    data, out = GeneratedData(Plain(), seed=5), {}

    def read(k):
        out[k] = data.read("train", IDS + k % 3, STARTS, 7).frames

    threads = [threading.Thread(target=read, args=(k,)) for k in range(9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for k in range(9):
        np.testing.assert_array_equal(out[k], data.read("train", IDS + k % 3, STARTS, 7).frames)


def test_lengths_count_and_ends():
    data, short = GeneratedData(Plain()), GeneratedData(Plain(), length=8)
    assert data.count("train") is None
    assert data.lengths("train", IDS).tolist() == [ENDLESS] * 3
    assert short.lengths("test", IDS).tolist() == [8] * 3
    assert short.read("train", IDS, STARTS, 3).actions is None
    with pytest.raises(ValueError, match="frame 8 lies beyond the clip's end; it has 8 frames"):
        short.read("train", IDS, STARTS, 4)
    with pytest.raises(ValueError, match="beyond the clip's end"):
        data.read("train", IDS, np.array([0, 0, ENDLESS]), 4)
    far = np.array([0, 0, ENDLESS - 4])
    assert data.truth("train", IDS, far, 4)["time"][-1, 2] == ENDLESS - 1


def test_what_cannot_be_read_is_refused():
    data = GeneratedData(Stripes())
    for call, match in (
        (lambda: data.count("validation"), "split='validation'"),
        (lambda: data.read("train", IDS - 1, STARTS, 4), "clip -1"),
        (lambda: data.read("train", IDS, STARTS - 1, 4), "start -1"),
        (lambda: data.read("train", IDS, STARTS, 0), "frames=0"),
        (lambda: GeneratedData(Stripes(), length=0), "length=0"),
        (lambda: GeneratedData(Changeable()), "Changeable cannot be hashed"),
        (lambda: GeneratedData(Wrong()).read("train", IDS, STARTS, 2), r"Wrong drew uint8 \(4, 4, 3\)"),
    ):
        with pytest.raises(ValueError, match=match):
            call()


def test_measures_are_the_worlds():
    data = GeneratedData(Stripes())
    truth = data.truth("train", IDS, np.zeros(3, int), 1)
    assert (data.measures(truth["frame"], truth)["error"] == 0).all()
    assert (data.measures(truth["frame"] + np.uint8(2), truth)["error"] == 2).all()

    class Bare:
        size, channels, actions = 4, 1, ActionSpace()

    assert GeneratedData(Bare()).measures(truth["frame"], truth) == {}


def test_windows_and_streams_of_generated_data():
    data = GeneratedData(Stripes(), seed=2)
    ids, starts = Windows(data, "train", 2, 4).at(5)
    assert (ids.tolist(), starts.tolist()) == ([10, 11], [0, 0])
    clip, _ = Streams(data, "train", 2, 12, length=5).next(Streams(data, "train", 2, 12, length=5).first())
    for row in range(2):
        for start, number in ((0, row), (5, row + 2)):
            alone = data.read("train", np.array([number]), np.array([0]), 5)
            np.testing.assert_array_equal(clip.frames[start : start + 5, row], alone.frames[:, 0])


def test_it_says_what_it_is():
    (line,) = GeneratedData(Stripes(), 3, length=9, name="stripes").describe()
    assert (
        line == "data: stripes, 4x4 colour, 4 discrete actions, clips of 9 frames, drawn as needed (seed 3)"
    )
    (line,) = GeneratedData(Plain()).describe()
    assert line == "data: Plain, 4x4 grey, drawn as needed (seed 0)"


def test_a_world_of_ones_own_by_name(here):
    data = make_data(f"{here}:Stripes", size=8, step=None, levels=[3, 4], seed=4, length=20)
    assert data == GeneratedData(Stripes(size=8, levels=(3, 4)), seed=4, length=20, name="Stripes")
    assert data_options(f"{here}:Stripes") == {
        "seed": 0,
        "length": None,
        "size": 4,
        "step": 1,
        "levels": (0, 1),
    }
    assert make_data(f"{here}:make_stripes").world == Stripes(step=2)


def test_a_data_set_of_ones_own_by_name(here):
    data = make_data(f"{here}:Own", path="x", rate=2.0, other=1)
    assert isinstance(data, Own)
    assert (data.path, data.rate, data.more) == ("x", 2.0, {"other": 1})
    assert data_options(f"{here}:Own") == {"path": dataclasses.MISSING, "rate": 1.0}


def test_mistakes_are_named(here):
    for name, options, match in (
        ("moving_digit", {}, "did you mean 'moving_digits'.*choose from .*folder, or give module:Name"),
        ("no_such_module:World", {}, "cannot be loaded: No module named"),
        (f"{here}:NoSuchWorld", {}, "cannot be loaded"),
        (f"{here}:IDS", {}, "is a ndarray"),
        (f"{here}:make_nothing", {}, "neither `read` nor `clip`"),
        (f"{here}:make_nothing", {"size": 3}, "has no option 'size'; it has none"),
        (f"{here}:Stripes", {"stepp": 3}, "no option 'stepp' .did you mean 'step'.*seed, length, size, step"),
        (f"{here}:Own", {}, "needs the option 'path'"),
    ):
        with pytest.raises(ValueError, match=match):
            make_data(name, **options)


def test_the_names_there_are():
    assert data_names()[0] == "moving_digits"
    assert data_names()[-1] == "folder"
    assert len(data_names()) == 7
