"""A maze's corridors as they look from a pose: rays cast over its grid, in whole numbers throughout.

Floating-point programs round differently from one another, and a ray that grazes a corner would show another
wall. Here a pose has one picture, bit for bit, in whatever program it is drawn.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, UInt8

FINE = 2**14  # parts of a unit in which distances are counted
NORTH, EAST, SOUTH, WEST = range(4)  # the sides of a cell; rows count southwards, columns eastwards

_FAR = 2**22  # in place of what is infinite: no line that is parallel to a ray comes before the maze's border
_TEXELS = 8  # of a wall, each way: a pattern's columns are the bits of 8 bytes
_HEIGHT = 0.75  # of a wall, in cells; the eye is at half of it
_DIM = 3.0  # cells after which light has halved
_TONES = (140, 256)  # of a pattern's dark and light texels, of 256
_FLOOR, _CEILING = (104, 92, 80), (72, 84, 104)
_COLOURS = (
    (224, 64, 56),
    (72, 176, 72),
    (72, 104, 232),
    (232, 208, 72),
    (200, 80, 208),
    (72, 200, 208),
    (240, 144, 56),
    (216, 216, 208),
)


@dataclasses.dataclass(frozen=True)
class Camera:
    """`size` x `size` pixels, `view` degrees wide, in a maze of `cells` x `cells`.

    A cell is `2 * steps` units long; places are whole units. There are `4 * turns` headings, clockwise from
    north. Sums stay below 2**31 for sizes of 32 to 1,024, 16 cells, 8 steps and 120 degrees.
    """

    size: int
    cells: int
    steps: int
    turns: int
    view: float

    @property
    def unit(self) -> int:
        """Units in a cell."""
        return 2 * self.steps

    @property
    def focal(self) -> float:
        """Samples (two each way in a pixel) from the eye to the picture."""
        return self.size / np.tan(np.radians(self.view) / 2)


class Hits(NamedTuple):
    """Where rays end, from the picture's left to its right; two rays in a pixel.

    `distance` is along the heading (not along the ray), `place` along the wall from its north or west end;
    both in 1/`FINE` unit. `face` is 4 * (cell that the wall is seen from) + its side.
    """

    distance: Int[Array, " R"]
    place: Int[Array, " R"]
    face: Int[Array, " R"]


class _Rays(NamedTuple):
    """Tables `[headings, rays]`: for both axes (rows, columns) the sign, and per unit of way along that axis
    the distance along the heading and the way along the other axis, in 1/`FINE`."""

    forward: tuple[np.ndarray, np.ndarray]
    distance: tuple[np.ndarray, np.ndarray]
    sideways: tuple[np.ndarray, np.ndarray]


@functools.lru_cache(maxsize=16)
def _rays(camera: Camera) -> _Rays:
    heading = np.arange(4 * camera.turns)[:, None] * (np.pi / (2 * camera.turns))
    across = (np.arange(2 * camera.size) + 0.5 - camera.size) / camera.focal
    # exact zeros, whatever a sine of pi is
    rows, columns = (
        np.rint(way * 2.0**40) / 2.0**40
        for way in (
            across * np.sin(heading) - np.cos(heading),
            across * np.cos(heading) + np.sin(heading),
        )
    )

    def whole(numerator: np.ndarray | float, denominator: np.ndarray) -> np.ndarray:
        ratio = np.divide(numerator, np.maximum(np.abs(denominator), 1e-9)) * FINE
        return np.rint(np.clip(ratio, -_FAR, _FAR)).astype(np.int32)

    return _Rays(
        forward=(rows > 0, columns > 0),
        distance=(whole(1.0, rows), whole(1.0, columns)),
        sideways=(whole(columns, rows), whole(rows, columns)),
    )


def cast(
    camera: Camera,
    walls: Bool[Array, " faces"],
    row: Int[Array, ""],
    column: Int[Array, ""],
    heading: Int[Array, ""],
) -> Hits:
    """The nearest wall in each of `2 * size` directions, by walking from cell to cell along the ray.

    (Amanatides and Woo 1987, "A fast voxel traversal algorithm for ray tracing".) `walls` has an entry for
    each side of each cell; the border must be closed. `row` and `column` are in units.
    """
    unit, tables = camera.unit, _rays(camera)
    down, right = (jnp.asarray(table)[heading] for table in tables.forward)
    row_distance, column_distance = (jnp.asarray(table)[heading] for table in tables.distance)
    row_sideways, column_sideways = (jnp.asarray(table)[heading] for table in tables.sideways)

    def to_line(at: Int[Array, ""], forwards: Bool[Array, " R"]) -> Int[Array, " R"]:
        return jnp.where(forwards, unit - at % unit, at % unit)

    def step(_: Array, state: tuple[Array, ...]) -> tuple[Array, ...]:
        cell, rows, columns, side, hit = state
        vertical = rows * row_distance < columns * column_distance  # the next line is between two rows
        ahead = jnp.where(vertical, jnp.where(down, SOUTH, NORTH), jnp.where(right, EAST, WEST))
        side = jnp.where(hit, side, ahead)
        hit = hit | walls[4 * cell + side]
        onwards = jnp.where(vertical, jnp.where(down, camera.cells, -camera.cells), jnp.where(right, 1, -1))
        return (
            jnp.where(hit, cell, cell + onwards),
            jnp.where(~hit & vertical, rows + unit, rows),
            jnp.where(~hit & ~vertical, columns + unit, columns),
            side,
            hit,
        )

    here = row // unit * camera.cells + column // unit
    cell = jnp.broadcast_to(here, down.shape).astype(jnp.int32)
    state = (cell, to_line(row, down), to_line(column, right), jnp.zeros_like(cell), cell < 0)
    # a ray crosses no line twice, and there are 2 (cells - 1) inside
    cell, rows, columns, side, _ = jax.lax.fori_loop(0, 2 * camera.cells - 1, step, state)

    vertical = side % 2 == NORTH
    along_row = column * FINE + rows * row_sideways - cell % camera.cells * (unit * FINE)
    along_column = row * FINE + columns * column_sideways - cell // camera.cells * (unit * FINE)
    place = jnp.clip(jnp.where(vertical, along_row, along_column), 0, unit * FINE - 1)
    distance = jnp.where(vertical, rows * row_distance, columns * column_distance)
    return Hits(distance, place, 4 * cell + side)


def draw(camera: Camera, hits: Hits, paint: Int[Array, " faces"]) -> UInt8[Array, "H W 3"]:
    """The picture: walls with their colour and pattern (`paint`, below `PAINTS`), floor and ceiling.

    Everything darkens with its distance. Each pixel is the mean of four samples.
    """
    unit, size = camera.unit, camera.size
    painted = paint[hits.face]
    dim = int(_DIM * unit * FINE) >> 8
    light = (dim << 8) // (dim + (hits.distance >> 8))
    # walls to the north and south are a little darker, so that corners show
    light = jnp.where(hits.face % 2 == NORTH, light * 7 // 8, light)
    wall = jnp.asarray(_COLOURS, jnp.int32)[painted // len(_patterns())] * light[:, None] >> 8

    texel = hits.place * _TEXELS // (unit * FINE)
    texel = jnp.where(hits.face % 4 >= SOUTH, _TEXELS - 1 - texel, texel)  # from left to right
    bits = jnp.asarray(_patterns())[painted % len(_patterns()), texel]
    # texels in half a sample's height, in 1/65,536
    per_unit = _TEXELS / (2 * camera.focal * _HEIGHT * unit)
    height = (hits.distance >> 4) * round(per_unit * 2**18) >> 12
    level = jnp.arange(2 * size, dtype=jnp.int32) * 2 + 1 - 2 * size
    at = (level[:, None] * height >> 16) + _TEXELS // 2
    on_wall = (at >= 0) & (at < _TEXELS)
    dark, bright = _TONES
    tone = jnp.where(bits >> jnp.clip(at, 0, _TEXELS - 1) & 1 != 0, bright, dark)

    # of a plane, the light where a row of samples meets it
    away = _HEIGHT * camera.focal / np.abs(np.arange(2 * size) + 0.5 - size) / 2
    plane = jnp.asarray(np.rint(256 * _DIM / (_DIM + away)).astype(np.int32))
    tone, plane = (
        jnp.where(shown, value, 0).reshape(size, 2, 2 * size).sum(1)
        for shown, value in ((on_wall, tone), (~on_wall, plane[:, None]))
    )
    ground = jnp.asarray(np.repeat(np.array([_CEILING, _FLOOR], np.int32), size // 2, axis=0))
    samples = tone[..., None] * wall + plane[..., None] * ground[:, None]
    return (samples.reshape(size, size, 2, 3).sum(2) + 512 >> 10).astype(jnp.uint8)


@functools.cache
def _patterns() -> Int[np.ndarray, "P 8"]:
    """Patterns of a wall: for each of its columns of texels, a byte with one bit a texel from the top."""
    row, column = np.mgrid[:_TEXELS, :_TEXELS]
    middle = np.maximum(np.abs(2 * row - 7), np.abs(2 * column - 7))
    pictures = [
        row // 2 % 2 == 0,  # stripes across
        column // 2 % 2 == 0,  # stripes upright
        (row // 2 + column // 2) % 2 == 0,  # a chessboard
        (row + column) // 2 % 2 == 0,  # diagonals
        middle <= 3,  # a panel
        (middle <= 3) | (middle > 5),  # a panel in a frame
        (row % 4 < 3) & ((column + row // 4 * 2) % 4 < 3),  # bricks
        row >= 4,  # two halves
    ]
    return np.stack([(picture << row).sum(0) for picture in pictures]).astype(np.int32)


PAINTS = len(_COLOURS) * len(_patterns())
"""Kinds of wall: 8 colours with 8 patterns each."""
