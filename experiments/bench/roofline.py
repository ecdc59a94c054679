"""The least time that a program's products and recurrences can take on a machine of given ceilings."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from .ceilings import Ceilings
from .flops import count_program, flops_of, inside

_PRODUCTS = ("dot_general", "conv_general_dilated")


class Counted(NamedTuple):
    """The floor under a program's time (see `least_seconds`), the bytes and the operations it is made of."""

    least_seconds: float
    moved_bytes: float
    flops: int


def counted(program: Any, ceilings: Ceilings) -> Counted:
    """What a program holds that is traced already, by `jax.make_jaxpr` or by `jax.jit(...).trace(...).jaxpr`.

    Tracing a large update takes Python seconds: it is done once for all three, and for compiling where that
    compiles the same. Raises `ValueError` as `count_flops` does.
    """
    jaxpr, unhurried = program.jaxpr, Ceilings(1.0, math.inf)
    return Counted(_seconds(jaxpr, ceilings), _seconds(jaxpr, unhurried), count_program(jaxpr))


def least_seconds(function: Callable[..., Any], ceilings: Ceilings, *args: Any) -> float:
    """A floor under the time of `function(*args)`; nothing is run.

    Every matrix product, convolution and hand-written kernel reads its operands and writes its results once,
    at the speed of a copy, or multiplies at the speed of a large product, whichever takes longer; a loop
    without products inside (a recurrence) reads its inputs and writes its outputs once. All else is free:
    elementwise work, normalisation, gathers, the optimiser, and the start of a kernel.
    """
    return _seconds(jax.make_jaxpr(function)(*args).jaxpr, ceilings)


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
