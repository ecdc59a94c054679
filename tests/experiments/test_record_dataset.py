"""Recordings of agents, end to end: what is in the folder is what the environment did, and video reads it."""

import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resetta.agents import record
from resetta.envs.draw import draw
from resetta.envs.tasks import evaluation_ids
from resetta.experiments import record_dataset
from resetta.experiments.cli import main
from resetta.experiments.evaluate import evaluation_env
from resetta.experiments.restore import restore_run
from resetta.video.clip import NO_ACTION, ActionSpace
from resetta.video.data import make_data
from resetta.video.recording import open_recording

SMALL = [
    *("core.features=8", "network.head_features=8", "num_envs=8", "num_steps=16", "trials=2"),
    *("total_steps=128", "eval_tasks=0", "render=false", "tensorboard=false"),
]
ENVS = {
    "discrete": (["env=meta_cartpole_catch"], ActionSpace("discrete", 2)),
    "continuous": (["env=pendulum", "env.projection=orthogonal"], ActionSpace("continuous", 1)),
}
SIZE, CLIPS = 32, 3


def make(kind, folder):
    """A trained agent's run, the recording of it, and the actions that its environment takes."""
    words, space = ENVS[kind]
    run, target = folder / "run", folder / "worlds" / "mine"
    assert main(["train", *words, *SMALL, f"run_dir={run}"]) == 0
    words = [f"dataset={target}", f"clips={CLIPS}", f"dataset_size={SIZE}", "split=validation", "task=1"]
    assert main(["render", f"run_dir={run}", *words]) == 0
    return run, target, space


@pytest.fixture(scope="module")
def discrete(tmp_path_factory):
    return make("discrete", tmp_path_factory.mktemp("discrete"))


@pytest.fixture(scope="module")
def continuous(tmp_path_factory):
    return make("continuous", tmp_path_factory.mktemp("continuous"))


@pytest.fixture(params=ENVS)
def recorded(request):
    return request.getfixturevalue(request.param)


def played(run):
    """The same tasks played once more, by the rules of a film: states and all."""
    _, config, agent, state = restore_run({"run_dir": str(run)})
    env = evaluation_env(config.env, CLIPS, 2, "validation")
    ids = evaluation_ids(env.lanes[0].family, "validation", CLIPS + 1)[1:]
    params, observations = jax.tree.map(lambda leaf: leaf[0], (state.params, state.observations))
    key = jax.random.key(0)
    play = jax.jit(lambda: record(agent, env, params, observations, key, jnp.asarray(ids), False))
    return env.lanes[0].family.base, jax.device_get(play())


