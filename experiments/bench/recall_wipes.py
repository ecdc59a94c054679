"""What emptying a memory costs, as a trial begins and in its midst, against the same play with it kept."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Int

from .recall_interval import interval

_BINS = 25  # of a trial's steps, or one more


def at_a_start(kept: Any, emptied: Any, trial: int) -> dict[str, Any]:
    """The row of a memory emptied as `trial` (from 1) begins: returns `[seed, task, trial]`, paired."""
    k = trial - 1
    return {
        "part": "wipe",
        "trial": trial,
        **_returns(kept.returns, emptied.returns),
        **_differences(kept.returns, emptied.returns, k),
        "against_first": interval(emptied.returns[..., k] - kept.returns[..., 0]),
    }


def middle(lengths: Int[np.ndarray, "S B K"], trial: int) -> int:
    """The step, from 0, in the midst of a trial (from 1): half of its median length."""
    return int(np.median(lengths[..., trial - 1])) // 2


def in_the_midst(kept: Any, emptied: Any, trial: int, step: int, longest: int) -> dict[str, Any]:
    """The row of a memory emptied before `step` (from 0) of `trial` (from 1), over the tasks that reached it.

    The trial's reward a step by steps since the wipe, in some `_BINS` bins; of `longest` steps those after
    the trial's end earn nothing, or else a task that pays for every step survived would pay alike whatever is
    forgotten. Tasks count where every seed's trial lasted until then, which both plays tell alike: until then
    they are one.
    """
    wiped_at = emptied.wiped_at
    reached = (wiped_at < emptied.rewards.shape[1]).all(0)
    row = {"part": "midway", "trial": trial, "step": step, "tasks": int(reached.sum())}
    if not reached.any():
        return row
    lags = np.arange(-step, longest - step)
    plays = []
    for each in (kept, emptied):
        rest = each.lengths[:, reached, trial - 1, None] - step
        rewards = np.pad(each.rewards, ((0, 0), (0, longest), (0, 0)))[..., reached].swapaxes(1, 2)
        around = np.take_along_axis(rewards, wiped_at[:, reached, None] + lags, 2)
        plays.append(np.where(lags < rest, around, 0.0))
    width = -(-longest // _BINS)
    bins = []
    for number in range(lags[0] // width, lags[-1] // width + 1):
        here = lags // width == number  # none lies on both sides of the wipe
        a, b = (each[..., here].mean(-1) for each in plays)
        bins.append(
            {
                "from": int(lags[here][0]),
                "to": int(lags[here][-1]),
                **{name: interval(value) for name, value in (("kept", a), ("emptied", b), ("change", b - a))},
            }
        )
    returns = kept.returns[:, reached], emptied.returns[:, reached]
    return {**row, "bins": bins, **_differences(*returns, k=trial - 1)}


def _returns(kept: np.ndarray, emptied: np.ndarray) -> Mapping[str, Any]:
    plays = {"kept": kept, "emptied": emptied}
    return {name: [interval(x[..., i]) for i in range(x.shape[-1])] for name, x in plays.items()}


def _differences(kept: np.ndarray, emptied: np.ndarray, k: int) -> dict[str, Any]:
    """Of the trial in which the memory is emptied, of the one after, and of all from it on."""
    change = emptied - kept
    after = {"next": interval(change[..., k + 1])} if k + 1 < change.shape[-1] else {}
    return {"lost": interval(change[..., k]), **after, "total": interval(change[..., k:].sum(-1))}
