import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resetta.cores import make_core, ssm


def example(core, size=(3, 4), channels=3, length=4, batch=2):
    key = jax.random.key(0)
    x = jax.random.normal(jax.random.fold_in(key, 0), (length, batch, *size, channels))
    reset = jnp.zeros((length, batch), bool).at[2, 0].set(True)
    zeros = core.initial_carry(batch, size)
    carry = jax.tree.map(lambda x: jax.random.normal(jax.random.fold_in(key, 2), x.shape), zeros)
    # drawn here, not by `init`, whose compilation would be most of the test's time
    shapes = jax.eval_shape(core.init, key, zeros, x[:1], reset[:1])["params"]
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda s: jnp.asarray(0.4 * rng.normal(size=s.shape), jnp.float32), shapes)
    params["states"] = ssm.DiscreteStates(core.space, core.num_layers).init(key)["params"]
    return {"params": params}, carry, x, reset


def normalise(x, p, groups=1):
    shape = x.shape
    x = x.reshape(*shape[:-1], groups, -1)
    x = x - x.mean(-1, keepdims=True)
    return (x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)).reshape(shape) * p["scale"] + p["bias"]


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


@pytest.mark.parametrize(
    ("nonlinearity", "prenorm"), [("resnet", False), ("half_glu", True), ("gelu", False)]
)
def test_on_one_pixel_it_is_a_pointwise_ssm(nonlinearity, prenorm):
    """Kernel 1 on 1 x 1 frames, against complex matrices one step at a time in float64."""
    core = make_core(
        "conv_s5", features=64, state_size=8, kernel=1, nonlinearity=nonlinearity, prenorm=prenorm
    )
    params, carry, x, reset = example(core, size=(1, 1))
    _, found = jax.jit(core.apply)(params, carry, x, reset)

    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params["params"])
    x = np.asarray(x, np.float64)[:, :, 0, 0] @ p["encoder"]["kernel"] + p["encoder"]["bias"]
    carry, reset = (
        (np.asarray(carry[0], np.float64) + 1j * np.asarray(carry[1]))[:, :, 0, 0],
        np.asarray(reset),
    )
    for index in range(core.num_layers):
        layer = jax.tree.map(lambda a: a[index], p["layers"])  # noqa: B023
        eigenvalues = -np.exp(p["states"]["log_decay"][index]) + 1j * p["states"]["im"][index]
        a_bar = np.exp(eigenvalues * np.exp(p["states"]["log_step"][index]))
        b, c = layer["B"]["kernel"][0, 0], layer["C"]["kernel"][0, 0]
        b_bar = ((a_bar - 1) / eigenvalues)[:, None] * (b[:, :4] + 1j * b[:, 4:]).T
        u = normalise(x, layer["norm"]) if prenorm else x
        state, ys = carry[:, index], []
        for t in range(len(x)):
            state = np.where(reset[t][:, None], 0, state) * a_bar + u[t] @ b_bar.T
            ys.append(state.real @ c[:4] + state.imag @ c[4:])
        y = np.stack(ys)
        if nonlinearity == "resnet":
            h = y
            for i in ("1", "2"):
                h = gelu(normalise(h, layer["norm_" + i], groups=32))
                h = h @ layer["conv_" + i]["kernel"][0, 0] + layer["conv_" + i]["bias"]
            y = gelu(y + h)
        elif nonlinearity == "half_glu":
            y = gelu(normalise(y, layer["glu_norm"]))
            y = y / (1 + np.exp(-(y @ layer["gate"]["kernel"] + layer["gate"]["bias"])))
        else:
            y = gelu(y)
        x = x + y if prenorm else normalise(x + y, layer["norm"])
    np.testing.assert_allclose(found[:, :, 0, 0], x, atol=5e-3 if nonlinearity == "resnet" else 2e-4)


