"""The composed configuration of `video-train` as a frozen dataclass; mistakes are found before tracing."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from .config import DEVICES, MeshConfig, build_dataclass, check_choice

DTYPES = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class AutoencoderConfig:
    """The `autoencoder` section."""

    path: str | None = None
    steps: int | None = None
    lr: float = 2e-3


@dataclasses.dataclass(frozen=True)
class VideoConfig:
    """What `resetta video-train` runs on; configs/video-train.yaml says what each key means."""

    data: dict[str, Any]
    model: dict[str, Any]
    seed: int
    total_steps: int
    frames: int
    context: int
    batch: int
    chunk: int | None
    accumulate: int
    lr: float
    lr_final: float | None
    warmup: int
    weight_decay: float
    max_grad_norm: float
    ema: float
    precision: str
    autoencoder: AutoencoderConfig
    eval_clips: int
    samples: int | None
    render: bool
    prefetch: int
    checkpoint_every: int
    keep_checkpoints: int
    log_every: int
    max_bad_updates: int
    device: str
    tensorboard: bool
    wandb: bool
    run_dir: str | None
    resume: str
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)

    def __post_init__(self) -> None:
        at_least_one = "total_steps context batch accumulate prefetch checkpoint_every keep_checkpoints"
        for name in (*at_least_one.split(), "log_every", "max_bad_updates"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        for name in ("eval_clips", "warmup", "weight_decay"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} must not be negative")
        for name in ("lr", "max_grad_norm"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}={getattr(self, name)} must be positive")
        if self.context >= self.frames:
            raise ValueError(
                f"context={self.context} leaves nothing to predict in frames={self.frames}; "
                f"use frames={self.context + 1} or more"
            )
        for name in ("chunk", "samples"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value} must be at least 1, or null")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema={self.ema} must be at least 0 and below 1")
        if self.batch % self.accumulate:
            low = self.batch // self.accumulate * self.accumulate
            raise ValueError(
                f"batch={self.batch} is not divisible by accumulate={self.accumulate}; "
                f"use {low or self.accumulate} or {low + self.accumulate}"
            )
        if self.autoencoder.steps is not None and self.autoencoder.steps < 1:
            raise ValueError(f"autoencoder.steps={self.autoencoder.steps} must be at least 1, or null")
        rows = f"batch={self.batch} in accumulate={self.accumulate} makes parts of"
        self.mesh.check((self.batch // self.accumulate, rows))
        if self.mesh.sequence > 1:
            raise ValueError(
                f"mesh.sequence={self.mesh.sequence} is for agents; use mesh.data, which shares out clips"
            )
        check_choice("precision", self.precision, DTYPES)
        check_choice("device", self.device, DEVICES)
        check_choice("resume", self.resume, ("auto", "never"))


def video_config(raw: Mapping[str, Any]) -> VideoConfig:
    """A checked `VideoConfig` from the composed dictionary; `ValueError`, one sentence, for a mistake."""
    return build_dataclass(VideoConfig, raw, "")
