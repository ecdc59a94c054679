"""The resettable linear recurrence h_t = g_t ∘ where(reset_t, 0, h_{t-1}) + u_t, and its engines.

Complex numbers travel as a pair `(re, im)` of float32 arrays, never as a complex dtype: the matrix products
before and after the recurrence are then real, and on CPU a step is fewer instructions (at T=256, B=64, P=32
forward + backward takes 12 % less CPU time than with complex64).

An engine is one function that computes the states. It is never differentiated: the adjoint of the recurrence
is the same recurrence run the other way with conj(g), so all engines share the backward pass written here.
The loop of that pass carries the state alone, and the gain's gradient is one sum outside it, which on CPU
takes 20 % off forward + backward against differentiating through `lax.scan` (2.5 -> 2.0 ms at T=256, B=16,
P=64; 6.3 -> 4.9 ms at B=64, P=32), and under the associative scan stores one state per step instead of the
intermediate products of every level of the tree. The price is that forward-mode differentiation (`jax.jvp`)
is not available; `jax.grad` of `jax.grad` is.
"""

import functools
import logging
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from .complex_parts import Parts
from .complex_parts import conj as _conj
from .complex_parts import conj_mul as _conj_mul
from .complex_parts import mul as _mul

# A real array, or a complex one as (re, im).
Value = Float[Array, "..."] | tuple[Float[Array, "..."], Float[Array, "..."]]
Pair = tuple[Float[Array, "..."], Float[Array, "..."]]


def linear_scan(
    gain: Value,
    inputs: Value,
    reset: Bool[Array, "T B"],
    carry: Value,
    engine: str | None = None,
    unroll: int = 1,
) -> tuple[Value, Value]:
    """Run h_t = g_t ∘ where(reset_t, 0, h_{t-1}) + u_t from h_{-1} = `carry`; return `(h_{T-1}, h)`.

    `inputs` is `[T, B, *lanes]`, `carry` `[B, *lanes]`, the states are `[T, B, *lanes]` in float32 whatever
    the dtype of the inputs. `gain` is `[T, B, *lanes]` (axes of size 1 broadcast), or the same at every step
    when it has at most as many axes as `lanes`, against which it broadcasts from the right (`[P]` serves
    lanes `[H, W, P]`). Each is a real array or a pair `(re, im)`; a real gain also serves complex inputs.

    A reset selects: neither values nor gradients see what it discards, not even NaN. `T = 1` is one select,
    multiplication and addition without any scan.

    `engine` is one of `ENGINES`, or None for the fastest on this backend. `paper`, the three-element operator
    of arXiv 2303.03982 §3, is a yardstick: it multiplies by 1 - reset, so NaN passes its resets. `unroll` is
    `lax.scan`'s, for `sequential` only; on CPU anything but 1 was slower.

    Raises `ValueError` for an unknown engine and for shapes that do not fit together.
    """
    g, u, c = _parts(gain), _parts(inputs), _parts(carry)
    _check(g, u, reset, c)
    engine = resolve_engine(engine, u[0].shape[-1])
    length = u[0].shape[0]
    if length == 0:
        return _value(c), _value(u)
    if length == 1:
        first = g if g[0].ndim < u[0].ndim else tuple(x[0] for x in g)
        state = _step(first, _column(reset, u)[0], c, tuple(x[0] for x in u))
        return _value(state), _value(tuple(x[None] for x in state))
    if engine == "chunked":
        last, states = _chunked(g, u, reset, c)
        return _value(last), _value(states)
    run = _paper if engine == "paper" else partial(_states, engine, unroll, False)
    states: Parts = run(g, u, reset, c)
    return _value(tuple(x[-1] for x in states)), _value(states)