def test_steps_equal_the_sequence_and_a_reset_starts_afresh():
    core = make_core("conv_s5", features=8, num_layers=1)
    params, carry, x, reset = example(core)
    apply = jax.jit(core.apply)
    after, y = apply(params, carry, x, reset)
    assert y.shape == (4, 2, 3, 4, 8)
    state = carry
    for t in range(4):
        state, y_t = apply(params, state, x[t : t + 1], reset[t : t + 1])
        np.testing.assert_allclose(y_t[0], y[t], atol=1e-4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), state, after)
    poisoned = jax.tree.map(lambda c: c * jnp.nan, carry)
    _, fresh = apply(params, core.initial_carry(2, (3, 4)), jnp.roll(x, -2, 0), jnp.zeros_like(reset))
    _, hidden = apply(params, poisoned, x.at[0].set(jnp.nan), reset)
    np.testing.assert_allclose(hidden[2:, 0], fresh[:2, 0], atol=1e-5)
    assert np.isnan(hidden[2:, 1]).all()  # the row that was not reset


def test_group_statistics_are_those_of_one_frame():
    """Without a memory to speak of, a frame's output depends neither on other frames nor on other rows."""
    core = make_core("conv_s5", features=8, num_layers=1)
    params, carry, x, _ = example(core)
    always = jnp.ones((4, 2), bool)
    apply = jax.jit(core.apply)
    _, y = apply(params, carry, x, always)
    _, changed = apply(params, carry, x.at[1, 0].multiply(9.0), always)
    same = np.ones((4, 2), bool)
    same[1, 0] = False
    np.testing.assert_array_equal(changed[same], y[same])
    assert not np.allclose(changed[1, 0], y[1, 0])


def test_one_pixel_spreads_by_the_kernels_of_b_and_c():
    core = make_core("conv_s5", features=4, num_layers=1, kernel=3, nonlinearity="gelu")
    params, carry, x, _ = example(core, size=(7, 7), channels=4)
    reset = jnp.zeros((4, 2), bool)

    def pixel(x):
        return core.apply(params, carry, x, reset)[1][3, 0, 3, 3].sum()

    reach = np.abs(jax.jit(jax.grad(pixel))(x)[0, 0]).sum(-1) > 0
    wanted = np.zeros((7, 7), bool)
    wanted[1:6, 1:6] = True
    np.testing.assert_array_equal(reach, wanted)


def test_remat_changes_memory_only():
    outcomes = []
    for remat in (False, True):
        core = make_core("conv_s5", features=4, num_layers=1, nonlinearity="gelu", remat=remat)
        params, carry, x, reset = example(core)
        outcomes.append(jax.jit(jax.grad(lambda p: jnp.sum(core.apply(p, carry, x, reset)[1] ** 3)))(params))  # noqa: B023
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3), *outcomes)


def test_carry_and_dtypes():
    core = make_core("conv_s5", features=8, num_layers=3, state_size=6)
    assert core.spatial
    assert [(c.shape, c.dtype) for c in core.initial_carry(2, (3, 4))] == [((2, 3, 3, 4, 3), jnp.float32)] * 2
    with pytest.raises(TypeError, match=r"use initial_carry\(batch, \(H, W\)\)"):
        core.initial_carry(2)
    x, reset = jnp.ones((4, 2, 3, 4, 5), jnp.bfloat16), jnp.zeros((4, 2), bool)
    (carry, y), _ = jax.eval_shape(
        core.init_with_output, jax.random.key(0), core.initial_carry(2, (3, 4)), x, reset
    )
    assert y.dtype == jnp.bfloat16
    assert {c.dtype for c in carry} == {jnp.dtype(jnp.float32)}


def test_wrong_options_fail_when_the_core_is_made():
    with pytest.raises(ValueError, match="unknown nonlinearity 'relu'; choose from resnet, half_glu, gelu"):
        make_core("conv_s5", nonlinearity="relu")
    with pytest.raises(ValueError, match="kernel=0 is too small"):
        make_core("conv_s5", kernel=0)
