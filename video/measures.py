"""Measures of predicted frames against the true ones, frame by frame, and the baselines they are read beside.

Every measure maps two arrays `[T, B, H, W, C]`, uint8 or floating, of pixels in [0, 255] to `[T, B]`; pixels
are divided by 255 first, so that the data range is 1. They are computed on arrays, never on re-read video.
"""

import functools
import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

Measure = Callable[[Any, Any], Any]
"""Maps predicted and true frames, `[T, B, H, W, C]` each, to `[T, B]`."""

MSE_FLOOR = 1e-10  # under the logarithm of PSNR: equal frames have 100 dB, a finite number
WINDOW, SIGMA, K1, K2 = 11, 1.5, 0.01, 0.03  # SSIM's
_AT_ONCE = 16  # frames measured at a time, which bounds the memory of a long horizon

# Weights that this package doesn't have and won't imitate: these come from `load_metric` or not at all.
_NEED_WEIGHTS = ("lpips", "fvd")


def _as_unit(frames: Shaped[Array, "..."]) -> Float[Array, "..."]:
    return jnp.asarray(frames, jnp.float32) / 255.0


def _same_shape(predicted: Any, truth: Any) -> None:
    if predicted.shape != truth.shape or predicted.ndim != 5:
        raise ValueError(
            f"frames of shapes {predicted.shape} and {truth.shape} can't be compared; "
            "give two equal [T, B, H, W, C]"
        )


@jax.jit
def _mse(predicted: Array, truth: Array) -> Array:
    def one(pair: tuple[Array, Array]) -> Array:
        # Pixels are subtracted before they are divided: the difference of two uint8 is exact.
        return jnp.square((pair[0].astype(jnp.float32) - pair[1].astype(jnp.float32)) / 255.0).mean((1, 2, 3))

    return jax.lax.map(one, (predicted, truth), batch_size=_AT_ONCE)


def mse(
    predicted: Shaped[Array | np.ndarray, "T B H W C"], truth: Shaped[Array | np.ndarray, "T B H W C"]
) -> Float[np.ndarray, "T B"]:
    """The mean squared error of each frame; black against white is 1."""
    _same_shape(predicted, truth)
    return np.asarray(_mse(predicted, truth))


def psnr(
    predicted: Shaped[Array | np.ndarray, "T B H W C"], truth: Shaped[Array | np.ndarray, "T B H W C"]
) -> Float[np.ndarray, "T B"]:
    """The peak signal-to-noise ratio of each frame in dB, −10 log₁₀ max(MSE, 1e-10): at most 100."""
    return -10.0 * np.log10(np.maximum(mse(predicted, truth), np.float32(MSE_FLOOR)))


