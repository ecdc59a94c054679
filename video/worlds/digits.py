"""Digits that bounce about in an empty frame: the motion of Moving MNIST with scikit-learn's digits."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from ..clip import ActionSpace
from .glyphs import glyphs
from .matching import digit_measures

_TURN = 2.0**32  # fixed-point units in a period of the motion: uint32 wraps around exactly there
_SUBPIXEL = 2**16  # fixed-point units in a pixel, of the stochastic variant


@dataclasses.dataclass(frozen=True)
class MovingDigits:
    """`digits` digits, each at its own constant speed, reflected at the borders.

    The motion has a closed form, a triangle wave, in fixed-point arithmetic: frame 1,000,000 is as exact as
    frame 0. Speeds are real numbers between `slowest` and `fastest` pixels a frame of a 64-pixel canvas, in
    proportion on others; headings are uniform. Digits are drawn at sub-pixel places (bilinear) and the
    brighter one wins where they overlap. Held-out clips show digits that training clips never do.

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
        check_digits(self)

    @property
    def glyph(self) -> int:
        """Height and width of a digit in pixels: 28 of 64, unless `digit_size` says otherwise."""
        return self.digit_size or round(self.size * 28 / 64)

    def clip(
        self, key: Array, start: Int[Array, ""], frames: int, held_out: bool
    ) -> tuple[UInt8[Array, "T H W 1"], None, dict[str, Array]]:
        """Frames `start` … `start + frames - 1` of the endless video that `key` names."""
        which, at, heading, speed = jax.random.split(key, 4)
        drawn = glyphs(self.glyph, held_out)
        instance = jax.random.randint(which, (self.digits,), 0, len(drawn.labels))
        velocity = self._velocity(heading, speed)
        phase = jax.random.bits(at, (self.digits, 2), jnp.uint32)
        per_frame = jnp.round(velocity / (2 * self._room) * _TURN).astype(jnp.int32).astype(jnp.uint32)
        times = (start + jnp.arange(frames)).astype(jnp.uint32)
        phases = phase + times[:, None, None] * per_frame  # [T, K, 2], wrapping around
        # the upper 24 bits are a float32 exactly
        turns = (phases >> 8).astype(jnp.float32) / 2.0**24
        corners = self._room * (1.0 - jnp.abs(2.0 * turns - 1.0))
        return digit_frames(self, drawn.images, drawn.labels, instance, corners)

    def measures(
        self, predicted: UInt8[np.ndarray, "T B H W 1"], truth: Mapping[str, np.ndarray]
    ) -> dict[str, Float[np.ndarray, "T B"]]:
        """`position_error` in pixels and `iou`; see `matching`."""
        return digit_measures(predicted, truth, self.glyph)

    @property
    def _room(self) -> int:
        return self.size - self.glyph

    def _velocity(self, heading: Array, speed: Array) -> Float[Array, "K 2"]:
        angle = jax.random.uniform(heading, (self.digits,), maxval=2 * jnp.pi)
        fast = jax.random.uniform(speed, (self.digits,), minval=self.slowest, maxval=self.fastest)
        return (fast * self.size / 64)[:, None] * jnp.stack([jnp.sin(angle), jnp.cos(angle)], -1)


