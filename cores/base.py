"""The one interface every memory core implements, and the meaning of a reset."""

from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

Carry = Any  # a pytree whose leaves all begin with the batch axis; `()` for a memoryless core


class Core(nn.Module):
    """A sequence model with a memory that resets.

    `core.apply(params, carry, x, reset) -> (carry, y)` maps `x [T, B, *F]` to `y [T, B, *G]`.
    `reset[t, b]` is true when `x[t, b]` is the *first input of a new sequence*: the memory of row `b` is
    cleared before `x[t, b]` is consumed. The carry returned is the one after `x[T-1]`. One step is `T = 1`.

    `F` is `(D,)`, or `(H, W, C)` where `spatial` is true. Outputs have `features` channels and the dtype
    of `x`; the memory itself is kept in float32 whatever the dtype of the inputs.

    The ten laws that every core obeys are listed, and checked, in `resetta.testing.check_core`.
    """

    features: int = 64
    spatial: ClassVar[bool] = False

    def initial_carry(self, batch: int, size: tuple[int, int] | None = None) -> Carry:
        """The carry of an empty memory: every leaf `[batch, ...]`; needs neither parameters nor a key.

        `size` is `(H, W)` and is needed by spatial cores only, which raise `TypeError` without it.
        """
        raise NotImplementedError

    def __call__(
        self, carry: Carry, x: Float[Array, "T B ..."], reset: Bool[Array, "T B"]
    ) -> tuple[Carry, Float[Array, "T B ..."]]:
        """Consume `T` inputs; see the class."""
        raise NotImplementedError


def clear(carry: Carry, reset: Bool[Array, " B"], empty: Carry) -> Carry:
    """`carry` with the rows where `reset` is true replaced by `empty`'s.

    A select, never a product with `1 - reset`: 0 * NaN is NaN, so a product would let a poisoned memory
    survive its own reset.
    """

    def select(old: Array, new: Array) -> Array:
        return jnp.where(reset.reshape(reset.shape + (1,) * (old.ndim - 1)), new, old)

    return jax.tree.map(select, carry, empty)


def numbers(carry: Carry, batch: int) -> Float[Array, "B N"]:
    """All numbers of the memory of `batch` rows: complex ones are two, integers, which count, none."""
    parts = [jnp.zeros((batch, 0))]
    for leaf in jax.tree.leaves(carry):
        if jnp.issubdtype(leaf.dtype, jnp.inexact):
            halves = (leaf.real, leaf.imag) if jnp.iscomplexobj(leaf) else (leaf,)
            parts += [half.reshape(batch, -1).astype(jnp.float32) for half in halves]
    return jnp.concatenate(parts, 1)
