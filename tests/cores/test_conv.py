"""The CPU's convolution is XLA's in values and gradients, whatever is asked of it."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import lax

from resetta.cores.conv import Conv, convolve

NHWC = ("NHWC", "HWIO", "NHWC")


def drawn(seed, *shapes):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


def ours(x, kernel):
    return convolve(x, kernel, (1, 1), "SAME", dimension_numbers=NHWC)


def by_loops(x, kernel):
    """The definition, in float64."""
    (n, height, width, _), (rows, columns, _, d) = x.shape, kernel.shape
    y = np.zeros((n, height, width, d))
    for h in range(height):
        for w in range(width):
            for i in range(rows):
                for j in range(columns):
                    u, v = h + i - rows // 2, w + j - columns // 2
                    if 0 <= u < height and 0 <= v < width:
                        y[:, h, w] += x[:, u, v].astype(np.float64) @ kernel[i, j].astype(np.float64)
    return y


@given(
    st.integers(1, 3), st.integers(1, 5), st.integers(1, 5), st.sampled_from([(1, 1), (3, 3), (1, 5), (5, 3)])
)
def test_values_and_gradients_are_those_of_the_definition(n, height, width, window):
    x, kernel, dy = drawn(0, (n, height, width, 2), (*window, 2, 3), (n, height, width, 3))
    y, pull = jax.vjp(ours, x, kernel)
    np.testing.assert_allclose(y, by_loops(x, kernel), atol=1e-5)
    dx, dk = pull(dy)
    # the definition is linear in each of both, so what it makes of a unit is a derivative
    for at in np.ndindex(kernel.shape):
        unit = np.zeros_like(kernel)
        unit[at] = 1
        np.testing.assert_allclose(dk[at], (by_loops(x, unit) * dy).sum(), atol=1e-4)
    for at in np.ndindex(x.shape):
        unit = np.zeros_like(x)
        unit[at] = 1
        np.testing.assert_allclose(dx[at], (by_loops(unit, kernel) * dy).sum(), atol=1e-4)


def test_vmapped_in_a_loop_and_twice_differentiated_it_is_xlas():
    x, kernel = drawn(1, (2, 4, 5, 6, 3), (2, 3, 3, 3, 3))

    def trained(convolution, x, kernel):
        def loss(kernel, x):
            return (convolution(jnp.tanh(convolution(x, kernel)), kernel) ** 2).mean()

        def step(kernel, _):
            return kernel - 0.1 * jax.grad(loss)(kernel, x), loss(kernel, x)

        end, losses = jax.lax.scan(step, kernel, None, length=3)
        curvature = jax.grad(lambda k: (jax.grad(loss)(k, x) ** 2).sum())(end)
        return end, losses, curvature

    def xlas(x, kernel):
        return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=NHWC)

    found = jax.jit(jax.vmap(lambda x, k: trained(ours, x, k)))(x, kernel)
    wanted = jax.jit(jax.vmap(lambda x, k: trained(xlas, x, k)))(x, kernel)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, wanted)


def test_bfloat16_stays_bfloat16():
    x, kernel = (jnp.asarray(a, jnp.bfloat16) for a in drawn(2, (2, 4, 4, 3), (3, 3, 3, 5)))
    y, pull = jax.vjp(ours, x, kernel)
    assert {y.dtype, *(d.dtype for d in pull(y))} == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.parametrize(
    ("window", "options"),
    [
        ((3, 3), {"strides": 2}),
        ((2, 2), {}),
        ((3, 3), {"padding": "VALID"}),
        ((3, 3), {"kernel_dilation": 2}),
        ((3, 3), {"feature_group_count": 2}),
        ((3, 3), {}),
    ],
)
def test_as_a_layer_it_is_flaxs(window, options):
    (x,) = drawn(3, (2, 3, 7, 6, 4))
    layer, other = Conv(4, window, **options), nn.Conv(4, window, **options)
    params = layer.init(jax.random.key(0), x)

    def output_and_gradient(layer):
        def loss(params):
            y = layer.apply(params, x)
            return (y**2).mean(), y

        return jax.grad(loss, has_aux=True)(params)

    found, wanted = output_and_gradient(layer), output_and_gradient(other)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, wanted)


def test_frames_in_another_layout_are_xlas():
    x, kernel = map(jnp.asarray, drawn(5, (2, 3, 3, 3), (3, 3, 3, 3)))
    layout = ("NCHW", "OIHW", "NCHW")
    found = convolve(x, kernel, (1, 1), "SAME", dimension_numbers=layout)
    np.testing.assert_array_equal(
        found, lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout)
    )


def test_its_gradient_takes_little_more_memory_than_the_frames():
    x, kernel = map(jnp.asarray, drawn(6, (16, 16, 16, 8), (3, 3, 8, 8)))
    gradient = jax.jit(jax.grad(lambda kernel: (ours(x, kernel) ** 2).sum()))
    taken = gradient.lower(kernel).compile().memory_analysis().temp_size_in_bytes
    assert taken < 5 * x.nbytes  # a copy of them for each of the nine products is 9 more
