"""resetta bench video: training, sampling and reading, each measured by a module of its own."""

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from ..build import settings
from ..config import DEVICES, build_dataclass, check_choice
from ..errors import InputError, input_errors
from .results import describe, save
from .timing import now

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


def in_turns(
    cases: Mapping[str, Callable[[], Any]], blocks: int, what: str = ""
) -> dict[str, dict[str, list[float]]]:
    """Seconds (`wall`, and `cpu` of this process) of each case's turns, one block after the other.

    What else the machine does meets every case alike. A case's first call isn't counted: it compiles. Cases
    that the device's memory doesn't hold are left out.
    """
    fit = {}
    for label, case in cases.items():
        try:
            jax.block_until_ready(case())
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            print(f"{what}{label} is out of memory", file=sys.stderr, flush=True)
            continue
        fit[label] = case
    cases = fit
    taken: dict[str, dict[str, list[float]]] = {label: {"wall": [], "cpu": []} for label in cases}
    for block in range(blocks):
        for label, case in cases.items():
            start = now()
            jax.block_until_ready(case())
            spent = now() - start
            taken[label]["wall"].append(spent.wall)
            taken[label]["cpu"].append(spent.cpu)
        print(f"{what}block {block + 1}/{blocks}", file=sys.stderr, flush=True)
    return taken


def _folder(own: VideoSettings) -> Any:
    from pathlib import Path

    return Path(own.out)