def test_a_recording_is_what_the_environment_did(recorded):
    """Each action, put to the environment in the state of its frame, makes the next frame and reward."""
    run, target, space = recorded
    base, play = played(run)
    recording = open_recording(target)
    assert (recording.size, recording.channels, recording.action_space) == ((SIZE, SIZE), 3, space)
    assert len(recording.frames) == CLIPS
    step = jax.jit(jax.vmap(base.step, (None, 0, 0, 0)))
    for clip, length in enumerate(recording.frames):
        frames = recording.pixels(clip)
        actions = recording.rows(recording.actions, clip)
        rewards = recording.rows(target / "rewards.npy", clip)
        ends = np.flatnonzero(play.trial_end[:, clip])
        assert length == ends[1] + 1  # two whole trials and nothing after
        states, params = (
            jax.tree.map(lambda leaf, row=clip: leaf[:, row], tree[0])
            for tree in (play.base_states, play.task_params)
        )
        nothing = np.asarray(space.nothing(1))
        assert actions.shape == (length, *nothing.shape[1:])
        np.testing.assert_array_equal(actions[-1:], nothing)
        here, there = (jax.tree.map(lambda leaf, n=length: leaf[:n], tree) for tree in (states, params))
        _, after, reward, *_ = jax.device_get(step(jax.random.key(0), here, actions, there))
        np.testing.assert_allclose(rewards, [0, *reward[:-1]], rtol=1e-5)
        for t in {0, 1, int(ends[0]) - 1, int(ends[0]), length - 2}:
            begun = t == ends[0]  # the next frame is another trial's first
            shown, at = (states, t + 1) if begun else (after, t)
            picture = draw(
                base,
                *(jax.tree.map(lambda leaf, i=at: leaf[i], tree) for tree in (shown, params)),
                (SIZE, SIZE),
            )
            # of a state computed in another program, a bit apart
            assert np.abs(frames[t + 1].astype(int) - picture).mean() < 1, (clip, t)
        assert not (frames[0] == frames[length // 2]).all()
        assert recording.rows(recording.resets, clip).tolist() == [True] + [False] * (length - 1)


def test_video_reads_it_bit_exactly(recorded, tmp_path):
    _, target, space = recorded
    recording = open_recording(target)
    data = make_data("folder", path=str(target), size=SIZE, cache=str(tmp_path))
    assert data.actions == space
    left = list(range(CLIPS))
    for split in ("train", "test"):
        for k in range(data.count(split)):
            ids = np.array([k])
            clip = data.read(split, ids, 0 * ids, int(data.lengths(split, ids)[0]))
            same = [i for i in left if np.array_equal(recording.pixels(i), clip.frames[:, 0])]
            left.remove(same[0])
            actions = recording.rows(recording.actions, same[0])
            np.testing.assert_array_equal(clip.actions[:, 0], actions)
            assert clip.reset[:, 0].nonzero()[0].tolist() == [0]
            if space.kind == "discrete":
                assert clip.actions[-1, 0] == NO_ACTION
                assert set(actions[:-1]) <= {0, 1}
    assert left == []


def test_inspect_says_what_it_is(recorded, capsys):
    _, target, space = recorded
    assert main(["video-inspect", str(target), f"data.size={SIZE}"]) == 0
    said = capsys.readouterr().out
    assert f"{CLIPS} clips, {CLIPS} usable" in said
    assert "formats  recording" in said
    assert f"{SIZE} x {SIZE}" in said
    what = "2 discrete" if space.kind == "discrete" else "continuous, 1 wide"
    assert f"actions  {what}; recording: actions[t] leads to frame t + 1, as stored" in said


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "is not empty; choose another folder, or remove it first"),
        (["clips=0"], "clips=0 must be a whole number of at least 1"),
        (["dataset_size=8"], "dataset_size=8 must be a whole number from 16 to 2048 pixels"),
        (["split=test"], "unknown split 'test'; choose from train, validation, held_out"),
        (["seed=1"], "seed=1 is not one of the run's 1 agents; use 0 to 0"),
        (["dataset=/proc/nothing/here"], "cannot write /proc/nothing/here"),
    ],
)
def test_mistakes_are_one_sentence(discrete, words, sentence, capsys):
    run, target, _ = discrete
    before = sorted(path.stat().st_mtime_ns for path in target.iterdir())
    assert main(["render", f"run_dir={run}", f"dataset={target}", *words]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert sentence in said[-1]
    assert sorted(path.stat().st_mtime_ns for path in target.iterdir()) == before


def test_a_failure_on_the_way_leaves_nothing(discrete, tmp_path, monkeypatch):
    run, *_ = discrete
    calls = []

    def stopped(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return drawn(*arguments)

    drawn = record_dataset._clip
    monkeypatch.setattr(record_dataset, "_clip", stopped)
    words = [f"dataset={tmp_path / 'world'}", f"clips={CLIPS}", "split=validation", "task=1"]
    assert main(["render", f"run_dir={run}", *words]) == 130
    assert len(calls) == 2
    assert list(tmp_path.iterdir()) == []


def test_a_killed_recorder_leaves_no_data_set(tmp_path):
    """kill -9 in the middle: the folder is not there, and nothing beside it is taken for a data set."""
    target = tmp_path / "world"
    code = (
        "import os, signal, sys, numpy as np\n"
        "from resetta.video.clip import ActionSpace\n"
        "from resetta.video.recording import RecordingWriter\n"
        "with RecordingWriter(sys.argv[1], 16, 3, ActionSpace()) as writer:\n"
        "    frames = np.zeros((4, 16, 16, 3), np.uint8)\n"
        "    writer.add(frames, None, np.zeros(4), np.zeros(4, bool))\n"
        "    if len(sys.argv) > 2:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    command = [sys.executable, "-c", code, str(target)]
    assert subprocess.run([*command, "die"], check=False).returncode == -signal.SIGKILL
    assert not target.exists()
    with pytest.raises(ValueError, match="holds no clips"):
        make_data("folder", path=str(tmp_path), cache=str(tmp_path / "cache"))
    assert subprocess.run(command, check=False).returncode == 0
    assert open_recording(target).frames == (4,)
