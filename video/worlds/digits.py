"""Digits that bounce about in an empty frame: the motion of Moving MNIST with scikit-learn's digits."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from ..clip import ActionSpace
from .glyphs import GRID, choose, draw_glyph, glyphs
from .matching import digit_measures

_FINE = 2**16  # speeds, and places of the stochastic variant, are whole numbers of 1/65,536 pixel
_TURN = 2.0**32  # fixed-point units in a period of the motion: uint32 wraps around exactly there
_AROUND = 2**14  # headings


@dataclasses.dataclass(frozen=True)
class MovingDigits:
    """`digits` digits, each at its own constant speed, reflected at the borders.

    The motion has a closed form, a triangle wave, in fixed-point arithmetic: frame 1,000,000 is as exact as
    frame 0. Speeds are drawn between `slowest` and `fastest` pixels a frame of a 64-pixel canvas, in
    proportion on others, to 1/65,536 pixel: whole ones would make short periods. Headings are uniform.
    (Moving MNIST's step is 3.6 of its 36 pixels of free way; ours, 1.5 to 3.5 by default.) Digits are drawn
    at sub-pixel places (bilinear) and the brighter one wins where they overlap. Held-out clips show digits
    that training clips never do.

    Truth: `position` `[T, K, 2]` (row and column of the centres, in pixels), `label` and `instance` `[T, K]`.
    """

    size: int = 64
    digits: int = 2
    digit_size: int | None = None
    slowest: float = 1.5
    fastest: float = 3.5

    channels: ClassVar[int] = 1
    actions: ClassVar[ActionSpace] = ActionSpace()

    def __post_init__(self) -> None:
        if self.size < 16:
            raise ValueError(f"data.size={self.size} is too small for digits; use 16 or more")
        if self.digits < 1:
            raise ValueError(f"data.digits={self.digits} must be at least 1")
        if not 4 <= self.glyph < self.size:
            raise ValueError(f"data.digit_size={self.glyph} must be 4 or more and less than size={self.size}")
        room = self._room * 64 / self.size
        if not 0 < self.slowest <= self.fastest < room:
            raise ValueError(
                f"data.slowest={self.slowest} and data.fastest={self.fastest} must satisfy "
                f"0 < slowest <= fastest < {room:g}, the way from border to border"
            )

    @property
    def glyph(self) -> int:
        """Height and width of a digit in pixels: 28 of 64, unless `digit_size` says otherwise."""
        return round(self.size * 28 / 64) if self.digit_size is None else self.digit_size

    def clip(
        self, key: Array, start: Int[Array, ""], frames: int, held_out: bool
    ) -> tuple[UInt8[Array, "T H W 1"], None, dict[str, Array]]:
        """Frames `start` … `start + frames - 1` of the endless video that `key` names."""
        which, at, heading, speed = jax.random.split(key, 4)
        instance = choose(which, self.digits, held_out)
        velocity = self._speeds(speed)[:, None] * _headings(heading, (self.digits,))
        per_frame = jnp.round(velocity * (_TURN / (2 * self._room))).astype(jnp.int32).astype(jnp.uint32)
        phase = jax.random.bits(at, (self.digits, 2), jnp.uint32)
        times = (start + jnp.arange(frames)).astype(jnp.uint32)
        phases = phase + times[:, None, None] * per_frame  # [T, K, 2], wrapping around
        # the upper 24 bits are a float32 exactly
        turns = (phases >> 8).astype(jnp.float32) / 2.0**24
        return self._drawn(instance, self._room * (1.0 - jnp.abs(2.0 * turns - 1.0)))

    def measures(
        self, predicted: UInt8[np.ndarray, "T B H W 1"], truth: Mapping[str, np.ndarray]
    ) -> dict[str, Float[np.ndarray, "T B"]]:
        """`position_error` in pixels and `iou`; see `matching.digit_measures`."""
        return digit_measures(predicted, truth, self.glyph)

    @property
    def _room(self) -> int:
        return self.size - self.glyph

    def _speeds(self, key: Array) -> Float[Array, " K"]:
        """Pixels a frame."""
        # Whole numbers are drawn, and no product meets a sum: compilers may fuse those, or not, and what is
        # off by a bit here is elsewhere after a million frames.
        low, high = (round(speed * self.size / 64 * _FINE) for speed in (self.slowest, self.fastest))
        return jax.random.randint(key, (self.digits,), low, high + 1).astype(jnp.float32) / _FINE

    def _drawn(
        self, instance: Int[Array, " K"], corners: Float[Array, "T K 2"]
    ) -> tuple[UInt8[Array, "T H W 1"], None, dict[str, Array]]:
        drawn = glyphs(self.glyph)
        corners = jnp.round(corners * GRID) / GRID
        chosen = jnp.asarray(drawn.images)[instance]
        draw = functools.partial(draw_glyph, size=self.size)
        frames = jax.vmap(lambda at: jax.vmap(draw)(chosen, at).max(0))(corners)
        truth = {
            "position": corners + (self.glyph - 1) / 2,
            "label": jnp.broadcast_to(jnp.asarray(drawn.labels)[instance], corners.shape[:2]),
            "instance": jnp.broadcast_to(instance, corners.shape[:2]),
        }
        return jnp.round(frames).astype(jnp.uint8)[..., None], None, truth


@dataclasses.dataclass(frozen=True)
class StochasticDigits(MovingDigits):
    """`MovingDigits` that leave each bounce in a random direction: the future is not determined.

    Predictions of it are judged over several futures, `samples` by default. Places are advanced frame by
    frame (a few whole numbers), so that reading far into a clip costs a little; frames are drawn on demand
    all the same.
    """

    samples: ClassVar[int] = 8

    def clip(
        self, key: Array, start: Int[Array, ""], frames: int, held_out: bool
    ) -> tuple[UInt8[Array, "T H W 1"], None, dict[str, Array]]:
        """See `MovingDigits.clip`."""
        which, at, speed, bounces = jax.random.split(key, 4)
        instance = choose(which, self.digits, held_out)
        room = self._room * _FINE
        place = jax.random.randint(at, (self.digits, 2), 0, room + 1)
        speeds = self._speeds(speed) * _FINE
        keys = jax.random.split(bounces, self.digits)

        def velocity(bounce: Int[Array, " K"]) -> Int[Array, "K 2"]:
            """After the so many-th bounce: each digit's own, whenever it comes."""
            towards = jax.vmap(lambda k, n: _headings(jax.random.fold_in(k, n), ()))(keys, bounce)
            return jnp.round(speeds[:, None] * towards).astype(jnp.int32)

        def step(state: Any, _: Any = None) -> tuple[Any, Array]:
            place, going, bounce = state
            ahead = place + going
            below, above = ahead < 0, ahead > room
            hit = (below | above).any(-1)
            bounce = bounce + hit
            fresh = velocity(bounce)
            inwards = jnp.where(below, jnp.abs(fresh), jnp.where(above, -jnp.abs(fresh), fresh))
            going = jnp.where(hit[:, None], inwards, going)
            return (jnp.clip(ahead, 0, room), going, bounce), place

        bounce = jnp.zeros(self.digits, jnp.int32)
        state = (place, velocity(bounce), bounce)
        state = jax.lax.fori_loop(0, start, lambda _, s: step(s)[0], state)
        _, places = jax.lax.scan(step, state, length=frames)
        return self._drawn(instance, places.astype(jnp.float32) / _FINE)


def _headings(key: Array, shape: tuple[int, ...]) -> Float[Array, "*shape 2"]:
    """Uniform directions, out of a table: sines differ by a bit from program to program."""
    angles = np.arange(_AROUND) * (2 * np.pi / _AROUND)
    table = np.stack([np.sin(angles), np.cos(angles)], axis=-1).astype(np.float32)
    return jnp.asarray(table)[jax.random.randint(key, shape, 0, _AROUND)]
