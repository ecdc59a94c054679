"""`rfvd-v1`: the random-feature video Fréchet distance, a distance between two sets of videos.

It needs no trained weights, and it is **not** FVD: features come from small fixed random 3-D convolutions, so
its values mean something only beside others of the same version, the same data and the same number of
windows. It sees blur, noise, frozen and shuffled time; it hardly sees one digit exchanged for another, which
the ground-truth measures are for.

The definition, which the version stands for:

- Windows: 16 consecutive predicted frames, not overlapping, from the first; what is left over is dropped.
- Pixels: each frame resized to 64 × 64 by exact area averaging (a pixel is a square of one colour, so that
  smaller frames are enlarged by the same rule), grey repeated to three channels, x / 127.5 − 1.
- Five nets, of three 3 × 3 × 3 convolutions each: channels 3 → 16 → 32 → 64, stride 2 in time, height and
  width, one ring of zeros around, no bias, ReLU after each. Weights are He-normal, √(2 / fan-in) times
  `numpy.random.Generator(PCG64(net)).standard_normal`, net = 0…4, as float32 [time, height, width, in, out].
- Features: of the last layer's [2, 8, 8, 64], the mean over time and places, and the standard deviation over
  time averaged over places: 128 numbers.
- Value: (|μ₁ − μ₂|² + tr(C₁ + C₂ − 2 (C₁^½ C₂ C₁^½)^½)) / tr(C₁), C₁ of the real windows, in float64 with
  unbiased covariances; the mean over the five nets, with their standard deviation as its spread.

The same number of windows stands on either side, 256 or more: at finite N the distance is biased upwards by
about 1/N, so it is read beside its floor, which is what other real windows score.
"""

import functools
import hashlib
import itertools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

VERSION = "rfvd-v1"
NETS = 5
FRAMES = 16  # of a window
SIZE = 64
WIDTH = 128  # of the features
LEAST = 2 * WIDTH  # windows on each side
_CHANNELS = (3, 16, 32, 64)
_AT_ONCE = 16  # windows at a time

WEIGHTS_SHA256 = "6b67aa7919a7eff60a6f32b5cba74f189b2a79362212ee805eb39757213ac140"
"""Of all five nets' weights in order, little-endian float32: numpy's normal numbers may change some day."""


@functools.cache
def _weights() -> tuple[tuple[np.ndarray, ...], ...]:
    nets = []
    for net in range(NETS):
        generator = np.random.Generator(np.random.PCG64(net))
        layers = []
        for inputs, outputs in itertools.pairwise(_CHANNELS):
            normal = generator.standard_normal((3, 3, 3, inputs, outputs))
            layers.append((normal * np.sqrt(2.0 / (27 * inputs))).astype("<f4"))
        nets.append(tuple(layers))
    return tuple(nets)


@functools.cache
def weights_sha256() -> str:
    """The hash of the weights as they are drawn here."""
    digest = hashlib.sha256()
    for net in _weights():
        for layer in net:
            digest.update(layer.tobytes())
    return digest.hexdigest()


def area_weights(size: int, target: int = SIZE) -> Float[np.ndarray, "target size"]:
    """Row i has the part of each of `size` pixels in the i-th of `target` equal cells; rows sum to 1."""
    edges = np.arange(target + 1) * size / target
    pixels = np.arange(size)
    low = np.maximum(edges[:-1, None], pixels)
    high = np.minimum(edges[1:, None], pixels + 1)
    return (np.maximum(high - low, 0.0) * target / size).astype(np.float32)


@jax.jit
def _features(layers: tuple[Array, ...], windows: Array) -> Array:
    rows, columns = (jnp.asarray(area_weights(n)) for n in windows.shape[2:4])

    def one(window: Array) -> Array:
        x = jnp.einsum(
            "ih,thwc,jw->tijc", rows, window.astype(jnp.float32), columns, precision=jax.lax.Precision.HIGHEST
        )
        x = jnp.broadcast_to(x, (*x.shape[:-1], 3)) / 127.5 - 1.0
        for layer in layers:
            # In two dimensions over each three frames as channels: the same sums, six times faster on a CPU.
            padded = jnp.pad(x, ((1, 1), (0, 0), (0, 0), (0, 0)))
            three = jnp.concatenate([padded[k : k + x.shape[0] : 2] for k in range(3)], axis=-1)
            kernel = jnp.moveaxis(layer, 0, 2)  # [height, width, time, in, out]
            x = jax.lax.conv_general_dilated(
                three,
                kernel.reshape(3, 3, -1, layer.shape[-1]),
                window_strides=(2, 2),
                padding=((1, 1), (1, 1)),
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
                precision=jax.lax.Precision.HIGHEST,  # not the accelerator's rounded inputs
            )
            x = jax.nn.relu(x)
        return jnp.concatenate([x.mean((0, 1, 2)), x.std(0).mean((0, 1))])

    return jax.lax.map(one, windows, batch_size=_AT_ONCE)


def windows_of(frames: Shaped[np.ndarray, "T B H W C"]) -> Shaped[np.ndarray, "N 16 H W C"]:
    """The windows of each clip, those of one clip beside each other: N = B · ⌊T / 16⌋."""
    frames = np.asarray(frames)
    if frames.ndim != 5 or frames.shape[0] < FRAMES or frames.shape[-1] not in (1, 3):
        raise ValueError(
            f"frames of shape {frames.shape} have no window of {FRAMES}; give [T, B, H, W, C] with T of "
            f"{FRAMES} or more and C of 1 or 3"
        )
    count, batch = frames.shape[0] // FRAMES, frames.shape[1]
    windows = frames[: count * FRAMES].reshape(count, FRAMES, *frames.shape[1:])
    return np.moveaxis(windows, 2, 0).reshape(batch * count, FRAMES, *frames.shape[2:])  # [B, count, 16, ...]


