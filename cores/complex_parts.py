"""Products of numbers that travel as parts: `(real,)`, or `(re, im)` for complex ones, all float32.

A real factor also serves complex numbers.
"""

import jax.numpy as jnp
from jaxtyping import Array

Parts = tuple[Array, ...]


def mul(a: Parts, b: Parts) -> Parts:
    """a·b; `a` may be real where `b` is complex."""
    if len(a) == 1:
        return tuple(a[0] * x for x in b)
    return a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]


def conj(a: Parts) -> Parts:
    """The complex conjugate."""
    return a if len(a) == 1 else (a[0], -a[1])


def conj_mul(a: Parts, b: Parts, parts: int) -> Parts:
    """conj(a)·b, or its real part alone when `parts` is 1."""
    real = sum((x * y for x, y in zip(a, b, strict=True)), start=jnp.zeros(()))
    return (real,) if parts == 1 else (real, a[0] * b[1] - a[1] * b[0])
