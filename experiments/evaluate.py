"""resetta evaluate: returns of every trial of every task, on splits the agent trained on and never met."""

import dataclasses
import datetime
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import jax
import numpy as np

from .. import __version__
from ..agents import Agent, AgentState, evaluate, evaluate_random
from ..envs import SPLITS, MetaEnv
from ..envs.scores import normalize
from .build import build_env, settings
from .config import EnvConfig, TrainConfig
from .devices import device_name
from .errors import InputError, input_errors
from .kept_splits import KeptSplits, digest, forget_splits
from .logs import phase
from .processes import primary
from .report import write_report
from .restore import restore_run
from .run_dir import FREE_KEYS, RunDir, write_json, write_npz
from .stats import adaptation_curve, improvement, total

Phase = Callable[[str], AbstractContextManager[Any]]


def run(raw: Mapping[str, Any]) -> None:
    """Evaluate the agent of a run directory, print the curve and renew the report."""
    with phase("making the agent"):  # of a mix of simulators: ten seconds and more
        run_dir, config, agent, state = restore_run(raw)
    target = Path(raw["out"]) if raw["out"] else run_dir.path
    with settings(config):
        with input_errors():
            baselines = _read_baselines(raw["baselines"])
            arrays, summary = evaluate_agent(
                agent,
                config,
                state,
                splits=raw["splits"],
                only=raw["only"],
                tasks=raw["tasks"],
                trials=raw["trials"],
                greedy=raw["greedy"],
                seed=raw["seed"],
                folder=target,
            )
        summary["baselines"] = {label: {"held_out": _curve(returns)} for label, returns in baselines.items()}
        write_evaluation(run_dir, arrays, summary, target)
    print(summary_text(summary))
    if target == run_dir.path:
        print(f"report: {write_report(run_dir.path)}")


