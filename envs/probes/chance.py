"""Binomial probabilities, for figures in closed form."""

import math

import numpy as np
from jaxtyping import Float


def binomial(n: int, p: float) -> Float[np.ndarray, " n+1"]:
    """The probabilities of 0 to n successes, in logarithms where n is large."""
    k = np.arange(n + 1)
    choose = np.array([math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) for i in k])
    return np.exp(choose + k * math.log(p) + (n - k) * math.log1p(-p))