def packed_scan(
    gain: Pair,
    inputs: Float[Array, "T B *lanes"],
    reset: Bool[Array, "T B"],
    carry: Pair,
    engine: str | None = None,
    unroll: int = 1,
) -> tuple[Pair, Float[Array, "T B *lanes"]]:
    """`linear_scan` of complex inputs that lie together, `[T, B, *lanes, 2P]`: real parts, then imaginary.

    That is what a real matrix product makes and takes. The states come back in the inputs' shape and dtype,
    the carry as two float32 `[B, *lanes, P]`; in between everything is float32. `gain` is a pair.
    """
    lanes = inputs.shape[-1] // 2
    if inputs.shape[0] > 1 and resolve_engine(engine, lanes) == "chunked":
        g, c = _parts(gain), _parts(carry)
        halves = tuple(jax.eval_shape(lambda x: x[..., :lanes], inputs) for _ in range(2))
        _check(g, halves, reset, c)
        (re, im), (states,) = _chunked(g, (inputs,), reset, c)
        return (re, im), states
    re, im = jnp.split(inputs, 2, axis=-1)
    last, both = linear_scan(gain, (re, im), reset, carry, engine, unroll)
    return (last[0], last[1]), jnp.concatenate(both, axis=-1).astype(inputs.dtype)


def resolve_engine(engine: str | None, lanes: int | None = None) -> str:
    """The engine that runs when `engine` is asked for, over so many lanes (None: a number that suits it).

    None is `sequential` on CPU (T=256, B=8, P=128 on 2 cores: six times faster than the associative one),
    `chunked` on the GPUs that it is written for, and `associative` elsewhere. Where `chunked` cannot run,
    on an accelerator or because it is asked for, the default does, and one logged sentence says why. Raises
    `ValueError` for an unknown name.
    """
    if engine is not None and engine not in ENGINES:
        raise ValueError(
            f"unknown scan engine {engine!r}; choose from {', '.join(ENGINES)}, or None for the default"
        )
    on_cpu = jax.default_backend() == "cpu"
    plain = "sequential" if on_cpu else "associative"
    if engine not in (None, "chunked") or (engine is None and on_cpu):
        return engine or plain
    from . import scan_kernels  # Pallas takes half a second to import

    why = scan_kernels.obstacle(scan_kernels.LEAST_LANES if lanes is None else lanes)
    if why is None:
        return "chunked"
    say_once(f"scan engine 'chunked' cannot run here: {why}; '{plain}' runs instead")
    return plain


@functools.cache
def say_once(sentence: str) -> None:
    """Log a sentence, the first time only."""
    logging.getLogger(__name__).warning(sentence)


def _sequential(g: Parts, u: Parts, reset: Array, carry: Parts, reverse: bool, unroll: int) -> Parts:
    varying = g[0].ndim == u[0].ndim

    def step(state: Parts, x: tuple[Parts, Array, Parts | None]) -> tuple[Parts, Parts]:
        inputs, column, gain = x
        state = _step(g if gain is None else gain, column, state, inputs)
        return state, state

    xs = (u, _column(reset, u), g if varying else None)
    return lax.scan(step, carry, xs, reverse=reverse, unroll=unroll)[1]


def _associative(g: Parts, u: Parts, reset: Array, carry: Parts, reverse: bool, unroll: int) -> Parts:
    del unroll
    if g[0].ndim < u[0].ndim:
        # Resets are not folded into the gain (the combine selects), so that products of a gain that all rows
        # share stay [T, 1, ...].
        lanes = u[0].ndim - 2
        shape = (u[0].shape[0], 1, *(1,) * (lanes - g[0].ndim), *g[0].shape)
        g = tuple(jnp.broadcast_to(x, shape) for x in g)
    column = _column(reset, u)
    at = -1 if reverse else 0
    first = _step(tuple(x[at] for x in g), column[at], carry, tuple(x[at] for x in u))
    ends = [(x[None], y[:-1] if reverse else y[1:]) for x, y in zip(first, u, strict=True)]
    u = tuple(jnp.concatenate(pair[::-1] if reverse else pair) for pair in ends)

    def combine(
        old: tuple[Parts, Parts, Array], new: tuple[Parts, Parts, Array]
    ) -> tuple[Parts, Parts, Array]:
        (gain1, value1, reset1), (gain2, value2, reset2) = old, new
        # Where a reset lies inside the newer span its gain is never used again, so it may stay what it is.
        return _mul(gain2, gain1), _step(gain2, reset2, value1, value2), reset1 | reset2

    return lax.associative_scan(combine, (g, u, column), reverse=reverse)[1]


