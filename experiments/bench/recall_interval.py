"""The interval that every number of `resetta bench recall` has."""

import dataclasses

import numpy as np
from jaxtyping import Float

from ..stats import mean, stratified_bootstrap


def interval(values: Float[np.ndarray, "S N"]) -> dict[str, float]:
    """The mean of `[seed, task]` with its interval; NaN where there is nothing to tell apart."""
    if not np.isfinite(values).all():
        return dict.fromkeys(("value", "low", "high"), float("nan"))
    return dataclasses.asdict(stratified_bootstrap(values, mean, 1000, shared_runs=True))
