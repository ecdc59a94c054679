import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resetta.cores import make_core


def example(core, width=3, length=7, batch=2):
    """Parameters, a warm carry, inputs and resets; drawn here, since compiling `init` would take longest."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(length, batch, width)).astype(np.float32)
    reset = rng.random((length, batch)) < 0.25
    carry = jax.tree.map(lambda c: rng.normal(size=c.shape).astype(np.float32), core.initial_carry(batch))
    shapes = jax.eval_shape(core.init, jax.random.key(0), carry, x, reset)
    params = jax.tree.map(lambda s: rng.normal(size=s.shape).astype(np.float32) * 0.5, shapes)
    return params, carry, x, reset


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def oracle(core, params, carry, x, reset):
    """The layers in float64, every state of every channel at every step by itself."""
    params, carry, x = jax.tree.map(lambda a: np.asarray(a, np.float64), (params["params"], carry, x))
    if "encoder" in params:
        x = x @ params["encoder"]["kernel"] + params["encoder"]["bias"]
    after = jax.tree.map(np.zeros_like, carry)
    rank = core.step_rank or 1
    for k in range(core.num_layers):
        p = jax.tree.map(lambda a: a[k], params["layers"])  # noqa: B023

        def norm(u, p=p):
            u = u - u.mean(-1, keepdims=True)
            return u / np.sqrt((u**2).mean(-1, keepdims=True) + 1e-6) * p["norm"]["scale"] + p["norm"]["bias"]

        outputs = []
        for row in range(x.shape[1]):
            state = carry["state"][row, k]
            window = list(carry["window"][row, k]) if core.conv > 1 else []
            for t in range(len(x)):
                if reset[t, row]:
                    state, window = np.zeros_like(state), [np.zeros_like(w) for w in window]
                u = norm(x[t, row]) if core.prenorm else x[t, row]
                v = u @ p["into"]["kernel"]
                if core.conv > 1:
                    window = [*window, v]
                    v = p["conv_bias"] + sum(p["conv"][lag] * window[-1 - lag] for lag in range(core.conv))
                    window = window[1:]
                v = v * sigmoid(v)
                chosen = v @ p["select"]["kernel"] if "select" in p else v[:0]
                step = p["step_bias"]
                if core.select_step:
                    step, chosen = step + chosen[:rank] @ p["step"], chosen[rank:]
                step = np.log1p(np.exp(step))
                y = np.zeros_like(v)
                for n in range(core.state_size):
                    a = -np.exp(p["log_decay"][n])
                    b = chosen[n] if core.select_input else p["B"][n]
                    c = chosen[n + core.state_size * core.select_input] if core.select_output else p["C"][n]
                    gain = np.exp(step * a)
                    state = state.copy()
                    state[n] = gain * state[n] + (gain - 1) / a * b * v
                    y = y + c * state[n]
                y = y + p["D"] * v if core.feedthrough else y
                if core.gate == "input":
                    z = u @ p["gate"]["kernel"] + p["gate"]["bias"]
                    y = y * z * sigmoid(z)
                y = x[t, row] + y @ p["out"]["kernel"]
                outputs.append(y if core.prenorm else norm(y))
            after["state"][row, k] = state
            if core.conv > 1:
                after["window"][row, k] = window
        x = np.stack(outputs).reshape(x.shape[1], x.shape[0], -1).swapaxes(0, 1)
    return after, x


VARIANTS = [
    {"conv": 4, "expand": 2, "step_rank": 2},
    {"num_layers": 1, "select_step": False, "prenorm": False, "gate": "none", "conv": 2},
    {"num_layers": 1, "select_input": False, "select_output": False, "feedthrough": False},
]


@pytest.mark.parametrize("options", VARIANTS, ids=lambda o: " ".join(f"{k}={v}" for k, v in o.items()))
def test_matches_a_float64_oracle(options):
    core = make_core("mamba", features=4, state_size=3, **options)
    params, carry, x, reset = example(core)
    after, y = jax.jit(core.apply)(params, carry, x, reset)
    wanted, y_wanted = oracle(core, params, carry, x, reset)
    np.testing.assert_allclose(y, y_wanted, atol=1e-4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), after, wanted)


def test_by_hand_a_single_state_is_a_gated_average():
    """With A = -1 and B = 1, h = (1 - g) h + g v and g = sigmoid(what the step is made of): theorem 1."""
    core = make_core(
        "mamba", features=1, num_layers=1, state_size=1, select_input=False, select_output=False,
        gate="none", norm="none", feedthrough=False,
    )  # fmt: skip
    v = np.array([2.0, -1.0, 3.0])
    x = v[:, None, None].astype(np.float32)
    reset = np.array([[False], [False], [True]])
    kernel = {"kernel": jnp.ones((1, 1, 1))}
    params = {
        "into": {"kernel": jnp.full((1, 1, 1), 1.0)},
        "select": kernel,
        "step": jnp.full((1, 1, 1), np.log(3.0)),
        "step_bias": jnp.zeros((1, 1)),
        "log_decay": jnp.zeros((1, 1, 1)),
        "B": jnp.ones((1, 1, 1)),
        "C": jnp.ones((1, 1, 1)),
        "out": kernel,
    }
    carry, y = core.apply({"params": {"layers": params}}, {"state": jnp.full((1, 1, 1, 1), 10.0)}, x, reset)
    silu = v / (1 + np.exp(-v))  # 1.7616, -0.2689, 2.8577
    g = 3**silu / (1 + 3**silu)  # 0.8738, 0.4267, 0.9585
    h0 = (1 - g[0]) * 10 + g[0] * silu[0]
    h1 = (1 - g[1]) * h0 + g[1] * silu[1]
    h2 = g[2] * silu[2]  # the reset forgets what was before
    np.testing.assert_allclose(y[:, 0, 0], v + np.array([h0, h1, h2]), rtol=1e-5)
    np.testing.assert_allclose(carry["state"].ravel(), h2, rtol=1e-5)
    np.testing.assert_allclose([h0, h1, h2], [2.8010, 1.4911, 2.7391], atol=2e-4)


def test_what_is_not_selected_does_not_depend_on_the_inputs():
    """Without selection, states are linear in what drives them: twice the carry is twice its share of y."""
    core = make_core("mamba", features=4, num_layers=1, state_size=2, select_step=False, select_output=False)
    params, carry, x, reset = example(core, width=4)
    run = jax.jit(lambda scale: core.apply(params, {"state": scale * carry["state"]}, x, reset & False)[1])
    base, one, two = run(0.0), run(1.0), run(2.0)
    assert np.abs(one - base).max() > 1e-2
    np.testing.assert_allclose(two - base, 2 * (one - base), atol=1e-5)


def test_steps_begin_in_their_interval():
    core = make_core("mamba", features=64, dt_min=1e-3, dt_max=1e-1)
    carry = core.initial_carry(1)
    params = jax.jit(core.init)(jax.random.key(0), carry, jnp.zeros((1, 1, 64)), jnp.zeros((1, 1), bool))
    step = np.log1p(np.exp(params["params"]["layers"]["step_bias"]))
    assert 0.99e-3 <= step.min() < 2e-3
    assert 0.05 < step.max() <= 1.01e-1
    decays = np.exp(params["params"]["layers"]["log_decay"])
    np.testing.assert_allclose(decays[:, :, 5], np.tile(np.arange(1, 9), (2, 1)), rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gate": "glu"}, "unknown gate 'glu'; choose from half_glu, full_glu, input, gelu, none"),
        ({"state_size": 0}, "state_size=0 is too small; use 1 or more"),
        ({"conv": 0}, "conv=0 is too small; use 1 or more"),
        ({"dt_min": 0.9}, "dt_min=0.9, dt_max=0.5 is not an interval"),
        ({"engine": "fast"}, "unknown scan engine 'fast'; choose from"),
    ],
)
def test_wrong_options_fail_when_the_core_is_made(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make_core("mamba", **options)
