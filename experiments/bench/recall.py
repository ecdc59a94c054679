"""resetta bench recall: what a trained agent's memory knows, and what its decisions rest on."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ...agents import Agent, AgentState, input_gradients, watch
from ...cores.base import numbers
from ...cores.timescales import timescales
from ...envs import MetaEnv
from ..build import seed_keys, settings
from ..config import DEVICES, TrainConfig, check_choice
from ..errors import input_errors
from ..evaluate import evaluation_env
from ..logs import phase
from ..pretrained_agents import find_run
from ..probes.knowledge import Known, of_progress, of_tasks
from ..probes.targets import task_targets
from ..report import write_report
from ..restore import restore_run
from ..run_dir import RunDir
from ..stats import mean, stratified_bootstrap
from .cases import check_counts, read_one
from .recall_page import figure, table
from .results import describe, save


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecallSettings:
    """configs/bench/recall.yaml says what each key means."""

    run_dir: str | None
    pretrained: str | None
    step: int | None
    tasks: int
    trials: int | None
    wipe: list[int] | None
    decisions: int
    entries: int
    greedy: bool | None
    seed: int
    out: str | None
    device: str

    def __post_init__(self) -> None:
        check_choice("device", self.device, DEVICES)
        if self.wipe is not None:
            check_counts("wipe", self.wipe)
        for name, least in (("tasks", 8), ("trials", 1), ("decisions", 1), ("entries", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name}={value} must be at least {least}")


def run(configs: Sequence[Mapping[str, Any]]) -> None:
    """Look into one run's agent and write `<out>/recall.json`, the table, the figure and the run's report."""
    own = read_one(configs, RecallSettings, "look into one run at a time")
    raw = dataclasses.asdict(own)
    with input_errors():
        find_run(raw)
        RunDir.read(raw["run_dir"]).check_kind("bench recall", video=False)
    run_dir, config, agent, state = restore_run(raw)
    with settings(config):
        with input_errors():
            rows = look_into(agent, config, state, own)
        result = describe(
            "recall",
            {**raw, "trained_trials": config.trials},
            command=configs[0]["command"],
            seeds=range(config.seed, config.seed + config.seeds),
            configs={str(config.core["name"]): run_dir.config},
            rows=rows,
        )
    out = Path(own.out) if own.out else run_dir.path
    save(result, out, table(result), figure(result))
    if out == run_dir.path:
        print(f"report: {write_report(out)}")


def look_into(
    agent: Agent, config: TrainConfig, state: AgentState, own: RecallSettings
) -> list[dict[str, Any]]:
    """The rows of a result; each says in `part` what it is of."""
    trials = config.evaluation_trials if own.trials is None else own.trials
    wipes = own.wipe or sorted({min(config.trials, trials) // 2 + 1, min(config.trials, trials)})
    if max(wipes) > trials:
        raise ValueError(
            f"wipe={wipes} goes beyond the {trials} trials that are played; give trials={max(wipes)}"
        )
    env = evaluation_env(config, own.tasks, trials, "held_out")
    player = _player(agent, config, state, own, env)
    watched = {}
    for split in ("train", "held_out"):
        with phase(f"playing {env.num_envs} {split.replace('_', '-')} tasks, {trials} trials each"):
            watched[split] = player(env.evaluation_ids(split), -1)
    rows = []
    with phase("reading the memory"):
        rows += _readings(env, watched)
    last = min(config.trials, trials)
    for trial in wipes:
        with phase(f"emptying the memory before trial {trial}"):
            emptied = player(env.evaluation_ids("held_out"), trial - 1)
        rows.append(_wiped(watched["held_out"].returns, emptied.returns, trial))
    rows += _timescales(agent, config, state)
    with phase("tracing decisions back to their inputs"):
        rows.append(_gradients(agent, state, env, watched["held_out"], own, last))
    return rows


def _player(
    agent: Agent, config: TrainConfig, state: AgentState, own: RecallSettings, env: MetaEnv
) -> Callable[[np.ndarray, int], Any]:
    """The agents of all seeds, watched on given tasks; compiled once. Leaves are numpy, `[seed, ...]`."""
    key = jax.random.key(own.seed)
    size = jax.eval_shape(lambda: numbers(agent.initial_carry(1), 1)).shape[1]
    entries = np.sort(np.random.default_rng(own.seed).permutation(size)[: own.entries])
    rows = _traced(env, own)
    greedy = config.eval_greedy if own.greedy is None else own.greedy

    @jax.jit
    def play(params: Any, observations: Any, ids: jax.Array, wipe: jax.Array) -> Any:
        seeds = jax.vmap(lambda p, o: watch(agent, env, p, o, key, ids, wipe, entries, rows, greedy))
        return seeds(params, observations)

    return lambda ids, wipe: jax.device_get(play(state.params, state.observations, ids, np.int32(wipe)))


def _traced(env: MetaEnv, own: RecallSettings) -> np.ndarray:
    """The rows whose decisions are traced: evenly spaced, so that every base environment has its share."""
    return np.unique(np.linspace(0, env.num_envs - 1, min(own.decisions, env.num_envs)).astype(int))


def _readings(env: MetaEnv, watched: Mapping[str, Any]) -> list[dict[str, Any]]:
    both = watched["train"], watched["held_out"]
    rows, start = [], 0
    for lane in env.lanes:
        here = slice(start, start + lane.count)
        start += lane.count
        ids = [env.evaluation_ids(split)[here] for split in ("train", "held_out")]
        targets = [task_targets(lane, of) for of in ids]
        shared = {(t.name, t.of) for t in targets[0]} & {(t.name, t.of) for t in targets[1]}
        targets = [[t for t in found if (t.name, t.of) in shared] for found in targets]
        by_seed = []
        for seed in range(len(both[0].returns)):
            moments = [jax.tree.map(lambda x, at=(seed, here): x[at], each.moments) for each in both]
            by_seed.append([*of_tasks(moments, targets), *of_progress(moments)])
        prefix = f"{lane.family.base.name}: " if len(env.lanes) > 1 else ""
        rows += [_reading(prefix, same) for same in zip(*by_seed, strict=True)]
    return rows


def _reading(prefix: str, seeds: Sequence[Known]) -> dict[str, Any]:
    memory, alone = (np.stack([getattr(known, name) for known in seeds]) for name in ("memory", "input"))
    return {
        "part": "reading",
        "label": prefix + seeds[0].name,
        "of": seeds[0].of and prefix + seeds[0].of,
        "measure": seeds[0].measure,
        "memory": [_interval(memory[..., k]) for k in range(memory.shape[-1])],
        "input": [_interval(alone[..., k]) for k in range(alone.shape[-1])],
        "gain": [_interval(memory[..., k] - alone[..., k]) for k in range(memory.shape[-1])],
    }


def _wiped(kept: np.ndarray, emptied: np.ndarray, trial: int) -> dict[str, Any]:
    """Returns `[seed, task, trial]` with the memory kept and emptied, the same episodes: paired."""
    k = trial - 1
    after = {"next": emptied[..., trial] - kept[..., trial]} if trial < kept.shape[-1] else {}
    differences = {
        "lost": emptied[..., k] - kept[..., k],
        **after,
        "total": (emptied - kept)[..., k:].sum(-1),
        "against_first": emptied[..., k] - kept[..., 0],
    }
    return {
        "part": "wipe",
        "trial": trial,
        "kept": [_interval(kept[..., i]) for i in range(kept.shape[-1])],
        "emptied": [_interval(emptied[..., i]) for i in range(kept.shape[-1])],
        **{name: _interval(value) for name, value in differences.items()},
    }


def _timescales(agent: Agent, config: TrainConfig, state: AgentState) -> list[dict[str, Any]]:
    """Steps to 1/e of every state, sorted, before training (the same seeds, fresh) and after."""
    core = agent.network.core
    init = jax.jit(lambda key: agent.init(key).params["params"].get("core", {}))
    rows = []
    for seed, key in enumerate(seed_keys(config)):
        trained = jax.tree.map(lambda x, s=seed: x[s], state.params)["params"].get("core", {})
        after = timescales(core, trained)
        if not after:
            return []
        before = timescales(core, init(key))
        for part, values in after.items():
            for layer, (old, new) in enumerate(
                zip(np.asarray(before[part]), np.asarray(values), strict=True)
            ):
                rows.append(
                    {
                        "part": "timescales",
                        "label": f"{part}, layer {layer + 1}",
                        "seed": config.seed + seed,
                        "before": np.sort(old),
                        "after": np.sort(new),
                    }
                )
    return rows


def _gradients(
    agent: Agent, state: AgentState, env: MetaEnv, watched: Any, own: RecallSettings, last: int
) -> dict[str, Any]:
    """Gradients by lag, and the shares of the present, this trial, the one before and earlier ones.

    The decisions are the chosen moments of trial `last`. Every row begins with the first steps of another
    row, so that it holds a reset, across which every gradient must be 0.
    """
    trace = jax.jit(lambda *given: input_gradients(agent, *given))
    rows = _traced(env, own)
    before = env.max_steps
    found = []
    for seed in range(len(watched.returns)):
        params, observations = (
            jax.tree.map(lambda x, s=seed: x[s], y) for y in (state.params, state.observations)
        )
        inputs, actions = jax.tree.map(
            lambda x, s=seed: np.concatenate([np.roll(x[s, :before], 1, axis=1), x[s]]),
            (watched.inputs, watched.actions),
        )
        at = watched.moments.at[seed, rows, last - 1]
        found.append([np.asarray(g) for g in trace(params, observations, inputs, actions, at + before)])
    across = max(float(g[:before].max()) for pair in found for g in pair)
    at, trial = watched.moments.at[:, rows, last - 1], watched.trial
    summary = {"part": "gradients", "trial": last, "decisions": len(rows), "across_reset": across}
    for which, name in enumerate(("value", "action")):
        own_part = np.stack([pair[which][before:] for pair in found])  # [S, T, R]
        summary[name] = {"lags": _by_lag(own_part, at), "shares": _shares(own_part, at, trial, last - 1)}
    return summary


def _by_lag(found: np.ndarray, at: np.ndarray) -> list[dict[str, float]]:
    """The mean over decisions for each lag that half of all tasks' decisions reach."""
    reach = int(np.median(at.min(0)))
    lags = []
    for lag in range(reach + 1):
        reached = (at >= lag).all(0)
        values = np.take_along_axis(found, np.maximum(at - lag, 0)[:, None], 1)[:, 0]
        lags.append({"lag": lag, **_interval(values[:, reached])})
    return lags


def _shares(found: np.ndarray, at: np.ndarray, trial: np.ndarray, last: int) -> dict[str, dict[str, float]]:
    """Of each decision's summed gradients; every input after it has none."""
    step = np.arange(found.shape[1])[None, :, None]
    earlier = step < at[:, None]
    groups = {
        "present": step == at[:, None],
        "this trial": earlier & (trial == last),
        "trial before": earlier & (trial == last - 1),
        "earlier trials": earlier & (trial < last - 1),
    }
    total = np.maximum(found.sum(1), 1e-30)
    return {name: _interval((found * mask).sum(1) / total) for name, mask in groups.items()}


def _interval(values: np.ndarray) -> dict[str, float]:
    """The mean of `[seed, task]` with its interval; NaN where there is nothing to tell apart."""
    if not np.isfinite(values).all():
        return dict.fromkeys(("value", "low", "high"), float("nan"))
    return dataclasses.asdict(stratified_bootstrap(values, mean, 1000, shared_runs=True))
