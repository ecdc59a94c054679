"""Mamba: layers of a selective state space, whose inputs say what it keeps, writes and reads, with resets."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.nn.initializers import normal, ones, variance_scaling
from jaxtyping import Array, Bool, Float

from .base import Carry, Core
from .dense import Dense, product
from .gates import GATES, gated
from .layers import stacked
from .s5 import NORMS
from .scan import resolve_engine
from .sharded import sequence_scan
from .ssm import one_of


class Mamba(Core):
    """Mamba (arXiv 2312.00752) with a memory that resets: `x [T, B, D] -> y [T, B, features]`.

    Each of `num_layers` residual layers is x + W_out gate(y), with u = norm(x), v = silu(conv(W_in u)) of
    C = `expand * features` channels, and for every channel c a state of `state_size` numbers n (S6, the
    paper's algorithm 2, discretised by zero-order hold, its equation 4):

        h_t = exp(Δ_t A) h_{t-1} + (exp(Δ_t A) - 1) / A · B_t v_t,    y_t = Σ_n C_t h_t + D v_t.

    A is real, negative and begins as -(n + 1). What makes it selective are Δ_t `[C]` =
    softplus(bias + W_Δ v_t), of rank `step_rank`, and B_t and C_t `[N]`, linear in v_t and shared by all
    channels. Each of the three is a parameter, the same at all times, where `select_step`, `select_input` or
    `select_output` is false; with none of them this is S4D-Real. `conv` is the width of a causal convolution
    of every channel with itself: none here, 4 in the paper. The steps begin between `dt_min` and `dt_max`
    (the paper's: .001 and .1; `expand` is 2 and `state_size` 16 there).

    `gate` is one of `gates.gated` (the paper's: `input`), `norm` is `layer` or `none`, after the sum with
    `prenorm=False`; `feedthrough=False` leaves D out. `engine` and `scan_unroll`: see `scan.linear_scan`.
    `remat` saves memory: the backward pass recomputes each layer.
    Inputs of another width than `features` first pass a dense layer.

    The carry is a dictionary of float32 arrays: `state` `[B, num_layers, N, C]` and, with a convolution,
    `window` `[B, num_layers, conv - 1, C]`, the inputs that it still needs. Matrix products run in the dtype
    of `x`, steps and states in float32. Raises `ValueError` when made with options that cannot work.
    """

    num_layers: int = 2
    expand: int = 1
    state_size: int = 8
    step_rank: int | None = None
    conv: int = 1
    select_step: bool = True
    select_input: bool = True
    select_output: bool = True
    dt_min: float = 1e-2
    dt_max: float = 0.5
    gate: str = "input"
    norm: str = "layer"
    prenorm: bool = True
    feedthrough: bool = True
    engine: str | None = None
    scan_unroll: int = 1
    remat: bool = False

    def __post_init__(self) -> None:
        for option in ("features", "num_layers", "expand", "state_size", "step_rank", "conv", "scan_unroll"):
            value = getattr(self, option)
            if value is not None and value < 1:
                raise ValueError(f"{option}={value} is too small; use 1 or more")
        one_of("gate", self.gate, GATES)
        one_of("norm", self.norm, NORMS)
        resolve_engine(self.engine)
        if not 0 < self.dt_min <= self.dt_max:
            raise ValueError(
                f"dt_min={self.dt_min}, dt_max={self.dt_max} is not an interval; use 0 < dt_min <= dt_max"
            )
        super().__post_init__()

    def initial_carry(self, batch: int, size: tuple[int, int] | None = None) -> Carry:
        """An empty memory; see the class."""
        channels = self.expand * self.features
        shapes = {"state": (self.state_size, channels), "window": (self.conv - 1, channels)}
        if self.conv == 1:
            del shapes["window"]
        return {
            name: jnp.zeros((batch, self.num_layers, *shape), jnp.float32) for name, shape in shapes.items()
        }

    @nn.compact
    def __call__(
        self, carry: Carry, x: Float[Array, "T B D"], reset: Bool[Array, "T B"]
    ) -> tuple[Carry, Float[Array, "T B features"]]:
        """Consume `T` inputs; see `Core`."""
        if x.shape[-1] != self.features:
            x = Dense(self.features, dtype=x.dtype, name="encoder")(x)
        options = {name: getattr(self, name) for name in _LAYER_OPTIONS}
        layers = stacked(MambaLayer, self.num_layers, (1, nn.broadcast), self.remat)
        y, carry = layers(name="layers", **options)(x, carry, reset)
        return carry, y


class MambaLayer(nn.Module):
    """One residual layer over `[T, B, features]`; the options are `Mamba`'s."""

    features: int
    expand: int
    state_size: int
    step_rank: int | None
    conv: int
    select_step: bool
    select_input: bool
    select_output: bool
    dt_min: float
    dt_max: float
    gate: str
    norm: str
    prenorm: bool
    feedthrough: bool
    engine: str | None
    scan_unroll: int

    @nn.compact
    def __call__(self, x: Array, carry: Carry, reset: Array) -> tuple[Array, Carry]:
        """Map `(x, carry)`, a layer's own carry, to the next layer's x and the carry after it."""
        dense = partial(Dense, use_bias=False, dtype=x.dtype)
        norm = nn.LayerNorm(dtype=x.dtype, name="norm") if self.norm == "layer" else lambda x: x
        u = norm(x) if self.prenorm else x
        v = dense(self.expand * self.features, name="into")(u)
        after = {}
        if self.conv > 1:
            v, after["window"] = self._convolved(v, carry["window"], reset)
        v = jax.nn.silu(v)
        y, after["state"] = self._remembered(v, carry["state"], reset)
        if self.feedthrough:
            y += v * self.param("D", ones, (v.shape[-1],)).astype(v.dtype)
        y = x + dense(self.features, name="out")(gated(self.gate, y, u))
        return (y if self.prenorm else norm(y)), after

    def _remembered(self, v: Array, state: Array, reset: Array) -> tuple[Array, Array]:
        """`(y, last state)` of the selective state space under `v` `[T, B, C]`."""
        channels, size = v.shape[-1], self.state_size
        rank = self.step_rank or -(-self.features // 16)
        widths = [rank * self.select_step, size * self.select_input, size * self.select_output]
        chosen = Dense(sum(widths), use_bias=False, dtype=v.dtype, name="select")(v) if sum(widths) else v
        low, b, c = jnp.split(chosen, np.cumsum(widths)[:2], axis=-1)

        step = self.param("step_bias", _steps(self.dt_min, self.dt_max), (channels,))
        if self.select_step:
            kernel = self.param("step", variance_scaling(1 / 3, "fan_in", "uniform"), (rank, channels))
            step = product(low, kernel.astype(v.dtype)).astype(jnp.float32) + step
        if not self.select_input:
            b = self.param("B", ones, (size, channels)).astype(v.dtype)
        if not self.select_output:
            c = self.param("C", normal(size**-0.5), (size, channels)).astype(v.dtype)
        decay = jnp.exp(self.param("log_decay", _decays, (size, channels)))
        # exp(z) - 1 serves as the gain as well: one function of T B N C numbers, and slow states keep their
        # digits.
        above = jnp.expm1(-jax.nn.softplus(step)[..., None, :] * decay)  # [N, C] or [T, B, N, C]
        written = (b[..., None] if self.select_input else b) * v[..., None, :]
        driven = -above / decay * written.astype(jnp.float32)

        def flat(a: Array) -> Array:
            return a.reshape(*a.shape[:-2], size * channels)

        gain, driven, carry = flat(above + 1.0), flat(driven), flat(state)
        both: Any = sequence_scan(gain, driven, reset, carry, self.engine, self.scan_unroll)
        last, states = both  # real arrays, as their inputs are
        states = states.reshape(driven.shape[:2] + state.shape[1:]).astype(v.dtype)
        read = states * (c[..., None] if self.select_output else c)
        return read.sum(-2), last.reshape(state.shape)

    def _convolved(self, v: Array, window: Array, reset: Array) -> tuple[Array, Array]:
        """Every channel with its own last `conv` inputs since the reset; `(v, inputs still needed)`."""
        width, (length, _, channels) = self.conv, v.shape
        kernel = self.param("conv", variance_scaling(1 / 3, "fan_in", "uniform"), (width, channels))
        bias = self.param("conv_bias", nn.initializers.zeros, (channels,))
        inputs = jnp.concatenate([window.swapaxes(0, 1).astype(v.dtype), v])  # [width - 1 + T, B, C]
        never = jnp.zeros((width - 2, reset.shape[1]), bool)  # what the window has is of this sequence
        resets = jnp.concatenate([never, reset])
        total, ours = bias.astype(v.dtype), jnp.ones_like(reset)
        for lag in range(width):
            start = width - 1 - lag
            past = inputs[start : start + length]
            if lag > 0:  # no reset since then: a select, for 0 * NaN is NaN
                ours = ours & ~resets[start : start + length]
                past = jnp.where(ours[..., None], past, 0.0)
            total = total + past * kernel[lag].astype(v.dtype)
        later = jnp.concatenate([resets[length:], jnp.zeros_like(reset[:1])])
        gone = jnp.flip(jnp.cumsum(jnp.flip(later, 0), axis=0), 0) > 0  # a reset came after it
        kept = jnp.where(gone[..., None], 0.0, inputs[length:]).astype(jnp.float32)
        return total, kept.swapaxes(0, 1)


_LAYER_OPTIONS = tuple(name for name in MambaLayer.__annotations__ if name not in ("parent", "name"))


def _steps(low: float, high: float) -> Any:
    """An initializer of the bias that makes softplus(bias) log-uniform in `[low, high]`."""

    def init(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        step = jnp.exp(jax.random.uniform(key, shape, dtype, np.log(low), np.log(high)))
        return step + jnp.log(-jnp.expm1(-step))

    return init


def _decays(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
    """-A = n + 1 for every channel (S4D-Real, arXiv 2206.11893)."""
    return jnp.broadcast_to(jnp.log(jnp.arange(1, shape[0] + 1, dtype=dtype))[:, None], shape)
