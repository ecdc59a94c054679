"""Real handwritten digits to draw with: scikit-learn's 1,797, 8 x 8 pixels each, in the installed package."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

HELD_OUT = 397  # digits that are only ever drawn in held-out clips
GRID = 256  # places in a pixel: what is drawn there has exact weights, whatever the order of its sums
_NATIVE = 8  # height and width of scikit-learn's digits
_LEVELS = 255  # of a digit's brightest pixel, in a frame


class Glyphs(NamedTuple):
    """Digits as pictures in [0, 1], and which digit each one is."""

    images: Float[np.ndarray, "N g g"]
    labels: Int[np.ndarray, " N"]


@functools.lru_cache(maxsize=16)
def glyphs(size: int) -> Glyphs:
    """All 1,797 digits, resized to `size` x `size` (bilinear); a digit's instance is its index here.

    They have whole grey levels, 255 times what `images` says.
    """
    from sklearn.datasets import load_digits

    digits: Any = load_digits()
    weights = _resize(size)
    images = np.einsum("ia,nab,jb->nij", weights, digits.images / 16.0, weights)
    levels = np.rint(np.clip(images, 0.0, 1.0) * _LEVELS)
    return Glyphs((levels / _LEVELS).astype(np.float32), digits.target.astype(np.int32))


@functools.cache
def instances(held_out: bool) -> Int[np.ndarray, " N"]:
    """The digits of one side of a fixed split: 1,400 to train with and 397 that are held out."""
    order = np.random.Generator(np.random.PCG64(0)).permutation(1797).astype(np.int32)
    return order[:HELD_OUT] if held_out else order[HELD_OUT:]


def choose(key: Array, count: int, held_out: bool) -> Int[Array, " K"]:
    """Random digits of one side of the split."""
    of = jnp.asarray(instances(held_out))
    return of[jax.random.randint(key, (count,), 0, len(of))]


def draw_glyph(
    image: Float[Array, "g g"], corner: Float[Array, " 2"], size: int
) -> Float[Array, "size size"]:
    """A digit with its upper left corner at a sub-pixel place, by bilinear weights; zero elsewhere.

    In grey levels, 0 to 255, not yet rounded. `corner` has to lie on the grid of 1/`GRID` pixels: levels of 8
    bits by weights of 8 and 8 bits are exact in float32, so that the same digit at the same place is the same
    picture in whatever program it is drawn.
    """
    cells = jnp.arange(size, dtype=jnp.float32)[:, None] - jnp.arange(image.shape[0], dtype=jnp.float32)
    rows, columns = (jnp.maximum(0.0, 1.0 - jnp.abs(cells - corner[axis])) for axis in (0, 1))
    levels = jnp.round(image * _LEVELS)
    exact = jax.lax.Precision.HIGHEST  # accelerators would round the factors
    return jnp.matmul(jnp.matmul(rows, levels, precision=exact), columns.T, precision=exact)


def _resize(size: int) -> Float[np.ndarray, "size 8"]:
    """Weights of a bilinear resizing, pixel centres at halves; widened where it shrinks."""
    scale = _NATIVE / size
    at = (np.arange(size) + 0.5) * scale - 0.5
    weights = np.maximum(0.0, 1.0 - np.abs(at[:, None] - np.arange(_NATIVE)) / max(1.0, scale))
    return weights / weights.sum(1, keepdims=True)
