"""Linear readings: ridge regressions from what a memory holds to what was to be remembered."""

import numpy as np
from jaxtyping import Float

RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Strengths that `read` chooses from."""


def ridge_reading(
    fit: Float[np.ndarray, "N F"],
    wanted: Float[np.ndarray, "N D"],
    test: Float[np.ndarray, "M F"],
    ridge: float,
) -> Float[np.ndarray, "M D"]:
    """What a ridge regression of `wanted` on `fit` reads in `test`, all entries of `fit` having spread 1."""
    centre, scale, mean = fit.mean(0), fit.std(0) + 1e-9, wanted.mean(0)
    a, b = (fit - centre) / scale, (test - centre) / scale
    # of two equal forms the smaller: a memory may have far more entries than there are rows
    if a.shape[1] <= len(a):
        weights = np.linalg.solve(a.T @ a + ridge * len(a) * np.eye(a.shape[1]), a.T @ (wanted - mean))
    else:
        weights = a.T @ np.linalg.solve(a @ a.T + ridge * len(a) * np.eye(len(a)), wanted - mean)
    return b @ weights + mean


def read(
    fit: Float[np.ndarray, "N F"], wanted: Float[np.ndarray, "N D"], test: Float[np.ndarray, "M F"]
) -> Float[np.ndarray, "M D"]:
    """`ridge_reading` with the strength of `RIDGES` that does best on the last quarter of `fit`."""
    held = max(1, len(fit) // 4)
    errors = [
        np.square(ridge_reading(fit[:-held], wanted[:-held], fit[-held:], ridge) - wanted[-held:]).sum()
        for ridge in RIDGES
    ]
    return ridge_reading(fit, wanted, test, RIDGES[int(np.argmin(errors))])


def explained(
    found: Float[np.ndarray, "M D"], judged: Float[np.ndarray, "M D"], mean: Float[np.ndarray, " D"]
) -> Float[np.ndarray, " M"]:
    """Per row a number whose mean over rows is R²: 1 is perfect, 0 as good as `mean`; NaN without spread."""
    spread = np.square(judged - mean).sum(1).mean()
    if not spread > 0:
        return np.full(len(judged), np.nan)
    return 1 - np.square(found - judged).sum(1) / spread


def matched(found: Float[np.ndarray, "M C N"], judged: Float[np.ndarray, "M C N"]) -> Float[np.ndarray, " M"]:
    """Per row the share of its C choices among N whose largest entry is the right one."""
    return (found.argmax(-1) == judged.argmax(-1)).mean(-1)
