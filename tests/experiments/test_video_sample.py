"""Sampling from a model that obeys: every frame is as much lighter than the last as its action says."""

import dataclasses
import json
from typing import Any

import av
import numpy as np
import pytest

from resetta.experiments import video_sample
from resetta.experiments.compose import compose
from resetta.experiments.errors import InputError
from resetta.experiments.run_dir import RunDir
from resetta.experiments.video_actions import choose_actions, read_script
from resetta.experiments.video_sample import clips_to_continue
from resetta.video.clip import ActionSpace, Clip, to_float
from resetta.video.protocol import Protocol

DISCRETE, PAIRS = ActionSpace("discrete", 4), ActionSpace("continuous", 2)


@dataclasses.dataclass(frozen=True)
class Greys:
    """Clip i begins at level 10 i; its actions are 1, 2, 3, 1, … and each makes the next frame lighter."""

    lengths_: tuple[int, ...] = (6, 8, 7)
    actions: ActionSpace = DISCRETE
    size: int = 8
    channels: int = 1

    def count(self, split):
        return len(self.lengths_)

    def lengths(self, split, ids):
        return np.array(self.lengths_)[ids]

    def read(self, split, ids, starts, frames):
        steps = np.broadcast_to(1 + np.arange(frames)[:, None] % 3, (frames, len(ids)))
        levels = 10 * ids + np.cumsum(steps, axis=0) - steps
        pixels = np.broadcast_to(levels[..., None, None, None], (*levels.shape, 8, 8, 1)).astype(np.uint8)
        actions = steps.astype(np.int32) if self.actions.kind == "discrete" else None
        return Clip(pixels, actions, np.zeros(levels.shape, bool))


@dataclasses.dataclass(frozen=True)
class Obeys:
    """As its data: the next frame is lighter by the action, or by 1 where there are none."""

    actions: ActionSpace = DISCRETE
    size: int = 8
    channels: int = 1
    streams: bool = False

    def condition(self, variables, clip):
        return to_float(clip.frames[-1])

    def step(self, variables, memory, action, key):
        change = 1 if action is None else action[:, None, None, None]
        frame = memory + change / 127.5
        return frame, frame


@dataclasses.dataclass(frozen=True)
class Config:
    context: int = 3
    frames: int = 6
    device: str = "auto"
    precision: str = "float32"


@pytest.fixture
def sample(tmp_path, monkeypatch):
    """`video-sample` with these words: what it wrote as arrays, and where the film is."""

    def run(*words, data: Any = None):
        data = data or Greys()
        run_dir = RunDir(tmp_path, {"data": {}}, resumed=True)
        restored = (run_dir, Config(), Obeys(data.actions), data, {})
        monkeypatch.setattr(video_sample, "restore_video_run", lambda raw: restored)
        out = tmp_path / "made" / "film"
        options = [f"run_dir={tmp_path}", "arrays=true", "size=8", f"out={out}", *words]
        video_sample.run(compose("video-sample", options))
        with np.load(out.with_suffix(".npz"), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays}, out.with_suffix(".mp4")

    return run


def levels(frames):
    assert (frames == frames[:, :, :1, :1]).all()
    return frames[:, :, 0, 0, 0].T.tolist()


def test_recorded_actions_make_the_recorded_frames(sample):
    arrays, film = sample("clips=3")
    assert arrays["clip_ids"].tolist() == [0, 1, 2]
    assert levels(arrays["frames_0"]) == [[10 * i + n for n in (0, 1, 3, 6, 7, 9)] for i in range(3)]
    with av.open(str(film)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 6 + 12  # the last one waits a second


def test_two_scripts_from_one_context_side_by_side(sample, tmp_path, monkeypatch):
    script = tmp_path / "left.txt"
    script.write_text("0\n0 # stay\n\n2\n3\n3\n1\n")  # one more than is needed
    shown = []
    write = video_sample.write_film
    monkeypatch.setattr(
        video_sample,
        "write_film",
        lambda stem, rows, *a, **k: (shown.extend(rows), write(stem, rows, *a, **k))[1],
    )
    arrays, film = sample(f"actions={script}", "compare=random", "clips=2", "frames=8", "lossless=true")
    assert arrays["clip_ids"].tolist() == [1, 2], "the longest, where too few are as long as the sample"
    assert levels(arrays["frames_0"])[0] == [10, 11, 13, 13, 13, 15, 18, 21]
    assert levels(arrays["frames_0"])[1] == [20, 21, 23, 23, 23, 25, 28, 31]
    other = np.array(levels(arrays["frames_1"]))
    np.testing.assert_array_equal(other[:, :3], [[10, 11, 13], [20, 21, 23]])
    changes = np.diff(other[:, 2:])
    assert ((changes >= 0) & (changes < 4)).all()
    assert len(np.unique(changes)) > 2
    assert (changes[0] != changes[1]).any()
    titles = [title for title, _ in shown[0]]
    assert titles == ["clip 1, true", "predicted, left.txt actions", "predicted, random actions"]
    assert [len(frames) for _, frames in shown[0]] == [8, 8, 8]
    assert [len(frames) for _, frames in shown[1]] == [7, 8, 8]  # the true clip ends, the others go on
    with av.open(str(film)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.pix_fmt == "gbrp"  # exact colours
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    assert any((pictures[6] == 18).all(-1).any(0))  # the first script's last but one frame, untouched


def test_sampling_goes_on_far_beyond_the_clips(sample):
    """In pieces: 1,200 frames of a model without actions, whose levels go up until they are white."""
    arrays, film = sample("frames=1200", "clips=1", data=Greys(actions=ActionSpace()))
    assert levels(arrays["frames_0"])[0] == [10, 11, 13, *(min(13 + k, 255) for k in range(1, 1198))]
    with av.open(str(film)) as container:
        assert container.streams.video[0].frames == 1200 + 12
    assert not film.with_suffix(".gif").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["frames=9"],
            "actions=recorded ends 1 frames too early; use that many frames fewer, actions=random",
        ),
        (["actions=up.txt"], "actions=up.txt is no file; use recorded, random, or a file of actions"),
        (["frames=3"], "frames=3 is the total length and leaves nothing to predict after context=3"),
        (["context=9", "frames=12"], "no test clip has the 9 frames of the context (the longest has 8)"),
        (["fps=0"], "fps=0 must be positive"),
        (["size=4"], "size=4 must lie between 8 and 2048 pixels"),
    ],
)
def test_mistakes_are_one_sentence(sample, words, sentence):
    with pytest.raises(InputError) as error:
        sample("clips=1", *words)
    assert sentence in str(error.value)


