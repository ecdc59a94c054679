"""Counting a program's multiplications and additions in products and convolutions, loops included."""

import math
from collections.abc import Callable
from typing import Any

import jax


def count_flops(function: Callable[..., Any], *args: Any) -> int:
    """Floating-point operations of `function(*args)` in matrix products and convolutions; nothing is run.

    XLA's own count takes the body of a loop once. Elementwise work isn't counted, and of a branch the
    costliest side is. Of a kernel that estimates its own, the estimate counts: what it may skip is known to
    no one else. Raises `ValueError` for a loop of unknown length that holds products.
    """
    return count_program(jax.make_jaxpr(function)(*args).jaxpr)


def count_program(jaxpr: Any) -> int:
    """`count_flops` of what is traced already."""
    return sum(flops_of(equation) for equation in jaxpr.eqns)


def flops_of(equation: Any) -> int:
    """Operations of one equation of a program."""
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        left = equation.invars[0].aval.shape
        return 2 * equation.outvars[0].aval.size * math.prod(left[axis] for axis in contracted)
    if name == "conv_general_dilated":
        kernel, spec = equation.invars[1].aval.shape, params["dimension_numbers"].rhs_spec
        # each output is a sum over the kernel's window and its input channels (of one group); zeros that
        # dilation puts between inputs, as in gradients of strided convolutions, aren't work
        window = math.prod(kernel[axis] for axis in spec[1:])
        return 2 * equation.outvars[0].aval.size * window // math.prod(params["lhs_dilation"])
    if params.get("cost_estimate") is not None:
        return params["cost_estimate"].flops
    inner = [count_program(getattr(part, "jaxpr", part)) for part in inside(params)]
    if name == "scan":
        return params["length"] * sum(inner)
    if name == "while" and sum(inner):
        raise ValueError("a while loop holds products; how often it runs isn't known")
    return max(inner, default=0) if name == "cond" else sum(inner)


def inside(params: Any) -> list[Any]:
    """Jaxprs among an equation's parameters."""
    values = [item for v in params.values() for item in (v if isinstance(v, tuple | list) else (v,))]
    return [value for value in values if hasattr(value, "eqns") or hasattr(value, "jaxpr")]
