"""resetta bench learning: environment steps to a return, and how far it falls back afterwards."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from ..build import build_agent, settings
from ..errors import input_errors
from ..run_dir import RunDir
from .cases import Case, CoresSettings, read_cases
from .figures import learning_curves
from .results import Table, record, save, short
from .runs import raise_failures, train_all
from .timing import count_parameters

if TYPE_CHECKING:
    from ..plots import Figure


@dataclasses.dataclass(frozen=True, kw_only=True)
class LearningSettings(CoresSettings):
    """configs/bench/learning.yaml says what each key means."""

    thresholds: list[float]
    window: int

    def __post_init__(self) -> None:
        numbers = all(isinstance(t, int | float) and not isinstance(t, bool) for t in self.thresholds)
        if not numbers or list(self.thresholds) != sorted(set(self.thresholds)):
            raise ValueError(
                f"thresholds={self.thresholds} must be ascending numbers, such as thresholds=[0.5,0.9]"
            )
        if self.window < 1:
            raise ValueError(f"window={self.window} must be at least 1")


def run(configs: Sequence[Mapping[str, Any]]) -> None:
    """Train what is not trained yet and write `<out>/learning.json`."""
    own, cases = read_cases(configs, LearningSettings)
    with settings(cases[0].train), input_errors():
        parameters = {case.label: count_parameters(build_agent(case.train)) for case in cases}
    runs, failures = train_all(cases, own.folder / "learning")
    rows, curves = [], {}
    trained = [case for case in cases if case.label in runs]
    for case in trained:
        steps, means = smoothed(runs[case.label].rows(), own.window)
        rows.append(_row(case, runs[case.label], steps, means, own) | {"parameters": parameters[case.label]})
        curves[case.label] = {"env_steps": steps, "mean_return": means}
    with settings(cases[0].train):
        result = record("learning", own, trained, rows) | {"curves": curves, "failures": failures}
    save(result, own.folder, table(result), figure(result))
    raise_failures(failures)


def smoothed(
    rows: Sequence[Mapping[str, Any]], window: int
) -> tuple[Int[np.ndarray, " N"], Float[np.ndarray, "N S"]]:
    """Environment steps, and per seed the mean return of the last `window` updates in which a trial ended.

    NaN until there are `window` of them; an update without a finished trial (`null`) keeps the mean before.
    """
    steps = np.array([row["env_steps"] for row in rows], int)
    returns = [row["episode_return"] for row in rows]
    means = np.full((len(rows), len(returns[0]) if rows else 0), np.nan)
    for seed in range(means.shape[1]):
        known: list[float] = []
        for k, values in enumerate(returns):
            if values[seed] is not None:
                known = [*known[-(window - 1) :], values[seed]] if window > 1 else [values[seed]]
            if len(known) == window:
                means[k, seed] = sum(known) / window
    return steps, means


def first_reached(means: Float[np.ndarray, " N"], threshold: float) -> int | None:
    """The index of the first mean that is at least `threshold`, None where there is none."""
    above = np.flatnonzero(means >= threshold)  # NaN is not
    return int(above[0]) if above.size else None


def lowest_after(means: Float[np.ndarray, " N"], threshold: float) -> float | None:
    """The lowest mean after `threshold` was first reached; None where it was not, or only at the very end."""
    first = first_reached(means, threshold)
    return None if first is None or first + 1 == len(means) else float(means[first + 1 :].min())


def _row(
    case: Case, run: RunDir, steps: np.ndarray, means: np.ndarray, own: LearningSettings
) -> dict[str, Any]:
    seeds = range(means.shape[1])
    reached: dict[str, list[int | None]] = {}
    for threshold in own.thresholds:
        firsts = [first_reached(means[:, seed], threshold) for seed in seeds]
        reached[str(threshold)] = [None if first is None else int(steps[first]) for first in firsts]
    return {
        "label": case.label,
        "core": case.core,
        "env_steps": int(steps[-1]),
        "reached": reached,  # env steps, a value per seed; null: not within the budget
        "lowest_after": [lowest_after(means[:, seed], own.thresholds[-1]) for seed in seeds],
        "final": means[-1].tolist(),
        "best": [float(np.nanmax(column, initial=-math.inf)) for column in means.T],
        "train_seconds": run.rows()[-1]["wall_time"],
    }


def table(result: Mapping[str, Any]) -> Table:
    """The table of a result."""
    own = result["settings"]
    last = own["thresholds"][-1]
    header = ["core", "parameters", *(f"to {threshold:g}" for threshold in own["thresholds"])]
    header += [f"lowest after {last:g}", "at the end"]
    rows = [
        [
            row["label"],
            short(row["parameters"]),
            *(reached_text(row["reached"][str(threshold)]) for threshold in own["thresholds"]),
            _worst(row["lowest_after"]),
            _worst(row["final"]),
        ]
        for row in result["rows"]
    ]
    first = next(iter(result["configs"].values()))
    notes = [
        f"{first['env']['name']}: environment steps until the mean return of {own['window']} updates first "
        f"reaches a value, median (lowest–highest) of {len(result['seeds'])} seed(s), a seed that never does "
        "being above all others",
        f"lowest after {last:g}: the lowest such mean from then to the end of the run, the worst seed's; "
        "at the end: the last one, the worst seed's",
        f"every run has {short(max(row['env_steps'] for row in result['rows']))} steps per seed",
    ]
    return Table("Learning: environment steps to a return", header, rows, notes)


def reached_text(steps: Sequence[int | None]) -> str:
    """`203 k (199 k–220 k)`, a seed that never reached it standing above all that did."""
    known = sorted(step for step in steps if step is not None)
    if not known:
        return "never"
    ordered = [*known, *[math.inf] * (len(steps) - len(known))]
    middle = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
    words = [short(value) if math.isfinite(value) else "never" for value in (middle, ordered[0], ordered[-1])]
    text = words[0] if len(ordered) == 1 else f"{words[0]} ({words[1]}–{words[2]})"
    return text if len(known) == len(steps) else f"{text}, {len(known)} of {len(steps)}"


def _worst(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{min(known):.3f}" if known else "-"


def figure(result: Mapping[str, Any]) -> "Figure":
    """Learning curves of all cores."""
    curves = {
        label: (np.array(curve["env_steps"], float), np.array(curve["mean_return"], float))
        for label, curve in result["curves"].items()
    }
    env = next(iter(result["configs"].values()))["env"]["name"]
    return learning_curves(curves, result["settings"]["thresholds"], f"Learning {env}")
