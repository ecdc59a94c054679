"""Many small arrays as one array per dtype: a loop that stacks few outputs writes few."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array


def pack(tree: Any) -> tuple[Array, ...]:
    """The leaves `[B, ...]` of a tree side by side, `[B, W]`: an array for each dtype among them.

    On a GPU every output that a loop stacks is a kernel a step; a rollout's transition has a dozen.
    """
    return tuple(
        jnp.concatenate([leaf.reshape(leaf.shape[0], -1) for leaf in leaves], axis=-1)
        for leaves in _by_dtype(jax.tree.leaves(tree)).values()
    )


def unpack(packed: tuple[Array, ...], like: Any) -> Any:
    """The tree that `pack` was given, from stacks `[T, B, W]` of what it gave: leaves `[T, B, ...]`.

    `like` has the structure, shapes and dtypes of one step.
    """
    leaves, structure = jax.tree.flatten(like)
    found: list[Array] = [jnp.zeros(())] * len(leaves)
    for stack, numbers in zip(packed, _by_dtype(leaves, numbers=True).values(), strict=True):
        start = 0
        for number in numbers:
            shape = leaves[number].shape
            width = math.prod(shape[1:])
            found[number] = stack[..., start : start + width].reshape(*stack.shape[:-2], *shape)
            start += width
    return structure.unflatten(found)


def _by_dtype(leaves: list[Any], numbers: bool = False) -> dict[Any, list[Any]]:
    """Leaves, or their numbers, by dtype, in the order in which dtypes first appear."""
    found: dict[Any, list[Any]] = {}
    for number, leaf in enumerate(leaves):
        found.setdefault(jnp.dtype(leaf.dtype), []).append(number if numbers else leaf)
    return found