class RandomFeatures:
    """The features of one net, 0…4.

    Raises `ValueError` for another net, and `RuntimeError` where numpy draws other weights than the
    version stands for.
    """

    def __init__(self, net: int):
        if not 0 <= net < NETS:
            raise ValueError(f"net={net} doesn't exist in {VERSION}; use 0 to {NETS - 1}")
        if weights_sha256() != WEIGHTS_SHA256:
            raise RuntimeError(
                f"numpy {np.__version__} draws other weights than {VERSION} has; its values can't be compared"
            )
        self.layers = _weights()[net]

    def features(self, frames: Shaped[np.ndarray, "T B H W C"]) -> Float[np.ndarray, "N 128"]:
        """A row for each window of *predicted* frames (of truth: the true frames in their place), uint8 or
        floats in [0, 255]; N = B · ⌊T / 16⌋, a clip's windows beside each other.

        Raises `ValueError` for fewer than 16 frames, or channels that are neither 1 nor 3.
        """
        return np.asarray(_features(self.layers, windows_of(frames)))


def features(frames: Shaped[np.ndarray, "T B H W C"]) -> Float[np.ndarray, "5 N 128"]:
    """Of all five nets: gather them batch by batch and concatenate along N, 2.5 kB a window."""
    return np.stack([RandomFeatures(net).features(frames) for net in range(NETS)])


def shuffled(frames: Shaped[np.ndarray, "T B H W C"], seed: int = 0) -> Shaped[np.ndarray, "T B H W C"]:
    """The frames of every window in a random order of its own: right pictures, wrong motion.

    What is left over at the end stays as it is.
    """
    frames = np.array(frames)
    generator = np.random.default_rng(seed)
    for start in range(0, frames.shape[0] - FRAMES + 1, FRAMES):
        for clip in range(frames.shape[1]):
            frames[start : start + FRAMES, clip] = frames[start + generator.permutation(FRAMES), clip]
    return frames


def frechet(a: Float[np.ndarray, "N D"], b: Float[np.ndarray, "M D"]) -> float:
    """The squared Fréchet distance of two Gaussians with the means and covariances of `a` and `b`, float64.

    |μ_a − μ_b|² + tr(A + B − 2 (A^½ B A^½)^½) (Dowson and Landau, J. Multivariate Analysis 1982); the roots
    by eigendecomposition, where rounding makes an eigenvalue negative it is 0.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    cov_a, cov_b = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (a, b))
    values, vectors = np.linalg.eigh(cov_a)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ cov_b @ root), 0.0)).sum()
    gap = np.square(a.mean(0) - b.mean(0)).sum()
    return float(gap + np.trace(cov_a) + np.trace(cov_b) - 2.0 * cross)


def rfvd(real: Float[np.ndarray, "5 N 128"], fake: Float[np.ndarray, "5 N 128"]) -> dict:
    """`{"mean", "spread", "per_net", "n"}` of two sets of features; `spread` is the nets' standard deviation.

    Raises `ValueError` for unequal sets, for fewer than 256 windows, for features that are not finite, and
    for real windows that are all alike.
    """
    real, fake = np.asarray(real), np.asarray(fake)
    if real.shape != fake.shape or real.ndim != 3:
        raise ValueError(
            f"{VERSION} compares equally many windows, not features of shapes {real.shape} and {fake.shape}; "
            "give two equal [nets, windows, features]"
        )
    n = real.shape[1]
    if n < LEAST:
        raise ValueError(
            f"{n} windows of {FRAMES} predicted frames are too few for {VERSION}; use {LEAST} or more, by "
            "more clips or a longer horizon"
        )
    if not (np.isfinite(real).all() and np.isfinite(fake).all()):
        raise ValueError(f"{VERSION} got features that are not finite; look for NaN in the frames")
    per_net = []
    for a, b in zip(real, fake, strict=True):
        scale = float(np.trace(np.cov(a.astype(np.float64), rowvar=False)))
        if scale < 1e-12:
            raise ValueError(
                f"the real windows are all alike, which {VERSION} can't scale by; use other data"
            )
        per_net.append(frechet(a, b) / scale)
    return {
        "mean": float(np.mean(per_net)),
        "spread": float(np.std(per_net)),
        "per_net": [float(v) for v in per_net],
        "n": n,
    }


def floor(real: Float[np.ndarray, "5 N 128"], other: Float[np.ndarray, "5 N 128"] | None = None) -> dict:
    """What real windows score against `other` real ones, of other clips; the same form as `rfvd`.

    Without `other`, the first half against the second: when the windows came clip by clip, no clip but the
    middle one is in both. The number of windows is in `n`; the floor of half as many is about twice as high.
    A model that continues the very clips it is compared with may score less than the floor.
    """
    if other is None:
        half = np.asarray(real).shape[1] // 2
        return rfvd(real[:, :half], real[:, -half:])
    return rfvd(real, other)


def table(
    real: Float[np.ndarray, "5 N 128"],
    others: Mapping[str, Float[np.ndarray, "5 N 128"]],
    other_real: Float[np.ndarray, "5 N 128"] | None = None,
) -> dict:
    """Everybody in `others` (`model`, `copy_last`, `shuffled`, …) beside the floor, for a result.

    `{"version", "floor": {...}, who: {...}}`; the floor is `"unavailable"` where there are too few real
    windows for halves. Raises `ValueError` as `rfvd` does.
    """
    scores = {who: rfvd(real, fake) for who, fake in others.items()}
    enough = other_real is not None or np.asarray(real).shape[1] >= 2 * LEAST
    return {"version": VERSION, "floor": floor(real, other_real) if enough else "unavailable", **scores}
