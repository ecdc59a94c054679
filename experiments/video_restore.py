"""A trained video model from its run directory."""

import contextlib
from collections.abc import Mapping
from typing import Any

import jax

from ..video.data import VideoData
from ..video.learner import trained
from ..video.model import FrameModel
from .build import settings
from .checkpoint import Checkpoints
from .errors import InputError, input_errors
from .logs import phase
from .run_dir import RunDir
from .video_build import Source, abstract_saved, build_data, build_learner, build_model, restore_frozen
from .video_config import VideoConfig, video_config


def restore_video_run(
    raw: Mapping[str, Any],
) -> tuple[RunDir, VideoConfig, FrameModel, VideoData, dict[str, Any]]:
    """The run in `raw["run_dir"]`: its configuration, model, data, and newest (or `step`'s) variables.

    `raw` is the configuration of a command that looks at a run. Its `data` and `model` are options that
    differ from the run's; those of the model must leave its parameters as they are.
    """
    run_dir = RunDir.read(raw["run_dir"])
    with input_errors():
        changed = {"data": {**run_dir.config["data"], **raw["data"]}, "device": raw["device"]}
        config = video_config({**run_dir.config, **changed})
    with settings(config):
        with input_errors(), phase("checking the data") as show:
            data = build_data(config.data, lambda done, total, name: show(done, total))
        with input_errors():
            learner = build_learner(config, build_model(config, data))
            model = build_model(config, data, **raw["model"])
            same_parameters(learner.model, model, raw["model"])
            if not run_dir.checkpoints.is_dir():
                raise InputError(f"{run_dir.path} holds no checkpoint yet; train it first")
            with contextlib.closing(Checkpoints(run_dir.checkpoints)) as checkpoints:
                state = checkpoints.restore(
                    abstract_saved(learner, Source.of(config, data)), raw.get("step")
                )["state"]
            frozen = restore_frozen(model, run_dir)
    return run_dir, config, model, data, {"params": trained(state), "frozen": frozen}


def same_parameters(trained: FrameModel, asked: FrameModel, options: Mapping[str, Any]) -> None:
    """Raise `InputError` where a model evaluated with other options has parameters that were not trained."""
    if not options:
        return

    def shapes(model: FrameModel) -> Any:
        own: Any = getattr(model, "autoencoder", None)
        inits = [model.init] if own is None else [model.init, own.init]
        return [jax.tree.map(lambda leaf: leaf.shape, jax.eval_shape(f, jax.random.key(0))) for f in inits]

    if shapes(trained) != shapes(asked):
        given = " ".join(f"model.{name}={value}" for name, value in options.items())
        raise InputError(f"{given} changes the parameters of the run's model; train a model with it first")
