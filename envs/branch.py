"""Work that is seldom needed: skipped where skipping is cheaper than doing it."""

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, Bool

# Equations of a program below which a GPU is better off running it at every step: a branch makes the host
# wait for its condition and cuts the step's kernels into pieces, some 20 µs; elementwise work is fused.
_FEW = 400
_SLOW = (
    "scan",
    "while",
    "qr",
    "householder_product",
    "eigh",
    "svd",
    "lu",
    "cholesky",
    "triangular_solve",
    "sort",
)


def if_any(needed: Bool[Array, ""], change: Callable[..., Any], *operands: Any) -> Any:
    """`change(*operands)` if `needed`, else `operands[0]`.

    `change` itself must leave `operands[0]` as it is where `needed` is false, for it may run all the same: on
    an accelerator, where it is short and holds neither loops nor linear algebra.
    """
    if jax.default_backend() != "cpu" and _short(change, *operands):
        return change(*operands)
    return jax.lax.cond(needed, change, lambda first, *_: first, *operands)


def _short(function: Callable[..., Any], *args: Any) -> bool:
    size = _size(jax.make_jaxpr(function)(*args).jaxpr)
    return size <= _FEW


def _size(jaxpr: Any) -> float:
    """Equations of a program, those inside of equations included; infinite where any is slow."""
    total = 0.0
    for equation in jaxpr.eqns:
        if equation.primitive.name in _SLOW:
            return float("inf")
        inner = [part for value in equation.params.values() for part in _programs(value)]
        total += sum(map(_size, inner)) if inner else 1
    return total


def _programs(value: Any) -> list[Any]:
    values = value if isinstance(value, tuple | list) else (value,)
    return [getattr(v, "jaxpr", v) for v in values if hasattr(v, "eqns") or hasattr(v, "jaxpr")]
