"""resetta bench recall: what a trained agent's memory knows, and what its decisions rest on."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ...agents import Agent, AgentState, watch
from ...cores.base import numbers
from ...cores.timescales import timescales
from ...envs import MetaEnv
from ..build import seed_keys, settings
from ..config import DEVICES, TrainConfig, check_choice
from ..errors import input_errors
from ..evaluate import evaluation_env
from ..logs import phase
from ..plots import save_png
from ..pretrained_agents import find_run
from ..probes.knowledge import Known, of_progress, of_tasks
from ..probes.targets import Target, task_targets
from ..report import write_report
from ..restore import restore_run
from ..run_dir import RunDir, write_npz
from . import recall_gradients, recall_pictures, recall_wipes
from .cases import check_counts, read_one
from .recall_interval import interval
from .recall_page import figure, of_part, table
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
    wipe_step: int | None
    decisions: int
    pictures: int
    entries: int
    greedy: bool | None
    seed: int
    out: str | None
    device: str

    def __post_init__(self) -> None:
        check_choice("device", self.device, DEVICES)
        if self.wipe is not None:
            check_counts("wipe", self.wipe)
        for name, least in (
            ("tasks", 8),
            ("trials", 1),
            ("decisions", 1),
            ("entries", 1),
            ("wipe_step", 0),
            ("pictures", 0),
        ):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name}={value} must be at least {least}")


_NEVER = -1, 0  # trial and step at which a memory is emptied


def run(configs: Sequence[Mapping[str, Any]]) -> None:
    """Look into one run's agent and write `<out>/recall.json`, the table, the figure and the run's report."""
    own = read_one(configs, RecallSettings, "look into one run at a time")
    raw = dataclasses.asdict(own)
    with input_errors():
        find_run(raw)
        RunDir.read(raw["run_dir"]).check_kind("bench recall", video=False)
    with phase("making the agent"):
        run_dir, config, agent, state = restore_run(raw)
    with settings(config):
        with input_errors():
            rows, arrays = look_into(agent, config, state, own)
        result = describe(
            "recall",
            {**raw, "trained_trials": config.trials},
            command=configs[0]["command"],
            seeds=range(config.seed, config.seed + config.seeds),
            configs={str(config.core["name"]): run_dir.config},
            rows=rows,
        )
    out = Path(own.out) if own.out else run_dir.path
    if arrays:
        write_npz(out / "recall_frames.npz", **arrays)
        (row,) = of_part(result, "pictures")
        save_png(recall_pictures.figure(row, arrays), out / "recall_frames.png", dpi=110)
    save(result, out, table(result), figure(result))
    if out == run_dir.path:
        print(f"report: {write_report(out)}")


def look_into(
    agent: Agent, config: TrainConfig, state: AgentState, own: RecallSettings
) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """The rows of a result, each of which says in `part` what it is of, and what pictures are made of."""
    trials = config.evaluation_trials if own.trials is None else own.trials
    last = min(config.trials, trials)
    wipes = own.wipe or sorted({last // 2 + 1, last})
    if max(wipes) > trials:
        raise ValueError(
            f"wipe={wipes} goes beyond the {trials} trials that are played; give trials={max(wipes)}"
        )
    env = evaluation_env(config.env, own.tasks, trials, "held_out")
    times = _times(env)
    player = _player(agent, config, state, own, env, times)
    held_out, watched = env.evaluation_ids("held_out"), {}
    for split in ("train", "held_out"):
        with phase(f"playing {env.num_envs} {split.replace('_', '-')} tasks, {trials} trials each"):
            watched[split] = player(env.evaluation_ids(split), _NEVER)
    kept, rows = watched["held_out"], []
    with phase("reading the memory"):
        rows += _readings(env, watched)
        rows += _readings_over_time(env, watched, times)
    for trial in wipes:
        with phase(f"emptying the memory before trial {trial}"):
            rows.append(recall_wipes.at_a_start(kept, player(held_out, (trial - 1, 0)), trial))
    step = recall_wipes.middle(kept.lengths, wipes[-1]) if own.wipe_step is None else own.wipe_step
    with phase(f"emptying the memory before step {step + 1} of trial {wipes[-1]}"):
        emptied = player(held_out, (wipes[-1] - 1, step))
        rows.append(recall_wipes.in_the_midst(kept, emptied, wipes[-1], step, env.max_steps))
    rows += _timescales(agent, config, state)
    with phase("tracing decisions back to their inputs"):
        traced_rows = _traced(env, own)
        pictured = recall_pictures.choose(len(traced_rows), own.pictures)
        traced = recall_gradients.trace(agent, state, env, kept, traced_rows, last, pictured)
        rows.append(recall_gradients.summary(traced, kept.trial, last))
    if traced.maps is None:
        return rows, {}
    row, arrays = recall_pictures.pictures(traced, kept, traced_rows, pictured)
    return [*rows, row], arrays


def _times(env: MetaEnv) -> np.ndarray:
    """Steps at which the memory is read: the first, and then ever further apart."""
    steps = env.trials * env.max_steps
    return np.unique(np.append(0, 2 ** np.arange(steps.bit_length() - 1) - 1))


def _player(
    agent: Agent,
    config: TrainConfig,
    state: AgentState,
    own: RecallSettings,
    env: MetaEnv,
    times: np.ndarray,
) -> Callable[[np.ndarray, tuple[int, int]], Any]:
    """The agents of all seeds, watched on given tasks; compiled once. Leaves are numpy, `[seed, ...]`."""
    key = jax.random.key(own.seed)
    size = jax.eval_shape(lambda: numbers(agent.initial_carry(1), 1)).shape[1]
    entries = np.sort(np.random.default_rng(own.seed).permutation(size)[: own.entries])
    rows = _traced(env, own)
    greedy = config.eval_greedy if own.greedy is None else own.greedy

    @jax.jit
    def play(params: Any, observations: Any, ids: jax.Array, wipe: jax.Array) -> Any:
        given = key, ids, wipe, entries, rows, times, greedy
        return jax.vmap(lambda p, o: watch(agent, env, p, o, *given))(params, observations)

    return lambda ids, wipe: jax.device_get(play(state.params, state.observations, ids, np.array(wipe)))


def _traced(env: MetaEnv, own: RecallSettings) -> np.ndarray:
    """The rows whose decisions are traced: evenly spaced, so that every base environment has its share."""
    return np.unique(np.linspace(0, env.num_envs - 1, min(own.decisions, env.num_envs)).astype(int))


def _readings(env: MetaEnv, watched: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for everything that can be read, by trial: from a step drawn from each."""
    rows = []
    for prefix, moments, targets in _by_lane(env, watched, lambda each: each.moments):
        by_seed = [[*of_tasks(pair, targets), *of_progress(pair)] for pair in moments]
        rows += [_reading("reading", prefix, same) for same in zip(*by_seed, strict=True)]
    return rows