_ENGINES: dict[str, Callable[[Parts, Parts, Array, Parts, bool, int], Parts]] = {
    "sequential": _sequential,
    "associative": _associative,
}
ENGINES = (*_ENGINES, "chunked", "paper")


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _states(engine: str, unroll: int, reverse: bool, g: Parts, u: Parts, reset: Array, carry: Parts) -> Parts:
    """All states; with `reverse` time runs backwards, h_t = g_t ∘ where(reset_t, 0, h_{t+1}) + u_t."""
    return _ENGINES[engine](g, u, reset, carry, reverse, unroll)


def _states_forward(
    engine: str, unroll: int, reverse: bool, g: Parts, u: Parts, reset: Array, carry: Parts
) -> tuple[Parts, tuple[Parts, Array, Parts, Parts]]:
    states: Parts = _states(engine, unroll, reverse, g, u, reset, carry)
    return states, (g, reset, carry, states)


def _states_backward(
    engine: str, unroll: int, reverse: bool, residuals: tuple[Parts, Array, Parts, Parts], cotangent: Parts
) -> tuple[Parts, Parts, None, Parts]:
    g, reset, carry, states = residuals
    adjoint = _conj(g)
    varying = g[0].ndim == states[0].ndim
    # δ_t = ȳ_t + where(reset_{t+1}, 0, conj(g_{t+1}) δ_{t+1}): the recurrence itself, run the other way.
    # A reset after the last step makes its start from nothing.
    following = tuple(_shift(x, jnp.zeros_like(x[0]), not reverse) for x in adjoint) if varying else adjoint
    cut = _shift(reset, jnp.ones_like(reset[0]), not reverse)
    delta: Parts = _states(
        engine, unroll, not reverse, following, cotangent, cut, tuple(jnp.zeros_like(x) for x in carry)
    )

    column = _column(reset, states)
    before = [_shift(x, c, reverse) for x, c in zip(states, carry, strict=True)]
    kept = tuple(jnp.where(column, 0.0, x) for x in before)
    gain_bar = tuple(_sum_to(x, y.shape) for x, y in zip(_conj_mul(kept, delta, len(g)), g, strict=True))

    at = -1 if reverse else 0
    first = tuple(x[at] for x in adjoint) if varying else adjoint
    carry_bar = tuple(jnp.where(column[at], 0.0, x) for x in _mul(first, tuple(x[at] for x in delta)))
    return gain_bar, delta, None, carry_bar


_states.defvjp(_states_forward, _states_backward)


def _chunked(g: Parts, u: Sequence[Array], reset: Array, carry: Parts) -> tuple[Parts, tuple[Array, ...]]:
    """The last state and all states by the kernels; `u` as their streams, but with the lanes' own axes."""
    spatial, width = carry[0].shape[1:-1], carry[0].shape[-1:]
    rows = (carry[0].shape[0] * math.prod(spatial),)
    if g[0].ndim == u[0].ndim:
        shape = (*u[0].shape[:-1], *width)
        gain = tuple(jnp.broadcast_to(x, shape).reshape(shape[0], *rows, *width) for x in g)
    elif g[0].ndim > 1:
        gain = tuple(jnp.broadcast_to(x, (*spatial, *width)).reshape(-1, *width) for x in g)
    else:
        gain = tuple(jnp.broadcast_to(x, (1, *width)) for x in g)
    flat = tuple(x.reshape(x.shape[0], *rows, x.shape[-1]) for x in u)
    start = tuple(x.reshape(*rows, *width) for x in carry)
    last, states = _kernel_states(gain, flat, reset, start)
    return (
        tuple(x.reshape(carry[0].shape) for x in last),
        tuple(x.reshape(y.shape) for x, y in zip(states, u, strict=True)),
    )


