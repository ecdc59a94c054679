"""Looking into a core: which inputs an output depends on, and which its memory still tells apart."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ...cores import Core
from ...cores.base import numbers
from ...cores.stack import Stack
from ...envs.probes import Probe
from .reading import explained, ridge_reading

MOST, ROWS = 128, 512  # steps of a mixing map, and episodes that a reading is fitted to and judged by
_FEWEST = 4  # rows of a reading


def materialise(
    core: Core, params: Any, x: Float[Array, "T F"], reset: Bool[Array, " T"]
) -> Float[np.ndarray, "T T"]:
    """The mixing map of one sequence: how much output t (down) changes with input s (to the right).

    The Frobenius norm of d y_t / d x_s from an empty memory, for any core that takes vectors. It is zero
    above the diagonal and to the left of the last reset. One output's derivatives are held at a time.
    """

    def outputs(x: Array) -> Array:
        y: Any = core.apply(params, core.initial_carry(1), x[:, None], reset[:, None])
        return y[1][:, 0]

    @jax.jit
    def rows(x: Array) -> Array:
        y, pull = jax.vjp(outputs, x)

        def row(t: Array) -> Array:
            one = jnp.zeros((y.shape[1], *y.shape)).at[:, t].set(jnp.eye(y.shape[1]))
            return jnp.sqrt(jnp.square(jax.vmap(pull)(one)[0]).sum((0, 2)))

        return jax.lax.map(row, jnp.arange(y.shape[0]))

    return np.asarray(rows(x))


def carry_recall(
    core: Core,
    params: Any,
    x: Float[Array, "T B F"],
    delays: Sequence[int],
    ridge: float = 1e-3,
    said: Float[Array, "T B D"] | None = None,
    reset: Bool[Array, "T B"] | None = None,
) -> Float[np.ndarray, "P N"]:
    """R² of a linear reading of the input d steps ago from the carry after the last step, per delay d.

    It is read from the whole carry, and after it, if there are several, from each of the `layers` by itself
    (MemMamba's fidelity along the depth, Wang et al. 2025, arXiv 2510.03279); NaN where one holds nothing.
    The reading is a ridge regression on one half of the rows and judged on the other: 1 is perfect, 0 no
    better than the mean, and below 0 worse; NaN where all inputs are the same. Integers of the carry, which
    count, are left out. What is read is `x`, or what it was made from, `said`. Rows with a `reset` after the
    input have nothing of it and are left out; NaN where fewer than four are left. Without `reset` every row
    is one sequence.
    Raises `ValueError` for a core without a memory and for a delay that lies before the first step.
    """
    steps, rows = x.shape[:2]
    if max(delays) >= steps or min(delays) < 0:
        raise ValueError(f"delays={delays} must lie between 0 and {steps - 1}, the steps before the last")
    reset = (jnp.zeros((steps, rows), bool) if reset is None else reset).at[0].set(True)
    carry = jax.jit(functools.partial(_carry, core))(params, x, reset)
    own = layers(core, carry)
    parts = [np.asarray(numbers(part, rows), np.float64) for part in (carry, *(own if len(own) > 1 else ()))]
    begun = steps - 1 - np.asarray(reset)[::-1].argmax(0)  # where each row's last sequence begins
    if not parts[0].shape[1]:
        raise ValueError(f"{type(core).__name__} has no memory to read from; take another core")
    scores = np.full((len(parts), len(delays)), np.nan)
    for k, delay in enumerate(delays):
        (kept,) = np.nonzero(begun <= steps - 1 - delay)
        if len(kept) < _FEWEST:
            continue
        fit, test = np.split(kept, [len(kept) // 2])
        wanted = np.asarray((x if said is None else said)[steps - 1 - delay], np.float64)
        for part, seen in enumerate(parts):
            if seen.shape[1]:
                found = ridge_reading(seen[fit], wanted[fit], seen[test], ridge)
                scores[part, k] = explained(found, wanted[test], wanted[fit].mean(0)).mean()
    return scores


def layers(core: Core, carry: Any) -> list[Any]:
    """The memory of each layer, the first one read first; the whole carry where it is not told apart.

    A stack has those of its parts. Of a core with `num_layers` they are told apart if all its arrays of
    numbers have so many entries behind the batch axis, `[B, num_layers, ...]`, as all of ours have.
    """
    if isinstance(core, Stack):
        pairs = zip(core.make_parts(), carry, strict=True)
        return [layer for part, own in pairs for layer in layers(part, own)]
    number = getattr(core, "num_layers", 1)
    leaves = [leaf for leaf in jax.tree.leaves(carry) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    if not leaves or any(leaf.shape[1:2] != (number,) for leaf in leaves):
        return [carry]
    return [[leaf[:, k] for leaf in leaves] for k in range(number)]


def _carry(core: Core, params: Any, x: Array, reset: Array) -> Any:
    out: Any = core.apply(params, core.initial_carry(x.shape[1]), x, reset)
    return out[0]


def look_into(core: Core, probe: Probe, params: Any, seed: int) -> dict[str, Any]:
    """What is kept of a trained reader: its core's mixing map in one episode, and what its carry recalls.

    `mixing` `[T, T]` is of the last `MOST` steps at most, from an empty memory, and `asked` says which of
    them ask; `recall` is the R² of the token d steps before the last one, for every d of `delays`, over
    `ROWS` episodes; None where that token is always the same or lies before the last reset. `layer_recall`
    is the same of each layer by itself, nothing where there is one alone. Where there is no memory to read
    from, `recall` is None.
    """
    learnt = params["params"]
    inner = {"params": learnt["core"]} if "core" in learnt else {}
    episode = jax.jit(probe.sequences, static_argnums=1)(jax.random.fold_in(jax.random.key(seed), 3), ROWS)
    x = episode.tokens @ learnt["embed"]["kernel"] + learnt["embed"]["bias"]
    last = slice(max(probe.length - MOST, 0), None)
    mixing = materialise(core, inner, x[last, 0], episode.reset[last, 0])
    doubling = {2**k for k in range(probe.length.bit_length()) if 2**k < probe.length}
    delays = sorted(doubling | {probe.length - 1})  # the first step too: it often says what is to be kept
    try:
        found = carry_recall(core, inner, x, delays, said=episode.tokens, reset=episode.reset)
        recall, *by_layer = [
            [round(value, 4) if np.isfinite(value) else None for value in part] for part in found.tolist()
        ]
    except ValueError:
        recall, by_layer = None, []
    return {
        "mixing": [[float(f"{value:.3g}") for value in row] for row in mixing.tolist()],
        "asked": np.asarray(episode.mask[last, 0]).tolist(),
        "delays": delays,
        "recall": recall,
        "layer_recall": by_layer,
    }
