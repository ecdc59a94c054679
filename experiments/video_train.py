"""resetta video-train: optimiser steps in a Python loop over clips that are made ready ahead."""

import contextlib
import dataclasses
import json
import math
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ..cores.sharded import DATA
from ..video.clip import to_float
from ..video.data import VideoData
from ..video.learner import Learner, LearnerState, trained
from ..video.model import FrameModel
from ..video.prefetch import Prefetcher
from ..video.stream import Windows, read_windows
from .build import settings
from .checkpoint import Checkpoints
from .devices import learner_shardings, mesh_name, on_one_device, place, run_mesh, whole
from .errors import InputError, Interrupted, TrainingFailed, catch_signals, input_errors
from .logs import Logs, phase
from .report import write_report
from .run_dir import RunDir, check_run_dir
from .video_build import (
    SUMMED,
    Source,
    abstract_saved,
    beginning,
    build_data,
    build_learner,
    build_model,
    frozen_directory,
    restore_frozen,
)
from .video_config import VideoConfig, video_config
from .video_evaluate import evaluate_model, own_protocol, summary_text, write_evaluation
from .video_film import film_run

_SAMPLE_CLIPS = 64  # clips that the scale of an autoencoder's latents is measured on


def run(raw: Mapping[str, Any]) -> None:
    """Train what the composed configuration describes, evaluate it, film it and write its report."""
    with input_errors():
        config = video_config(raw)
        check_run_dir(raw)
    with settings(config):
        with input_errors(), phase("checking the data") as show:
            data = build_data(config.data, lambda done, total, name: show(done, total))
            model = build_model(config, data)
            learner = build_learner(config, model)
            source = Source.of(config, data)
            reused = _autoencoder_to_reuse(config, model)
            mesh = run_mesh(config.mesh, False, lambda mesh: None)
        with RunDir.open(raw) as run_dir:
            run_dir.note_device(mesh_name(mesh))
            for line in data.describe():
                print(line)
            frozen = _frozen(config, mesh, data, model, run_dir, reused)
            checkpoints = Checkpoints(run_dir.checkpoints, config.keep_checkpoints)
            logs = _logs(config, run_dir, config.total_steps, checkpoints.latest() or 0)
            with contextlib.closing(checkpoints), logs:
                state = fit(learner, frozen, source, config, mesh, run_dir, checkpoints, logs)
                variables = {"params": on_one_device(trained(state)), "frozen": frozen}
                _finish(model, data, variables, config, run_dir, logs)


def fit(
    learner: Learner,
    frozen: Any,
    source: Source,
    config: VideoConfig,
    mesh: Mesh,
    run_dir: RunDir,
    checkpoints: Checkpoints,
    logs: Logs,
) -> LearnerState:
    """Train from the newest checkpoint, or from the start, to the learner's `total_steps`; on `mesh`.

    Raises `Interrupted` after a signal, with a checkpoint written, and `TrainingFailed` when
    `max_bad_updates` steps in a row were not finite; the last good checkpoint stays.
    """
    done, saved, seconds = _start(learner, source, mesh, run_dir, checkpoints, logs)
    state, cursor = saved["state"], saved["cursor"]
    since = _Since(saved["since"])
    total = learner.total_steps
    if done >= total:
        return state
    began = time.monotonic() - seconds
    rows = NamedSharding(mesh, P(None, DATA))  # of clips [T, B, ...]
    with (
        Prefetcher(source.next, cursor, depth=config.prefetch, put=lambda clip: place(clip, rows)) as clips,
        catch_signals() as received,
    ):
        update: Any = None
        for number, (clip, cursor) in zip(range(done + 1, total + 1), clips, strict=False):
            if update is None:
                with logs.phase("compiling a step"), jax.set_mesh(mesh):
                    frozen = place(frozen, whole(mesh))
                    places = learner_shardings(mesh, state), whole(mesh)
                    step = jax.jit(learner.update, out_shardings=places, donate_argnums=0)
                    update = step.lower(state, frozen, clip).compile()
            state, metrics = update(state, frozen, clip)
            since.add(metrics)
            bad_in_a_row = 0
            if number % config.log_every == 0 or number == total:
                row = {
                    "step": number,
                    "wall_time": time.monotonic() - began,
                    **since.row(),
                    "perf_queue_fill": clips.fill,
                }
                row["perf_frames_per_second"] = (
                    number * math.prod(clip.frames.shape[:2]) / max(row["wall_time"], 1e-9)
                )
                run_dir.append(row)
                logs.log(row)
                bad_in_a_row = int(state.bad_in_a_row)
                if bad_in_a_row >= config.max_bad_updates:
                    raise TrainingFailed(_failure(number, config, checkpoints))
            signum = received()
            due = number % config.checkpoint_every == 0 or number == total or signum is not None
            # what a skipped step leaves may be poisoned: it never takes the place of a good checkpoint
            if due and int(state.bad_in_a_row) == 0:
                run_dir.sync()
                saved = {"state": state, "cursor": cursor, "since": since.array()}
                checkpoints.save(number, saved)
            if signum is not None:
                raise Interrupted(signum, run_dir.path, "video-train")
    return state


class _Since:
    """Sums since the last row of metrics: saved with a checkpoint, so that a resumed row is the same."""

    def __init__(self, saved: Any):
        self._sums = np.asarray(saved, np.float32).copy()  # the names' sums, and how many were finite
        self._waiting: list[Mapping[str, Any]] = []  # still on the device: nothing waits for them here

    def add(self, metrics: Mapping[str, Any]) -> None:
        self._waiting.append(metrics)

    def array(self) -> np.ndarray:
        for metrics in jax.device_get(self._waiting):
            values = np.array([metrics[name] for name in SUMMED], np.float32)
            if np.isfinite(values).all():
                self._sums[:-1] += values
                self._sums[-1] += 1
        self._waiting = []
        return self._sums

    def row(self) -> dict[str, float]:
        """Means, NaN where no step was finite; then begins anew."""
        sums = self.array()
        means = sums[:-1] / sums[-1] if sums[-1] else np.full(len(SUMMED), np.nan)
        self._sums = np.zeros_like(sums)
        return {name: float(value) for name, value in zip(SUMMED, means, strict=True)}


