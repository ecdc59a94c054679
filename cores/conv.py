"""Convolutions over frames, in the form whose gradient is fast on a CPU."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

_NHWC = ("NHWC", "HWIO", "NHWC")


def convolve(x: Array, kernel: Array, strides: Any, padding: Any, **options: Any) -> Array:
    """`lax.conv_general_dilated` of frames `[N, H, W, C]` and `kernel [K, K, C, D]`, as `nn.Conv` calls it.

    To XLA the gradient of a kernel is a convolution whose window is the frame. On a CPU it takes 30 times as
    long in a loop as outside of one (1.9 s and .06 s of one core at N = 1024, frames of 10 x 10, C = D = 16,
    jaxlib 0.10.2), and updates run in a loop over minibatches. There it is K x K matrix products here, one
    after the other (.04 s, in a loop or not). It has no forward-mode derivative there. Strides, dilation,
    groups and even kernels are XLA's.
    """
    plain = set(strides) == {1} and padding == "SAME" and not any(size % 2 == 0 for size in kernel.shape[:2])
    plain = plain and x.ndim == 4 and x.shape[-1] == kernel.shape[-2]
    layouts = (options.get("dimension_numbers"), _NHWC)
    plain = plain and len({lax.conv_dimension_numbers(x.shape, kernel.shape, each) for each in layouts}) == 1
    dilated = {*(options.get("lhs_dilation") or ()), *(options.get("rhs_dilation") or ())} - {1}
    if jax.default_backend() != "cpu" or not plain or dilated or options.get("precision") is not None:
        return lax.conv_general_dilated(x, kernel, strides, padding, **options)
    return _same(x, kernel)


Conv = partial(nn.Conv, conv_general_dilated=convolve)


def _by_xla(x: Array, kernel: Array) -> Array:
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=_NHWC)


@jax.custom_vjp
def _same(x: Float[Array, "N H W C"], kernel: Float[Array, "K L C D"]) -> Float[Array, "N H W D"]:
    return _by_xla(x, kernel)


def _forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return _same(x, kernel), (x, kernel)


def _backward(kept: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    x, kernel = kept
    (dx,) = jax.vjp(lambda x: _by_xla(x, kernel), x)[1](dy)
    rows, columns, c, d = kernel.shape
    edge = ((0, 0), (rows // 2, rows // 2), (columns // 2, columns // 2), (0, 0))
    padded, dy = jnp.pad(x, edge), dy.reshape(-1, d)

    def one(at: Array) -> Array:
        shifted = lax.dynamic_slice(padded, (0, at // columns, at % columns, 0), x.shape).reshape(-1, c)
        return jnp.matmul(shifted.T, dy, preferred_element_type=jnp.float32)

    # A loop, for side by side they take longer, and memory for a copy of the frames each.
    sums = lax.map(one, jnp.arange(rows * columns))
    return dx, sums.reshape(kernel.shape).astype(kernel.dtype)


_same.defvjp(_forward, _backward)
