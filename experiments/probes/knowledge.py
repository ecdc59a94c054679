"""What can be read, trial by trial, from an agent's memory, and from the input of the same step alone."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from .reading import explained, matched, read
from .targets import Target


class Known(NamedTuple):
    """Scores `[task, trial]` of one target, R² or the share of right choices; the mean over tasks counts."""

    name: str
    measure: str
    memory: Float[np.ndarray, "N K"]
    input: Float[np.ndarray, "N K"]
    of: str = ""  # the target that this one is a column of


def of_tasks(moments: Sequence[Any], targets: Sequence[Sequence[Target]]) -> list[Known]:
    """How well each target is read in each trial; `moments` (`Moments`) and `targets`: (fitted to, judged).

    A reading is fitted for each trial alone, so that it is asked what is known by then.
    """
    fit, test = targets
    known = []
    for target, judged in zip(fit, test, strict=True):
        scores = []
        for source in (memory_of, input_of):
            a, b = (source(each) for each in moments)
            by_trial = [_score(a[:, k], target, b[:, k], judged) for k in range(a.shape[1])]
            scores.append(np.stack(by_trial, 1))
        measure = "right choices" if target.chosen else "R²"
        known.append(Known(target.name, measure, *scores, of=target.of))
    return known


def of_progress(moments: Sequence[Any]) -> list[Known]:
    """How well the step within a trial is read in each trial, and the trial's number over all of them.

    The number's reading is one for all trials; its scores are their means over trials, `[task, 1]`.
    """
    trials = np.asarray(moments[0].step).shape[1]
    steps = [np.asarray(each.step, float)[..., None] for each in moments]
    known = []
    scores: dict[str, list[np.ndarray]] = {"step": [], "number": []}
    for source in (memory_of, input_of):
        a, b = (source(each) for each in moments)
        by_trial = [
            _score(a[:, k], Target("", steps[0][:, k]), b[:, k], Target("", steps[1][:, k]))
            for k in range(trials)
        ]
        scores["step"].append(np.stack(by_trial, 1))
        numbers = [Target("", np.tile(np.arange(trials, dtype=float), len(x))[:, None]) for x in (a, b)]
        # the rows' number is said: a core without a memory has no columns to tell it by
        rows = [x.reshape(len(x) * trials, x.shape[-1]) for x in (a, b)]
        flat = _score(rows[0], numbers[0], rows[1], numbers[1])
        scores["number"].append(flat.reshape(len(b), trials).mean(1, keepdims=True))
    known.append(Known("step in the trial", "R²", scores["step"][0], scores["step"][1]))
    known.append(Known("number of the trial", "R²", scores["number"][0], scores["number"][1]))
    return [each for each in known if np.isfinite(each.memory).any()]


def memory_of(moments: Any) -> Float[np.ndarray, "N K F"]:
    """The memory after the step."""
    return np.asarray(moments.memory, float)


def input_of(moments: Any) -> Float[np.ndarray, "N K F"]:
    """The step's input as a vector: what an agent without a memory would know."""
    inputs = moments.inputs
    parts = [np.asarray(x, float) for x in (inputs.observation, inputs.action, inputs.reward)]
    parts.append(np.asarray(inputs.episode_start, float))
    return np.concatenate([part.reshape(*part.shape[:2], -1) for part in parts], -1)


def _score(fit: np.ndarray, target: Target, test: np.ndarray, judged: Target) -> np.ndarray:
    wanted, shape = target.values.reshape(len(fit), -1), judged.values.shape
    found = read(fit, wanted, test)
    if target.chosen:
        return matched(found.reshape(shape), judged.values)
    return explained(found, judged.values, wanted.mean(0))
