"""resetta bench video: training, sampling and reading, each measured by a module of its own."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ..build import settings
from ..config import DEVICES, build_dataclass, check_choice
from ..errors import InputError, input_errors
from .results import describe, save

PARTS = ("training", "sampling", "loader")
_ADDED = ("command", "label", "variant")


@dataclasses.dataclass(frozen=True, kw_only=True)
class VideoSettings:
    """configs/bench/video.yaml says what each key means."""

    parts: list[str]
    out: str
    device: str
    seed: int
    blocks: int
    training: dict[str, Any]
    sampling: dict[str, Any]
    loader: dict[str, Any]
    precision: str = "float32"

    def __post_init__(self) -> None:
        for part in self.parts:
            check_choice("parts", part, PARTS)
        check_choice("device", self.device, DEVICES)
        if self.blocks < 1:
            raise ValueError(f"blocks={self.blocks} must be at least 1")


def run(configs: Sequence[Mapping[str, Any]]) -> None:
    """Measure the parts that are asked for and write `<out>/video_<part>.json` each."""
    from . import video_loader, video_sampling, video_training

    if len(configs) != 1:
        raise InputError("bench video takes one value of each key; run it again with another out= to compare")
    raw = {key: value for key, value in configs[0].items() if key not in _ADDED}
    with input_errors():
        own = build_dataclass(VideoSettings, raw, "")
    modules = {"training": video_training, "sampling": video_sampling, "loader": video_loader}
    with settings(own):
        for part in own.parts:
            with input_errors():
                rows = modules[part].measure(own)
            result = describe(
                f"video_{part}",
                dataclasses.asdict(own),
                command=configs[0]["command"],
                seeds=[own.seed],
                configs={part: raw[part]},
                rows=rows,
            )
            figure = getattr(modules[part], "figure", None)
            save(result, _folder(own), modules[part].table(result), figure and figure(result))


def _folder(own: VideoSettings) -> Any:
    from pathlib import Path

    return Path(own.out)
