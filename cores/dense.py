"""Matrix products over sequences, in the form that a CPU multiplies fast."""

from typing import Any

import flax.linen as nn
import jax
from jax import lax
from jaxtyping import Array, Shaped

from .sharded import axes_in_use


def flat_dot_general(x: Array, kernel: Array, dimension_numbers: Any, **options: Any) -> Array:
    """`lax.dot_general` of `x [..., D]` and `kernel [D, E]`; on a CPU over rows `[N, D]`.

    The gradient of the kernel is then a product with one axis to sum over. With several (time and batch) XLA
    first transposes a copy for it and multiplies that at a quarter of the speed: 24 against 103 GFLOP/s of
    one core at N = 1024, D = 64, E = 480. Not on a mesh, where time and rows are shared out apart.
    """
    last = (((x.ndim - 1,), (0,)), ((), ()))
    if jax.default_backend() != "cpu" or axes_in_use() or x.ndim < 3 or dimension_numbers != last:
        return lax.dot_general(x, kernel, dimension_numbers, **options)
    y = lax.dot_general(x.reshape(-1, x.shape[-1]), kernel, (((1,), (0,)), ((), ())), **options)
    return y.reshape(*x.shape[:-1], *y.shape[1:])


def product(x: Shaped[Array, "*N D"], kernel: Shaped[Array, "D E"]) -> Shaped[Array, "*N E"]:
    """`x @ kernel` by `flat_dot_general`."""
    return flat_dot_general(x, kernel, (((x.ndim - 1,), (0,)), ((), ())))


class Dense(nn.Dense):
    """`flax.linen.Dense` by `flat_dot_general`."""

    dot_general: Any = flat_dot_general
