"""Rotary position embedding, with positions counted from the reset."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def positions(before: Int[Array, " B"], reset: Bool[Array, "B T"]) -> Int[Array, "B T"]:
    """How many inputs of its own sequence precede each input: 0 at a reset.

    `before[b]` inputs of row b's current sequence came before this chunk.
    """
    time = jnp.arange(reset.shape[1])
    # The sequence that is running when the chunk begins began `before` steps before it.
    start = jnp.concatenate([-before[:, None], jnp.where(reset, time, jnp.iinfo(jnp.int32).min)], axis=1)
    return time - jax.lax.cummax(start, axis=1)[:, 1:]


def rotate(x: Float[Array, "B T H D"], position: Int[Array, "B T"], theta: float) -> Float[Array, "B T H D"]:
    """Turn the pairs `(x_i, x_{i + D/2})` by `position * theta^(-2i/D)` (RoFormer, arXiv 2104.09864, eq. 15).

    Queries and keys turned so have products that depend on the difference of their positions only.
    """
    half = x.shape[-1] // 2
    frequency = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle = position[..., None, None].astype(jnp.float32) * frequency
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    a, b = x[..., :half], x[..., half:]
    return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)
