"""Convolutional encoders and decoders of single frames."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class ResBlock(nn.Module):
    """x + 0.1 f(x), f twice (group norm, ELU, 3 x 3 convolution), as in ConvS5's published encoder.

    A 1 x 1 convolution first where the number of channels changes.
    """

    features: int

    @nn.compact
    def __call__(self, x: Float[Array, "N H W C"]) -> Float[Array, "N H W features"]:
        """Same height, width and dtype."""
        if x.shape[-1] != self.features:
            x = nn.Conv(self.features, (1, 1), dtype=x.dtype, name="widen")(x)
        h = x
        for i in (1, 2):
            groups = math.gcd(32, self.features)
            h = jax.nn.elu(nn.GroupNorm(groups, dtype=x.dtype, name=f"norm_{i}")(h))
            h = nn.Conv(self.features, (3, 3), dtype=x.dtype, name=f"conv_{i}")(h)
        return x + 0.1 * h


class FrameEncoder(nn.Module):
    """Frames `[N, H, W, C]` to features `[N, H/s, W/s, widths[-1]]`, s = patch · 2^(len(widths) − 1).

    Patches of `patch` x `patch` pixels are stacked into channels first, which is what makes a small encoder
    cheap; then every width is one `ResBlock`, with 2 x 2 average pooling between them.
    """

    widths: tuple[int, ...]
    patch: int = 1

    @nn.compact
    def __call__(self, x: Float[Array, "N H W C"]) -> Float[Array, "N h w D"]:
        """H and W must be divisible by the stride."""
        x = space_to_depth(x, self.patch)
        x = nn.Conv(self.widths[0], (3, 3), dtype=x.dtype, name="stem")(x)
        for i, width in enumerate(self.widths):
            x = nn.avg_pool(x, (2, 2), (2, 2)) if i else x
            x = ResBlock(width, name=f"block_{i}")(x)
        return x


class FrameDecoder(nn.Module):
    """Features `[N, h, w, D]` to pixels `[N, h·s, w·s, channels]`: `FrameEncoder` backwards.

    Nearest-neighbour upsampling between the blocks, a layer norm and a linear map to the pixels of a patch;
    not squashed.
    """

    widths: tuple[int, ...]
    channels: int
    patch: int = 1

    @nn.compact
    def __call__(self, x: Float[Array, "N h w D"]) -> Float[Array, "N H W channels"]:
        """Widths are given in the encoder's order, from fine to coarse."""
        x = nn.Conv(self.widths[-1], (3, 3), dtype=x.dtype, name="stem")(x)
        for i, width in reversed(list(enumerate(self.widths))):
            x = ResBlock(width, name=f"block_{i}")(x)
            x = x.repeat(2, axis=1).repeat(2, axis=2) if i else x
        x = nn.LayerNorm(dtype=x.dtype, name="norm")(x)
        x = nn.Dense(self.channels * self.patch**2, dtype=x.dtype, name="pixels")(x)
        return depth_to_space(x, self.patch)


def stride(widths: tuple[int, ...], patch: int) -> int:
    """How many pixels of a frame one feature is wide."""
    return patch * 2 ** (len(widths) - 1)


def space_to_depth(x: Float[Array, "N H W C"], patch: int) -> Float[Array, "N h w D"]:
    """Every patch of `patch` x `patch` pixels as one vector of channels."""
    n, height, width, channels = x.shape
    x = x.reshape(n, height // patch, patch, width // patch, patch, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(n, height // patch, width // patch, -1)


def depth_to_space(x: Float[Array, "N h w D"], patch: int) -> Float[Array, "N H W C"]:
    """The inverse of `space_to_depth`."""
    n, height, width, _ = x.shape
    x = x.reshape(n, height, width, patch, patch, -1)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(n, height * patch, width * patch, -1)


def over_frames(module: nn.Module, x: Float[Array, "T B ..."]) -> Float[Array, "T B ..."]:
    """A module of single frames applied to all frames of all clips at once."""
    t, b, *rest = x.shape
    y = module(jnp.reshape(x, (t * b, *rest)))
    return y.reshape(t, b, *y.shape[1:])