def _start(
    learner: Learner, source: Source, mesh: Mesh, run_dir: RunDir, checkpoints: Checkpoints, logs: Logs
) -> tuple[int, dict[str, Any], float]:
    """The steps done, what a checkpoint holds, and the seconds of training behind it."""
    newest = checkpoints.latest()
    if newest is None:
        run_dir.truncate_metrics(0)
        with logs.phase("making the model"):
            state = jax.jit(learner.init)()
            state = jax.block_until_ready(place(state, learner_shardings(mesh, state)))
        return 0, {"state": state, **beginning(source)}, 0.0
    with logs.phase(f"resuming from step {newest}"), input_errors():
        saved = checkpoints.restore(abstract_saved(learner, source, mesh))
    saved |= {name: jax.tree.map(np.asarray, saved[name]) for name in ("cursor", "since")}
    run_dir.truncate_metrics(newest)
    rows = run_dir.rows()
    return newest, saved, float(rows[-1]["wall_time"]) if rows else 0.0


def _failure(step: int, config: VideoConfig, checkpoints: Checkpoints) -> str:
    newest = checkpoints.latest()
    kept = "no checkpoint was written yet" if newest is None else f"the last good checkpoint is step {newest}"
    return (
        f"the loss or its gradient was not finite in the last {config.max_bad_updates} steps or more (up to "
        f"step {step}), and each of them was skipped; {kept} in {checkpoints.directory}; "
        f"try a lower lr (now {config.lr}) in another run_dir"
    )


def _logs(config: VideoConfig, run_dir: RunDir, total: int, start: int) -> Logs:
    return Logs(
        run_dir, total_steps=total, start_step=start, tensorboard=config.tensorboard, wandb=config.wandb
    )


def _autoencoder_to_reuse(config: VideoConfig, model: FrameModel) -> Any:
    """The frozen autoencoder of `autoencoder.path`, None where one is to be trained."""
    if config.autoencoder.path is None:
        return None
    if getattr(model, "autoencoder", None) is None:
        raise InputError(
            f"autoencoder.path={config.autoencoder.path} is of no use to model={config.model['name']}, "
            "which has no autoencoder; leave it out"
        )
    return restore_frozen(model, RunDir.read(config.autoencoder.path))


def _frozen(
    config: VideoConfig, mesh: Mesh, data: VideoData, model: FrameModel, run_dir: RunDir, reused: Any
) -> Any:
    """The frozen part of the model: trained first, in a directory of its own, where there is one."""
    autoencoder: Any = getattr(model, "autoencoder", None)
    if autoencoder is None:
        return ()
    kept = Checkpoints(frozen_directory(run_dir), 1)
    with contextlib.closing(kept):
        if kept.latest() is not None:
            return restore_frozen(model, run_dir)
        if reused is None:
            reused = _train_autoencoder(config, mesh, data, autoencoder, run_dir)
        kept.save(0, reused)
        return reused


def _train_autoencoder(
    config: VideoConfig, mesh: Mesh, data: VideoData, autoencoder: Any, run_dir: RunDir
) -> Any:
    steps = config.autoencoder.steps or config.total_steps
    config = dataclasses.replace(
        config, total_steps=steps, lr=config.autoencoder.lr, chunk=None, tensorboard=False, wandb=False
    )
    own = RunDir(run_dir.path / "autoencoder", run_dir.config, run_dir.resumed)
    own.path.mkdir(exist_ok=True)
    checkpoints = Checkpoints(own.checkpoints, config.keep_checkpoints)
    with contextlib.closing(checkpoints), contextlib.closing(own):
        logs = _logs(config, own, steps, checkpoints.latest() or 0)
        with logs:
            learner = build_learner(config, autoencoder)
            state = fit(learner, (), Source.of(config, data), config, mesh, own, checkpoints, logs)
            ids, starts = Windows(data, "train", _SAMPLE_CLIPS, 1, config.seed).at(0)
            frames = to_float(read_windows(data, "train", ids, starts, 1).frames[0])
            with logs.phase("measuring the latents' scale"):
                return jax.block_until_ready(
                    jax.jit(autoencoder.freeze)(on_one_device(trained(state)), frames)
                )


def _finish(
    model: FrameModel,
    data: VideoData,
    variables: Any,
    config: VideoConfig,
    run_dir: RunDir,
    logs: Logs,
) -> None:
    """Evaluation, film and report, each only where it is not there yet."""
    if _evaluated(run_dir, config):
        print(f"nothing to do: {run_dir.path} is trained and evaluated; its report is {run_dir.report}")
        return
    if config.eval_clips:
        protocol = own_protocol(config, data)
        result = evaluate_model(model, data, variables, protocol, config.batch, logs.phase)
        if config.render:
            with logs.phase("filming held-out clips"):
                film_run(model, data, variables, run_dir, context=config.context, frames=config.frames)
        write_evaluation(run_dir, config, result)
        print(summary_text(result.summary))
    with logs.phase("writing the report"):
        report = write_report(run_dir.path)
    print(f"report: {report}")


def _evaluated(run_dir: RunDir, config: VideoConfig) -> bool:
    try:
        return json.loads(run_dir.eval_json.read_text())["step"] == config.total_steps
    except (OSError, ValueError, KeyError, TypeError):
        return False
