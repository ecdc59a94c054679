"""resetta evaluate: returns of every trial of every task, on splits the agent trained on and never met."""

import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ..agents import Agent, AgentState, evaluate, evaluate_random
from ..envs import SPLITS, MetaEnv
from ..envs.scores import normalize
from .build import build_agent, build_env, settings
from .config import TrainConfig
from .stats import adaptation_curve, improvement

Phase = Callable[[str], AbstractContextManager[Any]]


def evaluate_agent(
    agent: Agent,
    config: TrainConfig,
    state: AgentState,
    *,
    splits: Sequence[str] = ("train", "held_out"),
    tasks: int | None = None,
    trials: int | None = None,
    greedy: bool | None = None,
    seed: int = 0,
    phase: Phase,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays for eval.npz and a summary for eval.json; `state` has a leading seed axis.

    Arrays: `<split>_returns` and `<split>_normalized` `[seed, task, trial]`, `<split>_task_ids` `[task]`,
    `<split>_envs` `[task]` (names), `<split>_random` `[task, trial]`. All seeds of training play the same
    episodes.
    """
    tasks = config.eval_tasks if tasks is None else tasks
    trials = config.evaluation_trials if trials is None else trials
    greedy = config.eval_greedy if greedy is None else greedy
    if tasks < 1 or trials < 1:
        raise ValueError(f"tasks={tasks} and trials={trials} must be at least 1")
    for split in splits:
        if split not in SPLITS:
            raise ValueError(f"unknown split {split!r}; choose from {', '.join(SPLITS)}")
    arrays: dict[str, np.ndarray] = {}
    summaries: dict[str, Any] = {}
    for split in splits:
        env = evaluation_env(config, tasks, trials, split)
        with phase(f"evaluating {env.num_envs} {split.replace('_', '-')} tasks, {trials} trials each"):
            part = _play(agent, env, state, split, greedy, seed)
        arrays |= {f"{split}_{name}": value for name, value in part.items()}
        summaries[split] = _summary(part, env, config)
    summary = {
        "env": config.env.name,
        "core": str(config.core["name"]),
        "seeds": config.seeds,
        "tasks": tasks,
        "trained_trials": config.trials,
        "trials": trials,
        "greedy": greedy,
        "evaluation_seed": seed,
        "update": int(np.asarray(state.update).max()),
        "env_steps": int(np.asarray(state.update).max()) * config.steps_per_update,
        "device": device_name(),
        "versions": {"python": platform.python_version(), "jax": jax.__version__},
        "splits": summaries,
    }
    return arrays, summary


def evaluation_env(config: TrainConfig, tasks: int, trials: int, split: str) -> MetaEnv:
    """An environment with a row for every task; rounded up so that base environments get equal shares."""
    unmet = split == "held_out" and config.env.held_out_lanes
    lanes = len(config.env.held_out_lanes if unmet else config.env.lanes)
    return build_env(config, -(-tasks // lanes) * lanes, trials, split)


def _play(
    agent: Agent, env: MetaEnv, state: AgentState, split: str, greedy: bool, seed: int
) -> dict[str, np.ndarray]:
    ids = env.evaluation_ids(split)
    key = jax.random.key(seed)
    play = jax.jit(
        jax.vmap(
            lambda params, observations: evaluate(agent, env, params, observations, key, ids, greedy)  # pyright: ignore
        )
    )
    returns = np.asarray(play(state.params, state.observations))
    random = np.asarray(jax.jit(lambda: evaluate_random(env, key, ids))())  # pyright: ignore
    names = np.concatenate([np.repeat(lane.family.base.name, lane.count) for lane in env.lanes])
    normalized = np.full_like(returns, np.nan)
    for name in dict.fromkeys(names.tolist()):
        rows = names == name
        scaled = normalize(name, returns[:, rows])
        if scaled is not None:
            normalized[:, rows] = scaled
    return {"returns": returns, "normalized": normalized, "task_ids": ids, "envs": names, "random": random}


def _summary(part: Mapping[str, np.ndarray], env: MetaEnv, config: TrainConfig) -> dict[str, Any]:
    last = min(config.trials, env.trials) - 1
    summary: dict[str, Any] = {
        "base_environments": list(dict.fromkeys(part["envs"].tolist())),
        "disjoint_tasks": all(lane.family.size != 1 for lane in env.lanes),
        **_curve(part["returns"]),
        "random": part["random"].mean(0).tolist(),
        "normalized": _curve(part["normalized"]) if np.isfinite(part["normalized"]).all() else None,
    }
    if last > 0:
        gain = improvement(part["returns"], 0, last)
        summary["improvement"] = {
            "from_trial": 1,
            "to_trial": last + 1,
            "mean": gain.value,
            "low": gain.low,
            "high": gain.high,
        }
    return summary


def _curve(returns: np.ndarray) -> dict[str, list[float]]:
    curve = adaptation_curve(returns)
    return {name: getattr(curve, name).tolist() for name in ("mean", "iqm", "low", "high")}


def device_name() -> str:
    """What the figures were measured on, such as `cpu (AMD EPYC, 2 cores)`."""
    import os

    device = jax.devices()[0]
    if device.platform != "cpu":
        return f"{device.platform} ({device.device_kind})"
    model = "unknown processor"
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].partition(":")[2].strip() if lines else model
    return f"cpu ({model}, {os.cpu_count()} cores)"
