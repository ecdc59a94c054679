"""resetta bench video: training, sampling, reading, streams, each measured by a module of its own."""

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from ..build import settings
from ..config import DEVICES, check_choice
from ..errors import input_errors
from ..run_dir import write_json
from .cases import read_one
from .results import describe, save

PARTS = ("training", "sampling", "loader", "streaming")


@dataclasses.dataclass(frozen=True, kw_only=True)
class VideoSettings:
    """configs/bench/video.yaml says what each key means."""

    parts: list[str]
    out: str
    device: str
    seed: int
    blocks: int
    seconds: float | None
    turn_seconds: float
    training: dict[str, Any]
    sampling: dict[str, Any]
    loader: dict[str, Any]
    streaming: dict[str, Any]
    precision: str = "float32"

    def __post_init__(self) -> None:
        for part in self.parts:
            check_choice("parts", part, PARTS)
        check_choice("device", self.device, DEVICES)
        if self.blocks < 1:
            raise ValueError(f"blocks={self.blocks} must be at least 1")
        if self.seconds is not None and self.seconds <= 0:
            raise ValueError(f"seconds={self.seconds} must be more than 0; use null for no limit")


def run(configs: Sequence[Mapping[str, Any]]) -> None:
    """Measure the parts that are asked for and write `<out>/video_<part>.json` each.

    The file is written after every case. Where it is there and lacks cases, with the same settings, device
    and versions, only those are measured.
    """
    from . import video_loader, video_sampling, video_streaming, video_training

    own = read_one(configs, VideoSettings)
    modules = {
        "training": video_training,
        "sampling": video_sampling,
        "loader": video_loader,
        "streaming": video_streaming,
    }
    with settings(own):
        for part in own.parts:
            with input_errors():
                units = modules[part].units(own)
            result = _measured(own, part, units, configs[0]["command"])
            figure = getattr(modules[part], "figure", None)
            save(result, Path(own.out), modules[part].table(result), figure and figure(result))
            if result["left"]:
                left = ", ".join(result["left"])
                print(f"not measured yet: {left}; the same command goes on with them", file=sys.stderr)


def _measured(
    own: VideoSettings, part: str, units: Mapping[str, Callable[[], list[dict[str, Any]]]], command: str
) -> dict[str, Any]:
    """The result of a part: rows of its units, of which those in `left` are still to be measured."""
    path = Path(own.out, f"video_{part}.json")

    def result(rows: list[dict[str, Any]]) -> dict[str, Any]:
        made = describe(
            f"video_{part}",
            dataclasses.asdict(own),
            command=command,
            seeds=[own.seed],
            configs={part: getattr(own, part)},
            rows=rows,
        )
        seen = {row["unit"] for row in rows}
        return made | {"left": [unit for unit in units if unit not in seen]}

    rows = _earlier(path, result([]), part)
    seen, start = {row["unit"] for row in rows}, time.monotonic()
    begun = 0
    for unit, measure in units.items():
        if unit in seen:
            continue
        if begun and own.seconds is not None and time.monotonic() - start > own.seconds:
            break
        begun += 1
        with input_errors():
            rows += [{"unit": unit, **row} for row in measure()]
        jax.clear_caches()  # a unit's programs hold memory that the next may need
        write_json(path, result(rows))
    return result(rows)


def _earlier(path: Path, fresh: Mapping[str, Any], part: str) -> list[dict[str, Any]]:
    """The rows of an unfinished result in `path`, if it was measured as this one would be."""
    try:
        old = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []

    def conditions(result: Mapping[str, Any]) -> Any:
        used = ("seed", "blocks", "turn_seconds", "precision", part)
        kept = {key: result["settings"].get(key) for key in used}
        return json.loads(json.dumps([result["device"], result["versions"], kept]))

    if not isinstance(old, dict) or not old.get("left") or conditions(old) != conditions(fresh):
        return []
    return old["rows"]
