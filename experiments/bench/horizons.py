"""resetta bench horizons: trained video models frame by frame, far beyond what they were trained on."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..build import settings
from ..config import DEVICES, check_choice
from ..errors import input_errors
from ..logs import phase
from ..run_dir import RunDir, write_json
from ..video_evaluate import evaluate_model, protocol_of
from ..video_restore import restore_video_run
from .cases import check_counts, read_one
from .figures import against
from .results import Table, describe, save

if TYPE_CHECKING:
    from ..plots import Figure

_MEASURES = ("position_error", "psnr")
_WHO = ("model", "copy_last", "mean_frame", "constant")


@dataclasses.dataclass(frozen=True, kw_only=True)
class HorizonSettings:
    """configs/bench/horizons.yaml says what each key means."""

    runs: list[str]
    variants: list[dict[str, Any]]
    protocol: str | None
    context: int | None
    frames: int | None
    clips: int
    batch: int
    split: str
    horizons: list[int]
    out: str
    device: str
    seed: int
    precision: str = "float32"

    def __post_init__(self) -> None:
        check_choice("device", self.device, DEVICES)
        check_counts("horizons", self.horizons)
        for name in ("runs", "variants"):
            if not getattr(self, name):
                raise ValueError(f"{name}=[] is empty; give one at least")
        if len({Path(run).name for run in self.runs}) < len(self.runs):
            raise ValueError(f"runs={self.runs}: each needs a name of its own, for the table")
        for name in ("clips", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")


def run(configs: Sequence[Mapping[str, Any]]) -> None:
    """Evaluate every variant of every run and write `<out>/horizons.json`."""
    own = read_one(configs, HorizonSettings, "give several runs as runs=[A,B]")
    with input_errors():
        for path in own.runs:
            RunDir.read(path).check_kind("bench horizons", video=True)
    path, rows = Path(own.out) / "horizons.json", []
    known = _known(path)
    result: dict[str, Any] = {}
    with settings(own):
        for run_path in own.runs:
            for variant in own.variants:
                row = _evaluated(own, run_path, variant, known)
                rows.append(row)
                result = describe(
                    "horizons",
                    dataclasses.asdict(own),
                    command=configs[0]["command"],
                    seeds=[own.seed],
                    configs={row["label"]: row["config"] for row in rows},
                    rows=rows,
                )
                # what was measured elsewhere keeps the name of the device that measured it
                result["device"] = " and ".join(dict.fromkeys(row["device"] for row in rows))
                write_json(path, result)
    save(result, Path(own.out), table(result), figure(result))


def _known(path: Path) -> list[dict[str, Any]]:
    """Rows of an earlier result."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))["rows"]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _evaluated(
    own: HorizonSettings, path: str, variant: Mapping[str, Any], known: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The row of a run with some options of its model, a known one where the same was asked."""
    raw = {"run_dir": path, "data": {}, "model": dict(variant), "device": own.device, "step": None}
    run_dir, config, model, data, variables = restore_video_run(raw)
    with input_errors():
        given = {name: getattr(own, name) for name in ("context", "frames", "clips", "seed", "split")}
        protocol = protocol_of(config, data, own.protocol, given)
    last = run_dir.rows()[-1]
    said = " ".join(f"{key}={value}" for key, value in variant.items())
    asked = {
        "label": f"{Path(path).name} {said}".strip(),
        "step": last["step"],
        "config": json.loads(json.dumps({"model": {**config.model, **variant}, "data": config.data})),
        "asked": json.loads(json.dumps(protocol.to_dict())),
    }
    for row in known:
        if all(row.get(key) == value for key, value in asked.items()):
            return dict(row)
    summary = evaluate_model(model, data, variables, protocol, own.batch, phase).summary
    kept = {name: summary["metrics"][name] for name in _MEASURES if name in summary["metrics"]}
    return asked | {
        "trained_frames": config.frames,
        "batch": config.batch,
        "train_seconds": last["wall_time"],
        "parameters": summary["parameters"],
        "memory_bytes": summary["memory_bytes"],
        "device": summary["device"],
        "clips": summary["protocol"]["clips"],
        "context": protocol.context,
        "metrics": kept,
    }


def falls_to(model: Sequence[float | None], baseline: Sequence[float | None]) -> int | None:
    """The first predicted frame (from 1) at which the model is no better than the baseline; None: never."""
    for k, (mine, other) in enumerate(zip(model, baseline, strict=True), 1):
        if mine is not None and other is not None and mine <= other:
            return k
    return None


def table(result: Mapping[str, Any]) -> Table:
    """The table of a result: a row for every run, variant and horizon."""
    rows = []
    for row in result["rows"]:
        metrics = row["metrics"]
        length = len(metrics["psnr"]["model"])
        shown = [k for k in result["settings"]["horizons"] if k <= length]
        for k in shown:
            cells = [row["label"], str(k)]
            for measure in _MEASURES:
                entry = metrics.get(measure, {})
                for who in _WHO if measure == "position_error" else _WHO[:-1]:
                    cells.append(_cell(entry, who, k - 1))
            rows.append(cells)
    header = ["run", "frame +", "position error, px", "copy last", "mean frame", "constant"]
    header += ["PSNR, dB", "copy last", "mean frame"]
    notes = []
    for row in result["rows"]:
        psnr = row["metrics"]["psnr"]
        at = falls_to(psnr["model"], psnr["mean_frame"])
        fall = f"falls to mean frame's at frame +{at}" if at else "stays above mean frame's"
        notes.append(
            f"{row['label']}: {row['step']} steps of {row['batch']} clips of {row['trained_frames']} frames, "
            f"{row['train_seconds']:.0f} s; {row['parameters'] / 1e6:.2f} M parameters; its PSNR {fall}"
        )
    first = result["rows"][0]
    notes.append(
        f"{first['clips']} {result['settings']['split']} clips, {first['context']} frames of context; "
        "mean over clips [95 % interval]; an object that isn't found counts as lying at the canvas's centre, "
        "constant: so does every object always; smaller position errors and greater PSNR are better"
    )
    return Table("Video models at far horizons", header, rows, notes)


def _cell(entry: Mapping[str, Any], who: str, k: int) -> str:
    value = entry.get(who, [None] * (k + 1))[k]
    if value is None or not math.isfinite(value):
        return ""
    low, high = (entry.get(f"{who}_{end}") for end in ("low", "high"))
    if who != "model" or not low or not high or low[k] is None:
        return f"{value:.2f}"
    return f"{value:.2f} [{low[k]:.2f}, {high[k]:.2f}]"


def figure(result: Mapping[str, Any]) -> "Figure":
    """Position error (PSNR where there is none) against the horizon, a line per run and baseline."""
    has = all("position_error" in row["metrics"] for row in result["rows"])
    measure = "position_error" if has else "psnr"
    lines = {}
    for row in result["rows"]:
        entry = row["metrics"][measure]
        lines[row["label"]] = _points(result, entry, "model")
    entry = result["rows"][0]["metrics"][measure]
    for who in _WHO[1:]:
        if who in entry:
            lines[who.replace("_", " ")] = _points(result, entry, who)
    ylabel = "position error, pixels" if has else "PSNR, dB"
    return against(lines, "Video models at far horizons", "predicted frame", ylabel, from_zero=True)


def _points(result: Mapping[str, Any], entry: Mapping[str, Any], who: str) -> list[tuple[float, ...]]:
    points = []
    for k in result["settings"]["horizons"]:
        if k <= len(entry[who]) and entry[who][k - 1] is not None:
            value = entry[who][k - 1]
            low, high = (entry.get(f"{who}_{end}") for end in ("low", "high"))
            points.append((k, value, low[k - 1] if low else value, high[k - 1] if high else value))
    return points
