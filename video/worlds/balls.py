"""Coloured balls that bounce off the borders and off one another, without friction."""

import dataclasses
import math
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8

from ..clip import ActionSpace
from .matching import find, iou

# Collisions multiply the least difference, and what a compiler makes of a float sum of products differs
# from program to program. So the state is whole numbers, sums of products are sums of whole numbers, and
# floats are only multiplied, divided, rooted and rounded, or subtracted where no product is.
_CANVAS = 64  # pixels of the canvas that balls move on, whatever size it is drawn at
_FINE = 2**16  # places are whole numbers of 1/65,536 pixel; so many ticks are the time of a frame
_COARSE = 2**8  # of a pixel, where squares have to fit into 31 bits
_NEVER = 2 * _FINE
_GRID = 64  # places in a pixel that balls are drawn at
_AROUND = 2**14  # headings at the start
_PALETTE = np.array(
    [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 0, 1], [0, 1, 1]], np.uint8
)  # what each ball is, in full or not at all: of red, green and blue


class _State(NamedTuple):
    place: Int[Array, "K 2"]  # centres
    velocity: Int[Array, "K 2"]  # a frame
    hit: Bool[Array, " K"]  # whether another ball was hit since the frame before


@dataclasses.dataclass(frozen=True)
class BouncingBalls:
    """`balls` equal balls of different colours, with elastic collisions: simple laws, chaotic paths.

    The first are red, green and blue, then yellow, magenta and cyan. `radius` and the speeds of the start,
    uniform between `slowest` and `fastest` in uniform directions, are in pixels (a frame) of a 64-pixel
    canvas, which is drawn at `size`: the same key shows the same motion at all sizes. Between two frames
    collisions come one after another, each at its own time. Energy is kept but for the rounding of velocities
    to 1/65,536 pixel a frame. Places are advanced frame by frame (a few whole numbers), so that reading far
    into a clip costs a little; frames are drawn on demand. Held-out clips differ from others by their keys
    alone.

    Truth: `position` `[T, K, 2]` (row and column of the centres, in pixels), `velocity` `[T, K, 2]` (pixels
    a frame), `collision` `[T, K]` (whether the ball has hit another one since the frame before).
    """

    size: int = 64
    balls: int = 3
    radius: float = 6.0
    slowest: float = 1.5
    fastest: float = 3.0

    channels: ClassVar[int] = 3
    actions: ClassVar[ActionSpace] = ActionSpace()

    def __post_init__(self) -> None:
        if not 16 <= self.size <= 512:
            raise ValueError(f"data.size={self.size} must be between 16 and 512 to draw balls")
        if not 1 <= self.balls <= len(_PALETTE):
            raise ValueError(f"data.balls={self.balls} must be between 1 and {len(_PALETTE)}, one a colour")
        widest = _CANVAS / (2 * self._cells)
        if not 2 <= self.radius < widest:
            raise ValueError(
                f"data.radius={self.radius} must be at least 2 and less than {widest:g}, "
                f"so that {self.balls} balls fit side by side into {_CANVAS} pixels"
            )
        if not 0 < self.slowest <= self.fastest <= 16:
            raise ValueError(
                f"data.slowest={self.slowest} and data.fastest={self.fastest} must satisfy "
                "0 < slowest <= fastest <= 16"
            )

    def clip(
        self, key: Array, start: Int[Array, ""], frames: int, held_out: bool
    ) -> tuple[UInt8[Array, "T H W 3"], None, dict[str, Array]]:
        """Frames `start` … `start + frames - 1` of the endless video that `key` names."""
        state = jax.lax.fori_loop(0, start, lambda _, state: self._step(state), self._first(key))
        _, states = jax.lax.scan(lambda state, _: (self._step(state), state), state, length=frames)
        scale = self.size / _CANVAS / _FINE
        at = jnp.round(states.place.astype(jnp.float32) * (scale * _GRID)).astype(jnp.int32) - _GRID // 2
        truth = {
            "position": at.astype(jnp.float32) / _GRID,
            "velocity": states.velocity.astype(jnp.float32) * scale,
            "collision": states.hit,
        }
        levels = _discs(at, self.size, self._pixels)
        colours = jnp.asarray(_PALETTE[: self.balls])[:, None, None]
        return (levels[..., None] * colours).max(1), None, truth

    def measures(
        self, predicted: UInt8[np.ndarray, "T B H W 3"], truth: Mapping[str, np.ndarray]
    ) -> dict[str, Float[np.ndarray, "T B"]]:
        """`position_error` and `iou`.

        `position_error`: pixels between where each ball is found and where it is, mean over balls. Each is
        looked for over the whole canvas by normalised cross-correlation with its own picture in colour; a
        lost one counts as found at the canvas's centre (see `matching`). A lost red ball is not taken for a
        green or blue one, but may be for a yellow or magenta one, where there are more than three. `iou`:
        intersection over union of the foregrounds, 1 where both are empty. Needs truth's `position` and
        `frame`.
        """
        half = math.ceil(self._pixels) + 1
        disc = _discs(jnp.full((1, 2), half * _GRID), 2 * half + 1, self._pixels)
        pictures = np.asarray(disc, np.float32)[0, ..., None] / 255 * _PALETTE[: self.balls, None, None]
        which = np.broadcast_to(np.arange(self.balls), (*predicted.shape[:2], self.balls))
        # the margin: pictures have to fit whole where balls touch the border
        found = find(predicted, which, pictures, margin=half)
        errors = np.linalg.norm(found - truth["position"], axis=-1).mean(-1)
        return {"position_error": errors, "iou": iou(predicted, truth["frame"])}

    @property
    def _cells(self) -> int:
        """Squares to a side of the canvas, one of them for each ball to start in."""
        return math.ceil(math.sqrt(self.balls))

    @property
    def _pixels(self) -> float:
        """The radius, as drawn."""
        return self.radius * self.size / _CANVAS

    def _first(self, key: Array) -> _State:
        cell, at, speed, heading = jax.random.split(key, 4)
        side, radius = _CANVAS * _FINE // self._cells, round(self.radius * _FINE)
        cells = jax.random.permutation(cell, self._cells**2)[: self.balls]
        corners = jnp.stack([cells // self._cells, cells % self._cells], axis=-1) * side
        place = corners + jax.random.randint(at, (self.balls, 2), radius, side - radius + 1)
        low, high = round(self.slowest * _FINE), round(self.fastest * _FINE)
        speeds = jax.random.randint(speed, (self.balls, 1), low, high + 1).astype(jnp.float32)
        angles = np.arange(_AROUND) * (2 * np.pi / _AROUND)
        # out of a table: sines differ by a bit from program to program
        headings = jnp.asarray(np.stack([np.sin(angles), np.cos(angles)], axis=-1).astype(np.float32))
        towards = headings[jax.random.randint(heading, (self.balls,), 0, _AROUND)]
        velocity = jnp.round(speeds * towards).astype(jnp.int32)
        return _State(place, velocity, jnp.zeros(self.balls, bool))

    def _step(self, state: _State) -> _State:
        """A frame on: straight to the next collision, then to the one after, until the frame is over."""
        one, other = np.triu_indices(self.balls, 1)
        # +1 and -1: the balls of each pair
        sides = np.zeros((len(one), self.balls), np.int32)
        sides[np.arange(len(one)), one], sides[np.arange(len(one)), other] = 1, -1
        radius, reach = round(self.radius * _FINE), round(2 * self.radius * _COARSE)
        walls = 2 * self.balls

        def between(of: Int[Array, "K 2"]) -> Int[Array, "P 2"]:
            return of[one] - of[other]

        def fly(flight: tuple[_State, Array, Array]) -> tuple[_State, Array, Array]:
            (place, velocity, hit), left, events = flight
            towards = between(velocity)
            to_wall = _ticks_to_wall(place, velocity, radius)
            to_contact = _ticks_to_contact(_coarse(between(place)), towards, reach)
            times = jnp.concatenate([to_wall.ravel(), to_contact])
            # one at a time: energy is kept in a ball's collisions with two others, too
            now = (jnp.arange(len(times)) == jnp.argmin(times)) & (times <= left)
            ticks = jnp.minimum(times.min(), left)
            part = velocity.astype(jnp.float32) * ticks.astype(jnp.float32)
            place = place + jnp.round(part / _FINE).astype(jnp.int32)
            velocity = jnp.where(now[:walls].reshape(-1, 2), -velocity, velocity)
            met = now[walls:, None]
            impulse = jnp.where(met, _impulse(_coarse(between(place)), towards), 0)
            velocity = velocity - (sides[:, :, None] * impulse[:, None]).sum(0)
            hit = hit | (met & (sides != 0)).any(0)
            return _State(place, velocity, hit), left - ticks, events + 1

        def flying(flight: tuple[_State, Array, Array]) -> Array:
            # should rounding have jammed balls collide for ever, they rest until the next frame instead
            return (flight[1] > 0) & (flight[2] < 32 * self.balls)

        unhit = state._replace(hit=jnp.zeros_like(state.hit))
        return jax.lax.while_loop(flying, fly, (unhit, jnp.int32(_FINE), jnp.int32(0)))[0]


def _coarse(distance: Int[Array, "P 2"]) -> Int[Array, "P 2"]:
    """In 1/256 pixel, rounded."""
    shift = (_FINE // _COARSE).bit_length() - 1
    return (distance + (1 << (shift - 1))) >> shift


def _ticks_to_wall(place: Int[Array, "K 2"], velocity: Int[Array, "K 2"], radius: int) -> Int[Array, "K 2"]:
    way = jnp.where(velocity > 0, _CANVAS * _FINE - radius - place, place - radius).astype(jnp.float32)
    speed = jnp.abs(velocity)
    ticks = jnp.floor(way * _FINE / jnp.maximum(speed, 1).astype(jnp.float32))
    return jnp.where(speed > 0, jnp.clip(ticks, 0, _NEVER), _NEVER).astype(jnp.int32)


def _ticks_to_contact(
    distance: Int[Array, "P 2"], velocity: Int[Array, "P 2"], reach: int
) -> Int[Array, " P"]:
    """When balls whose centres are that far apart (1/256 pixel), and move so, are `reach` apart."""
    # the upper 14 bits, so that squares and products fit
    bits = 32 - jax.lax.clz(jnp.abs(velocity).max(-1))
    shift = jnp.maximum(bits - 14, 0)
    towards = velocity >> shift[:, None]
    length = jnp.sqrt(jnp.maximum((towards**2).sum(-1), 1).astype(jnp.float32))
    # to the nearest point of the path, and from there to the centre: no difference of large squares
    along = -(distance * towards).sum(-1).astype(jnp.float32) / length
    cross = distance[:, 0] * towards[:, 1] - distance[:, 1] * towards[:, 0]
    aside = jnp.round(cross.astype(jnp.float32) / length).astype(jnp.int32)
    inside = jnp.sqrt(jnp.maximum(reach**2 - aside**2, 0).astype(jnp.float32))
    scale = (1 << shift).astype(jnp.float32)
    ticks = jnp.floor((along - inside) / length / scale * (_FINE * (_FINE // _COARSE)))
    # Grazes of a few thousandths of a pixel, and impulses that rounding may undo, are none: the same
    # collision would come again and again.
    meets = (along > 0) & (inside >= _COARSE / 8) & (length * scale * inside >= 4 * reach)
    return jnp.where(meets, jnp.clip(ticks, 0, _NEVER), _NEVER).astype(jnp.int32)


def _impulse(distance: Int[Array, "P 2"], velocity: Int[Array, "P 2"]) -> Int[Array, "P 2"]:
    """What one ball loses and the other gains: (v · d) d / d², of equal masses."""
    apart = distance.astype(jnp.float32)
    terms = jnp.round(velocity.astype(jnp.float32) * apart / 64).astype(jnp.int32)
    square = jnp.maximum((distance**2).sum(-1), 1)
    share = terms.sum(-1).astype(jnp.float32) / square.astype(jnp.float32) * 64
    return jnp.round(share[:, None] * apart).astype(jnp.int32)


def _discs(at: Int[Array, "*N 2"], size: int, radius: float) -> UInt8[Array, "*N size size"]:
    """Discs with soft edges in grey levels, at places in 1/64 pixel."""
    pixels = jnp.arange(size) * _GRID
    beyond = math.ceil((radius + 1) * _GRID)  # for squares to fit
    rows, columns = (jnp.clip(pixels - at[..., axis, None], -beyond, beyond) for axis in (0, 1))
    square = rows[..., :, None] ** 2 + columns[..., None, :] ** 2
    inside = (radius + 0.5) * _GRID - jnp.sqrt(square.astype(jnp.float32))
    return jnp.round(jnp.clip(inside, 0, _GRID) * (255 / _GRID)).astype(jnp.uint8)
