"""What the state-space cores share: parameters, discretisation, resettable states, the stack of layers.

A diagonal system x' = Λx + B̃u, y = Re(C̃x) (arXiv 2208.04933, §3) with P complex states. Its matrices act as
*real* kernels: B̃ takes D channels to 2P (real parts, then imaginary parts) and C̃ takes those 2P to D.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.nn.initializers import variance_scaling
from jaxtyping import Array
from numpy.typing import NDArray

from .base import Core
from .dense import Dense
from .hippo import SPECTRA, diagonal
from .layers import stacked
from .scan import packed_scan, resolve_engine
from .sharded import axes_in_use, sequence_scan

Pair = tuple[Array, Array]  # a complex array as (re, im), float32
Kernel = Callable[..., Array]  # an initializer (key, shape) -> array

DISCRETIZATIONS = ("zoh", "bilinear")


@dataclass(frozen=True)
class StateSpace:
    """The states of one layer and how they run; hashable, so that modules can hold it."""

    state_size: int
    blocks: int
    conj_sym: bool
    spectrum: str
    discretization: str
    dt_min: float
    dt_max: float
    stable: bool
    engine: str | None
    scan_unroll: int

    @property
    def lanes(self) -> int:
        """P, the number of complex states."""
        return self.state_size // 2 if self.conj_sym else self.state_size

    @property
    def eigen(self) -> tuple[NDArray[np.complex128], NDArray[np.complex128]]:
        """Λ `[P]` and V `[state_size, P]` at initialisation."""
        return diagonal(self.spectrum, self.state_size, self.blocks, self.conj_sym)

    def input_kernel(self, gain: float) -> Kernel:
        """Initializer of B̃ = Vᴴ W as a real kernel `[*window, D, 2P]`, W ~ normal(gain / fan-in)."""

        def init(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
            full = variance_scaling(gain, "fan_in", "truncated_normal")(
                key, (*shape[:-1], self.state_size), dtype
            )
            v = self.eigen[1]
            return full @ jnp.asarray(np.concatenate([v.real, -v.imag], axis=1), dtype)

        return init

    def output_kernel(self, gain: float) -> Kernel:
        """Initializer of C̃ = W V as a real kernel `[*window, 2P, D]`, W ~ normal(gain / fan-in).

        y = 2 Re(C̃x) with conjugate symmetry: the 2 and the minus before the imaginary parts are inside.
        """

        def init(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
            shape = (*shape[:-2], self.state_size, shape[-1])
            full = variance_scaling(gain, "fan_in", "truncated_normal")(key, shape, dtype)
            v = self.eigen[1] * (2.0 if self.conj_sym else 1.0)
            return jnp.asarray(np.concatenate([v.real, -v.imag], axis=1).T, dtype) @ full

        return init

    @staticmethod
    def scaled(values: Array, scale: Pair) -> Array:
        """`values` `[..., 2P]` times B̄ / B̃, one complex number per state: of B̃u, or of B̃ itself.

        Of the kernel for a sequence, since that is small beside it; of the product for a single step, so that
        a step costs O(P) more, not O(P D), and no matrix is ever re-discretised.
        """
        re, im = jnp.split(values, 2, axis=-1)
        a, b = (x.astype(values.dtype) for x in scale)
        return jnp.concatenate([a * re - b * im, a * im + b * re], axis=-1)

    def run(self, gain: Pair, driven: Array, reset: Array, carry: Pair) -> tuple[Pair, Array]:
        """The states `[T, B, *lanes, 2P]` under B̄u = `driven`, in the dtype of `driven`."""
        if not axes_in_use():
            return packed_scan(gain, driven, reset, carry, self.engine, self.scan_unroll)
        re, im = jnp.split(driven, 2, axis=-1)
        last, states = sequence_scan(gain, (re, im), reset, carry, self.engine, self.scan_unroll)
        return (last[0], last[1]), jnp.concatenate(states, axis=-1).astype(driven.dtype)


class DiscreteStates(nn.Module):
    """The parameters Λ and Δ of all layers, and their discretisation `(Ā, B̄ / B̃)`, each (re, im) `[L, P]`.

    With `stable` the real part is -exp(log_decay): negative whatever the optimiser does, with a gradient
    everywhere. (Clipping at -1e-4, as published, holds the line as well, but an eigenvalue that has crossed
    it gets no gradient to come back by.)
    """

    space: StateSpace
    num_layers: int

    @nn.compact
    def __call__(self) -> tuple[Pair, Pair]:
        """Discretise; depends on parameters only."""
        space, values = self.space, self.space.eigen[0]

        def stacked(row: np.ndarray) -> Callable[[Array], Array]:
            return lambda _: jnp.tile(jnp.asarray(row, jnp.float32), (self.num_layers, 1))

        if space.stable:
            re = -jnp.exp(self.param("log_decay", stacked(np.log(-values.real))))
        else:
            re = self.param("re", stacked(values.real))
        im = self.param("im", stacked(values.imag))

        def log_uniform(key: Array) -> Array:
            low, high = np.log(space.dt_min), np.log(space.dt_max)
            return jax.random.uniform(key, (self.num_layers, space.lanes), minval=low, maxval=high)

        step = jnp.exp(self.param("log_step", log_uniform))
        return (zoh if space.discretization == "zoh" else bilinear)((re, im), step)


def zoh(eigenvalues: Pair, step: Array) -> tuple[Pair, Pair]:
    """Zero-order hold: Ā = exp(ΛΔ) and B̄ = Λ⁻¹(Ā - 1) B̃ as a factor of B̃ (arXiv 2208.04933, eq. 6)."""
    re, im = (x * step for x in eigenvalues)
    decay = jnp.exp(re)
    gain = decay * jnp.cos(im), decay * jnp.sin(im)
    # exp(z) - 1 without cancellation, so that slow states keep all their digits.
    above = jnp.expm1(re) * jnp.cos(im) - 2 * jnp.sin(im / 2) ** 2, gain[1]
    # An eigenvalue of 0 has the limit Δ; selected before the division, so that its gradient is not NaN.
    zero = re * re + im * im < 1e-12
    re, im = jnp.where(zero, 1.0, re), jnp.where(zero, 0.0, im)
    ratio = _divide(above, (re, im))
    return gain, (step * jnp.where(zero, 1.0, ratio[0]), step * jnp.where(zero, 0.0, ratio[1]))


def bilinear(eigenvalues: Pair, step: Array) -> tuple[Pair, Pair]:
    """Tustin's rule: Ā = (1 + ΛΔ/2) / (1 - ΛΔ/2) and B̄ = Δ / (1 - ΛΔ/2) as a factor of B̃."""
    re, im = (x * step / 2 for x in eigenvalues)
    below = 1 - re, -im
    return _divide((1 + re, im), below), _divide((step, jnp.zeros_like(step)), below)


