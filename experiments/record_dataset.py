"""resetta render dataset=DIR: a trained agent's meta-episodes as videos with actions and rewards."""

import shlex
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..agents import Agent, AgentState, record
from ..agents.evaluate import Recording
from ..envs.base import Continuous, Discrete
from ..envs.meta import MetaEnv
from ..envs.tasks import evaluation_ids
from ..video.clip import ActionSpace
from ..video.recording import RecordingWriter
from .build import settings
from .config import EnvConfig, TrainConfig
from .errors import InputError, input_errors
from .evaluate import evaluation_env
from .logs import phase
from .render import check_played, draw_trials
from .restore import restore_run

_PLAYED_BYTES = 256 << 20  # of what a batch of tasks keeps of its play, before anything is drawn
_DEFAULT_SIZE = 64  # video-train's own


def run(raw: Mapping[str, Any]) -> None:
    """Record the agent of a run directory, and say how to train on the recording."""
    with phase("making the agent"):
        _, config, agent, state = restore_run(raw)
    with settings(config), input_errors():
        folder = record_dataset(
            agent,
            config,
            state,
            str(raw["dataset"]),
            clips=raw["clips"],
            size=raw["dataset_size"],
            greedy=raw["greedy"],
            **{name: raw[name] for name in ("split", "only", "task", "trials", "seed")},
        )
    print(folder)
    size = "" if raw["dataset_size"] == _DEFAULT_SIZE else f" data.size={raw['dataset_size']}"
    print(f"resetta video-train data=folder {shlex.quote(f'data.path={folder}')}{size}")


def record_dataset(
    agent: Agent,
    config: TrainConfig,
    state: AgentState,
    folder: str | Path,
    *,
    clips: int = 16,
    size: int = _DEFAULT_SIZE,
    split: str = "held_out",
    only: str | list[str] | None = None,
    task: int = 0,
    trials: int | None = None,
    greedy: bool | None = None,
    seed: int = 0,
) -> Path:
    """Play `clips` tasks of a split and write each whole meta-episode as one clip; returns the folder.

    Clips take the base environments (of a mix, those in `only`) in turn, and each one's tasks from rank
    `task` on. The frames, uint8 `[T, size, size, 3]`, are those that `film_run` draws: its `tasks` and these
    are played alike as long as they fit one batch. `actions[t]`, the base environment's own, leads from frame
    t to t + 1: where that begins another trial, it ended the one before. `rewards[t]` (raw) came with frame
    t. What the last action of all led to is not shown, so that the clip ends with no action. `resets` is true
    at the first frame alone, since the agent's memory lives through all trials. `state` has a leading seed
    axis; `seed` counts the run's agents from 0.

    Raises `ValueError` before anything is compiled for a folder that holds something, for options out of
    range, and for base environments whose actions differ.
    """
    trials = config.trials if trials is None else trials
    check_played(config, split, task, trials, seed)
    mix = config.env.with_only(split, only or [])
    if type(clips) is not int or clips < 1:
        raise InputError(f"clips={clips} must be a whole number of at least 1")
    if type(size) is not int or not 16 <= size <= 2048:
        raise InputError(f"dataset_size={size} must be a whole number from 16 to 2048 pixels")
    space = _action_space(evaluation_env(mix, 1, trials, split))
    greedy = config.eval_greedy if greedy is None else greedy
    with RecordingWriter(folder, size, 3, space) as writer:
        for text, env, played in _batches(agent, mix, state, clips, split, task, trials, greedy, seed):
            with phase(text):
                recording = played()
                lanes = len(env.lanes)
                for clip in range(min(env.num_envs, clips)):
                    writer.add(*_clip(env, recording, clip % lanes, clip // lanes, trials, size, space))
            clips -= env.num_envs
    return writer.folder


def _batches(
    agent: Agent,
    mix: EnvConfig,
    state: AgentState,
    clips: int,
    split: str,
    task: int,
    trials: int,
    greedy: bool,
    seed: int,
) -> Iterator[tuple[str, MetaEnv, Callable[[], Recording]]]:
    """What is played, in words; the environment, with as many rows as memory allows; and the play itself."""
    params, observations = jax.tree.map(lambda leaf: leaf[seed], (state.params, state.observations))
    one = evaluation_env(mix, 1, trials, split)
    lanes, key = len(one.lanes), jax.random.key(seed)
    ids = jax.ShapeDtypeStruct((lanes,), np.int32)
    kept = jax.eval_shape(lambda ids: record(agent, one, params, observations, key, ids, greedy), ids)
    bytes_of_one = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(kept))
    ranks = -(-clips // lanes)
    rows = min(ranks, max(_PLAYED_BYTES // bytes_of_one, 1))
    env = evaluation_env(mix, rows * lanes, trials, split)
    play = jax.jit(lambda key, ids: record(agent, env, params, observations, key, ids, greedy))
    for first in range(0, ranks, rows):
        begin, end = task + first, task + first + rows
        ids = np.concatenate([evaluation_ids(lane.family, split, end)[begin:] for lane in env.lanes])
        # The first batch is the play that a film of these tasks shows.
        batch_key = jax.random.fold_in(key, first) if first else key
        text = f"clips {first * lanes + 1} to {min((first + rows) * lanes, clips)} of {clips}"
        yield (
            f"playing and drawing {text}",
            env,
            lambda key=batch_key, ids=ids: jax.device_get(play(key, jnp.asarray(ids))),
        )


def _clip(
    env: MetaEnv, recording: Recording, lane: int, inside: int, trials: int, size: int, space: ActionSpace
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Frames, actions, rewards and resets of row `inside` of a lane, until its meta-episode ends."""
    row = inside + sum(part.count for part in env.lanes[:lane])
    frames = np.concatenate(
        [frames for _, frames, _ in draw_trials(env, recording, row, trials, (size, size))]
    )
    before_last = len(frames) - 1
    nothing = space.nothing(1)
    assert nothing is not None
    actions = np.concatenate([recording.env_actions[lane][:before_last, inside], nothing])
    rewards = np.concatenate([np.zeros(1), recording.reward[:before_last, row]])
    return frames, actions, rewards, np.arange(len(frames)) == 0


def _action_space(env: MetaEnv) -> ActionSpace:
    """What the base environments' own actions have in common; a recording has one space for all clips."""
    spaces = {lane.family.base.name: lane.family.base.action for lane in env.lanes}
    first = next(iter(spaces.values()))
    if any(space != first for space in spaces.values()):
        named = ", ".join(f"{name} {_words(space)}" for name, space in spaces.items())
        raise InputError(
            f"the base environments differ in their actions ({named}) and a recording holds one kind; "
            "record a run of one base environment"
        )
    return ActionSpace("discrete" if isinstance(first, Discrete) else "continuous", first.size)


def _words(space: Discrete | Continuous) -> str:
    if isinstance(space, Discrete):
        return f"has {space.size}"
    return f"takes {space.size} within {list(space.low)} and {list(space.high)}"
