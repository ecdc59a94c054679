"""Convolutions over frames, in the form whose gradient is fast on a CPU."""

from collections.abc import Callable
from contextvars import ContextVar
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

_NHWC = ("NHWC", "HWIO", "NHWC")


_looped: ContextVar[bool] = ContextVar("looped", default=False)


def in_a_loop(body: Callable[..., Any]) -> Callable[..., Any]:
    """`body`, the body of a loop, traced with convolutions whose gradient is fast in one; see `convolve`."""

    def traced(*args: Any, **options: Any) -> Any:
        token = _looped.set(True)
        try:
            return body(*args, **options)
        finally:
            _looped.reset(token)

    return traced


def convolve(x: Array, kernel: Array, strides: Any, padding: Any, **options: Any) -> Array:
    """`lax.conv_general_dilated` of frames `[N, H, W, C]` and `kernel [K, K, C, D]`, as `nn.Conv` calls it.

    To XLA the gradient of a kernel is a convolution whose window is the frame. On a CPU it takes 30 times as
    long in a loop as outside of one (1.9 s and .06 s of one core at N = 1024, frames of 10 x 10, C = D = 16,
    jaxlib 0.10.2). So within `in_a_loop` it is K x K matrix products there (.06 s in the same loop). Outside
    of loops, where these take up to twice as long, it is XLA's. Strides, dilation, groups and even kernels
    always are.
    """
    plain = set(strides) == {1} and padding == "SAME" and not any(size % 2 == 0 for size in kernel.shape[:2])
    plain = plain and x.ndim == 4 and x.shape[-1] == kernel.shape[-2]
    layouts = (options.get("dimension_numbers"), _NHWC)
    plain = plain and len({lax.conv_dimension_numbers(x.shape, kernel.shape, each) for each in layouts}) == 1
    dilated = {*(options.get("lhs_dilation") or ()), *(options.get("rhs_dilation") or ())} - {1}
    by_products = _looped.get() and jax.default_backend() == "cpu"
    if not by_products or not plain or dilated or options.get("precision") is not None:
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
    height, width = x.shape[1:3]
    edge = ((0, 0), (rows // 2, rows // 2), (columns // 2, columns // 2), (0, 0))
    padded, dy = jnp.pad(x, edge), dy.reshape(-1, d)
    shifted = [padded[:, i : i + height, j : j + width] for i in range(rows) for j in range(columns)]
    sums = [jnp.matmul(s.reshape(-1, c).T, dy, preferred_element_type=jnp.float32) for s in shifted]
    return dx, jnp.stack(sums).reshape(kernel.shape).astype(kernel.dtype)


_same.defvjp(_forward, _backward)
