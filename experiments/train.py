"""resetta train: jitted updates in a Python loop; logging, checkpoints and interruption live between them."""

import contextlib
import json
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from ..agents import Agent, AgentState
from .build import begin_again_seeds, build_agent, init_seeds, settings
from .checkpoint import Checkpoints
from .config import TrainConfig, train_config
from .devices import agent_shardings, mesh_name, on_one_device, place, run_mesh, whole
from .errors import Interrupted, TrainingFailed, catch_signals, input_errors
from .evaluate import evaluate_agent, evaluation_env, summary_text, write_evaluation
from .given_agents import load_initial, load_teacher, start_from
from .logs import Logs
from .processes import agreed, join_processes, open_together, primary, screen
from .render import film_run
from .report import write_report
from .restore import abstract_state, checkpointed, restore_state
from .run_dir import RunDir, check_run_dir


def run(raw: Mapping[str, Any]) -> None:
    """Train what the composed configuration describes, evaluate it, film it and write its report."""
    with input_errors():
        config = train_config(raw)
        check_run_dir(raw)
        if config.distributed:
            join_processes()
    with settings(config):
        with input_errors():
            agent = build_agent(config, load_teacher(config))
            initial = load_initial(config, agent)
            splits = _splits_to_evaluate(config)
            mesh = run_mesh(config.mesh, config.distributed, config.check_mesh)
            if config.mesh.sequence > 1:  # only the core knows whether it can share out its heads
                with jax.set_mesh(mesh):
                    jax.eval_shape(agent.update, jax.eval_shape(agent.init, jax.random.key(0)))
        with open_together(raw) as run_dir:
            run_dir.note_device(mesh_name(mesh))
            checkpoints = Checkpoints(run_dir.checkpoints, config.keep_checkpoints)
            newest = checkpoints.latest() or 0
            logs = Logs(
                run_dir,
                total_steps=config.updates * config.steps_per_update,
                start_step=newest * config.steps_per_update,
                seeds=config.seeds,
                tensorboard=config.tensorboard and primary(),
                wandb=config.wandb and primary(),
                console=screen(),
            )
            with contextlib.closing(checkpoints), logs:
                state = train(agent, config, mesh, run_dir, checkpoints, logs, initial)
                _finish(agent, config, on_one_device(state), run_dir, logs, splits)


def train(
    agent: Agent,
    config: TrainConfig,
    mesh: Mesh,
    run_dir: RunDir,
    checkpoints: Checkpoints,
    logs: Logs,
    initial: dict[str, Any] | None = None,
) -> AgentState:
    """Train from the newest checkpoint, or from the start, to the end; leaves `[S, ...]` on `mesh`.

    The start is fresh agents, with what `load_initial` gave. Raises `Interrupted` after a signal, with a
    checkpoint written, and `TrainingFailed` when `max_bad_updates` updates in a row were not finite; the last
    good checkpoint stays.
    """
    state, seconds = _start(agent, config, mesh, run_dir, checkpoints, logs, initial)
    done = int(np.asarray(state.update).min())
    if done >= config.updates:
        return state
    with logs.phase("compiling the update"):
        update = lowered_update(agent, config.seeds, mesh, state).compile()
    began = time.monotonic() - seconds
    with catch_signals() as received:
        for number in range(done + 1, config.updates + 1):
            state, metrics = update(state)
            row = _row(number, metrics, config, time.monotonic() - began)
            if number % config.log_every == 0 or number == config.updates:
                run_dir.append(row)
                logs.log(row)
            bad_in_a_row = max(row["bad_in_a_row"])
            if bad_in_a_row >= config.max_bad_updates:
                raise TrainingFailed(_failure(row, config, checkpoints))
            signum = agreed(received())
            due = number % config.checkpoint_every == 0 or number == config.updates or signum is not None
            # what a skipped update leaves may be poisoned: it never takes the place of a good checkpoint
            if due and bad_in_a_row == 0:
                run_dir.sync()
                checkpoints.save(number, checkpointed(state, config))
            if signum is not None:
                raise Interrupted(signum, run_dir.path)
    return state


def lowered_update(agent: Agent, seeds: int, mesh: Mesh, state: AgentState) -> Any:
    """One update on a mesh, lowered for (the shapes of) a state, which it takes over."""
    places = agent_shardings(mesh, state)
    update = over_seeds(agent, seeds)
    with jax.set_mesh(mesh):
        shared = jax.jit(
            update, in_shardings=(places,), out_shardings=(places, whole(mesh)), donate_argnums=0
        )
        return shared.lower(state)


