"""resetta bench ablation: one change at a time, and what each does to adaptation on tasks never met."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...envs import SPLITS
from ..stats import difference
from .adaptation import described, interval_text, measure, split_name
from .cases import Settings, read_cases
from .figures import dots
from .results import Table, save, short
from .runs import raise_failures

if TYPE_CHECKING:
    from ..plots import Figure


@dataclasses.dataclass(frozen=True, kw_only=True)
class AblationSettings(Settings):
    """configs/bench/ablation.yaml says what each key means."""

    changes: dict[str, str]
    only: list[str]
    base: str
    split: str

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise ValueError(f"unknown split={self.split!r}; choose from {', '.join(SPLITS)}")
        if self.base not in self.changes:
            raise ValueError(
                f"base={self.base} is none of the changes; choose from {', '.join(self.changes)}"
            )


def run(configs: Sequence[Mapping[str, Any]]) -> None:
    """Train and evaluate what is not there yet and write `<out>/ablation.json`."""
    own, cases = read_cases(configs, AblationSettings)
    measured = measure(cases, own.folder / "ablation", own.split)
    base = measured.scores.get(own.base)
    for row in measured.rows:
        mine = measured.scores[row["label"]]
        row["over_base"] = {}
        for trial in shown_trials(measured.rows, own.base):
            if base is None or row["label"] == own.base or trial > min(mine.shape[-1], base.shape[-1]):
                continue
            found = difference(mine[..., trial - 1], base[..., trial - 1])
            row["over_base"][str(trial)] = dataclasses.asdict(found)
    result = described("ablation", own, cases, measured)
    save(result, own.folder, table(result), figure(result))
    raise_failures(measured.failures)


def shown_trials(rows: Sequence[Mapping[str, Any]], base: str) -> list[int]:
    """The first trial, the last that the base (or else the first row) was trained on, and twice as many."""
    trained = next((row for row in rows if row["label"] == base), rows[0])["trained_trials"]
    return sorted({1, trained, 2 * trained})


def table(result: Mapping[str, Any]) -> Table:
    """The table of a result."""
    rows, own = result["rows"], result["settings"]
    trials = shown_trials(rows, own["base"])
    header = ["change", "parameters", *(f"trial {k}" for k in trials)]
    header += [f"trial {k} - {own['base']}'s" for k in trials[1:]] + ["training", "overrides"]
    lines = []
    for row in rows:
        cells = [_at(row, k) for k in trials]
        cells += [interval_text(row["over_base"].get(str(k)), sign="+") for k in trials[1:]]
        overrides = own["changes"].get(row["label"].split()[0], "")
        lines.append(
            [row["label"], short(row["parameters"]), *cells, f"{row['train_seconds']:.0f} s", overrides]
        )
    first = next(iter(result["configs"].values()))
    notes = [
        f"{first['env']['name']}, {split_name(result)} tasks: mean return over {rows[0]['tasks']} tasks x "
        f"{len(result['seeds'])} seed(s), with 95 % intervals of a bootstrap of seeds and tasks",
        f"the difference from {own['base']}: the same tasks, each with its own seeds",
        "training: seconds of the run, all seeds together, on whatever else the machine was doing",
    ]
    return Table("Ablation: what makes a core adapt", header, lines, notes)


def _at(row: Mapping[str, Any], trial: int) -> str:
    interval = _interval_at(row, trial)
    return "-" if interval is None else "{:.3f} [{:.3f}, {:.3f}]".format(*interval)


def _interval_at(row: Mapping[str, Any], trial: int) -> tuple[float, float, float] | None:
    if trial > row["trials"]:
        return None
    mean, low, high = (float(row["curve"][name][trial - 1]) for name in ("mean", "mean_low", "mean_high"))
    return mean, low, high


def figure(result: Mapping[str, Any]) -> "Figure":
    """Each change's return in the trials of the table."""
    rows, base = result["rows"], result["settings"]["base"]
    trials = shown_trials(rows, base)
    drawn = {
        row["label"]: {f"trial {k}": found for k in trials if (found := _interval_at(row, k)) is not None}
        for row in rows
    }
    level = next((_interval_at(row, trials[1]) for row in rows if row["label"] == base), None)
    return dots(
        drawn,
        title=f"One change at a time, on {split_name(result)} tasks",
        xlabel="return of the trial",
        line=None if level is None else level[0],
    )
