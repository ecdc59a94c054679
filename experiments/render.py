"""resetta render: the first trial beside the last of the same task, and what the memory does meanwhile."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..agents import Agent, AgentState, record
from ..agents.evaluate import Recording
from ..envs.base import Discrete
from ..envs.draw import draw
from ..envs.meta import MetaEnv
from ..envs.tasks import SPLITS, evaluation_ids
from .build import settings
from .config import TrainConfig
from .errors import InputError, input_errors
from .evaluate import evaluation_env
from .logs import phase
from .media import side_by_side, write_gif, write_mp4
from .plots import carry_norm, save_png
from .report import write_report
from .restore import restore_run
from .run_dir import RunDir, write_npz

SHOWS = ("first_last", "all")
_PICTURES = 300  # of a trial; more take long to draw and to watch


def run(raw: Mapping[str, Any]) -> None:
    """Film the agent of a run directory and renew its report; or record it as a data set of videos."""
    if raw.get("dataset") is not None:
        from . import record_dataset

        record_dataset.run(raw)
        return
    with phase("making the agent"):
        run_dir, config, agent, state = restore_run(raw)
    with settings(config), input_errors():
        options = {
            name: raw[name]
            for name in ("split", "only", "task", "tasks", "trials", "show", "every", "seed", "size", "fps")
        }
        with phase("playing and drawing"):
            films = film_run(agent, config, state, run_dir, greedy=raw["greedy"], **options)
    report = write_report(run_dir.path)
    for path in [*films, report]:
        print(path)


def film_run(
    agent: Agent,
    config: TrainConfig,
    state: AgentState,
    run_dir: RunDir,
    *,
    split: str = "held_out",
    only: str | list[str] | None = None,
    task: int = 0,
    tasks: int = 3,
    trials: int | None = None,
    show: str = "first_last",
    every: int | None = None,
    greedy: bool | None = None,
    seed: int = 0,
    size: int = 192,
    fps: float = 12,
) -> list[Path]:
    """Write `media/<show>_<split>.mp4` and `.gif`, and the memory's norm as `memory.png` and `memory.npz`.

    One row of panels a task; `task` is the rank of the first. `seed` counts the run's agents from 0. Of a mix
    `only` names the base environments to film. Pictures are `every` steps apart, by default as few as leave a
    trial `_PICTURES` of them.
    """
    trials = config.trials if trials is None else trials
    _check(config, split, task, tasks, trials, show, seed, size, fps, every)
    mix, rows = config.env.with_only(split, only or []), tasks
    env = evaluation_env(mix, rows * len(mix.played(split)), trials, split)
    ids = np.concatenate([evaluation_ids(lane.family, split, task + rows)[task:] for lane in env.lanes])
    every = every or -(-env.max_steps // _PICTURES)
    greedy = config.eval_greedy if greedy is None else greedy
    params, observations = jax.tree.map(lambda leaf: leaf[seed], (state.params, state.observations))
    play = jax.jit(lambda key: record(agent, env, params, observations, key, jnp.asarray(ids), greedy))
    recording = jax.device_get(play(jax.random.key(seed)))
    films = []
    for row in range(env.num_envs):
        panels = draw_trials(env, recording, row, trials, (size, size), every)
        if show == "first_last" and trials > 1:
            panels = [panels[0], panels[-1]]
        task_name = f"task {task + row % rows}"
        titles = [f"{task_name}, trial {number + 1}" for number, _, _ in panels]
        if show == "all":
            frames = np.concatenate(
                [
                    side_by_side([(title, frames)], rewards=[rewards], hold=max(int(fps / 3), 1), every=every)
                    for title, (_, frames, rewards) in zip(titles, panels, strict=True)
                ]
            )
        else:
            frames = side_by_side(
                [(title, frames) for title, (_, frames, _) in zip(titles, panels, strict=True)],
                rewards=[rewards for *_, rewards in panels],
                hold=max(int(fps), 1),
                every=every,
            )
        films.append(frames)
    film = _stacked(films)
    stem = run_dir.media / f"{show}_{split}"
    run_dir.media.mkdir(exist_ok=True)
    written = [write_mp4(stem.with_suffix(".mp4"), film, fps), write_gif(stem.with_suffix(".gif"), film, fps)]
    return [*written, *_memory(run_dir, recording)]


def _check(
    config: TrainConfig,
    split: str,
    task: int,
    tasks: int,
    trials: int,
    show: str,
    seed: int,
    size: int,
    fps: float,
    every: int | None,
) -> None:
    check_played(config, split, task, trials, seed)
    if show not in SHOWS:
        raise InputError(f"show={show!r} must be one of {', '.join(SHOWS)}")
    if tasks < 1:
        raise InputError(f"tasks={tasks} must be at least 1")
    if not 32 <= size <= 2048:
        raise InputError(f"size={size} must lie between 32 and 2048 pixels")
    if not 1 <= fps <= 120:
        raise InputError(f"fps={fps} must lie between 1 and 120")
    if every is not None and every < 1:
        raise InputError(f"every={every} must be at least 1, or null for pictures enough")


def check_played(config: TrainConfig, split: str, task: int, trials: int, seed: int) -> None:
    """Raise `InputError` for tasks, trials or an agent that this run cannot play."""
    if split not in SPLITS:
        raise InputError(f"unknown split {split!r}; choose from {', '.join(SPLITS)}")
    if task < 0 or trials < 1:
        raise InputError(f"task={task} and trials={trials} must be at least 0 and 1")
    if not 0 <= seed < config.seeds:
        raise InputError(
            f"seed={seed} is not one of the run's {config.seeds} agents; use 0 to {config.seeds - 1}"
        )


def draw_trials(
    env: MetaEnv, recording: Recording, row: int, trials: int, size: tuple[int, int], every: int = 1
) -> list[tuple[int, np.ndarray, np.ndarray]]:
    """Every trial of a row as (number, frames, rewards), frames `every` steps apart.

    rewards[t] is what was earned between frames t - 1 and t; the last one's is with what came after it.
    """
    lane = next(i for i in range(len(env.lanes)) if row < sum(part.count for part in env.lanes[: i + 1]))
    inside = row - sum(part.count for part in env.lanes[:lane])
    family = env.lanes[lane].family

    def at(tree: Any, t: int) -> Any:
        return jax.tree.map(lambda leaf: leaf[t, inside], tree)

    # after its last trial the row begins again; what comes then is not shown
    begun_again = np.flatnonzero(recording.reset[1:, row])
    end = int(begun_again[0]) + 1 if len(begun_again) else len(recording.reset)
    shown = []
    for number in range(trials):
        steps = np.flatnonzero(recording.trial[:end, row] == number)
        frames, rewards, last_action, last_reward, earned = [], [], None, None, 0.0
        for k, t in enumerate(steps.tolist()):
            if k % every == 0:
                params = at(recording.task_params[lane], t)
                state = at(recording.base_states[lane], t)
                frames.append(
                    draw(family.base, state, params, size, last_action=last_action, last_reward=last_reward)
                )
                rewards.append(earned)
                earned = 0.0
            last_reward = float(recording.reward[t, row])
            earned += last_reward
            last_action = at(recording.env_actions[lane], t)
            if isinstance(family.base.action, Discrete):
                last_action = int(last_action)
        if frames:
            rewards[-1] += earned  # the step that ended the trial is earned on its last picture
            shown.append((number, np.stack(frames), np.asarray(rewards)))
    return shown


def _stacked(films: list[np.ndarray]) -> np.ndarray:
    """Films one below the other; shorter ones wait on their last picture."""
    length, width = max(len(film) for film in films), max(film.shape[2] for film in films)
    padded = []
    for film in films:
        film = np.concatenate([film, np.repeat(film[-1:], length - len(film), axis=0)])
        side = width - film.shape[2]
        padded.append(np.pad(film, ((0, 0), (0, 0), (0, side), (0, 0)), mode="edge"))
    return np.concatenate(padded, axis=1)


def _memory(run_dir: RunDir, recording: Recording) -> list[Path]:
    norms = np.asarray(recording.carry_norm)[:, 0]
    if not norms.any():
        return []  # no memory to show
    starts, resets = np.asarray(recording.episode_start)[:, 0], np.asarray(recording.reset)[:, 0]
    # up to a little beyond the first meta-episode, so that the next reset is in the picture
    again = np.flatnonzero(resets[1:])
    end = min(len(norms), int(again[0] * 1.5) + 2) if len(again) else len(norms)
    data, picture = run_dir.media / "memory.npz", run_dir.media / "memory.png"
    write_npz(data, norms=norms[:end], episode_starts=starts[:end], resets=resets[:end])
    save_png(carry_norm(norms[:end], starts[:end], resets[:end]), picture)
    return [picture]
