"""The least time that a program's products and recurrences can take on a machine of given ceilings."""

import math
from collections.abc import Callable
from typing import Any

import jax

from .ceilings import Ceilings
from .flops import flops_of, inside

_PRODUCTS = ("dot_general", "conv_general_dilated")


def least_seconds(function: Callable[..., Any], ceilings: Ceilings, *args: Any) -> float:
    """A floor under the time of `function(*args)`; nothing is run.

    Every matrix product, convolution and hand-written kernel reads its operands and writes its results once,
    at the speed of a copy, or multiplies at the speed of a large product, whichever takes longer; a loop
    without products inside (a recurrence) reads its inputs and writes its outputs once. All else is free:
    elementwise work, normalisation, gathers, the optimiser, and the start of a kernel.
    """
    return _seconds(jax.make_jaxpr(function)(*args).jaxpr, ceilings)


def moved_bytes(function: Callable[..., Any], *args: Any) -> float:
    """The bytes that `least_seconds` counts; nothing is run."""
    return least_seconds(function, Ceilings(1.0, math.inf), *args)


def _seconds(jaxpr: Any, ceilings: Ceilings) -> float:
    return sum(_of(equation, ceilings) for equation in jaxpr.eqns)


def _of(equation: Any, ceilings: Ceilings) -> float:
    name, params = equation.primitive.name, equation.params
    moved = _bytes((*equation.invars, *equation.outvars)) / ceilings.bytes_per_second
    if name in _PRODUCTS or params.get("cost_estimate") is not None:
        return max(moved, flops_of(equation) / ceilings.multiplied(equation.invars[0].aval.dtype))
    if name == "pallas_call":
        return moved
    inner = [_seconds(getattr(part, "jaxpr", part), ceilings) for part in inside(params)]
    if name == "scan":
        return params["length"] * sum(inner) if sum(inner) else moved
    return max(inner, default=0.0) if name == "cond" else sum(inner)


def _bytes(variables: Any) -> int:
    sizes = (getattr(variable.aval, "size", 0) * _itemsize(variable.aval) for variable in variables)
    return sum(sizes)


def _itemsize(aval: Any) -> int:
    return int(getattr(getattr(aval, "dtype", None), "itemsize", 0))
