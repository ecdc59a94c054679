"""P13, sprites: short films of coloured squares, and questions that a film's model would have to answer.

Asked for are places and colours rather than pixels: a blank frame has a smaller squared error than a sharp
one a little off, so that the error of pixels says nothing of a memory.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .base import FILLER, ITEM, QUERY, Episode, Figure, Probe, exact
from .figures import simulated

COLOURS = np.array([(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1), (0, 1, 1)], np.float32)
WALL = 0.5
_SPEEDS = 8  # an axis, over which `Motion` averages what may come


@dataclasses.dataclass(frozen=True, kw_only=True)
class Film(Probe):
    """A token holds a frame, `canvas` x `canvas` pixels in red, green and blue between 0 and 1."""

    length: int = 32
    canvas: int = 16
    colours: int = 4

    def __post_init__(self) -> None:
        self.need("canvas", 8 <= self.canvas <= 64, "must be 8 to 64 pixels")
        self.need("colours", 2 <= self.colours <= len(COLOURS), f"must be 2 to {len(COLOURS)}")

    @property
    def fields(self) -> dict[str, int]:
        """The frame, row by row."""
        return {"frame": self.canvas**2 * 3}

    @property
    def num_answers(self) -> int:
        """The colours."""
        return self.colours

    def frames(self, tokens: Float[Array, "T D"]) -> Float[Array, "T H W 3"]:
        """The film, for looking at."""
        return self.field(tokens, "frame").reshape(*tokens.shape[:-1], self.canvas, self.canvas, 3)


def paint(
    canvas: int, width: int, corners: Float[Array, "N 2"], colours: Float[Array, "N 3"]
) -> Float[Array, "canvas canvas 3"]:
    """Squares whose corners (row and column) need not be whole: a pixel has as much as is covered of it."""
    pixels = jnp.arange(canvas)
    low, high = corners[..., None], corners[..., None] + width
    covered = jnp.clip(jnp.minimum(pixels + 1, high) - jnp.maximum(pixels, low), 0, 1)  # [N, 2, canvas]
    squares = covered[:, 0, :, None, None] * covered[:, 1, None, :, None] * colours[:, None, None]
    return squares.max(0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Motion(Film):
    """Where a square will be `gap` frames from now; of the last `dark` frames nothing is seen.

    A square of `sprite` pixels moves at a real-valued speed between `slowest` and `fastest` pixels a frame
    along each axis and turns at the border. From the third frame on, the answer is a place of whole pixels:
    it pays the intersection over union with the place that is nearest to the true one.
    """

    sprite: int = 4
    gap: int = 1
    dark: int = 8
    slowest: float = 0.5
    fastest: float = 1.5

    knob: ClassVar[str] = "dark"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.need("sprite", 1 <= self.sprite <= self.canvas // 2, f"must be 1 to {self.canvas // 2}")
        self.need("gap", self.gap >= 1, "must be 1 or more")
        self.need("length", self.length >= 4, "is too short to see a speed; use 4 or more")
        self.need(
            "dark", 0 <= self.dark <= self.length - 3, f"must be 0 to {self.length - 3}, three are seen"
        )
        fits = 0 < self.slowest <= self.fastest < self.room / 2
        self.need("fastest", fits, f"must be slowest={self.slowest} or more, and less than {self.room / 2}")

    @property
    def room(self) -> int:
        """How far a corner can be from another along an axis."""
        return self.canvas - self.sprite

    @property
    def num_answers(self) -> int:
        """Places of the upper left corner, row by row."""
        return (self.room + 1) ** 2

    @property
    def scope(self) -> int:
        """Two frames say where it goes, unless it turned between them."""
        return 2

    def episode(self, key: Array) -> Episode:
        """A square under way."""
        key_at, key_speed, key_way, key_colour = jax.random.split(key, 4)
        at = jax.random.uniform(key_at, (2,), maxval=self.room)
        speed = jax.random.uniform(key_speed, (2,), minval=self.slowest, maxval=self.fastest)
        speed = jnp.where(jax.random.bernoulli(key_way, shape=(2,)), speed, -speed)
        colour = jnp.asarray(COLOURS)[jax.random.randint(key_colour, (1,), 0, self.colours)]
        step = jnp.arange(self.length)
        corners = self.turned(at + speed * step[:, None])
        film = jax.vmap(lambda corner: paint(self.canvas, self.sprite, corner[None], colour))(corners)
        seen = step < self.length - self.dark
        film = jnp.where(seen[:, None, None, None], film, 0.0)
        asked = step >= 2
        phase = jnp.where(asked, QUERY, ITEM)
        tokens = self.encode(phase, frame=film.reshape(self.length, -1))
        to = jnp.round(self.turned(at + speed * (step[:, None] + self.gap)))
        places = jnp.arange(self.room + 1)
        paid = self.iou(self.overlap(places, to[:, :1])[:, :, None], self.overlap(places, to[:, 1:])[:, None])
        paid = paid.reshape(self.length, -1) * asked[:, None] / asked.sum()
        return self.ask(tokens, (to[:, 0] * (self.room + 1) + to[:, 1]).astype(jnp.int32), asked, paid)

    def turned(self, way: Array) -> Array:
        """Where a corner is that would be at `way` if there were no borders."""
        return self.room - jnp.abs(way % (2 * self.room) - self.room)

    def overlap(self, one: Array, other: Array) -> Array:
        """Pixels that two squares share along an axis."""
        return jnp.maximum(self.sprite - jnp.abs(one - other), 0)

    def iou(self, rows: Array, columns: Array) -> Array:
        """Intersection over union of squares that share so many rows and columns."""
        both = rows * columns
        return both / (2 * self.sprite**2 - both)

    def random(self) -> Figure:
        """A uniform place against one that is as likely anywhere, and half as likely at the border."""
        places = jnp.arange(self.room + 1)
        chance = jnp.where((places == 0) | (places == self.room), 0.5, 1.0) / self.room
        shared = self.overlap(places[:, None], places)  # of answer and truth, along an axis
        each = self.iou(shared[:, :, None, None], shared[None, None]).mean((0, 2))
        return exact(float(chance @ each @ chance), "the mean over places, of a place that is uniform")

    def blind(self) -> Figure:
        """The best place from one frame alone."""
        return simulated(self, "blind")

    def blind_policy(self, key: Array, tokens: Float[Array, "T D"]) -> Int[Array, " T"]:
        """The best place on average over all speeds, from the frame alone; the middle where it is dark."""
        frames = self.frames(tokens).max(-1)
        mass = frames.sum((1, 2))
        pixels, unit = jnp.arange(self.canvas), jnp.maximum(mass, 1e-6)[:, None]
        centres = jnp.stack([frames.sum(2) @ pixels, frames.sum(1) @ pixels], -1) / unit
        share = (jnp.arange(_SPEEDS) + 0.5) / _SPEEDS
        speeds = self.slowest + (self.fastest - self.slowest) * share
        ways = self.gap * jnp.concatenate([speeds, -speeds])
        places = jnp.arange(self.room + 1)[:, None]

        def best(corner: Array) -> Array:
            rows, columns = (self.overlap(places, jnp.round(self.turned(at + ways))) for at in corner)
            worth = self.iou(rows[:, None, :, None], columns[None, :, None]).mean((2, 3))
            return worth.reshape(-1).argmax()

        found = jax.lax.map(best, centres - (self.sprite - 1) / 2)
        return jnp.where(mass > 0, found, (self.room // 2) * (self.room + 2)).astype(jnp.int32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Occlusion(Film):
    """The colours of `sprites` squares, in rows of their own, that went behind a wall `gap` frames ago.

    They come in from the left at real-valued speeds and have disappeared after `shown` frames. In the last
    `sprites` frames one after the other, in random order, comes out on the right, white; its colour is asked.
    The frames between are as many as `length` leaves.
    """

    sprites: int = 2
    shown: int = 8

    knob: ClassVar[str] = "sprites"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.need("canvas", self.canvas % 4 == 0, "must be a multiple of 4: a sprite's width is a quarter")
        self.need("sprites", 1 <= self.sprites <= 4, "must be 1 to 4, a row for each")
        self.need("shown", self.shown >= 2, "must be 2 or more")
        least = self.shown + self.sprites
        self.need("length", self.length >= least, f"has no room to show and to ask; use {least} or more")

    def episode(self, key: Array) -> Episode:
        """Squares that disappear, and come out white."""
        key_colours, key_speeds, key_rows, key_order = jax.random.split(key, 4)
        width, wall, n = self.canvas // 4, self.canvas // 2, self.sprites
        colours = jax.random.randint(key_colours, (n,), 0, self.colours)
        rows = jax.random.permutation(key_rows, 4)[:n] * width
        # slow enough for something of each to be left in the last frame before the wall has it
        speeds = jax.random.uniform(key_speeds, (n,), minval=0.5, maxval=1.0) * width / 2
        step = jnp.arange(self.length)
        ahead = jnp.maximum(self.shown - step, 0)[:, None] * speeds  # pixels left of the wall, [T, n]
        coming = step >= self.length - n
        which = jax.random.permutation(key_order, n)[jnp.maximum(step - self.length + n, 0)]
        out = coming[:, None] & (which[:, None] == jnp.arange(n))
        columns = jnp.where(out, float(self.canvas - width), wall - ahead)
        corners = jnp.stack([jnp.broadcast_to(rows, columns.shape), columns], -1)
        painted = jnp.where(out[..., None], 1.0, jnp.asarray(COLOURS)[colours])
        film = jax.vmap(lambda corner, colour: paint(self.canvas, width, corner, colour))(corners, painted)
        pixels = jnp.arange(self.canvas)[:, None]
        film = jnp.where((pixels >= wall) & (pixels < self.canvas - width), WALL, film)
        phase = jnp.where(coming, QUERY, jnp.where(step < self.shown, ITEM, FILLER))
        tokens = self.encode(phase, frame=film.reshape(self.length, -1))
        return self.ask(tokens, colours[which], coming)
