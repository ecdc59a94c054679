"""From a configuration to the data, the model and the learner of a video run; nothing is compiled yet."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ..video.data import VideoData, make_data
from ..video.learner import Learner
from ..video.model import FrameModel
from ..video.models import make_model
from ..video.stream import Streams, Windows, read_windows
from .checkpoint import Checkpoints
from .devices import abstract, learner_shardings
from .errors import InputError
from .run_dir import RunDir
from .video_config import VideoConfig

SUMMED = ("loss", "gradient_norm", "lr")  # of every step, averaged over the steps of a row of metrics
Report = Callable[[int, int, str], None]  # (clips looked at, clips there are, the clip's name)


def build_data(options: Mapping[str, Any], report: Report | None = None) -> VideoData:
    """The data of a run; every file is checked here. `ValueError`, one sentence, for what cannot be used."""
    options = {key: value for key, value in options.items() if key != "target"}
    if options["name"] == "folder":
        options["report"] = report
    return make_data(options.pop("name"), **options)


def build_model(config: VideoConfig, data: VideoData, **changes: Any) -> FrameModel:
    """The model of a run; `changes` are options that differ from the configuration's."""
    options = {key: value for key, value in config.model.items() if key != "target"} | changes
    dtype = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}[config.precision]
    return make_model(options, size=data.size, channels=data.channels, actions=data.actions, dtype=dtype)


def build_learner(config: VideoConfig, model: FrameModel) -> Learner:
    """What trains the model."""
    return Learner(
        model,
        batch=config.batch,
        total_steps=config.total_steps,
        seed=config.seed,
        lr=config.lr,
        lr_final=config.lr_final,
        warmup=config.warmup,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        ema=config.ema,
        accumulate=config.accumulate,
        stream=config.chunk is not None,
    )


@dataclasses.dataclass(frozen=True)
class Source:
    """The clips of every step, as a function of a cursor that is saved with the checkpoint."""

    data: VideoData
    clips: Any  # Windows or Streams
    frames: int

    @classmethod
    def of(cls, config: VideoConfig, data: VideoData) -> "Source":
        """Whole clips of `frames`, or with `chunk` pieces of streams."""
        if config.chunk is None:
            return cls(data, Windows(data, "train", config.batch, config.frames, config.seed), config.frames)
        streams = Streams(
            data, "train", config.batch, config.chunk, config.seed, length=_stream_length(config, data)
        )
        return cls(data, streams, config.chunk)

    def first(self) -> Any:
        """The cursor that training begins with: arrays."""
        if isinstance(self.clips, Windows):
            return np.zeros((), np.int32)
        return jax.tree.map(lambda leaf: np.asarray(leaf, np.int32), self.clips.first())

    def next(self, cursor: Any) -> tuple[Any, Any]:
        """The clip at a cursor, and the next cursor."""
        if isinstance(self.clips, Windows):
            ids, starts = self.clips.at(int(cursor))
            clip = read_windows(self.data, "train", ids, starts, self.frames, on_device=True)
            return clip, np.int32(cursor + 1)
        clip, cursor = self.clips.next(cursor)
        return clip, jax.tree.map(lambda leaf: np.asarray(leaf, np.int32), cursor)


def _stream_length(config: VideoConfig, data: VideoData) -> int | None:
    """Generated videos have no end of their own; in a stream another begins after `frames`."""
    return config.frames if data.count("train") is None else None


def beginning(source: Source) -> dict[str, Any]:
    """What a checkpoint holds beside the learner's state, as it is before the first step.

    `cursor` says which clips come next; `since` has the sums of what was measured since the last row of
    metrics (`SUMMED`, and the number of steps), so that a resumed run writes the same rows.
    """
    return {"cursor": source.first(), "since": np.zeros(len(SUMMED) + 1, np.float32)}


def abstract_saved(learner: Learner, source: Source, mesh: Mesh | None = None) -> dict[str, Any]:
    """The shapes and dtypes of what a checkpoint holds, on the default device or a mesh."""
    shapes = jax.eval_shape(learner.init)
    state = abstract(shapes, mesh and learner_shardings(mesh, shapes))
    return {"state": state, **beginning(source)}


def frozen_directory(run: RunDir) -> Any:
    """Where the frozen part of a run's model lies, such as its autoencoder."""
    return run.path / "autoencoder" / "frozen"


def restore_frozen(model: FrameModel, run: RunDir) -> Any:
    """The frozen part of a run's model: `()` for a model that has none."""
    autoencoder: Any = getattr(model, "autoencoder", None)
    if autoencoder is None:
        return ()
    frames = jnp.zeros((1, autoencoder.size, autoencoder.size, autoencoder.channels))
    empty = jax.eval_shape(lambda: autoencoder.freeze(autoencoder.init(jax.random.key(0)), frames))
    if not frozen_directory(run).is_dir():
        raise InputError(f"{run.path} holds no trained autoencoder; train a model that has one there first")
    checkpoints = Checkpoints(frozen_directory(run))
    try:
        return checkpoints.restore(abstract(empty))
    finally:
        checkpoints.close()
