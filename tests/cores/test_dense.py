"""Products of sequences: flax's layers in another form, which a CPU multiplies faster."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resetta.cores import make_core
from resetta.cores.dense import Dense, product
from resetta.experiments.bench.flops import inside

X = jax.random.normal(jax.random.key(0), (5, 3, 2, 4))


def contracted(jaxpr):
    """How many axes every product of a program sums over."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            yield len(equation.params["dimension_numbers"][0][0])
        for inner in inside(equation.params):
            yield from contracted(getattr(inner, "jaxpr", inner))


def test_it_is_flax_dense():
    ours, theirs = Dense(6), nn.Dense(6)
    params = theirs.init(jax.random.key(1), X)
    assert jax.tree.structure(ours.init(jax.random.key(1), X)) == jax.tree.structure(params)

    def loss(layer):
        return lambda params, x: jnp.sum(jnp.sin(layer.apply(params, x)))

    for a, b in zip(
        jax.tree.leaves(jax.value_and_grad(loss(ours), (0, 1))(params, X)),
        jax.tree.leaves(jax.value_and_grad(loss(theirs), (0, 1))(params, X)),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, atol=1e-5)
    kernel = params["params"]["kernel"]
    np.testing.assert_allclose(product(X, kernel), X @ kernel, atol=1e-6)
    assert product(X.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)).dtype == jnp.bfloat16


@pytest.mark.parametrize("name", ["s5", "gru", "mamba", "none"])
def test_on_a_cpu_no_gradient_sums_over_time_and_rows_apart(name):
    core = make_core(name, features=8, num_layers=1)
    x, reset, carry = jnp.zeros((5, 3, 4)), jnp.zeros((5, 3), bool), core.initial_carry(3)
    params = jax.eval_shape(core.init, jax.random.key(0), carry, x, reset)
    grad = jax.grad(lambda p: jnp.sum(core.apply(p, carry, x, reset)[1]))
    assert set(contracted(jax.make_jaxpr(grad)(params).jaxpr)) == {1}


def test_elsewhere_axes_stay_apart(monkeypatch):
    def of():
        return set(
            contracted(jax.make_jaxpr(jax.grad(lambda w: product(X, w).sum()))(jnp.ones((4, 6))).jaxpr)
        )

    assert of() == {1}
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert of() == {1, 3}