def _divide(a: Pair, b: Pair) -> Pair:
    norm = b[0] * b[0] + b[1] * b[1]
    return (a[0] * b[0] + a[1] * b[1]) / norm, (a[1] * b[0] - a[0] * b[1]) / norm


class StateSpaceCore(Core):
    """The options, checks and layer stack of a core made of diagonal state-space layers.

    `state_size` is the number of real states of each layer (`features` by default): P = state_size / 2
    complex ones with `conj_sym`, else P = state_size. Every state has a time step of its own, log-uniform in
    `[dt_min, dt_max]`. `spectrum` and `blocks`: see `hippo.diagonal`; `engine` and `scan_unroll`: see
    `scan.linear_scan`. `stable` keeps the real parts of the eigenvalues negative whatever training does.
    `remat` saves memory: the backward pass recomputes each layer.

    Raises `ValueError` when made with options that cannot work.
    """

    num_layers: int = 2
    state_size: int | None = None
    blocks: int = 1
    conj_sym: bool = True
    spectrum: str = "hippo"
    discretization: str = "zoh"
    dt_min: float = 1e-3
    dt_max: float = 1e-1
    stable: bool = True
    engine: str | None = None
    scan_unroll: int = 1
    remat: bool = False

    def __post_init__(self) -> None:
        for option in ("features", "num_layers", "scan_unroll"):
            if getattr(self, option) < 1:
                raise ValueError(f"{option}={getattr(self, option)} is too small; use 1 or more")
        one_of("spectrum", self.spectrum, SPECTRA)
        one_of("discretization", self.discretization, DISCRETIZATIONS)
        resolve_engine(self.engine)
        if not 0 < self.dt_min <= self.dt_max:
            raise ValueError(
                f"dt_min={self.dt_min}, dt_max={self.dt_max} is not an interval; use 0 < dt_min <= dt_max"
            )
        _ = self.space.eigen  # raises when state_size does not divide into blocks
        super().__post_init__()

    @property
    def space(self) -> StateSpace:
        """The states of one layer."""
        return StateSpace(
            state_size=self.features if self.state_size is None else self.state_size,
            blocks=self.blocks,
            conj_sym=self.conj_sym,
            spectrum=self.spectrum,
            discretization=self.discretization,
            dt_min=self.dt_min,
            dt_max=self.dt_max,
            stable=self.stable,
            engine=self.engine,
            scan_unroll=self.scan_unroll,
        )

    def empty(self, batch: int, size: tuple[int, ...] = ()) -> Pair:
        """An empty memory: (re, im), each float32 `[batch, num_layers, *size, P]`."""
        shape = (batch, self.num_layers, *size, self.space.lanes)
        return jnp.zeros(shape, jnp.float32), jnp.zeros(shape, jnp.float32)

    def run_layers(
        self, layer: type[nn.Module], carry: Pair, x: Array, reset: Array, **options: Any
    ) -> tuple[Pair, Array]:
        """`num_layers` copies of `layer`, one after the other, with their weights stacked on axis 0.

        `layer(space=, features=, name=, **options)` is a module `(x, carry, discrete, reset) -> (x, carry)`.
        Call this inside a compact method.
        """
        if x.shape[-1] != self.features:
            x = Dense(self.features, dtype=x.dtype, name="encoder")(x)
        # All layers are discretised here, outside the scan over layers: once, and by few kernels. On a
        # CPU XLA can then move it out of a rollout's loop, as it depends on parameters only; on a GPU it
        # does not.
        discrete = DiscreteStates(self.space, self.num_layers, name="states")()
        layers = stacked(layer, self.num_layers, (1, 0, nn.broadcast), self.remat)
        layers = layers(space=self.space, features=self.features, name="layers", **options)
        y, carry = layers(x, carry, discrete, reset)
        return carry, y


def one_of(option: str, value: str, valid: tuple[str, ...]) -> None:
    """Raise `ValueError` unless `value` is one of `valid`."""
    if value not in valid:
        raise ValueError(f"unknown {option} {value!r}; choose from {', '.join(valid)}")