def _readings_over_time(env: MetaEnv, watched: Mapping[str, Any], times: np.ndarray) -> list[dict[str, Any]]:
    """What differs among tasks, read after given steps of the meta-episode that all tasks lasted for."""
    shortest = min(int(each.lengths.sum(-1).min()) for each in watched.values())
    reached = times < shortest
    rows = []
    for prefix, moments, targets in _by_lane(env, watched, lambda each: each.at_times):
        whole = [[target for target in found if not target.of] for found in targets]
        kept = jax.tree.map(lambda x: x[:, reached], moments)
        by_seed = [of_tasks(pair, whole) for pair in kept]
        for same in zip(*by_seed, strict=True):
            rows.append({**_reading("over time", prefix, same), "steps": (times[reached] + 1).tolist()})
    return rows


def _by_lane(
    env: MetaEnv, watched: Mapping[str, Any], which: Callable[[Any], Any]
) -> Iterator[tuple[str, list[list[Any]], list[list[Target]]]]:
    """For each lane what its names begin with, its moments by seed, and its targets: (fitted to, judged)."""
    both = [watched[split] for split in ("train", "held_out")]
    for lane, here in zip(env.lanes, env.rows, strict=True):
        ids = [env.evaluation_ids(split)[here] for split in ("train", "held_out")]
        targets = [task_targets(lane, of) for of in ids]
        shared = {(t.name, t.of) for t in targets[0]} & {(t.name, t.of) for t in targets[1]}
        targets = [[t for t in found if (t.name, t.of) in shared] for found in targets]
        moments = [
            [jax.tree.map(lambda x, at=(seed, here): x[at], which(each)) for each in both]
            for seed in range(len(both[0].returns))
        ]
        yield f"{lane.family.base.name}: " if len(env.lanes) > 1 else "", moments, targets


def _reading(part: str, prefix: str, seeds: Sequence[Known]) -> dict[str, Any]:
    memory, alone = (np.stack([getattr(known, name) for known in seeds]) for name in ("memory", "input"))
    return {
        "part": part,
        "label": prefix + seeds[0].name,
        "of": seeds[0].of and prefix + seeds[0].of,
        "measure": seeds[0].measure,
        "memory": [interval(memory[..., k]) for k in range(memory.shape[-1])],
        "input": [interval(alone[..., k]) for k in range(alone.shape[-1])],
        "gain": [interval(memory[..., k] - alone[..., k]) for k in range(memory.shape[-1])],
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
