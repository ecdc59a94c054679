"""What a run's directory holds, read as far as it is there and whole; nothing missing is an error."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .stats import Curve, adaptation_curve

SPLITS = {"held_out": "held-out tasks", "train": "training tasks", "validation": "validation tasks"}


@dataclasses.dataclass(frozen=True)
class Run:
    """What a run's directory holds, as far as it could be read. `notes` says what could not."""

    path: Path
    config: dict[str, Any]
    config_text: str
    rows: list[dict[str, Any]]
    summary: dict[str, Any]
    arrays: dict[str, np.ndarray]
    notes: list[str]

    @property
    def trained_trials(self) -> int:
        """How many trials a meta-episode had in training."""
        return int(self.summary.get("trained_trials") or self.config.get("trials") or 1)


def read_run(directory: Path) -> Run:
    """Reads config.yaml, metrics.jsonl, eval.json and eval.npz, each as far as it is there and whole."""
    notes: list[str] = []
    config_text = _read_text(directory / "config.yaml", notes)
    config: Any = {}
    if config_text:
        import yaml

        try:
            config = yaml.safe_load(config_text)
        except yaml.YAMLError:
            notes.append("config.yaml is not valid YAML")
    summary: Any = {}
    summary_text = _read_text(directory / "eval.json", notes)
    if summary_text:
        try:
            summary = json.loads(summary_text)
        except ValueError:
            notes.append("eval.json is not valid JSON")
    arrays: dict[str, np.ndarray] = {}
    if (directory / "eval.npz").exists():
        try:
            with np.load(directory / "eval.npz", allow_pickle=False) as stored:
                arrays = {key: stored[key] for key in stored.files}
        except Exception:  # a torn archive raises what zipfile, zlib or numpy please
            notes.append("eval.npz could not be read")
    return Run(
        directory,
        config if isinstance(config, dict) else {},
        config_text,
        read_metrics(directory / "metrics.jsonl", notes),
        summary if isinstance(summary, dict) else {},
        arrays,
        notes,
    )


def read_metrics(path: Path, notes: list[str] | None = None) -> list[dict[str, Any]]:
    """The rows of a `metrics.jsonl`. A torn last line, left by a run that was killed, is skipped in silence;
    any other line that is no JSON object is skipped and counted in `notes`.
    """
    notes = [] if notes is None else notes
    rows, bad = [], 0
    lines = _read_text(path, notes).splitlines()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            bad += number < len(lines)
            continue
        if isinstance(row, dict):
            rows.append(row)
        else:
            bad += 1
    if bad:
        notes.append(f"{bad} line{'s' if bad > 1 else ''} of {path.name} could not be read")
    return rows


def _read_text(path: Path, notes: list[str]) -> str:
    if not path.is_file():
        return ""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        notes.append(f"{path.name} could not be read ({error.strerror})")
        return ""


def _kinds(run: Run) -> tuple[str, str]:
    """Which arrays to show, best first: returns of several environments compare only once normalised."""
    group = run.config.get("env")
    lanes = [group.get(name) or {} for name in ("lanes", "held_out_lanes")] if isinstance(group, dict) else []
    return ("normalized", "returns") if sum(map(len, lanes)) > 1 else ("returns", "normalized")


def returns(run: Run, split: str) -> np.ndarray | None:
    """The finite [seed, task, trial] of a split."""
    for kind in _kinds(run):
        values = run.arrays.get(f"{split}_{kind}")
        if values is not None and values.ndim == 3 and values.size and np.isfinite(values).all():
            return values
    return None


def curves_of(run: Run) -> dict[str, Curve]:
    """The adaptation curve of every split that was evaluated."""
    found = {split: returns(run, split) for split in SPLITS}
    return {split: adaptation_curve(values) for split, values in found.items() if values is not None}


def baselines(run: Run) -> dict[str, Any]:
    """Mean raw returns of others on the held-out tasks: `held_out_random` and whatever eval.json adds."""
    found: dict[str, Any] = {}
    if _kinds(run)[0] != "returns":
        return found
    random = run.arrays.get("held_out_random")
    if random is not None and random.ndim == 2 and random.size and np.isfinite(random).all():
        found["random actions"] = random.mean(axis=0)
    given = run.summary.get("baselines")
    for label, curve in given.items() if isinstance(given, dict) else ():
        if isinstance(curve, Mapping):
            curve = curve.get("held_out", curve)
        if isinstance(curve, Mapping):
            curve = curve.get("mean", curve.get("iqm"))
        values = np.asarray(curve, float) if isinstance(curve, list | int | float) else np.array(np.nan)
        if values.size and values.ndim < 2 and np.isfinite(values).all():
            found[str(label)] = float(values) if values.ndim == 0 else values
    return found
