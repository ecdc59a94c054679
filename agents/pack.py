"""Many small arrays as one: a loop that stacks a single output writes a single one a step."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def pack(tree: Any) -> Float[Array, "B W"]:
    """The leaves `[B, ...]` of a tree side by side in one float32 array, bit for bit.

    Leaves are float32, bfloat16 (as float32), bool (as 0 and 1) or 32-bit integers (their bits). On a GPU
    every output that a loop stacks is a kernel a step, and a rollout's transition has a dozen.
    """
    return jnp.concatenate([_flat(leaf) for leaf in jax.tree.leaves(tree)], axis=-1)


def unpack(packed: Float[Array, "T B W"], like: Any) -> Any:
    """The tree that `pack` was given, from a stack of what it gave: leaves `[T, B, ...]`.

    `like` has the structure, shapes and dtypes of one step.
    """
    leaves, structure = jax.tree.flatten(like)
    found, start = [], 0
    for leaf in leaves:
        width = math.prod(leaf.shape[1:])
        part = packed[..., start : start + width].reshape(*packed.shape[:-2], *leaf.shape)
        found.append(_back(part, leaf.dtype))
        start += width
    return structure.unflatten(found)


def _flat(leaf: Array) -> Array:
    leaf = leaf.reshape(leaf.shape[0], -1)
    if leaf.dtype in (jnp.bool_, jnp.bfloat16):
        return leaf.astype(jnp.float32)
    return jax.lax.bitcast_convert_type(leaf, jnp.float32)


def _back(part: Array, dtype: Any) -> Array:
    if dtype == jnp.bfloat16:
        return part.astype(dtype)
    return part != 0 if dtype == jnp.bool_ else jax.lax.bitcast_convert_type(part, dtype)
