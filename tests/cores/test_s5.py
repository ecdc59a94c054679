import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resetta.cores import layers, make_core, ssm
from resetta.cores.hippo import diagonal


def example(core, width=3, length=6, batch=2, seed=0):
    key = jax.random.key(seed)
    x = jax.random.normal(jax.random.fold_in(key, 0), (length, batch, width))
    reset = jax.random.bernoulli(jax.random.fold_in(key, 1), 0.25, (length, batch))
    zeros = core.initial_carry(batch)
    carry = jax.tree.map(lambda x: jax.random.normal(jax.random.fold_in(key, 2), x.shape), zeros)
    # drawn here, not by `init`, whose compilation would be most of the test's time
    shapes = jax.eval_shape(core.init, key, zeros, x[:1], reset[:1])["params"]
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda s: jnp.asarray(0.4 * rng.normal(size=s.shape), jnp.float32), shapes)
    params["states"] = ssm.DiscreteStates(core.space, core.num_layers).init(key)["params"]
    return {"params": params}, carry, x, reset


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def layer_norm(x, p):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * p["scale"] + p["bias"]


def states(core, params, index):
    """(Λ, Δ, Ā, the factor of B̄) of one layer, in complex128."""
    p = {k: np.asarray(v[index], np.float64) for k, v in params["states"].items()}
    eigenvalues = (-np.exp(p["log_decay"]) if core.stable else p["re"]) + 1j * p["im"]
    step = np.exp(p["log_step"])
    z = eigenvalues * step
    if core.discretization == "zoh":
        return eigenvalues, step, np.exp(z), (np.exp(z) - 1) / eigenvalues
    return eigenvalues, step, (1 + z / 2) / (1 - z / 2), step / (1 - z / 2)


def s5_oracle(core, params, carry, x, reset):
    """S5 with complex matrices, one step at a time, in float64."""
    params = params["params"]
    x = np.asarray(x, np.float64)
    if "encoder" in params:
        x = x @ np.asarray(params["encoder"]["kernel"], np.float64) + np.asarray(params["encoder"]["bias"])
    carry, reset = np.asarray(carry[0], np.float64) + 1j * np.asarray(carry[1]), np.asarray(reset)
    for index in range(core.num_layers):
        p = jax.tree.map(lambda a: np.asarray(a[index], np.float64), params["layers"])  # noqa: B023
        _, _, a_bar, scale = states(core, params, index)
        lanes = len(a_bar)
        b_bar = scale[:, None] * (p["B"][:, :lanes] + 1j * p["B"][:, lanes:]).T  # [P, D]
        c = (p["C"][:lanes] - 1j * p["C"][lanes:]).T / (2 if core.conj_sym else 1)  # [D, P]
        u = layer_norm(x, p["norm"]) if core.prenorm and core.norm == "layer" else x
        state, ys = carry[:, index], []
        for t in range(len(u)):
            state = np.where(reset[t][:, None], 0, state) * a_bar + u[t] @ b_bar.T
            read = state
            if core.norm_states:
                both = np.concatenate([state.real, state.imag], axis=1)
                both = (both - both.mean(1, keepdims=True)) / np.sqrt(both.var(1, keepdims=True) + 1e-6)
                read = both[:, :lanes] + 1j * both[:, lanes:]
            ys.append((2 if core.conj_sym else 1) * (read @ c.T).real)
        y = np.stack(ys) + (u * p["D"] if core.feedthrough else 0)

        def dense(name, v):
            return v @ p[name]["kernel"] + p[name]["bias"]  # noqa: B023

        match core.gate:
            case "half_glu":
                y = gelu(y) * sigmoid(dense("gate", gelu(y)))
            case "full_glu":
                y = dense("value", gelu(y)) * sigmoid(dense("gate", gelu(y)))
            case "input":
                y = y * dense("gate", u) * sigmoid(dense("gate", u))
            case "gelu":
                y = gelu(y)
        x = x + y
        if not core.prenorm and core.norm == "layer":
            x = layer_norm(x, p["norm"])
    return x


VARIANTS = [
    {},
    {"discretization": "bilinear", "gate": "full_glu", "blocks": 2, "prenorm": False, "norm_states": True},
    {"num_layers": 1, "conj_sym": False, "gate": "input", "spectrum": "lin", "engine": "associative"},
    {"stable": False, "gate": "gelu", "state_size": 4, "num_layers": 5, "norm": "none"},
    {
        "num_layers": 1,
        "spectrum": "real",
        "gate": "none",
        "feedthrough": False,
        "state_size": 12,
        "scan_unroll": 2,
    },
]


