"""Real handwritten digits to draw with: scikit-learn's 1,797, 8 x 8 pixels each, in the installed package."""

import functools
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

HELD_OUT = 397  # digits that are only ever drawn in held-out clips


class Glyphs(NamedTuple):
    """Digits as pictures in [0, 1], and which digit each one is."""

    images: Float[np.ndarray, "N g g"]
    labels: Int[np.ndarray, " N"]


@functools.lru_cache(maxsize=16)
def glyphs(size: int, held_out: bool) -> Glyphs:
    """The digits of one side of the split, resized to `size` x `size` (bilinear).

    The split is by instance, by a fixed permutation: 1,400 digits to train with and 397 that are held out.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.Generator(np.random.PCG64(0)).permutation(len(digits.target))
    chosen = order[:HELD_OUT] if held_out else order[HELD_OUT:]
    images = (digits.images[chosen] / 16.0).astype(np.float32)
    with jax.ensure_compile_time_eval():  # also called while a world is being traced
        images = np.asarray(jax.image.resize(images, (len(images), size, size), "bilinear"))
    return Glyphs(np.clip(images, 0.0, 1.0), digits.target[chosen].astype(np.int32))


@functools.lru_cache(maxsize=16)
def line_up(size: int, held_out: bool) -> Float[np.ndarray, "10 g g"]:
    """One digit of each class, 0 to 9: the first of its class."""
    drawn = glyphs(size, held_out)
    return np.stack([drawn.images[int(np.argmax(drawn.labels == digit))] for digit in range(10)])
