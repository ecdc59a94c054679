"""A run's result in plain sentences, each chosen by the numbers it states."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from .run_record import SPLITS, Run, returns
from .stats import Curve, Interval, improvement


def headline(run: Run, curves: Mapping[str, Curve]) -> tuple[str, list[str]]:
    """The result in one plain sentence, and the sentences that qualify it; text, not HTML."""
    split = next((name for name in SPLITS if name in curves), None)
    if split is None:
        return _untested(run)
    curve, played = curves[split], returns(run, split)
    assert played is not None
    seeds, tasks, trials = played.shape
    where = {"held_out": f"On {tasks:,} tasks it never trained on"}.get(
        split, f"On {tasks:,} {SPLITS[split]}"
    )
    agents = "one seed" if seeds == 1 else f"{seeds} seeds"
    last = min(run.trained_trials, trials) - 1
    if last == 0:
        sentence = f"{where}, the agent earns a return of {number(curve.mean[0])}."
        more = [f"The mean over {agents} and all tasks, 95 % interval {bounds(curve, 0)}."]
    else:
        gain = improvement(played, 0, last)
        verb = _verb(gain, "rises from", "falls from", "does not clearly change: it is")
        sentence = (
            f"{where}, the agent’s return {verb} {number(curve.mean[0])} in its first trial "
            f"{'to' if 'from' in verb else 'and'} {number(curve.mean[last])} in its {_ordinal(last + 1)}."
        )
        more = [
            f"Means over {agents} and all tasks, 95 % intervals {bounds(curve, 0)} and "
            f"{bounds(curve, last)}. Paired within each task, the gain is {_interval(gain)}."
        ]
    if trials > last + 1:
        drift = improvement(played, last, trials - 1)
        verb = _verb(drift, "gains a further", "loses", "keeps its level:")
        amount = _interval(
            drift if "loses" not in verb else Interval(-drift.value, -drift.high, -drift.low), sign=False
        )
        tail = f"a change of {_interval(drift)}" if "keeps" in verb else amount
        more.append(
            f"Beyond the {last + 1} trial{'s' if last else ''} it was trained for it {verb} {tail} "
            f"by trial {trials}, where the return is {number(curve.mean[-1])} {bounds(curve, trials - 1)}."
        )
    if seeds == 1:
        more.append(
            "With one seed, the intervals speak of the tasks and not of how training might have gone."
        )
    return sentence, more


def _untested(run: Run) -> tuple[str, list[str]]:
    if not run.rows:
        return "Nothing has been trained in this directory yet.", []
    steps = run.rows[-1].get("env_steps")
    recent = [row["episode_return"] for row in run.rows[-20:] if isinstance(row.get("episode_return"), list)]
    values = [float(value) for row in recent for value in row if value is not None]
    told = f", with a return of {number(np.mean(values))} in its latest training trials" if values else ""
    return f"Trained for {steps:,} steps{told}; not evaluated yet." if isinstance(
        steps, int
    ) else "Not evaluated yet.", []


def _verb(change: Interval, up: str, down: str, same: str) -> str:
    return up if change.low > 0 else down if change.high < 0 else same


def number(value: Any) -> str:
    """A return, to two places, with a true minus sign."""
    told = f"{float(value):.2f}" if abs(value) < 100 else f"{float(value):,.0f}"
    return told.replace("-0.00", "0.00").replace("-", "−")


def bounds(curve: Curve, trial: int) -> str:
    """The interval of the mean at a trial, counted from 0."""
    return f"[{number(curve.mean_low[trial])}, {number(curve.mean_high[trial])}]"


def _interval(found: Interval, sign: bool = True) -> str:
    plus = "+" if sign and found.value >= 0 else ""
    return f"{plus}{number(found.value)} [{number(found.low)}, {number(found.high)}]"


def _ordinal(n: int) -> str:
    words = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
    if n <= len(words):
        return words[n - 1]
    suffix = "th" if 10 <= n % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{suffix}"