def test_data_without_actions_is_not_steered(sample):
    with pytest.raises(InputError, match=r"actions=a.npy is of no use to data without actions"):
        sample("actions=a.npy", data=Greys(actions=ActionSpace()))


def test_which_clips_are_continued():
    data = Greys(lengths_=(5, 9, 9, 2, 9, 4))
    protocol = Protocol(context=3, frames=9, clips=2)
    assert set(clips_to_continue(data, protocol)) < {1, 2, 4}
    beyond = dataclasses.replace(protocol, frames=500)
    assert clips_to_continue(data, beyond).tolist() == [1, 2]
    assert clips_to_continue(data, dataclasses.replace(beyond, clips=9)).tolist() == [0, 1, 2, 4, 5]


WHOLE = [[0, 1, 3], [3, 0, 2]]
REAL = [[0.5, -1.0], [0.25, 2.0]]


def write(path, values):
    if path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix == ".npz":
        np.savez(path, actions=values)
    elif path.suffix == ".json":
        path.write_text(json.dumps({"actions": values} if path.stem == "object" else values))
    else:
        lines = [value if isinstance(value, list) else [value] for value in values]
        path.write_text("# a script\n" + "\n".join(", ".join(map(str, line)) for line in lines))
    return path


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "list.json", "object.json", "a.txt", "a.csv", "noending"])
def test_every_file_format_is_the_same_script(tmp_path, name):
    got = read_script(write(tmp_path / name, WHOLE[0]), DISCRETE)
    assert (got.dtype, got.tolist()) == (np.int32, WHOLE[0])
    got = read_script(write(tmp_path / name, REAL), PAIRS)
    assert (got.dtype, got.tolist()) == (np.float32, REAL)
    single = read_script(write(tmp_path / name, [0.5, -2.0]), ActionSpace("continuous", 1))
    assert single.tolist() == [[0.5], [-2.0]]
    script = choose_actions(str(write(tmp_path / name, WHOLE[0])), DISCRETE, None, 2, 3, seed=0)
    assert script.tolist() == [[0] * 3, [1] * 3]


@pytest.mark.parametrize(
    ("name", "values", "space", "sentence"),
    [
        ("a.npy", [0.0, 1.0], DISCRETE, "holds numbers of shape [2]; give whole numbers, one a frame"),
        ("a.json", [0, 1.5], DISCRETE, "holds numbers of shape [2]; give whole numbers, one a frame"),
        ("a.json", [True, False], DISCRETE, "holds true and false of shape [2]"),
        ("a.json", ["left"], DISCRETE, "holds no numbers of shape [1]"),
        ("a.json", [[0, 1], [1]], DISCRETE, "cannot be read"),
        ("a.txt", ["left"], DISCRETE, "cannot be read (could not convert string to float: 'left')"),
        ("a.txt", [0, 4], DISCRETE, "has the action 4; use 0 to 3"),
        ("a.npy", [0, -1], DISCRETE, "has the action -1; use 0 to 3"),
        ("a.npy", WHOLE, DISCRETE, "of shape [2, 3]; give whole numbers, one a frame"),
        ("a.txt", [[1, 2, 3]], PAIRS, "of shape [1, 3]; give 2 numbers a frame"),
        ("a.txt", [["nan", 2]], PAIRS, "has a number that is not finite"),
        ("a.npy", [[None, 2]], PAIRS, "cannot be read"),
    ],
)
def test_what_does_not_fit_is_one_sentence(tmp_path, name, values, space, sentence):
    path = write(tmp_path / name, values)
    with pytest.raises(InputError) as error:
        read_script(path, space)
    assert str(error.value).startswith(f"actions={path} ")
    assert sentence in str(error.value)


def test_broken_and_short_files(tmp_path):
    for name, text in (
        ("a.npy", "torn"),
        ("a.npz", "torn"),
        ("a.json", "{"),
        ("b.json", "{}"),
        ("c.npy", ""),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match=f"{name} cannot be read"):
            read_script(tmp_path / name, DISCRETE)
    path = write(tmp_path / "a.txt", [1, 2])
    with pytest.raises(InputError, match=r"has 2 actions and 3 frames are to be predicted; give 3 or more"):
        choose_actions(str(path), DISCRETE, None, 3, 1, seed=0)


def test_random_actions_are_the_seeds():
    one, again, other = (choose_actions("random", PAIRS, None, 50, 2, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert (one.shape, one.dtype) == ((50, 2, 2), np.float32)
    assert (one != other).all()
    assert np.abs(one).max() <= 1
    assert one.std() > 0.4