def _gaussian(size: int) -> np.ndarray:
    """The window at every place where it fits, `[size − 10, size]`: row i has its weights for place i."""
    taps = np.exp(-0.5 * np.square((np.arange(WINDOW) - WINDOW // 2) / SIGMA))
    places = np.arange(size - WINDOW + 1)[:, None]
    out = np.zeros((size - WINDOW + 1, size), np.float32)
    out[places, places + np.arange(WINDOW)] = taps / taps.sum()
    return out


def _blur(images: Float[Array, "B H W C"]) -> Float[Array, "B h w C"]:
    """The window's local mean where it fits as a whole (`VALID`), along H and along W.

    Accelerators round the inputs of products and convolutions unless asked not to, which the small
    differences E[x²] − E[x]² can't afford.
    """
    rows, columns = _gaussian(images.shape[1]), _gaussian(images.shape[2])
    return jnp.einsum("ih,bhwc,jw->bijc", rows, images, columns, precision=jax.lax.Precision.HIGHEST)


@jax.jit
def _ssim(predicted: Array, truth: Array) -> Array:
    c1, c2 = K1**2, K2**2

    def one(pair: tuple[Array, Array]) -> Array:
        x, y = _as_unit(pair[0]), _as_unit(pair[1])
        mean_x, mean_y = _blur(x), _blur(y)
        var_x = _blur(x * x) - mean_x * mean_x
        var_y = _blur(y * y) - mean_y * mean_y
        covariance = _blur(x * y) - mean_x * mean_y
        luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
        return (luminance * (2 * covariance + c2) / (var_x + var_y + c2)).mean((1, 2, 3))

    return jax.lax.map(one, (predicted, truth))


def ssim(
    predicted: Shaped[Array, "T B H W C"], truth: Shaped[Array, "T B H W C"]
) -> Float[np.ndarray, "T B"]:
    """The structural similarity of each frame, in [−1, 1] (Wang et al., IEEE TIP 2004, equation 13).

    An 11 × 11 Gaussian window with σ = 1.5 placed only where it fits, K₁ = .01, K₂ = .03, data range 1, the
    mean over places and channels: as in TECO (arXiv 2210.02396).

    Raises `ValueError` for frames smaller than the window.
    """
    _same_shape(predicted, truth)
    height, width = truth.shape[2:4]
    if min(height, width) < WINDOW:
        raise ValueError(
            f"SSIM's window of {WINDOW} pixels doesn't fit frames of {height}x{width}; use frames of "
            f"{WINDOW}x{WINDOW} or more"
        )
    return np.asarray(_ssim(predicted, truth))


@jax.jit
def _diversity(samples: Array) -> Array:
    def one(frames: Array) -> Array:
        # The mean of (x_i − x_j)² over pairs i < j is twice the unbiased variance. Differences to the first
        # future are exact for uint8, and zero for equal ones.
        pixels = frames.astype(jnp.float32)
        return 2.0 * jnp.var((pixels - pixels[0]) / 255.0, axis=0, ddof=1).mean((1, 2, 3))

    return jax.lax.map(one, samples.swapaxes(0, 1))


def diversity(samples: Shaped[Array, "S T B H W C"]) -> Float[np.ndarray, "T B"]:
    """The mean squared error between two different futures of the same clip, averaged over all pairs.

    Raises `ValueError` for fewer than two samples.
    """
    if samples.ndim != 6 or samples.shape[0] < 2:
        raise ValueError(
            f"samples of shape {samples.shape} have no pairs; give [S, T, B, H, W, C] with S of 2 or more"
        )
    return np.asarray(_diversity(samples))


def copy_last(context: Shaped[np.ndarray, "C B ..."], horizon: int) -> Shaped[np.ndarray, "T B ..."]:
    """The last frame of the context for every one of `horizon` frames: a read-only view."""
    last = np.asarray(context)[-1]
    return np.broadcast_to(last, (horizon, *last.shape))


def mean_frame(context: Shaped[np.ndarray, "C B ..."], horizon: int) -> Shaped[np.ndarray, "T B ..."]:
    """The pixel mean of the context for every one of `horizon` frames: a read-only view.

    Of uint8 the mean is rounded to uint8, as every prediction is that can be shown; of floats it stays one.
    """
    context = np.asarray(context)
    mean = context.mean(axis=0, dtype=np.float64)
    mean = (np.rint(mean) if context.dtype == np.uint8 else mean).astype(context.dtype)
    return np.broadcast_to(mean, (horizon, *mean.shape))


def unavailable(name: str) -> str:
    """What stands in a result for a measure that can't be computed: the word, whatever the measure.

    LPIPS and FVD need weights that only the user can supply, through `load_metric`: nothing replaces them.
    """
    return "unavailable"


def load_metric(spec: str) -> Measure:
    """The user's measure named `module:Name`, a callable from two `[T, B, H, W, C]` (predicted, truth) to
    `[T, B]`; what it returns is checked for its shape on every call.

    It may say by an attribute `higher_is_better` which way is better; without one, best of N isn't reported.

    Raises `ValueError` when the name isn't of that form, or leads to nothing that can be called.
    """
    module_name, colon, attribute = spec.partition(":")
    if not (module_name and colon and attribute):
        needs = f"{spec} needs weights of your own: " if spec in _NEED_WEIGHTS else ""
        raise ValueError(f"metrics={spec}: {needs}name a callable as module:Name, such as my_metrics:lpips")
    # A console script, unlike `python -m`, does not look for modules where it is run.
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ValueError(
            f"metrics={spec}: can't import {module_name} ({error}); install it or run where it lies"
        ) from error
    metric = getattr(module, attribute, None)
    if not callable(metric):
        what = "isn't callable" if hasattr(module, attribute) else "doesn't exist"
        raise ValueError(
            f"metrics={spec}: {attribute} {what} in {module_name}; name a callable of (predicted, truth)"
        )

    # A class or a partial has no __name__ to copy, which `wraps` forgives; attributes come along.
    @functools.wraps(metric)
    def checked(predicted: Any, truth: Any) -> np.ndarray:
        values = np.asarray(metric(predicted, truth), np.float32)
        if values.shape != truth.shape[:2]:
            raise ValueError(
                f"metrics={spec} returned shape {values.shape}; return one value for each frame, "
                f"{tuple(truth.shape[:2])}"
            )
        return values

    return checked
