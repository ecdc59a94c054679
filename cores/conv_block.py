"""The ResNet block that follows the recurrence in convolutional cores."""

import math

import flax.linen as nn
import jax
from jaxtyping import Array, Float

from .conv import Conv


def resnet_block(
    y: Float[Array, "T B H W C"], features: int, kernel: int
) -> Float[Array, "T B H W features"]:
    """gelu(y + conv(gelu(norm(conv(gelu(norm(y))))))), norm over groups of channels of one frame.

    Makes its submodules (`norm_1`, `conv_1`, ...) in the compact method that calls it.
    """
    frames = y.reshape(-1, *y.shape[2:])  # [T*B, H, W, C]: a group's statistics are those of one frame
    h = frames
    for i in (1, 2):
        h = jax.nn.gelu(nn.GroupNorm(math.gcd(32, features), dtype=y.dtype, name=f"norm_{i}")(h))
        h = Conv(features, (kernel, kernel), dtype=y.dtype, name=f"conv_{i}")(h)
    return jax.nn.gelu(frames + h).reshape(y.shape)