@pytest.mark.parametrize(
    "options", VARIANTS, ids=lambda o: " ".join(f"{k}={v}" for k, v in o.items()) or "default"
)
def test_matches_a_float64_oracle_with_complex_matrices(options):
    core = make_core("s5", **{"features": 8, **options})
    params, carry, x, reset = example(core)
    after, y = jax.jit(core.apply)(params, carry, x, reset)
    np.testing.assert_allclose(y, s5_oracle(core, params, carry, x, reset), atol=2e-4)
    # steps, and therefore the carry, agree with the whole
    step = jax.jit(core.apply)
    for t in range(len(x)):
        carry, y_t = step(params, carry, x[t : t + 1], reset[t : t + 1])
        np.testing.assert_allclose(y_t[0], y[t], atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), carry, after)


def test_carry_is_batch_first_float32_pairs():
    core = make_core("s5", features=16, num_layers=3, state_size=8)
    assert [(c.shape, c.dtype) for c in core.initial_carry(5)] == [((5, 3, 4), jnp.float32)] * 2
    assert not any(np.any(c) for c in core.initial_carry(5))
    x, reset = jnp.ones((6, 2, 3), jnp.bfloat16), jnp.zeros((6, 2), bool)
    (carry, y), _ = jax.eval_shape(core.init_with_output, jax.random.key(0), core.initial_carry(2), x, reset)
    assert y.dtype == jnp.bfloat16
    assert [(c.shape, c.dtype) for c in carry] == [((2, 3, 4), jnp.float32)] * 2


def test_inputs_of_the_right_width_pass_no_encoder_and_weights_are_stacked():
    core = make_core("s5", features=8, num_layers=3)
    params, *_ = example(core, width=8)
    assert set(params["params"]) == {"layers", "states"}
    assert all(leaf.shape[0] == 3 for leaf in jax.tree.leaves(params))


def test_unrolled_and_scanned_layers_are_one_model(monkeypatch):
    core = make_core("s5", features=4, num_layers=2, gate="none")
    params, carry, x, reset = example(core)

    def run():
        def loss(params):
            carry_after, y = core.apply(params, carry, x, reset)
            return jnp.sum(y**2), (carry_after, y)

        return jax.jit(jax.grad(loss, has_aux=True))(params)

    monkeypatch.setattr(layers, "UNROLLED_LAYERS", 0)
    scanned = run()
    monkeypatch.setattr(layers, "UNROLLED_LAYERS", 9)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), scanned, run())


@pytest.mark.parametrize("spectrum", ["hippo", "lin"])
def test_b_and_c_begin_as_real_matrices_in_the_eigenbasis(spectrum):
    core = make_core("s5", features=64, spectrum=spectrum)
    x, reset = jnp.ones((1, 1, 64)), jnp.zeros((1, 1), bool)
    layer = jax.jit(core.init)(jax.random.key(0), core.initial_carry(1), x, reset)["params"]["layers"]
    assert not np.allclose(layer["B"][0], layer["B"][1])
    v = diagonal(spectrum, 64)[1]
    b = np.asarray(layer["B"][0, :, :32] + 1j * layer["B"][0, :, 32:]).T
    c = np.asarray(layer["C"][0, :32] - 1j * layer["C"][0, 32:]).T / 2
    w_in, w_out = 2 * (v @ b).real, 2 * (c @ v.conj().T).real
    np.testing.assert_allclose(v.conj().T @ w_in, b, atol=1e-5)
    np.testing.assert_allclose(w_out @ v, c, atol=1e-5)
    for w in (w_in, w_out):  # LeCun: variance 1 / fan-in; 4096 draws estimate it to about 2 %
        np.testing.assert_allclose(w.var() * 64, 1, atol=0.1)


def test_steps_begin_in_their_interval():
    core = make_core("s5", features=64, dt_min=1e-2, dt_max=0.5)
    log_step = example(core)[0]["params"]["states"]["log_step"]
    assert np.log(1e-2) <= log_step.min() < np.log(2e-2)
    assert np.log(0.25) < log_step.max() <= np.log(0.5)


