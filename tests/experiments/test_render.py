"""What a film shows of a play: which base environments, which steps, and what they earned."""

from types import SimpleNamespace

import numpy as np
import pytest

from resetta.agents.evaluate import Recording
from resetta.experiments import render
from resetta.experiments.compose import compose
from resetta.experiments.config import train_config
from resetta.experiments.errors import InputError
from resetta.experiments.media import side_by_side


def played(trial):
    """A play of two rows; the second one's state is the step, and step t earns 2 ** t."""
    steps, rows = np.arange(len(trial)), np.zeros((len(trial), 2))
    states = SimpleNamespace(row=np.stack([-steps, steps], 1))
    reset = np.stack([steps < 0, steps == 0], 1)
    return Recording(
        base_states=({"step": states.row},),
        task_params=({},),
        env_actions=(rows,),
        reward=np.stack([0.0 * steps, 2.0**steps], 1),
        trial=np.stack([0 * steps, trial], 1),
        trial_end=rows > 1,
        episode_start=rows > 1,
        reset=reset,
        carry_norm=rows,
    )


@pytest.fixture
def env(monkeypatch):
    def draw(base, state, params, size, *, last_action, last_reward):
        return np.full((*size, 3), state["step"], np.uint8)

    monkeypatch.setattr(render, "draw", draw)
    family = SimpleNamespace(base=SimpleNamespace(action=None))
    return SimpleNamespace(lanes=[SimpleNamespace(count=2, family=family)])


@pytest.mark.parametrize(
    ("every", "shown", "earned"),
    [
        (1, [[0, 1, 2, 3, 4], [5, 6, 7]], [[0, 1, 2, 4, 8 + 16], [0, 32, 64 + 128]]),
        (2, [[0, 2, 4], [5, 7]], [[0, 3, 12 + 16], [0, 96 + 128]]),
        (4, [[0, 4], [5]], [[0, 15 + 16], [224]]),
        (9, [[0], [5]], [[31], [224]]),
    ],
)
def test_frames_lie_apart_and_nothing_that_was_earned_is_lost(env, every, shown, earned):
    recording = played(np.array([0, 0, 0, 0, 0, 1, 1, 1]))
    trials = render.draw_trials(env, recording, 1, 2, (4, 4), every)
    assert [number for number, *_ in trials] == [0, 1]
    for (_, frames, rewards), steps, gained in zip(trials, shown, earned, strict=True):
        assert frames[:, 0, 0, 0].tolist() == steps
        assert rewards.tolist() == gained


def test_the_counter_counts_steps(monkeypatch):
    told = []
    monkeypatch.setattr(
        "resetta.experiments.media._Layout.panel",
        lambda self, page, k, frame, text, count, ended: told.append(count),
    )
    side_by_side([("film", np.zeros((3, 32, 32, 3), np.uint8))], every=4)
    assert told == ["step 0", "step 4", "step 8"]


def test_some_of_a_mix_are_filmed():
    five = ["env=meta_dm_control", "env.leave_out=dm_point_mass", "num_envs=750", "minibatches=2"]
    config = train_config(compose("train", five))
    names = [*config.env.met]
    assert config.env.with_only("train", []) == config.env
    assert [*config.env.with_only("train", names[1]).met] == [names[1]]
    assert [*config.env.with_only("train", names[:4]).met] == names[:4]  # 4 do not divide num_envs
    one = config.env.with_only("held_out", ["dm_reacher_hard"])
    assert ([*one.unmet], [*one.met]) == (["dm_reacher_hard"], names)
    for name in ("dm_point_mass", "chess"):
        message = f"only={name} is no base environment of split=train; use {names[0]}"
        with pytest.raises(InputError, match=message):
            config.env.with_only("train", [name])
    alone = train_config(compose("train", ["env=meta_cartpole_catch"]))
    kept = [*alone.env.met]
    assert [*alone.env.with_only("held_out", kept[0]).met] == kept[:1]  # new tasks of what was met
