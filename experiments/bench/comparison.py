"""resetta bench comparison: cores at equal parameters, each tuned alike, on tasks that no agent has met."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...envs import SPLITS
from ..build import build_agent, settings
from ..config import train_config
from ..errors import TrainingFailed, input_errors
from ..run_dir import write_json
from ..stats import probability_of_improvement
from .adaptation import described, interval_text, measure, play, split_name
from .cases import Case, CoresSettings, read_cases
from .comparison_curves import drawn, learning_points, read_csv, write_csv
from .core_cases import CoreCase, of_width
from .results import Table, present, short
from .timing import count_parameters

if TYPE_CHECKING:
    from ..plots import Figure

_UNIT = 8  # widths are multiples: four heads of even width
_CURVES = ("learning", "adaptation")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ComparisonSettings(CoresSettings):
    """configs/bench/comparison.yaml says what each key means."""

    parameters: int
    rates: list[float]
    split: str
    points: int

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise ValueError(f"unknown split={self.split!r}; choose from {', '.join(SPLITS)}")
        if not all(isinstance(rate, int | float) and rate > 0 for rate in self.rates):
            raise ValueError(f"rates={self.rates} must be positive numbers, such as rates=[1,0.5]")
        if len(set(self.rates)) < len(self.rates):
            raise ValueError(f"rates={self.rates} names one twice; every core tries each once")
        for name in ("parameters", "points"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")


def run(configs: Sequence[Mapping[str, Any]]) -> None:
    """Train what is not there yet, choose each core's rate on validation tasks, and write what came of it."""
    own, asked = read_cases(configs, ComparisonSettings)
    folder = own.folder / "comparison"
    with settings(asked[0].train), input_errors():
        sized = [_sized(case, own.parameters) for case in asked]
    tries = {case.label: [_at_rate(case, rate) for rate in own.rates] for case in sized}
    tuned = play([each for those in tries.values() for each in those], folder, "validation")
    totals = {
        label: float(scores[..., : each.train.trials].mean())
        for those in tries.values()
        for each in those
        if (label := each.label) in tuned.scores and (scores := tuned.scores[label]).size
    }
    chosen: list[Case] = []
    for label, those in tries.items():
        known = [each for each in those if each.label in totals]
        if not known:
            raise TrainingFailed(f"{label} could not be trained at any of rates={own.rates}; give lower ones")
        chosen.append(max(known, key=lambda each: totals[each.label]))
    measured = measure(chosen, folder, own.split)
    base = measured.scores[chosen[0].label]
    points = []
    for case, first, row in zip(chosen, sized, measured.rows, strict=True):
        mine, last = measured.scores[case.label], min(case.train.trials, base.shape[-1]) - 1
        row["name"], row["width"] = first.label, case.train.core["features"]
        row["tuning"] = {f"{rate:g}": totals.get(each.label) for rate, each in _with_rates(own, tries, first)}
        row["over_first"] = (
            None
            if mine is base or mine.shape[1] != base.shape[1]
            else dataclasses.asdict(probability_of_improvement(mine[..., last], base[..., last]))
        )
        points += learning_points(first.label, tuned.runs[case.label].rows(), case.train.seed, own.points)
    result = described("comparison", own, chosen, measured)
    result["failures"] = tuned.failures
    curves = [_curve(row.pop("curve"), row["name"]) for row in measured.rows]
    write_csv(own.folder / "comparison_learning.csv", points)
    write_csv(own.folder / "comparison_adaptation.csv", [point for curve in curves for point in curve])
    write_json(own.folder / "comparison.json", result)
    result = complete(result, own.folder)
    present(result, own.folder, table(result), figure(result))


def _with_rates(
    own: ComparisonSettings, tries: Mapping[str, Sequence[Case]], case: Case
) -> list[tuple[float, Case]]:
    return list(zip(own.rates, tries[case.label], strict=True))


def _sized(case: Case, parameters: int) -> Case:
    """The case at the width, a multiple of 8, whose whole agent comes nearest to `parameters`."""
    core = {key: value for key, value in case.train.core.items() if key not in ("name", "target")}

    def whole(width: int) -> int:
        config = dataclasses.replace(case.train, core={**case.train.core, "features": width})
        return count_parameters(build_agent(config))

    width = of_width(
        CoreCase(case.label, case.core, core), parameters, lambda made: whole(made.features), _UNIT
    )
    return _changed(case, {**case.raw, "core": {**case.raw["core"], "features": width}}, case.label)