@pytest.mark.parametrize("discretization", ssm.DISCRETIZATIONS)
@pytest.mark.parametrize("stable", [True, False])
def test_only_the_stable_parametrisation_survives_any_training(discretization, stable):
    core = make_core("s5", features=4, num_layers=1, discretization=discretization, stable=stable)
    module = ssm.DiscreteStates(core.space, 1)
    params = module.init(jax.random.key(0))
    moved = jax.tree.map(lambda x: x, params)
    name = "log_decay" if stable else "re"
    moved["params"][name] = moved["params"][name] + jnp.array([[3.0, -3.0]])
    (re, im), _ = module.apply(moved)
    assert (np.hypot(re, im) < 1).all() == stable


def test_zero_order_hold_of_slow_and_constant_states():
    """Against NumPy where exp(z) - 1 would cancel in float32, and at λ = 0, whose limit is Δ."""
    eigenvalues, step = np.array([-1e-4 + 1e-4j, -0.5 + 3j, 0.0]), np.array([1e-3, 1e-1, 1e-2])
    pair = jnp.asarray(eigenvalues.real, jnp.float32), jnp.asarray(eigenvalues.imag, jnp.float32)
    _, scale = ssm.zoh(pair, jnp.asarray(step, jnp.float32))
    z = eigenvalues * step
    wanted = step * np.array([1 + z[0] / 2 + z[0] ** 2 / 6, (np.exp(z[1]) - 1) / z[1], 1])
    np.testing.assert_allclose(np.asarray(scale[0]) + 1j * np.asarray(scale[1]), wanted, rtol=1e-5)
    gradient = jax.grad(lambda *p: sum(jnp.sum(x) for x in ssm.zoh(p, jnp.ones(3))[1]), argnums=(0, 1))(*pair)
    assert np.isfinite(gradient).all()


def test_a_reset_hides_even_nan():
    core = make_core("s5", features=8)
    params, carry, x, reset = example(core)
    reset = jnp.zeros_like(reset).at[3].set(True)
    apply = jax.jit(core.apply)
    _, fresh = apply(params, core.initial_carry(2), jnp.roll(x, -3, 0), reset)
    last, y = apply(params, jax.tree.map(lambda c: c * jnp.nan, carry), x.at[1].set(jnp.inf), reset)
    assert np.isnan(y[0]).all()
    np.testing.assert_allclose(y[3:], fresh[:3], atol=1e-6)
    assert np.isfinite(last).all()


def test_discretisation_leaves_the_loop_of_a_rollout():
    core = make_core("s5", features=8, num_layers=2)
    params, carry, x, reset = example(core)

    def rollout(params, carry, x, reset):
        def step(carry, xs):
            return core.apply(params, carry, xs[0][None], xs[1][None])

        return jax.lax.scan(step, carry, (x, reset))

    text = jax.jit(rollout).lower(params, carry, x, reset).compile().as_text()
    computations, loops = {}, set()
    for block in re.split(r"\n(?=\S)", text):
        name = re.match(r"(?:ENTRY )?%?([\w.\-]+)", block)
        computations[name.group(1) if name else ""] = block
        loops |= set(re.findall(r" while\(.*body=%?([\w.\-]+)", block))
    while (
        more := {
            c for n in loops for c in re.findall(r"(?:calls|body|to_apply)=%?([\w.\-]+)", computations[n])
        }
        - loops
    ):
        loops |= more
    inside = "\n".join(computations[n] for n in loops)
    assert "cosine(" in text
    assert "logistic(" in inside or "exponential(" in inside or "tanh(" in inside  # we did look into the loop
    assert "cosine(" not in inside


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gate": "glu"}, "unknown gate 'glu'; choose from half_glu, full_glu, input, gelu, none"),
        ({"norm": "batch"}, "unknown norm 'batch'; choose from layer, none"),
        ({"spectrum": "legt"}, "unknown spectrum 'legt'; choose from hippo, lin, real"),
        ({"discretization": "euler"}, "unknown discretization 'euler'; choose from zoh, bilinear"),
        ({"engine": "fast"}, "unknown scan engine 'fast'; choose from"),
        ({"state_size": 10, "blocks": 2}, "state_size=10 is not divisible into blocks=2 of an even size"),
        ({"num_layers": 0}, "num_layers=0 is too small"),
        ({"dt_min": 0.9}, "dt_min=0.9, dt_max=0.5 is not an interval"),
    ],
)
def test_wrong_options_fail_when_the_core_is_made(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make_core("s5", **options)
