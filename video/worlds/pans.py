"""A camera that moves over real photographs, those that lie in the installed scikit-image package."""

import dataclasses
import functools
import importlib.resources
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped, UInt8, UInt32

from ..clip import ActionSpace

TRAINING = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "chelsea.png",
    "coins.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "moon.png",
    "motorcycle_left.png",
)
"""Photographs of training clips."""
HELD_OUT = ("coffee.png", "grass.png", "rocket.jpg")
"""Photographs that only held-out clips show."""

_FINE = 2**16  # places in a pixel
_GRID = 256  # of which pixels are weighted by: 8-bit levels by two 8-bit weights fit whole numbers of 32 bits
_TURN = 2.0**32  # fixed-point units in a period of the motion: uint32 wraps around exactly there
_TABLE = 2**12  # sines, and places between two of them
_SINE = 2**18  # units in a sine of 1


@dataclasses.dataclass(frozen=True)
class PhotoPans:
    """A camera pans and zooms smoothly, and for ever, over one of scikit-image's photographs.

    Photographs are cropped to squares and resized to `extent` times the frame's height and width. The
    camera's row and column swing as sines (a Lissajous figure that reaches all borders), each at a greatest
    speed of its own, drawn between `slowest` and `fastest` pixels a frame of a 64-pixel canvas, in proportion
    on others; so does the distance, as often, between zoom 1, where a pixel of the frame is one of the
    resized photograph, and `zoom`. Periods are real numbers: no clip repeats itself. All the arithmetic of
    motion and bilinear sampling is of whole numbers, so that frame 1,000,000 is as exact as frame 0 and a
    clip is the same in whatever window. Held-out clips show other photographs.

    Truth: `position` `[T, 2]` (row and column of the camera's centre in the resized photograph, in its
    pixels), `zoom` `[T]` and `photo` `[T]` (index in `TRAINING + HELD_OUT`).
    """

    size: int = 64
    extent: int = 4
    slowest: float = 1.0
    fastest: float = 3.0
    zoom: float = 2.0

    channels: ClassVar[int] = 3
    actions: ClassVar[ActionSpace] = ActionSpace()

    def __post_init__(self) -> None:
        if self.size < 8:
            raise ValueError(f"data.size={self.size} is too small for photographs; use 8 or more")
        if self.extent < 2 or self.canvas > 4096:
            raise ValueError(
                f"data.extent={self.extent} must be 2 or more, and {4096 // self.size} or less "
                f"at size={self.size}"
            )
        most = (self.extent - 1) * 32
        if not 0 < self.slowest <= self.fastest <= most:
            raise ValueError(
                f"data.slowest={self.slowest} and data.fastest={self.fastest} must satisfy "
                f"0 < slowest <= fastest <= {most}, half the way from border to border"
            )
        if not 1 <= self.zoom <= 16:
            raise ValueError(f"data.zoom={self.zoom} must be between 1, which never zooms, and 16")

    @property
    def canvas(self) -> int:
        """Height and width of the resized photographs, in pixels."""
        return self.extent * self.size

    def clip(
        self, key: Array, start: Int[Array, ""], frames: int, held_out: bool
    ) -> tuple[UInt8[Array, "T H W 3"], None, dict[str, Array]]:
        """Frames `start` … `start + frames - 1` of the endless video that `key` names."""
        which, at, speed = jax.random.split(key, 3)
        first, last = (len(TRAINING), None) if held_out else (0, len(TRAINING))
        photos = photographs(self.canvas)[first:last]
        chosen = jax.random.randint(which, (), 0, len(photos))

        # Nowhere does a rounded product meet a sum: compilers may fuse those, or not, and what is off by a
        # bit in a speed is elsewhere after a million frames.
        low, high = (round(rate * _TURN) for rate in self._rates)
        per_frame = jax.random.randint(speed, (3,), low, high + 1).astype(jnp.uint32)
        phase = jax.random.bits(at, (3,), jnp.uint32)
        times = (start + jnp.arange(frames)).astype(jnp.uint32)
        waves = _sine(phase + times[:, None] * per_frame)  # [T, 3], the phases wrapping around

        room = (self.canvas - self.size) / 2 * _FINE
        centre = (self.canvas - 1) * (_FINE // 2) + jnp.round(waves[:, :2] * room).astype(jnp.int32)
        near = math.ceil(_FINE / 2 / self.zoom)
        swing = jnp.round(waves[:, 2] * ((_FINE / 2 - near) / 2)).astype(jnp.int32)
        half = (_FINE // 2 + near) // 2 + swing  # half the way from pixel to pixel of the frame

        photo = jnp.asarray(photos)[chosen]
        drawn = jax.vmap(lambda c, h: _view(photo, c, h, self.size))(centre, half)
        truth = {
            "position": centre.astype(jnp.float32) / _FINE,
            "zoom": _FINE / 2 / half.astype(jnp.float32),
            "photo": jnp.broadcast_to(first + chosen, (frames,)),
        }
        return drawn.astype(jnp.uint8), None, truth

    def measures(
        self, predicted: UInt8[np.ndarray, "T B H W 3"], truth: Mapping[str, np.ndarray]
    ) -> dict[str, Float[np.ndarray, "T B"]]:
        """`place_error`: how far from the true place the photograph looks most like the predicted frame.

        In pixels of the frame, whole ones up and down and across: the shift with the greatest normalised
        correlation of grey levels (Lewis, "Fast normalized cross-correlation", 1995) among those up to
        `size // 4` each way, at the true zoom. Frames of something else err by about `size // 4`; a frame
        without any contrast gets the farthest shift.
        """
        reach = self.size // 4
        photos = photographs(self.canvas)
        error = np.empty(predicted.shape[:2])
        for at in np.ndindex(*error.shape):
            centre = np.rint(truth["position"][at] * _FINE).astype(np.int32)
            half = np.rint(_FINE / 2 / truth["zoom"][at]).astype(np.int32)
            around = _view(photos[truth["photo"][at]], centre, half, self.size + 2 * reach)
            error[at] = _shift(around.mean(-1), predicted[at].mean(-1), reach)
        return {"place_error": error}

    @property
    def _rates(self) -> tuple[float, float]:
        """Least and greatest turns a frame: a sine of this amplitude and rate is that fast at its middle."""
        amplitude = (self.extent - 1) * 32
        return self.slowest / (2 * math.pi * amplitude), self.fastest / (2 * math.pi * amplitude)


@functools.lru_cache(maxsize=4)
def photographs(size: int) -> UInt8[np.ndarray, "N size size 3"]:
    """`TRAINING` and `HELD_OUT`, their middle squares resized to `size` x `size` (Lanczos).

    Raises `ValueError` where the installed scikit-image lacks one; nothing is ever downloaded.
    """
    from PIL import Image, ImageOps

    folder = importlib.resources.files("skimage") / "data"
    photos = []
    for name in TRAINING + HELD_OUT:
        if not (folder / name).is_file():
            raise ValueError(
                f"{name} is missing from scikit-image at {folder}; install scikit-image from PyPI, "
                "whose wheels have it"
            )
        with (folder / name).open("rb") as file, Image.open(file) as image:
            photo = ImageOps.fit(image.convert("RGB"), (size, size), Image.Resampling.LANCZOS)
        photos.append(np.asarray(photo))
    return np.stack(photos)


def _sine(phase: UInt32[Array, "*N"]) -> Float[Array, "*N"]:
    """Sine of `phase / 2**32` turns, the same in every program: out of a table, whole numbers between."""
    table = np.rint(np.sin(np.arange(_TABLE + 1) * (2 * np.pi / _TABLE)) * _SINE).astype(np.int32)
    index = (phase >> 20).astype(jnp.int32)
    between = ((phase >> 8) & (_TABLE - 1)).astype(jnp.int32)
    here, step = jnp.asarray(table)[index], jnp.asarray(np.diff(table))[index]
    return (here + ((step * between) >> 12)).astype(jnp.float32) / _SINE


def _view(photo: Any, centre: Any, half: Any, size: int) -> Shaped[Any, "size size 3"]:
    """What a camera sees: levels 0 to 255, int32, numpy or JAX; borders go on beyond the photograph.

    `centre` (row and column) and `half` the way between samples are in 1/65,536 pixels.
    """
    offsets = np.arange(1 - size, size, 2, dtype=np.int32) * half
    rows = _between(photo, centre[0] + offsets, 0)
    return (_between(rows, centre[1] + offsets, 1) + _GRID * _GRID // 2) >> 16


def _between(levels: Any, at: Any, axis: int) -> Any:
    """`_GRID` times the levels at places along an axis, linear between pixels; whole numbers."""
    last = levels.shape[axis] - 1
    at = ((at + _FINE // _GRID // 2) >> 8).clip(0, last * _GRID)
    below, weight = at // _GRID, (at % _GRID).reshape((-1,) + (1,) * (2 - axis))
    above = (below + 1).clip(0, last)
    lower, upper = (levels.take(index, axis).astype(np.int32) for index in (below, above))
    return lower * (_GRID - weight) + upper * weight


def _shift(
    around: Float[np.ndarray, "N N"], frame: Float[np.ndarray, "size size"], reach: int
) -> Float[np.ndarray, ""]:
    """Distance from the middle of `around` at which `frame` correlates most with it."""
    frame = frame - frame.mean()
    spectrum = np.fft.rfft2(around - around.mean()) * np.fft.rfft2(frame, s=around.shape).conj()
    places = slice(0, 2 * reach + 1)
    products = np.fft.irfft2(spectrum, s=around.shape)[places, places]

    def sums(values: Float[np.ndarray, "N N"]) -> Float[np.ndarray, "places places"]:
        """Over the part of `around` under the frame at each place."""
        total = np.pad(values, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
        n = len(frame)
        return total[n:, n:] - total[:-n, n:] - total[n:, :-n] + total[:-n, :-n]

    contrast = sums(around**2) - sums(around) ** 2 / frame.size
    energy = (frame**2).sum()
    if energy < 1e-6:
        return np.asarray(reach * math.sqrt(2))
    likeness = np.where(contrast > 1e-3, products / np.sqrt(np.maximum(contrast, 1e-3)), -np.inf)
    row, column = np.unravel_index(likeness.argmax(), likeness.shape)
    return np.hypot(row - reach, column - reach)