def _read_baselines(runs: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Held-out returns of other runs, which must have been evaluated."""
    found = {}
    for label, path in runs.items():
        other = RunDir.read(path)
        if not other.eval_npz.exists():
            raise InputError(
                f"baselines.{label}={path} is not evaluated yet; run resetta evaluate run_dir={path}"
            )
        with np.load(other.eval_npz, allow_pickle=False) as stored:
            found[label] = stored["held_out_returns"]
    return found


def evaluate_agent(
    agent: Agent,
    config: TrainConfig,
    state: AgentState,
    *,
    splits: Sequence[str] = ("train", "held_out"),
    only: str | list[str] | None = None,
    tasks: int | None = None,
    trials: int | None = None,
    greedy: bool | None = None,
    seed: int = 0,
    folder: Path | None = None,
    phase: Phase = phase,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays for eval.npz and a summary for eval.json; `state` has a leading seed axis.

    Arrays: `<split>_returns` and `<split>_normalized` `[seed, task, trial]`, `<split>_task_ids` `[task]`,
    `<split>_envs` `[task]` (names), `<split>_random` `[task, trial]`. All seeds of training play the same
    episodes. In `folder` each split is kept as it is played, until `write_evaluation`: one that was killed
    goes on with what is missing. Of a mix `only` names the base environments to play; splits with none of
    them are left out.
    """
    tasks = config.eval_tasks if tasks is None else tasks
    trials = config.evaluation_trials if trials is None else trials
    greedy = config.eval_greedy if greedy is None else greedy
    if tasks < 1 or trials < 1:
        raise ValueError(f"tasks={tasks} and trials={trials} must be at least 1")
    for split in splits:
        if split not in SPLITS:
            raise ValueError(f"unknown split {split!r}; choose from {', '.join(SPLITS)}")
    mixes = _mixes(config.env, splits, only or [])
    about = {
        "env": config.env.name,
        **({"only": only} if only else {}),
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
    }
    kept = folder and KeptSplits(folder, about | _beneath(config, state))
    arrays: dict[str, np.ndarray] = {}
    summaries: dict[str, Any] = {}
    # Splits of the same base environments share one program: what differs is the ids it is given.
    players: dict[bool, tuple[MetaEnv, Any]] = {}
    for split, mix in mixes.items():
        unmet = split == "held_out" and bool(config.env.unmet)
        env, name = evaluation_env(mix, tasks, trials, split), split.replace("_", "-")
        part = kept and kept.get(split)
        if part:
            if primary():
                print(f"{name}: evaluated already", file=sys.stderr, flush=True)
        else:
            with phase(f"evaluating {env.num_envs} {name} tasks, {trials} trials each"):
                if unmet not in players:
                    players[unmet] = env, _player(agent, env, state, greedy, seed)
                part = _play(*players[unmet], state, env.evaluation_ids(split))
            if kept and primary():
                kept.keep(split, part)
        arrays |= {f"{split}_{name}": value for name, value in part.items()}
        summaries[split] = _summary(part, env, config)
    return arrays, {**about, "date": datetime.date.today().isoformat(), "splits": summaries}


def _mixes(env: EnvConfig, splits: Sequence[str], only: str | list[str]) -> dict[str, EnvConfig]:
    """What is played of each split, without those that have none of `only`."""
    wanted = [only] if isinstance(only, str) else only
    names = {split: [*env.played(split)] for split in splits}
    known = list(dict.fromkeys(name for each in names.values() for name in each))
    for name in wanted:
        if name not in known:
            raise InputError(
                f"only={name} is no base environment of splits={','.join(splits)}; use {', '.join(known)}"
            )
    kept = {split: [name for name in wanted if name in names[split]] for split in splits}
    return {split: env.with_only(split, kept[split]) for split in splits if kept[split] or not wanted}


def _beneath(config: TrainConfig, state: AgentState) -> dict[str, Any]:
    """What returns depend on beside what eval.json says: which agent it is, and its configuration."""
    own = {key: value for key, value in dataclasses.asdict(config).items() if key not in FREE_KEYS}
    return {
        "config": own,
        "agent": digest((state.params, state.observations, state.update)),
        "resetta": __version__,
    }


def evaluation_env(config: EnvConfig, tasks: int, trials: int, split: str) -> MetaEnv:
    """An environment with a row for every task; rounded up so that base environments get equal shares."""
    lanes = len(config.played(split))
    return build_env(config, -(-tasks // lanes) * lanes, trials, split)


def write_evaluation(
    run_dir: RunDir, arrays: Mapping[str, np.ndarray], summary: Mapping[str, Any], target: Path | None = None
) -> None:
    """eval.npz and eval.json of a run, each whole or not at all, in its directory or in `target`.

    Splits that were kept there go: they are in these files.
    """
    rows = run_dir.rows()
    target = target or run_dir.path
    write_npz(target / "eval.npz", **arrays)
    trained = {
        "train_seconds": rows[-1]["wall_time"] if rows else None,
        "trained_on": run_dir.trained_on() or None,
    }
    write_json(target / "eval.json", {**summary, **trained})
    forget_splits(target)


def summary_text(summary: Mapping[str, Any]) -> str:
    """The adaptation curve as a small table."""
    trained = summary["trained_trials"]
    lines = [f"return per trial (mean of {summary['tasks']} tasks x {summary['seeds']} seeds; 95 % interval)"]
    names = list(summary["splits"])
    table = [["trial", *(name.replace("_", "-") for name in names), "random"]]
    for k in range(summary["trials"]):
        parts = [summary["splits"][name] for name in names]
        means = [f"{p['mean'][k]:.3f} [{p['mean_low'][k]:.3f}, {p['mean_high'][k]:.3f}]" for p in parts]
        mark = " " if k < trained else "+"
        table.append([f"{k + 1:4}{mark}", *means, f"{parts[-1]['random'][k]:.3f}"])
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines += ["  ".join(map(str.ljust, row, widths)).rstrip() for row in table]
    if summary["trials"] > trained:
        lines.append(f"(+ beyond the {trained} trials it was trained for)")
    for name in names:
        for env, part in summary["splits"][name].get("by_environment", {}).items():
            lines.append(
                f"{name.replace('_', '-')}, {env}: {part['mean'][0]:.3f} [{part['mean_low'][0]:.3f}, "
                f"{part['mean_high'][0]:.3f}], random {part['random'][0]:.3f}{_scaled(part)}"
            )
        if "by_environment" in summary["splits"][name] and (scaled := _scaled(summary["splits"][name])):
            lines.append(f"{name.replace('_', '-')}, all in trial 1{scaled} (0: random, 1: the reference)")
        for part in summary["splits"][name]["totals"]:
            lines.append(
                f"{name.replace('_', '-')}: total of trials {part['first']} to {part['last']}: "
                f"{part['value']:.3f} [{part['low']:.3f}, {part['high']:.3f}]"
            )
        gain = summary["splits"][name].get("improvement")
        if gain:
            lines.append(
                f"{name.replace('_', '-')}: trial {gain['to_trial']} minus trial 1: {gain['mean']:+.3f} "
                f"[{gain['low']:+.3f}, {gain['high']:+.3f}]"
            )
    return "\n".join(lines)


def _scaled(part: Mapping[str, Any]) -> str:
    """Of the first trial, where the environment has a reference."""
    if not (curve := part.get("normalized")):
        return ""
    return f", normalised {curve['mean'][0]:.3f} [{curve['mean_low'][0]:.3f}, {curve['mean_high'][0]:.3f}]"


def _player(agent: Agent, env: MetaEnv, state: AgentState, greedy: bool, seed: int) -> Any:
    """The agents of all seeds and the random policy on given task ids, compiled once."""
    key = jax.random.key(seed)
    ids = jax.ShapeDtypeStruct((env.num_envs,), np.int32)
    if env.simulated:  # one program for both: what takes minutes is compiling it
        flag = jax.ShapeDtypeStruct((), np.bool_)

        def either(params: Any, observations: Any, ids: Any, random: Any) -> jax.Array:
            if state.update.shape == (1,):  # under vmap both branches of a cond run, resets at every step
                own, seen = jax.tree.map(lambda leaf: leaf[0], (params, observations))
                return evaluate(agent, env, own, seen, key, ids, greedy, random)[None]
            seeds = jax.vmap(lambda p, o: evaluate(agent, env, p, o, key, ids, greedy, random))
            return seeds(params, observations)

        program = jax.jit(either).lower(state.params, state.observations, ids, flag).compile()

        def play_both(params: Any, observations: Any, ids: np.ndarray) -> tuple[jax.Array, jax.Array]:
            agents = program(params, observations, ids, np.bool_(False))
            return agents, program(params, observations, ids, np.bool_(True))[0]

        return play_both

    def play(params: Any, observations: Any, ids: jax.Array) -> tuple[jax.Array, jax.Array]:
        seeds = jax.vmap(lambda p, o: evaluate(agent, env, p, o, key, ids, greedy))
        return seeds(params, observations), evaluate_random(env, key, ids)

    return jax.jit(play).lower(state.params, state.observations, ids).compile()


def _play(env: MetaEnv, player: Any, state: AgentState, ids: np.ndarray) -> dict[str, np.ndarray]:
    returns, random = map(np.asarray, player(state.params, state.observations, ids))
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
        "normalized": _normalized(part["normalized"]),
        "totals": totals(part["returns"], config.trials),
    }
    if len(summary["base_environments"]) > 1:
        rows = {name: part["envs"] == name for name in summary["base_environments"]}
        summary["by_environment"] = {
            name: {
                **_curve(part["returns"][:, own]),
                "random": part["random"][own].mean(0).tolist(),
                "normalized": _normalized(part["normalized"][:, own]),
            }
            for name, own in rows.items()
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


def _normalized(returns: np.ndarray) -> dict[str, list[float]] | None:
    return _curve(returns) if np.isfinite(returns).all() else None


def totals(returns: np.ndarray, trained: int) -> list[dict[str, Any]]:
    """The return of all trained trials together, and of as many beyond them as were played."""
    played = returns.shape[-1]
    ranges = [(1, min(trained, played)), (trained + 1, min(2 * trained, played))]
    return [
        {"first": first, "last": last, **dataclasses.asdict(total(returns, first, last))}
        for first, last in ranges
        if last > first
    ]


_CURVE = ("mean", "mean_low", "mean_high", "iqm", "low", "high")


def _curve(returns: np.ndarray) -> dict[str, list[float]]:
    curve = adaptation_curve(returns)
    return {name: getattr(curve, name).tolist() for name in _CURVE}
