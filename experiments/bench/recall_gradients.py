"""What decisions rest on: gradients of the value and of the chosen action to every earlier observation."""

from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from ...agents import Agent, AgentState, input_gradients
from ...envs import MetaEnv
from .recall_interval import interval

WHICH = ("value", "action")


class Traced(NamedTuple):
    """Decisions traced to their inputs, `[seed, T, decision]`; `value` and `action` are gradients' norms.

    `maps` are those of each pixel, channels taken together, `[which, seed, T, decision, H, W]`, of the
    decisions that pictures were asked of; None without pixels.
    """

    value: Float[np.ndarray, "S T R"]
    action: Float[np.ndarray, "S T R"]
    maps: Float[np.ndarray, "2 S T P H W"] | None
    at: Int[np.ndarray, "S R"]  # the decision's step in the meta-episode
    across_reset: float  # the largest norm on the other side of a reset


def trace(
    agent: Agent,
    state: AgentState,
    env: MetaEnv,
    watched: Any,
    rows: Int[np.ndarray, " R"],
    last: int,
    pictured: Int[np.ndarray, " P"],
) -> Traced:
    """The chosen moments of trial `last` (from 1), one decision each of the tasks `rows`.

    Every row begins with the first steps of another one, so that it holds a reset, across which every
    gradient must be 0. `pictured` are the numbers of decisions whose maps are kept. Films take memory: their
    decisions are traced one by one.
    """
    before, pixels = env.max_steps, len(env.observation_shape) == 3
    gradients = jax.jit(lambda *given: input_gradients(agent, *given))
    chunk, found, maps = 1 if pixels else len(rows), [], []
    at = watched.moments.at[:, rows, last - 1]
    for seed in range(len(at)):
        params, observations = (
            jax.tree.map(lambda x, s=seed: x[s], y) for y in (state.params, state.observations)
        )
        inputs, actions = jax.tree.map(
            lambda x, s=seed: np.concatenate([np.roll(x[s, :before], 1, axis=1), x[s]]),
            (watched.inputs, watched.actions),
        )
        norms, of_pixels = [], []
        for start in range(0, len(rows), chunk):
            part = slice(start, start + chunk)
            given = jax.tree.map(lambda x, p=part: x[:, p], (inputs, actions))
            pair = np.stack(gradients(params, observations, *given, at[seed, part] + before))
            norms.append(np.sqrt(np.square(pair.reshape(*pair.shape[:3], -1)).sum(-1)))
            if pixels and start in pictured:
                of_pixels.append(np.sqrt(np.square(pair).sum(-1))[:, before:])
        found.append(np.concatenate(norms, 2))
        maps += [np.concatenate(of_pixels, 2)] if of_pixels else []
    value, action = np.stack(found, 1)  # [S, before + T, R] each
    across = max(float(value[:, :before].max()), float(action[:, :before].max()))
    kept = np.stack(maps, 1) if maps else None
    return Traced(value[:, before:], action[:, before:], kept, at, across)


def summary(traced: Traced, trial: Int[np.ndarray, "S T R"], last: int) -> dict[str, Any]:
    """The row of the decisions of trial `last` (from 1): gradients by lag, and the shares of times."""
    row = {"part": "gradients", "trial": last, "decisions": traced.at.shape[1]}
    row["across_reset"] = traced.across_reset
    for name in WHICH:
        found = getattr(traced, name)
        row[name] = {"lags": _by_lag(found, traced.at), "shares": _shares(found, traced.at, trial, last - 1)}
    return row


def _by_lag(found: np.ndarray, at: np.ndarray) -> list[dict[str, float]]:
    """The mean over decisions for each lag that half of all tasks' decisions reach."""
    reach = int(np.median(at.min(0)))
    lags = []
    for lag in range(reach + 1):
        reached = (at >= lag).all(0)
        values = np.take_along_axis(found, np.maximum(at - lag, 0)[:, None], 1)[:, 0]
        lags.append({"lag": lag, **interval(values[:, reached])})
    return lags


def _shares(found: np.ndarray, at: np.ndarray, trial: np.ndarray, last: int) -> dict[str, dict[str, float]]:
    """Of each decision's summed gradients: the present's, this trial's, the one before's, earlier ones'.

    Every input after a decision has none.
    """
    step = np.arange(found.shape[1])[None, :, None]
    earlier = step < at[:, None]
    groups = {
        "present": step == at[:, None],
        "this trial": earlier & (trial == last),
        "trial before": earlier & (trial == last - 1),
        "earlier trials": earlier & (trial < last - 1),
    }
    total = np.maximum(found.sum(1), 1e-30)
    return {name: interval((found * mask).sum(1) / total) for name, mask in groups.items()}
