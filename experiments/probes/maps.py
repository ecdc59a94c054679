"""Looking into a core: which inputs an output depends on, and which its memory still tells apart."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ...cores import Core


def materialise(
    core: Core, params: Any, x: Float[Array, "T F"], reset: Bool[Array, " T"]
) -> Float[np.ndarray, "T T"]:
    """The mixing map of one sequence: how much output t (down) changes with input s (to the right).

    The Frobenius norm of d y_t / d x_s from an empty memory, for any core that takes vectors. It is zero
    above the diagonal and to the left of the last reset. All of the Jacobian is held at once: T² F features.
    """

    def outputs(x: Array) -> Array:
        y: Any = core.apply(params, core.initial_carry(1), x[:, None], reset[:, None])
        return y[1][:, 0]

    by_x = jax.jit(jax.jacrev(outputs))(x)  # [T, features, T, F]
    return np.sqrt(np.square(np.asarray(by_x, np.float64)).sum((1, 3)))


def carry_recall(
    core: Core, params: Any, x: Float[Array, "T B F"], delays: tuple[int, ...], ridge: float = 1e-3
) -> Float[np.ndarray, " N"]:
    """R² of a linear reading of the input d steps ago from the carry after the last step, per delay d.

    The reading is a ridge regression on one half of the rows and judged on the other: 1 is perfect, 0 no
    better than the mean, and below 0 worse. Integers of the carry, which count, are left out.
    Raises `ValueError` for a core without a memory and for a delay that lies before the first step.
    """
    steps, rows = x.shape[:2]
    if max(delays) >= steps or min(delays) < 0:
        raise ValueError(f"delays={delays} must lie between 0 and {steps - 1}, the steps before the last")
    reset = jnp.zeros((steps, rows), bool).at[0].set(True)
    carry = jax.jit(functools.partial(_carry, core))(params, x, reset)
    leaves: list[Any] = [np.asarray(leaf).reshape(rows, -1) for leaf in jax.tree.leaves(carry)]
    parts = [half for leaf in leaves if leaf.dtype.kind in "fc" for half in (leaf.real, leaf.imag)]
    if not parts:
        raise ValueError(f"{type(core).__name__} has no memory to read from; take another core")
    seen, half, scores = np.concatenate(parts, 1).astype(np.float64), rows // 2, []
    for delay in delays:
        wanted = np.asarray(x[steps - 1 - delay], np.float64)
        scores.append(_r2(seen[:half], seen[half:], wanted[:half], wanted[half:], ridge))
    return np.array(scores)


def _carry(core: Core, params: Any, x: Array, reset: Array) -> Any:
    out: Any = core.apply(params, core.initial_carry(x.shape[1]), x, reset)
    return out[0]


def _r2(fit: np.ndarray, test: np.ndarray, wanted: np.ndarray, judged: np.ndarray, ridge: float) -> float:
    centre, scale, mean = fit.mean(0), fit.std(0) + 1e-9, wanted.mean(0)
    a, b = (fit - centre) / scale, (test - centre) / scale
    weights = np.linalg.solve(a.T @ a + ridge * len(a) * np.eye(a.shape[1]), a.T @ (wanted - mean))
    error = np.square(b @ weights + mean - judged).sum()
    return float(1 - error / np.square(judged - mean).sum())