def _at_rate(case: Case, rate: float) -> Case:
    """The case with its learning rates multiplied."""
    rates = {key: case.raw[key] * rate for key in ("lr", "lr_final") if case.raw[key] is not None}
    return _changed(case, {**case.raw, **rates}, f"{case.label} rate={rate:g}")


def _changed(case: Case, raw: dict[str, Any], label: str) -> Case:
    return dataclasses.replace(case, label=label, raw=raw, train=train_config(raw))


def _curve(curve: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    trials = range(len(curve["iqm"]))
    return [
        {"core": name, "trial": k + 1} | {field: float(values[k]) for field, values in curve.items()}
        for k in trials
    ]


def complete(result: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A result with the curves that lie beside it as CSV, `curves`: rows of each by its name."""
    return {**result, "curves": {name: read_csv(folder / f"comparison_{name}.csv") for name in _CURVES}}


def table(result: Mapping[str, Any]) -> Table:
    """The table of a result with its curves."""
    rows, own = result["rows"], result["settings"]
    trained, played = rows[0]["trained_trials"], max(row["trials"] for row in rows)
    shown = sorted({1, trained, played})
    base = rows[0]["name"]
    header = ["core", "width", "parameters", *(f"trial {k}: IQM" for k in shown)]
    header += [f"trial {trained}: mean", f"beats {base}", "training", "on validation, by rate"]
    lines = []
    for row in rows:
        curve = {int(p["trial"]): p for p in result["curves"]["adaptation"] if p["core"] == row["name"]}
        cells = [_at(curve.get(k), "iqm", "low", "high") for k in shown]
        cells += [_at(curve.get(trained), "mean", "mean_low", "mean_high"), interval_text(row["over_first"])]
        tuning = ", ".join(f"{rate}: {_number(score)}" for rate, score in row["tuning"].items())
        lines.append(
            [
                row["label"],
                str(row["width"]),
                short(row["parameters"]),
                *cells,
                f"{row['train_seconds']:.0f} s",
                tuning,
            ]
        )
    first = next(iter(result["configs"].values()))
    kind = "normalised return" if rows[0]["normalized"] else "return"
    seeds = len(result["seeds"])
    notes = [
        f"{first['env']['name']}, {split_name(result)} tasks: {kind} over {rows[0]['tasks']} tasks x {seeds} "
        "seed(s), interquartile mean (IQM) and mean with 95 % intervals of a stratified bootstrap",
        f"each core has the width, a multiple of {_UNIT}, at which its whole agent comes nearest to "
        f"{short(own['parameters'])} parameters, and {short(rows[0]['env_steps'])} steps per seed",
        _tuning(own["rates"]),
        f"trained on {trained} trial(s) of a task; beats {base}: probability that a run does better on a "
        f"task, in trial {trained}; training: seconds of the taken run, all seeds together, on whatever else "
        "the machine was doing",
    ]
    return Table("Cores compared: equal parameters, equal tuning", header, lines, notes)


def _tuning(rates: Sequence[float]) -> str:
    if len(rates) == 1:
        return f"every core has the task's own learning rate, times {rates[0]:g}; nothing was tuned here"
    return (
        f"tuned alike: every core was trained with all seeds at {len(rates)} learning rates, multiples of "
        "the task's own, and the one with the best mean return in the trained trials of validation tasks "
        "was taken; nothing else was tuned here"
    )


def _number(score: float | None) -> str:
    return "diverged" if score is None else f"{score:.3f}"


def _at(point: Mapping[str, Any] | None, *names: str) -> str:
    if point is None:
        return "-"
    value, low, high = (point[name] for name in names)
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def figure(result: Mapping[str, Any]) -> "Figure":
    """Learning against steps and against seconds, and adaptation against trial where there are several."""
    return drawn(
        result["curves"]["learning"],
        result["curves"]["adaptation"],
        result["rows"][0]["trained_trials"],
        split_name(result),
    )
