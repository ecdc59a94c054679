"""Where is a thing in a predicted frame, and which? Measures that only drawn videos allow."""

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8

from .glyphs import glyphs

LOST = 0.4  # a thing whose best correlation is below this counts as lost
FOREGROUND = 64  # pixels from this value on are foreground
_NEAR = 3  # pixels around its true place in which a digit is recognised
_FLAT = 1e-4  # variance below which a patch has no contrast to correlate with, of pixels in [0, 1]


def digit_measures(
    predicted: UInt8[np.ndarray, "T B H W 1"], truth: Mapping[str, np.ndarray], glyph: int
) -> dict[str, Float[np.ndarray, "T B"]]:
    """`position_error`: pixels between where each digit is found and where it is, mean over digits.

    Each digit is looked for over the whole canvas by normalised cross-correlation with its own picture; one
    whose best correlation is under `LOST` counts as found at the canvas's centre. `iou`: intersection over
    union of the foregrounds, 1 where both are empty. Needs truth's `position`, `instance` and `frame`.
    """
    images = glyphs(glyph).images[..., None]
    found = find(predicted, truth["instance"], images)
    errors = np.linalg.norm(found - truth["position"], axis=-1).mean(-1)
    return {"position_error": errors, "iou": iou(predicted, truth["frame"])}


def find(
    frames: UInt8[np.ndarray, "T B H W C"],
    which: Int[np.ndarray, "T B K"],
    pictures: Float[np.ndarray, "N g g C"],
    margin: int = 0,
) -> Float[np.ndarray, "T B K 2"]:
    """The centres (row, column) at which the chosen pictures correlate best, to a fraction of a pixel.

    Pictures are looked for where they fit whole, on a canvas with `margin` black pixels around it.
    """
    return np.asarray(_find(*map(jnp.asarray, (frames, which, pictures)), margin))


@functools.partial(jax.jit, static_argnames="margin")
def _find(frames: Array, which: Array, pictures: Array, margin: int) -> Array:
    def one(frame: Array, chosen: Array) -> Array:
        around = jnp.pad(frame / 255.0, ((margin, margin), (margin, margin), (0, 0)))
        return jax.vmap(lambda picture: _place(around, picture))(pictures[chosen]) - margin

    def at_once(inputs: tuple[Array, Array]) -> Array:
        return jax.vmap(one)(inputs[0].astype(jnp.float32), inputs[1])

    return jax.lax.map(at_once, (frames, which))


def _place(frame: Float[Array, "H W C"], picture: Float[Array, "g g C"]) -> Float[Array, " 2"]:
    score = correlation(frame, picture)
    columns = score.shape[1]
    best = jnp.argmax(score)
    row, column = best // columns, best % columns
    middle = (picture.shape[0] - 1) / 2
    place = jnp.stack([row + _peak(score[:, column], row), column + _peak(score[row], column)])
    centre = (jnp.asarray(frame.shape[:2], jnp.float32) - 1) / 2
    return jnp.where(score[row, column] >= LOST, place + middle, centre)


def _peak(line: Float[Array, " n"], at: Int[Array, ""]) -> Float[Array, ""]:
    """How far the parabola's top through a maximum and its neighbours is off it, half a pixel at most."""
    last = line.shape[0] - 1
    left, top, right = line[jnp.maximum(at - 1, 0)], line[at], line[jnp.minimum(at + 1, last)]
    curve = left - 2 * top + right
    offset = jnp.where(curve < -1e-9, 0.5 * (left - right) / jnp.where(curve < -1e-9, curve, 1.0), 0.0)
    return jnp.where((at == 0) | (at == last), 0.0, jnp.clip(offset, -0.5, 0.5))


def correlation(frame: Float[Array, "H W C"], picture: Float[Array, "g g C"]) -> Float[Array, "h w"]:
    """Normalised cross-correlation, −1 to 1, at every place where the picture fits; 0 on flat patches.

    Means and variances are over a patch's pixels and channels together. The picture must not be flat.
    """
    side, channels = picture.shape[0], picture.shape[2]
    high, wide = (n - side + 1 for n in frame.shape[:2])
    pattern = picture - picture.mean()
    shape = frame.shape[:2]
    spectrum = jnp.fft.rfft2(frame, axes=(0, 1)) * jnp.conj(jnp.fft.rfft2(pattern, shape, axes=(0, 1)))
    product = jnp.fft.irfft2(spectrum.sum(-1), shape)[:high, :wide]
    pixels = side**2 * channels
    mean, square = _box(frame.sum(-1), side) / pixels, _box((frame**2).sum(-1), side) / pixels
    variance = square - mean**2
    scale = jnp.sqrt(jnp.maximum(variance, _FLAT) * pixels * (pattern**2).sum())
    return jnp.where(variance > _FLAT, product / scale, 0.0)


def _box(image: Float[Array, "H W"], side: int) -> Float[Array, "h w"]:
    """Sums over every `side` x `side` patch."""
    sums = jnp.pad(image, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    return sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]


def identity(
    frames: UInt8[np.ndarray, "T B H W 1"],
    position: Float[np.ndarray, "T B 2"],
    instance: Int[np.ndarray, "T B"],
    glyph: int,
) -> Bool[np.ndarray, "T B"]:
    """Whether what is near a digit's true place looks more like it than like any of nine others.

    The line-up is the digit itself and one of each other class, always the same. Each one's score is its best
    normalised cross-correlation within 3 pixels of `position`, the digit's true centre; a frame without any
    contrast there shows no digit.
    """
    images, labels = glyphs(glyph)
    others = images[[int(np.argmax(labels == digit)) for digit in range(10)]]
    named = _identity(*map(jnp.asarray, (frames, position, images[instance], labels[instance], others)))
    return np.asarray(named) == labels[instance]


@jax.jit
def _identity(frames: Array, position: Array, pictures: Array, labels: Array, others: Array) -> Array:
    side = pictures.shape[-1]

    def one(frame: Array, centre: Array, picture: Array, label: Array) -> Array:
        around = jnp.pad(frame / 255.0, ((side, side), (side, side), (0, 0)))
        corner = jnp.round(centre - (side - 1) / 2).astype(jnp.int32) - _NEAR + side
        width = side + 2 * _NEAR
        patch = jax.lax.dynamic_slice(around, (corner[0], corner[1], 0), (width, width, 1))
        line_up = others.at[label].set(picture)[..., None]
        scores = jax.vmap(lambda candidate: correlation(patch, candidate).max())(line_up)
        return jnp.where(scores.max() > 0, jnp.argmax(scores), -1)

    def at_once(inputs: tuple[Array, ...]) -> Array:
        return jax.vmap(one)(inputs[0].astype(jnp.float32), *inputs[1:])

    return jax.lax.map(at_once, (frames, position, pictures, labels))


def iou(
    predicted: UInt8[np.ndarray, "T B H W C"], true: UInt8[np.ndarray, "T B H W C"]
) -> Float[np.ndarray, "T B"]:
    """Intersection over union of the pixels that are at least `FOREGROUND` in any channel; 1 without any."""
    a, b = ((np.asarray(frames) >= FOREGROUND).any(-1) for frames in (predicted, true))
    both, either = (a & b).sum((2, 3)), (a | b).sum((2, 3))
    return np.where(either > 0, both / np.maximum(either, 1), 1.0)