@dataclasses.dataclass(frozen=True)
class StochasticDigits(MovingDigits):
    """`MovingDigits` that leave each bounce in a random direction: the future is not determined.

    Predictions of it should be judged over several samples. Places are advanced frame by frame (low-
    dimensional, integers), so that reading far into a clip costs a little; the drawing does not.
    """

    def clip(
        self, key: Array, start: Int[Array, ""], frames: int, held_out: bool
    ) -> tuple[UInt8[Array, "T H W 1"], None, dict[str, Array]]:
        """See `MovingDigits.clip`."""
        which, at, heading, speed, bounces = jax.random.split(key, 5)
        drawn = glyphs(self.glyph, held_out)
        instance = jax.random.randint(which, (self.digits,), 0, len(drawn.labels))
        room = self._room * _SUBPIXEL
        place = jax.random.randint(at, (self.digits, 2), 0, room + 1)
        velocity = self._velocity(heading, speed)
        length = jnp.linalg.norm(velocity, axis=-1)
        bouncing = jax.random.split(bounces, self.digits)

        def leave(key: Array, count: Array, fast: Array) -> Array:
            angle = jax.random.uniform(jax.random.fold_in(key, count), maxval=2 * jnp.pi)
            return _fixed(fast * jnp.stack([jnp.sin(angle), jnp.cos(angle)]))

        def step(state: Any, _: Any = None) -> tuple[Any, Array]:
            place, velocity, count = state
            ahead = place + velocity
            below, above = ahead < 0, ahead > room
            hit = (below | above).any(-1)
            count = count + hit
            fresh = jnp.abs(jax.vmap(leave)(bouncing, count, length))
            fresh = jnp.where(jax.vmap(leave)(bouncing, -count - 1, length) < 0, -fresh, fresh)
            inward = jnp.where(below, jnp.abs(fresh), jnp.where(above, -jnp.abs(fresh), fresh))
            velocity = jnp.where(hit[:, None], inward, velocity)
            return (jnp.clip(ahead, 0, room), velocity, count), place

        state = (place, _fixed(velocity), jnp.zeros(self.digits, jnp.int32))
        state = jax.lax.fori_loop(0, start, lambda _, s: step(s)[0], state)
        _, places = jax.lax.scan(step, state, length=frames)
        corners = places.astype(jnp.float32) / _SUBPIXEL
        return digit_frames(self, drawn.images, drawn.labels, instance, corners)


def check_digits(world: MovingDigits) -> None:
    """Raises `ValueError`, one sentence, for options that make no video."""
    if world.size < 16:
        raise ValueError(f"data.size={world.size} is too small for digits; use 16 or more")
    if world.digits < 1:
        raise ValueError(f"data.digits={world.digits} must be at least 1")
    if not 4 <= world.glyph < world.size:
        raise ValueError(f"data.digit_size={world.glyph} must be 4 or more and less than size={world.size}")
    room = (world.size - world.glyph) * 64 / world.size
    if not 0 < world.slowest <= world.fastest < room:
        raise ValueError(
            f"data.slowest={world.slowest} and data.fastest={world.fastest} must satisfy "
            f"0 < slowest <= fastest < {room:g}, the way from border to border"
        )


def digit_frames(
    world: Any,
    images: Float[np.ndarray, "N g g"],
    labels: Int[np.ndarray, " N"],
    instance: Int[Array, " K"],
    corners: Float[Array, "T K 2"],
) -> tuple[UInt8[Array, "T H W 1"], None, dict[str, Array]]:
    """Draw digits with their upper left corners at `corners` (pixels), and say what is known of them."""
    chosen = jnp.asarray(images)[instance]
    frames = jax.vmap(lambda at: jax.vmap(lambda g, c: splat(g, c, world.size))(chosen, at).max(0))(corners)
    times = corners.shape[0]
    truth = {
        "position": corners + (images.shape[-1] - 1) / 2,
        "label": jnp.broadcast_to(jnp.asarray(labels)[instance], (times, len(instance))),
        "template": jnp.broadcast_to(chosen, (times, *chosen.shape)),
        "instance": jnp.broadcast_to(instance, (times, len(instance))),
    }
    return jnp.round(frames * 255).astype(jnp.uint8)[..., None], None, truth


def splat(
    image: Float[Array, "g g"], corner: Float[Array, " 2"], size: int
) -> Float[Array, "size size"]:
    """A picture drawn with its upper left corner at a sub-pixel place, by bilinear weights; zero elsewhere."""
    cells = jnp.arange(size, dtype=jnp.float32)[:, None] - jnp.arange(image.shape[0], dtype=jnp.float32)
    rows, columns = (jnp.maximum(0.0, 1.0 - jnp.abs(cells - corner[axis])) for axis in (0, 1))
    return rows @ image @ columns.T


def _fixed(pixels: Array) -> Array:
    return jnp.round(pixels * _SUBPIXEL).astype(jnp.int32)
