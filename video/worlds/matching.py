"""Where is a digit in a predicted frame, and which? Measures that only drawn videos allow."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped, UInt8

LOST = 0.4  # a digit whose best correlation is below this counts as lost
FOREGROUND = 64  # pixels from this value on are foreground
_NEAR = 3  # pixels around its true place in which a digit is recognised
_FLAT = 1e-3  # variance under which a patch has no contrast to correlate with, in squared units of [0, 1]


def digit_measures(
    predicted: UInt8[np.ndarray, "T B H W 1"], truth: Mapping[str, np.ndarray], glyph: int
) -> dict[str, Float[np.ndarray, "T B"]]:
    """`position_error`: distance in pixels between where each digit is found and where it is, mean over digits.

    Each digit is looked for over the whole canvas by normalised cross-correlation with its own picture; one
    whose best correlation is under `LOST` counts as found at the canvas's centre. `iou`: intersection over
    union of the foregrounds, 1 where both are empty. Needs truth's `position`, `template` and `frame`.
    """
    found = find(predicted, truth["template"])
    errors = np.linalg.norm(found - truth["position"], axis=-1).mean(-1)
    return {"position_error": errors, "iou": iou(predicted, truth["frame"])}


def find(
    frames: UInt8[np.ndarray, "T B H W 1"], templates: Float[np.ndarray, "T B K g g"]
) -> Float[np.ndarray, "T B K 2"]:
    """The centres (row, column) at which the templates correlate best, to a fraction of a pixel."""
    return np.asarray(_find(jnp.asarray(frames), jnp.asarray(templates)))


@jax.jit
def _find(frames: Array, templates: Array) -> Array:
    def one(inputs: tuple[Array, Array]) -> Array:
        frame, of = inputs
        return jax.vmap(lambda template: _place(frame[..., 0] / 255.0, template))(of)

    def clips(inputs: tuple[Array, Array]) -> Array:
        return jax.vmap(lambda f, t: one((f, t)))(*inputs)

    return jax.lax.map(clips, (frames.astype(jnp.float32), templates))


def _place(frame: Float[Array, "H W"], template: Float[Array, "g g"]) -> Float[Array, " 2"]:
    score = correlation(frame, template)
    rows, columns = score.shape
    best = jnp.argmax(score)
    row, column = best // columns, best % columns
    middle = (template.shape[0] - 1) / 2
    place = jnp.stack([row + _peak(score[:, column], row), column + _peak(score[row], column)])
    centre = (jnp.asarray(frame.shape, jnp.float32) - 1) / 2
    return jnp.where(score[row, column] >= LOST, place + middle, centre)


def _peak(line: Float[Array, " n"], at: Int[Array, ""]) -> Float[Array, ""]:
    """The offset of the parabola's top through a maximum and its neighbours, within half a pixel."""
    last = line.shape[0] - 1
    left, top, right = line[jnp.maximum(at - 1, 0)], line[at], line[jnp.minimum(at + 1, last)]
    curve = left - 2 * top + right
    offset = jnp.where(curve < -1e-9, 0.5 * (left - right) / jnp.where(curve < -1e-9, curve, 1.0), 0.0)
    return jnp.where((at == 0) | (at == last), 0.0, jnp.clip(offset, -0.5, 0.5))


def correlation(frame: Float[Array, "H W"], template: Float[Array, "g g"]) -> Float[Array, "h w"]:
    """Normalised cross-correlation at every place where the template fits, −1 to 1; 0 on flat patches."""
    side = template.shape[0]
    shape = tuple(n - side + 1 for n in frame.shape)
    pattern = template - template.mean()
    spectrum = jnp.fft.rfft2(frame) * jnp.conj(jnp.fft.rfft2(pattern, frame.shape))
    product = jnp.fft.irfft2(spectrum, frame.shape)[: shape[0], : shape[1]]
    total, squares = _box(frame, side), _box(frame**2, side)
    variance = jnp.maximum(squares - total**2 / side**2, 0.0)
    scale = jnp.sqrt(variance * (pattern**2).sum())
    return jnp.where(variance > _FLAT * side**2, product / jnp.where(scale > 0, scale, 1.0), 0.0)


def _box(image: Float[Array, "H W"], side: int) -> Float[Array, "h w"]:
    """Sums over every `side` x `side` patch."""
    sums = jnp.pad(image, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    return sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]


def identity(
    frames: UInt8[np.ndarray, "T B H W 1"],
    positions: Float[np.ndarray, "T B 2"],
    templates: Float[np.ndarray, "T B g g"],
    labels: Int[np.ndarray, "T B"],
    others: Float[np.ndarray, "10 g g"],
) -> Shaped[np.ndarray, "T B"]:
    """Whether the digit near its true place looks most like itself in a line-up of ten, one a class."""
    named = _identity(*map(jnp.asarray, (frames, positions, templates, labels, others)))
    return np.asarray(named) == labels


@jax.jit
def _identity(frames: Array, positions: Array, templates: Array, labels: Array, others: Array) -> Array:
    side = templates.shape[-1]

    def one(frame: Array, position: Array, template: Array, label: Array) -> Array:
        candidates = others.at[label].set(template)
        around = jnp.pad(frame[..., 0] / 255.0, _NEAR + side)
        corner = jnp.round(position - (side - 1) / 2).astype(jnp.int32) + side
        patch = jax.lax.dynamic_slice(around, corner, (side + 2 * _NEAR, side + 2 * _NEAR))
        scores = jax.vmap(lambda candidate: correlation(patch, candidate).max())(candidates)
        return jnp.where(scores.max() > 0, jnp.argmax(scores), -1)

    inputs = (frames.astype(jnp.float32), positions, templates, labels)
    return jax.lax.map(lambda row: jax.vmap(one)(*row), inputs)


def iou(
    predicted: UInt8[np.ndarray, "T B H W C"], true: UInt8[np.ndarray, "T B H W C"]
) -> Float[np.ndarray, "T B"]:
    """Intersection over union of the pixels that are at least `FOREGROUND` in any channel."""
    a, b = ((np.asarray(frames) >= FOREGROUND).any(-1) for frames in (predicted, true))
    both, either = (a & b).sum((2, 3)), (a | b).sum((2, 3))
    return np.where(either > 0, both / np.maximum(either, 1), 1.0)