@jax.custom_vjp
def _kernel_states(
    g: Parts, u: tuple[Array, ...], reset: Array, carry: Parts
) -> tuple[Parts, tuple[Array, ...]]:
    """`scan_kernels.states`, differentiable."""
    from . import scan_kernels

    return scan_kernels.states(g, u, reset, carry)


def _kernel_states_forward(g: Parts, u: tuple[Array, ...], reset: Array, carry: Parts) -> Any:
    last, states = _kernel_states(g, u, reset, carry)
    return (last, states), (g, reset, carry, states)


def _kernel_states_backward(residuals: Any, cotangents: Any) -> tuple[Any, Any, None, Any]:
    gain_bar, inputs_bar, carry_bar = _kernel_adjoint(*residuals, *cotangents)
    return gain_bar, inputs_bar, None, carry_bar


_kernel_states.defvjp(_kernel_states_forward, _kernel_states_backward)


@jax.custom_vjp
def _kernel_adjoint(
    g: Parts, reset: Array, carry: Parts, states: Any, last_bar: Parts, states_bar: Any
) -> tuple[Parts, Any, Parts]:
    """`scan_kernels.adjoint`, differentiable once more by the associative engine."""
    from . import scan_kernels

    return tuple(scan_kernels.adjoint(g, reset, carry, states, last_bar, states_bar))  # pyright: ignore


def _plain_adjoint(
    g: Parts, reset: Array, carry: Parts, states: Any, last_bar: Parts, states_bar: Any
) -> tuple[Parts, Any, Parts]:
    length, batch = reset.shape
    together = len(states) < len(carry)

    def lanes(parts: Sequence[Array], *lead: int) -> Parts:
        return tuple(x.reshape(*lead, -1, x.shape[-1]) for x in parts)

    def apart(streams: Sequence[Array]) -> Parts:
        parts = jnp.split(streams[0], 2, axis=-1) if together else streams
        return lanes([x.astype(jnp.float32) for x in parts], length, batch)

    end = lanes(last_bar, batch)
    cotangent = tuple(x.at[-1].add(y) for x, y in zip(apart(states_bar), end, strict=True))
    gain = lanes(g, length, batch) if g[0].ndim == 3 else g
    residuals = (gain, reset, lanes(carry, batch), apart(states))
    gain_bar, delta, _, carry_bar = _states_backward("associative", 1, False, residuals, cotangent)
    delta = [x.reshape(length, -1, x.shape[-1]) for x in delta]
    joined = [jnp.concatenate(delta, axis=-1)] if together else delta
    return (
        tuple(x.reshape(y.shape) for x, y in zip(gain_bar, g, strict=True)),
        tuple(x.astype(y.dtype) for x, y in zip(joined, states_bar, strict=True)),
        tuple(x.reshape(y.shape) for x, y in zip(carry_bar, carry, strict=True)),
    )


def _kernel_adjoint_forward(*arguments: Any) -> Any:
    return _kernel_adjoint(*arguments), arguments


def _kernel_adjoint_backward(arguments: Any, cotangents: Any) -> Any:
    g, reset, carry, *rest = arguments
    back = jax.vjp(lambda g, carry, *rest: _plain_adjoint(g, reset, carry, *rest), g, carry, *rest)[1]
    g_bar, carry_bar, *rest_bar = back(cotangents)
    return g_bar, None, carry_bar, *rest_bar


_kernel_adjoint.defvjp(_kernel_adjoint_forward, _kernel_adjoint_backward)


