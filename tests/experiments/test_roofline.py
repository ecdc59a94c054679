"""The floor under a program's time: what is counted, and what is free."""

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import pallas as pl

from resetta.experiments.bench.ceilings import Ceilings
from resetta.experiments.bench.roofline import Counted, counted, least_seconds

A, B = jnp.ones((3, 4)), jnp.ones((4, 5))
MOVED, FLOPS = 4 * (3 * 4 + 4 * 5 + 3 * 5), 2 * 3 * 4 * 5


def floor(function, *args, bandwidth=1.0, rate=1e9):
    return least_seconds(function, Ceilings(bandwidth, rate), *args)


def test_a_product_moves_its_operands_or_multiplies_whichever_takes_longer():
    assert floor(lambda a, b: jnp.tanh(a @ b) + 1, A, B) == MOVED
    assert floor(lambda a, b: jnp.tanh(a @ b) + 1, A, B, bandwidth=1e9, rate=1.0) == FLOPS
    assert floor(lambda a: jnp.tanh(a).sum(), A) == 0


def test_bfloat16_moves_half_and_multiplies_at_its_own_ceiling():
    halves = A.astype(jnp.bfloat16), B.astype(jnp.bfloat16)
    assert floor(lambda a, b: a @ b, *halves) == MOVED / 2
    assert least_seconds(lambda a, b: a @ b, Ceilings(1e9, 1e9, 2.0), *halves) == FLOPS / 2


def test_loops_count_their_products_as_often_as_they_run_and_a_recurrence_its_ends():
    def products(a, b):
        return jax.lax.scan(lambda c, _: (c, c @ b), a, None, length=7)[1]

    assert floor(products, A, B) == 7 * MOVED

    def recurrence(x):
        return jax.lax.scan(lambda h, u: (h + u, h), jnp.zeros(4), x)[1]

    assert floor(recurrence, A) == pytest.approx(4 * (2 * 3 * 4 + 2 * 4))
    assert floor(jax.jit(recurrence), A) == floor(recurrence, A)


def test_of_a_branch_the_longer_side():
    assert floor(lambda a, b: jax.lax.cond(a.sum() > 0, lambda: a @ b, lambda: a @ b[:, :5]), A, B) == MOVED


def test_of_a_kernel_that_skips_what_it_may_its_own_estimate():
    def kernel(a, b, out):
        def add(k, total):
            return total + a[...] @ b[...]

        out[...] = jax.lax.fori_loop(0, a[0, 0].astype(int), add, jnp.zeros((3, 5)))

    def product(a, b):
        estimate = pl.CostEstimate(flops=70, transcendentals=0, bytes_accessed=0)
        shape = jax.ShapeDtypeStruct((3, 5), jnp.float32)
        return pl.pallas_call(kernel, out_shape=shape, cost_estimate=estimate)(a, b)

    assert floor(product, A, B) == MOVED
    assert floor(product, A, B, bandwidth=1e9, rate=1.0) == 70


def test_all_is_counted_in_one_traced_program():
    traced = jax.jit(lambda a, b: jnp.tanh(a @ b)).trace(A, B)
    assert counted(traced.jaxpr, Ceilings(1e9, 1.0)) == Counted(FLOPS, MOVED, FLOPS)
    assert traced.lower().compile()(A, B).shape == (3, 5)
