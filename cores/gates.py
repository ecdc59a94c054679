"""How a layer's output is gated before it joins the residual stream."""

from functools import partial

import jax
from jaxtyping import Array, Float

from .dense import Dense

GATES = ("half_glu", "full_glu", "input", "gelu", "none")


def gated(gate: str, y: Float[Array, "... C"], u: Float[Array, "... D"]) -> Float[Array, "... C"]:
    """`y` behind one of `GATES`; `u` is the layer's input. Call this inside a compact method.

    With g = gelu(y): `half_glu` is g∘σ(W g), `full_glu` (W₁ g)∘σ(W₂ g), `input` y∘silu(W u), `gelu` g and
    `none` y. The weights are called `gate` and `value`.
    """
    dense = partial(Dense, y.shape[-1], dtype=y.dtype)
    match gate:
        case "half_glu":
            y = jax.nn.gelu(y)
            return y * jax.nn.sigmoid(dense(name="gate")(y))
        case "full_glu":
            y = jax.nn.gelu(y)
            return dense(name="value")(y) * jax.nn.sigmoid(dense(name="gate")(y))
        case "input":
            return y * jax.nn.silu(dense(name="gate")(u))
        case "gelu":
            return jax.nn.gelu(y)
        case _:
            return y