def _paper(g: Parts, u: Parts, reset: Array, carry: Parts) -> Parts:
    """The published operator on (A, b, c), arXiv 2303.03982 §3, differentiated by JAX.

    (A_i, b_i, c_i) ⊕ (A_j, b_j, c_j) is (A_j A_i, A_j b_i + b_j, c_i) where c_j = 0 and (A_j, b_j, c_j) where
    c_j = 1, written with products by 1 - c_j. The carry is an element before the first.
    """

    def joined(parts: Parts) -> Array:
        return parts[0] if len(parts) == 1 else lax.complex(*parts)

    inputs, gains = joined(u), joined(g)
    a = jnp.broadcast_to(gains, inputs.shape)
    a = jnp.concatenate([jnp.ones_like(a[:1]), a])
    b = jnp.concatenate([joined(carry)[None], inputs])
    c = _column(reset, u).astype(jnp.float32)
    c = jnp.concatenate([jnp.zeros_like(c[:1]), c])

    def combine(i: tuple[Array, Array, Array], j: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        (a_i, b_i, c_i), (a_j, b_j, c_j) = i, j
        keep = 1 - c_j
        return a_j * a_i * keep + a_j * c_j, (a_j * b_i + b_j) * keep + b_j * c_j, c_i * keep + c_j

    states = lax.associative_scan(combine, (a, b, c))[1][1:]
    return (states,) if len(u) == 1 else (jnp.real(states), jnp.imag(states))


def _step(g: Parts, reset: Array, state: Parts, u: Parts) -> Parts:
    # The select comes before the product: 0 * NaN is NaN, in the value and in the gradient.
    kept = tuple(jnp.where(reset, 0.0, x) for x in state)
    return tuple(x + y for x, y in zip(_mul(g, kept), u, strict=True))


def _shift(x: Array, first: Array, reverse: bool) -> Array:
    """Entry t becomes x[t-1] (x[t+1] with `reverse`) and `first` fills the gap."""
    return jnp.concatenate([x[1:], first[None]] if reverse else [first[None], x[:-1]])


def _sum_to(x: Array, shape: tuple[int, ...]) -> Array:
    """Undo a broadcast from `shape`."""
    x = jnp.sum(x, axis=tuple(range(x.ndim - len(shape))))
    kept = tuple(i for i, n in enumerate(shape) if n == 1 and x.shape[i] != 1)
    return jnp.sum(x, axis=kept, keepdims=True)


def _column(reset: Array, u: Parts) -> Array:
    return reset.reshape(reset.shape + (1,) * (u[0].ndim - 2))


def _parts(value: Value) -> Parts:
    return tuple(jnp.asarray(x, jnp.float32) for x in (value if isinstance(value, tuple) else (value,)))


def _value(parts: Parts) -> Value:
    return parts[0] if len(parts) == 1 else (parts[0], parts[1])


def _check(g: Parts, u: Parts, reset: Array, carry: Parts) -> None:
    shape = u[0].shape
    if len(carry) != len(u) or any(x.shape != shape[1:] for x in carry):
        raise ValueError(
            f"carry of {len(carry)} part(s) and shape {carry[0].shape} does not fit inputs of {len(u)}"
            f" part(s) and shape {shape}; it must be inputs without their first axis"
        )
    if reset.shape != shape[:2]:
        raise ValueError(
            f"reset has shape {reset.shape} but inputs have {shape}; it must be [T, B] = {shape[:2]}"
        )
    if len(g) > len(u):
        raise ValueError("a complex gain needs complex inputs and carry; give each as a pair (re, im)")
    fits = g[0].ndim in (len(shape), *range(len(shape) - 1))
    if not fits or any(n not in (1, m) for n, m in zip(g[0].shape[::-1], shape[::-1], strict=False)):
        raise ValueError(
            f"gain of shape {g[0].shape} does not fit inputs of shape {shape}; it must be [T, B, *lanes], or "
            "at most *lanes for a gain that is the same at every step"
        )
    if g[0].ndim == len(shape) and g[0].shape[0] != shape[0]:
        raise ValueError(
            f"gain has {g[0].shape[0]} steps but inputs have {shape[0]}; drop its first two axes instead"
        )