def _start(
    agent: Agent,
    config: TrainConfig,
    mesh: Mesh,
    run_dir: RunDir,
    checkpoints: Checkpoints,
    logs: Logs,
    initial: dict[str, Any] | None,
) -> tuple[AgentState, float]:
    """The state to go on from, and the seconds of training behind it."""
    newest = checkpoints.latest()
    if newest is None:
        run_dir.truncate_metrics(0)
        with logs.phase(f"making {config.seeds} agent{'s' if config.seeds > 1 else ''}"):
            state = init_seeds(agent, config)
            if initial is not None:
                state = start_from(initial, state)
            return jax.block_until_ready(place(state, agent_shardings(mesh, state))), 0.0
    with logs.phase(f"resuming from update {newest}"), input_errors():
        state = restore_state(checkpoints, abstract_state(agent, config, mesh), config)
        if not config.checkpoint_environments:
            state = begin_again_seeds(agent, on_one_device(state))
            state = place(state, agent_shardings(mesh, state))
    run_dir.truncate_metrics(newest)
    rows = run_dir.rows()
    return state, float(rows[-1]["wall_time"]) if rows else 0.0


def _finish(
    agent: Agent,
    config: TrainConfig,
    state: AgentState,
    run_dir: RunDir,
    logs: Logs,
    splits: list[str],
) -> None:
    """Evaluation, film and report, each only where it is not there yet."""
    if _evaluated(run_dir, state):
        if run_dir.writes:
            print(f"nothing to do: {run_dir.path} is trained and evaluated; its report is {run_dir.report}")
        return
    if config.eval_tasks:
        # every process evaluates, so that none waits for another; the first one writes
        arrays, summary = evaluate_agent(
            agent, config, state, splits=splits, folder=run_dir.path, phase=logs.phase
        )
        if not run_dir.writes:
            return
        if config.render:
            with logs.phase("filming the first and last trial"):
                film_run(agent, config, state, run_dir)
        write_evaluation(run_dir, arrays, summary)
        print(summary_text(summary))
    if not run_dir.writes:
        return
    with logs.phase("writing the report"):
        report = write_report(run_dir.path)
    print(f"report: {report}")


def over_seeds(
    agent: Agent, seeds: int
) -> Callable[[AgentState], tuple[AgentState, Mapping[str, jax.Array]]]:
    """`agent.update` over a leading seed axis.

    One seed is not vmapped: under `vmap` both branches of a `cond` run, and resets would be paid for at
    every step.
    """
    if seeds > 1:
        return jax.vmap(agent.update)

    def alone(state: AgentState) -> tuple[AgentState, Mapping[str, jax.Array]]:
        first = jax.tree.map(lambda leaf: leaf[0], state)
        return jax.tree.map(lambda leaf: leaf[None], agent.update(first))

    return alone


def _row(
    number: int, metrics: Mapping[str, jax.Array], config: TrainConfig, seconds: float
) -> dict[str, Any]:
    """A line of metrics.jsonl: a list over seeds for every metric; null where nothing finished."""
    host = jax.device_get(dict(metrics))
    row: dict[str, Any] = {name: np.asarray(value).tolist() for name, value in host.items()}
    for name in row:
        if name.startswith("episode_return"):
            row[name] = [None if math.isnan(value) else value for value in row[name]]
    steps = number * config.steps_per_update
    return {
        "update": number,
        "env_steps": steps,
        "wall_time": seconds,
        "perf_steps_per_second": steps * config.seeds / max(seconds, 1e-9),
        **row,
    }


def _failure(row: Mapping[str, Any], config: TrainConfig, checkpoints: Checkpoints) -> str:
    worst = int(np.argmax(row["bad_in_a_row"]))
    newest = checkpoints.latest()
    kept = (
        "no checkpoint was written yet" if newest is None else f"the last good checkpoint is update {newest}"
    )
    return (
        f"the loss or its gradient was not finite in {config.max_bad_updates} updates in a row "
        f"(up to update {row['update']}, seed {config.seed + worst}), and each of them was skipped; {kept} "
        f"in {checkpoints.directory}; try a lower lr (now {config.lr}) in another run_dir"
    )


def _splits_to_evaluate(config: TrainConfig) -> list[str]:
    """Train and held out; built once now, so that a mistake in either is found before training."""
    splits = ["train", "held_out"]
    if config.eval_tasks:
        for split in splits:
            evaluation_env(config.env, config.eval_tasks, config.evaluation_trials, split)
    return splits


def _evaluated(run_dir: RunDir, state: AgentState) -> bool:
    try:
        summary = json.loads(run_dir.eval_json.read_text())
        return summary["update"] == int(np.asarray(state.update).max()) and run_dir.eval_npz.exists()
    except (OSError, ValueError, KeyError, TypeError):
        return False
