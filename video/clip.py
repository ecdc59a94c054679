"""A piece of video, and the conventions that every part of this package keeps."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Shaped, UInt8

NO_ACTION = -1  # the discrete action that stands for none; of continuous actions it is zeros


class Clip(NamedTuple):
    """Time-major video, of numpy or JAX arrays.

    `frames` uint8 `[T, B, H, W, C]`. `actions[t]` leads from frame t to frame t + 1: int32 `[T, B]`
    (`NO_ACTION` where there is none) or float32 `[T, B, A]`, None where the world has no actions.
    `reset[t, b]` is true where frame t is the first of another clip.
    """

    frames: UInt8[Any, "T B H W C"]
    actions: Shaped[Any, "T B ..."] | None
    reset: Bool[Any, "T B"]


@dataclasses.dataclass(frozen=True)
class ActionSpace:
    """What `Clip.actions` holds: none, `discrete` ones (`size` of them) or `continuous` (`size` wide)."""

    kind: str = "none"
    size: int = 0

    def __post_init__(self) -> None:
        if self.kind not in ("none", "discrete", "continuous"):
            raise ValueError(f"kind={self.kind!r} must be one of none, discrete, continuous")

    def nothing(self, *shape: int) -> np.ndarray | None:
        """No action, `[*shape]` or `[*shape, size]`; None where the world has no actions."""
        if self.kind == "none":
            return None
        if self.kind == "discrete":
            return np.full(shape, NO_ACTION, np.int32)
        return np.zeros((*shape, self.size), np.float32)


def to_float(frames: Shaped[Array, "..."], dtype: jnp.dtype = jnp.float32) -> Float[Array, "..."]:
    """uint8 pixels as numbers in [-1, 1], which is what models see."""
    return (frames.astype(jnp.float32) / 127.5 - 1.0).astype(dtype)


def to_uint8(frames: Float[Array, "..."]) -> UInt8[Array, "..."]:
    """Numbers in [-1, 1] as the nearest uint8 pixels; what lies outside is clipped."""
    levels = jnp.round((frames.astype(jnp.float32) + 1.0) * 127.5)
    return jnp.clip(jnp.nan_to_num(levels), 0, 255).astype(jnp.uint8)


def batch_first(clip: Clip) -> Clip:
    """`[B, T, ...]` from `[T, B, ...]`, or back."""
    return jax.tree.map(lambda leaf: leaf.swapaxes(0, 1), clip)
