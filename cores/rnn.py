"""The gated recurrent cores, GRU and LSTM, with a backward pass written for long rollouts.

Every input projection is one matrix product over all T; the loop holds the recurrent product and the gates.
Autodiff of such a loop adds to the gradient of the recurrent kernel at every step. The backward passes here
carry only the state's gradient, with all that does not depend on it taken out of the loop, and take the
kernel's in one product after it: the same numbers, 1.3 (GRU) and 1.6 (LSTM) times cheaper forwards and
backwards on a CPU (T=256, B=16, D=64).

On a GPU a step costs what its kernels cost to start. There several steps make a turn of the loop, which then
stacks what they leave at once; and the gates are not stacked: all states being known, one product over all T
finds all gates again.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn.initializers import Initializer, orthogonal
from jaxtyping import Array, Bool, Float, Shaped

from .base import Carry, Core, clear
from .dense import Dense


def _sigmoid(x: Array) -> Array:
    # The same function as jax.nn.sigmoid; by way of tanh it costs about a third less on a CPU.
    return 0.5 * jnp.tanh(0.5 * x) + 0.5


def _states_before(h0: Array, hs: Array, reset: Array) -> Array:
    """The state each step started from, `[T, B, D]`: the one before it, or zero at a reset."""
    return jnp.where(reset[..., None], 0.0, jnp.concatenate([h0[None], hs[:-1]]))


def _saves_gates() -> bool:
    """Whether the gates are kept for the backward pass; else they are found again, all T at once."""
    return jax.default_backend() == "cpu"


def _turn(unroll: int | None) -> int:
    """Steps of a turn of the loop: on a CPU anything but 1 was slower."""
    return unroll or (1 if jax.default_backend() == "cpu" else 8)


def _repeat(x: Array, times: int) -> Array:
    return jnp.concatenate([x] * times, axis=-1)


def _kernel_gradient(states: Array, gates: Array) -> Array:
    """Sum over T and B of the outer products: `[T, B, D]`, `[T, B, G]` -> `[D, G]`, in one product."""
    return states.reshape(-1, states.shape[-1]).T @ gates.reshape(-1, gates.shape[-1])


# --- GRU ----------------------------------------------------------------------------------------------------


def _gru_gates(u: Array, m: Array, bias: Array) -> tuple[Array, ...]:
    """(r, z, q, n) from the projections of inputs and state, `[..., 3D]` each."""
    (u_r, u_z, u_n), (m_r, m_z, m_n) = jnp.split(u, 3, axis=-1), jnp.split(m, 3, axis=-1)
    r, q = _sigmoid(u_r + m_r), m_n + bias
    return r, _sigmoid(u_z + m_z), q, jnp.tanh(u_n + r * q)


def _gru_step(u: Array, kernel: Array, bias: Array, h: Array) -> tuple[Array, tuple[Array, ...]]:
    gates = _gru_gates(u, h @ kernel, bias)
    _, z, _, n = gates
    return n + z * (h - n), gates


def _gru_loop(
    u: Array, kernel: Array, bias: Array, h0: Array, reset: Array, unroll: int, save: bool
) -> tuple[Array, Any]:
    def step(h: Array, inputs: tuple[Array, Array]) -> tuple[Array, Any]:
        u, reset = inputs
        h, gates = _gru_step(u, kernel, bias, clear(h, reset, jnp.zeros_like(h)))
        return h, (h, gates if save else None)

    return jax.lax.scan(step, h0, (u, reset), unroll=unroll)[1]


def gru(
    u: Float[Array, "T B 3D"],
    kernel: Float[Array, "D 3D"],
    bias: Float[Array, " D"],
    h0: Float[Array, "B D"],
    reset: Bool[Array, "T B"],
    unroll: int | None = None,
) -> Float[Array, "T B D"]:
    """All states of a GRU (Cho et al. 2014, arXiv 1406.1078), in the form of cuDNN and flax.

    With `u = (u_r, u_z, u_n)` the projected inputs, `kernel = (U_r, U_z, U_n)` and h the state before the
    step (zero where `reset`):

        r = sigmoid(u_r + h U_r),  z = sigmoid(u_z + h U_z),
        n = tanh(u_n + r * (h U_n + bias)),  h' = (1 - z) * n + z * h.

    The reset *gate* r acts after the product with U_n, so that one product serves all three gates. It has
    nothing to do with the signal `reset`. Reverse-mode differentiable; not forward-mode.
    """
    return _gru(u, kernel, bias, h0, reset, _turn(unroll))


def _gru_states(u: Array, kernel: Array, bias: Array, h0: Array, reset: Array, unroll: int) -> Array:
    return _gru_loop(u, kernel, bias, h0, reset, unroll, save=False)[0]


def _gru_forward(
    u: Array, kernel: Array, bias: Array, h0: Array, reset: Array, unroll: int
) -> tuple[Array, Any]:
    save = _saves_gates()
    hs, gates = _gru_loop(u, kernel, bias, h0, reset, unroll, save)
    return hs, (kernel, h0, reset, hs, gates if save else (u, bias))


def _gru_backward(unroll: int, saved: Any, dy: Array) -> tuple[Any, ...]:
    kernel, h0, reset, hs, gates = saved
    before = _states_before(h0, hs, reset)
    if len(gates) == 2:
        u, bias = gates
        gates = _gru_gates(u, before @ kernel, bias)
    r, z, q, n = gates
    of_n = (1 - z) * (1 - n * n)
    factors = jnp.concatenate([of_n * q * r * (1 - r), (before - n) * z * (1 - z), of_n * r], axis=-1)
    transposed = kernel.T  # once, not at every step

    def step(dh: Array, inputs: tuple[Array, ...]) -> tuple[Array, Array]:
        dy, factors, z, reset = inputs
        total = dh + dy
        dh = total * z + (_repeat(total, 3) * factors) @ transposed
        return clear(dh, reset, jnp.zeros_like(dh)), total

    inputs = (dy, factors, z, reset)
    dh0, total = jax.lax.scan(step, jnp.zeros_like(h0), inputs, reverse=True, unroll=unroll)
    d = h0.shape[-1]
    dm = _repeat(total, 3) * factors
    du = jnp.concatenate([dm[..., : 2 * d], total * of_n], axis=-1)
    return du, _kernel_gradient(before, dm), dm[..., 2 * d :].sum((0, 1)), dh0, None


_gru = jax.custom_vjp(_gru_states, nondiff_argnums=(5,))
_gru.defvjp(_gru_forward, _gru_backward)


# --- LSTM ---------------------------------------------------------------------------------------------------


def _lstm_gates(a: Array) -> tuple[Array, ...]:
    """(i, f, g, o) from their sums, `[..., 4D]`."""
    i, f, g, o = jnp.split(a, 4, axis=-1)
    return _sigmoid(i), _sigmoid(f), jnp.tanh(g), _sigmoid(o)


def _lstm_step(u: Array, kernel: Array, h: Array, c: Array) -> tuple[Array, Array, tuple[Array, ...]]:
    gates = _lstm_gates(u + h @ kernel)
    i, f, g, o = gates
    new_c = f * c + i * g
    return o * jnp.tanh(new_c), new_c, gates


def _lstm_loop(
    u: Array, kernel: Array, h0: Array, c0: Array, reset: Array, unroll: int, save: bool
) -> tuple[Array, Any]:
    """Hidden states and cells side by side, `[T, B, 2D]`, and the gates."""

    def step(carry: tuple[Array, Array], inputs: tuple[Array, Array]) -> tuple[tuple[Array, Array], Any]:
        u, reset = inputs
        h, c = clear(carry, reset, jax.tree.map(jnp.zeros_like, carry))
        h, c, gates = _lstm_step(u, kernel, h, c)
        return (h, c), (jnp.concatenate([h, c], axis=-1), gates if save else None)

    return jax.lax.scan(step, (h0, c0), (u, reset), unroll=unroll)[1]


def lstm(
    u: Float[Array, "T B 4D"],
    kernel: Float[Array, "D 4D"],
    h0: Float[Array, "B D"],
    c0: Float[Array, "B D"],
    reset: Bool[Array, "T B"],
    unroll: int | None = None,
) -> tuple[Float[Array, "T B D"], Float[Array, "B D"]]:
    """All outputs, and the last cell, of an LSTM with forget gates (Gers, Schmidhuber & Cummins 2000).

    With `u` the projected inputs, `(a_i, a_f, a_g, a_o) = u + h kernel`, and h, c the state before the step
    (zero where `reset`):

        i = sigmoid(a_i),  f = sigmoid(a_f),  g = tanh(a_g),  o = sigmoid(a_o),
        c' = f * c + i * g,  h' = o * tanh(c').

    Reverse-mode differentiable; not forward-mode.
    """
    return _lstm(u, kernel, h0, c0, reset, _turn(unroll))


def _lstm_states(
    u: Array, kernel: Array, h0: Array, c0: Array, reset: Array, unroll: int
) -> tuple[Array, Array]:
    return _ends(_lstm_loop(u, kernel, h0, c0, reset, unroll, save=False)[0])


def _ends(states: Array) -> tuple[Array, Array]:
    d = states.shape[-1] // 2
    return states[..., :d], states[-1, :, d:]


def _lstm_forward(
    u: Array, kernel: Array, h0: Array, c0: Array, reset: Array, unroll: int
) -> tuple[tuple[Array, Array], Any]:
    save = _saves_gates()
    states, gates = _lstm_loop(u, kernel, h0, c0, reset, unroll, save)
    return _ends(states), (kernel, h0, c0, reset, states, gates if save else (u,))


def _lstm_backward(unroll: int, saved: Any, gradient: tuple[Array, Array]) -> tuple[Any, ...]:
    kernel, h0, c0, reset, states, gates = saved
    dy, dc = gradient
    before, c = jnp.split(_states_before(jnp.concatenate([h0, c0], axis=-1), states, reset), 2, axis=-1)
    if len(gates) == 1:
        gates = _lstm_gates(gates[0] + before @ kernel)
    i, f, g, o = gates
    s = jnp.tanh(states[..., h0.shape[-1] :])
    # of (i, f, g) by the cell's gradient, and of o by the hidden state's
    factors = jnp.concatenate([g * i * (1 - i), c * f * (1 - f), i * (1 - g * g), s * o * (1 - o)], axis=-1)
    of_h = o * (1 - s * s)
    transposed = kernel.T

    def step(carry: tuple[Array, Array], inputs: tuple[Array, ...]) -> tuple[tuple[Array, Array], Array]:
        dy, factors, of_h, f, reset = inputs
        dh, dc = carry
        dh = dh + dy
        dc = dc + dh * of_h
        da = jnp.concatenate([dc, dc, dc, dh], axis=-1) * factors
        carry = (da @ transposed, dc * f)
        return clear(carry, reset, jax.tree.map(jnp.zeros_like, carry)), da

    inputs = (dy, factors, of_h, f, reset)
    (dh0, dc0), da = jax.lax.scan(step, (jnp.zeros_like(h0), dc), inputs, reverse=True, unroll=unroll)
    return da, _kernel_gradient(before, da), dh0, dc0, None


_lstm = jax.custom_vjp(_lstm_states, nondiff_argnums=(5,))
_lstm.defvjp(_lstm_forward, _lstm_backward)


# --- the cores ----------------------------------------------------------------------------------------------


def _orthogonal_gates(gates: int) -> Initializer:
    """A recurrent kernel `[D, gates * D]` whose every gate has its own orthogonal square."""

    def init(key: Array, shape: Any, dtype: Any = jnp.float32, out_sharding: Any = None) -> Array:
        square = (shape[0], shape[0])
        return jnp.concatenate([orthogonal()(k, square, dtype) for k in jax.random.split(key, gates)], axis=1)

    return init


def _forget_bias_one(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32, **_: Any) -> Array:
    """Zeros, and ones for the forget gate, so that a new LSTM remembers (Jozefowicz et al. 2015)."""
    d = shape[0] // 4
    return jnp.zeros(shape, dtype).at[d : 2 * d].set(1.0)


class GRU(Core):
    """`num_layers` GRUs, each of `features` units; the equations are in `gru`.

    `layer_norm` normalises each layer's outputs (never its memory). `unroll` is that of `lax.scan`: by
    default 1 on a CPU and 8 elsewhere. The carry is one array, `[B, num_layers, features]` in float32.
    """

    num_layers: int = 1
    unroll: int | None = None
    layer_norm: bool = False

    def initial_carry(self, batch: int, size: tuple[int, int] | None = None) -> Carry:
        """Zeros `[batch, num_layers, features]`."""
        return jnp.zeros((batch, self.num_layers, self.features), jnp.float32)

    @nn.compact
    def __call__(
        self, carry: Carry, x: Shaped[Array, "T B F"], reset: Bool[Array, "T B"]
    ) -> tuple[Carry, Shaped[Array, "T B D"]]:
        """Consume `T` inputs; see `Core`."""
        states, y = [], x
        for layer in range(self.num_layers):
            u = Dense(3 * self.features, dtype=x.dtype, name=f"input_{layer}")(y).astype(jnp.float32)
            shape = (self.features, 3 * self.features)
            kernel = self.param(f"recurrent_{layer}", _orthogonal_gates(3), shape)
            bias = self.param(f"candidate_bias_{layer}", nn.initializers.zeros, (self.features,))
            h = carry[:, layer]
            if x.shape[0] == 1:
                h, _ = _gru_step(u[0], kernel, bias, clear(h, reset[0], jnp.zeros_like(h)))
                hs = h[None]
            else:
                hs = gru(u, kernel, bias, h, reset, self.unroll)
            states.append(hs[-1])
            y = _output(hs, x.dtype, f"norm_{layer}" if self.layer_norm else None)
        return jnp.stack(states, axis=1), y


class LSTM(Core):
    """`num_layers` LSTMs, each of `features` units; the equations are in `lstm`.

    The forget gate's bias starts at one. Options as for `GRU`. The carry is
    `{"hidden", "cell"}`, each `[B, num_layers, features]` in float32.
    """

    num_layers: int = 1
    unroll: int | None = None
    layer_norm: bool = False

    def initial_carry(self, batch: int, size: tuple[int, int] | None = None) -> Carry:
        """Zeros `[batch, num_layers, features]` for the hidden state and for the cell."""
        shape = (batch, self.num_layers, self.features)
        return {"hidden": jnp.zeros(shape, jnp.float32), "cell": jnp.zeros(shape, jnp.float32)}

    @nn.compact
    def __call__(
        self, carry: Carry, x: Shaped[Array, "T B F"], reset: Bool[Array, "T B"]
    ) -> tuple[Carry, Shaped[Array, "T B D"]]:
        """Consume `T` inputs; see `Core`."""
        hidden, cell, y = [], [], x
        for layer in range(self.num_layers):
            dense = Dense(4 * self.features, dtype=x.dtype, bias_init=_forget_bias_one, name=f"input_{layer}")
            u = dense(y).astype(jnp.float32)
            shape = (self.features, 4 * self.features)
            kernel = self.param(f"recurrent_{layer}", _orthogonal_gates(4), shape)
            h, c = carry["hidden"][:, layer], carry["cell"][:, layer]
            if x.shape[0] == 1:
                h, c = clear((h, c), reset[0], (jnp.zeros_like(h), jnp.zeros_like(c)))
                h, c, _ = _lstm_step(u[0], kernel, h, c)
                hs = h[None]
            else:
                hs, c = lstm(u, kernel, h, c, reset, self.unroll)
            hidden.append(hs[-1])
            cell.append(c)
            y = _output(hs, x.dtype, f"norm_{layer}" if self.layer_norm else None)
        return {"hidden": jnp.stack(hidden, axis=1), "cell": jnp.stack(cell, axis=1)}, y


def _output(hs: Array, dtype: Any, norm: str | None) -> Array:
    hs = hs.astype(dtype)
    return nn.LayerNorm(dtype=dtype, name=norm)(hs) if norm else hs
