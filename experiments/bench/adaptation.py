"""resetta bench adaptation: return against trial on tasks that no agent has met, every core side by side."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ...envs import SPLITS
from ..build import build_agent, settings
from ..errors import InputError, input_errors
from ..evaluate import evaluate_agent, evaluation_env, totals, write_evaluation
from ..plots import adaptation_curve as plot_adaptation
from ..restore import restore_run
from ..run_dir import RunDir
from ..stats import (
    Interval,
    adaptation_curve,
    improvement,
    probability_of_improvement,
)
from .cases import Case, CoresSettings, Settings, read_cases
from .results import Table, record, save, short
from .runs import raise_failures, run_path, train_all
from .timing import count_parameters

if TYPE_CHECKING:
    from ..plots import Figure

_BASELINE = "none"


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdaptationSettings(CoresSettings):
    """configs/bench/adaptation.yaml says what each key means."""

    split: str

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise ValueError(f"unknown split={self.split!r}; choose from {', '.join(SPLITS)}")


def run(configs: Sequence[Mapping[str, Any]]) -> None:
    """Train and evaluate what is not there yet and write `<out>/adaptation.json`."""
    own, cases = read_cases(configs, AdaptationSettings)
    measured = measure(cases, own.folder / "adaptation", own.split)
    result = described("adaptation", own, cases, measured)
    save(result, own.folder, table(result), figure(result))
    raise_failures(measured.failures)


class Measured(NamedTuple):
    """What became of the cases: rows of results and scores `[seed, task, trial]` by label; failures."""

    rows: list[dict[str, Any]]
    scores: dict[str, np.ndarray]
    failures: dict[str, str]


class Played(NamedTuple):
    """Trained cases on tasks of a split, by label: sizes, runs, arrays of evaluation, scores, failures."""

    parameters: dict[str, int]
    runs: dict[str, RunDir]
    arrays: dict[str, dict[str, np.ndarray]]
    scores: dict[str, np.ndarray]
    failures: dict[str, str]


def play(cases: Sequence[Case], folder: Path, split: str) -> Played:
    """Train the cases below `folder` and evaluate them on the tasks of `split`, what is not there yet."""
    parameters = {}
    with settings(cases[0].train), input_errors():
        for case in cases:  # mistakes in any of them before the first is trained
            if case.train.eval_tasks < 1:
                raise InputError("eval_tasks=0 leaves nothing to measure; give eval_tasks=256 or the like")
            parameters[case.label] = count_parameters(build_agent(case.train))
            evaluation_env(case.train.env, case.train.eval_tasks, case.train.evaluation_trials, split)
    known = {
        case.label: found
        for case in cases
        if (found := _kept(case, run_path(case, folder) / f"bench_{split}")) is not None
    }
    runs, failures = train_all(cases, folder, known)
    arrays = {
        case.label: known.get(case.label) or _evaluated(case, runs[case.label], split)
        for case in cases
        if case.label in runs
    }
    scores = {label: _scores(of, split) for label, of in arrays.items()}
    return Played(parameters, runs, arrays, scores, failures)


def measure(cases: Sequence[Case], folder: Path, split: str) -> Measured:
    """What `play` gives, as rows of results."""
    parameters, runs, arrays, scores, failures = play(cases, folder, split)
    trained = [case for case in cases if case.label in runs]
    rows = []
    for case in trained:
        row = _row(case, runs[case.label], arrays[case.label], scores, split, trained)
        rows.append(row | {"parameters": parameters[case.label]})
    return Measured(rows, scores, failures)


def described(name: str, own: Settings, cases: Sequence[Case], measured: Measured) -> dict[str, Any]:
    """The record of a benchmark that measures adaptation."""
    trained = [case for case in cases if case.label in measured.scores]
    with settings(cases[0].train):
        result = record(name, own, trained, measured.rows) | {"failures": measured.failures}
    # what was measured elsewhere, and only drawn up here, keeps the name of the machine that measured it
    result["device"] = " and ".join(dict.fromkeys(row["device"] for row in measured.rows))
    return result


def _kept(case: Case, folder: Path) -> dict[str, np.ndarray] | None:
    """The arrays that `_evaluated` kept in `folder`; None where there are none, or for another question."""
    asked = {
        "update": case.train.updates,
        "tasks": case.train.eval_tasks,
        "trials": case.train.evaluation_trials,
        "greedy": case.train.eval_greedy,
        "evaluation_seed": 0,
    }
    try:
        known = json.loads((folder / "eval.json").read_text())
        with np.load(folder / "eval.npz", allow_pickle=False) as stored:
            arrays = dict(stored)
    except Exception:  # not there, or damaged: an archive then raises what zipfile, zlib or numpy please
        return None
    return None if any(known.get(key) != value for key, value in asked.items()) else arrays


def _evaluated(case: Case, run: RunDir, split: str) -> dict[str, np.ndarray]:
    """The arrays of `evaluate_agent`, kept beside the run until the question changes."""
    run_dir, config, agent, state = restore_run({"run_dir": str(run.path), "device": case.train.device})
    with settings(config):
        arrays, summary = evaluate_agent(
            agent,
            config,
            state,
            splits=[split],
            tasks=case.train.eval_tasks,
            trials=case.train.evaluation_trials,
            greedy=case.train.eval_greedy,
            seed=0,
        )
    write_evaluation(run_dir, arrays, summary, run.path / f"bench_{split}")
    return arrays


def _scores(arrays: Mapping[str, np.ndarray], split: str) -> np.ndarray:
    """[seed, task, trial]; normalised where base environments are mixed, whose returns do not compare."""
    mixed = len(set(arrays[f"{split}_envs"].tolist())) > 1
    normalized = arrays[f"{split}_normalized"]
    return normalized if mixed and np.isfinite(normalized).all() else arrays[f"{split}_returns"]


def _row(
    case: Case,
    run: RunDir,
    arrays: Mapping[str, np.ndarray],
    scores: Mapping[str, np.ndarray],
    split: str,
    cases: Sequence[Case],
) -> dict[str, Any]:
    mine = scores[case.label]
    curve = adaptation_curve(mine)
    last = min(case.train.trials, mine.shape[-1]) - 1
    normalized = mine is arrays[f"{split}_normalized"]
    return {
        "label": case.label,
        "core": case.core,
        "trained_trials": case.train.trials,
        "trials": mine.shape[-1],
        "tasks": mine.shape[1],
        "env_steps": case.train.updates * case.train.steps_per_update,
        "normalized": normalized,
        "curve": {field.name: getattr(curve, field.name) for field in dataclasses.fields(curve)},
        # an interquartile mean as well: beside one, a mean would look better or worse than it is
        "random": None if normalized else arrays[f"{split}_random"].mean(0),
        # the mean over tasks of a paired difference, as in `resetta evaluate`
        "last_minus_first": _interval(improvement(mine, 0, last)) if last else None,
        "totals": totals(mine, case.train.trials),
        "over_none": _over_baseline(case, scores, last, cases),
        "train_seconds": run.rows()[-1]["wall_time"],
        "device": json.loads((run.path / f"bench_{split}" / "eval.json").read_text())["device"],
    }


def _over_baseline(
    case: Case, scores: Mapping[str, np.ndarray], last: int, cases: Sequence[Case]
) -> dict[str, float] | None:
    """P(this core beats the memoryless one) on the last trained trial, the variant being the same."""
    others = [other.label for other in cases if other.core == _BASELINE and other.variant == case.variant]
    if not others or others[0] == case.label:
        return None
    mine, base = scores[case.label], scores[others[0]]
    if mine.shape[1] != base.shape[1] or base.shape[-1] <= last:
        return None
    return _interval(probability_of_improvement(mine[..., last], base[..., last]))


def _interval(interval: Interval) -> dict[str, float]:
    return dataclasses.asdict(interval)


def table(result: Mapping[str, Any]) -> Table:
    """The table of a result."""
    trials = max(row["trials"] for row in result["rows"])
    trained = max(row["trained_trials"] for row in result["rows"])
    shown = sorted({k for k in (1, 2, (trained + 1) // 2, trained, trials) if k <= trials})
    header = ["core", "parameters", *(f"trial {k}" for k in shown)]
    sums = list(dict.fromkeys(_span(part) for row in result["rows"] for part in row.get("totals", [])))
    header += [*sums, "last trained - first", "beats none"]
    rows = []
    for row in result["rows"]:
        curve = row["curve"]
        cells = [
            f"{curve['mean'][k - 1]:.3f} [{curve['mean_low'][k - 1]:.3f}, {curve['mean_high'][k - 1]:.3f}]"
            if k <= row["trials"]
            else "-"
            for k in shown
        ]
        summed = {_span(part): interval_text(part) for part in row.get("totals", [])}
        cells += [summed.get(name, "-") for name in sums]
        gain = interval_text(row["last_minus_first"], sign="+")
        rows.append([row["label"], short(row["parameters"]), *cells, gain, interval_text(row["over_none"])])
    first = next(iter(result["configs"].values()))
    kind = "normalised return" if result["rows"][0]["normalized"] else "return"
    notes = [
        f"{first['env']['name']}, {split_name(result)} tasks: mean of the {kind} over "
        f"{result['rows'][0]['tasks']} tasks x {len(result['seeds'])} seed(s), with 95 % intervals of a "
        "stratified bootstrap",
        f"trained on {trained} trials of a task; later ones were never trained",
        "last trained - first: mean of the paired difference; beats none: probability of a better last "
        "trained trial than the memoryless agent's",
    ]
    return Table("Adaptation: return against trial", header, rows, notes)


def _span(part: Mapping[str, Any]) -> str:
    return f"sum of {part['first']} to {part['last']}"


def interval_text(interval: Mapping[str, float] | None, sign: str = "") -> str:
    """`value [low, high]`, a dash where there is none."""
    if interval is None:
        return "-"
    value, low, high = (f"{interval[name]:{sign}.3f}" for name in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def split_name(result: Mapping[str, Any]) -> str:
    """The split of a result, as a word of a sentence."""
    return result["settings"]["split"].replace("_", "-")


def figure(result: Mapping[str, Any]) -> "Figure":
    """The adaptation curves of all cores, and the random policy's."""
    rows = result["rows"]
    random = rows[0]["random"]
    return plot_adaptation(
        # the mean, not the interquartile mean, which is 1 wherever three tasks in four are solved
        {row["label"]: _mean_curve(row["curve"]) for row in rows},
        rows[0]["trained_trials"],
        None if random is None else {"random actions": random},
        title=f"Adaptation on {split_name(result)} tasks",
        ylabel="normalised return of the trial" if rows[0]["normalized"] else "return of the trial",
    )


def _mean_curve(curve: Mapping[str, Any]) -> dict[str, Any]:
    return {"mean": curve["mean"], "low": curve["mean_low"], "high": curve["mean_high"]}
