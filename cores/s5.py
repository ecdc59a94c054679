"""S5: deep diagonal state-space layers over feature vectors, with a memory that resets."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .dense import product
from .gates import GATES, gated
from .scan import say_once
from .sharded import axes_in_use
from .ssm import DiscreteStates, Pair, StateSpace, StateSpaceCore, one_of

NORMS = ("layer", "none")
STEPS = ("plain", "kernels")


class S5(StateSpaceCore):
    """S5 (arXiv 2208.04933), resettable as in arXiv 2303.03982: `x [T, B, D] -> y [T, B, features]`.

    Each of `num_layers` residual layers is x + gate(y), y = 2 Re(C̃s) + D∘u, with the states s of u = norm(x).
    `norm` is `layer` or `none`; with `prenorm=False` it comes after the sum instead. The `gate` is one of
    `gates.gated`, `half_glu` in the paper. `norm_states` normalises what is read of a layer's states, all 2P
    numbers together and without weights of its own; the states that go on are as they were, so that the
    recurrence stays linear. `feedthrough=False` leaves D out. Inputs of another width than `features` first
    pass a dense layer.

    The time steps begin between .01 and .5 (the paper's: .001 and .1).

    `step` is how one input (T = 1) is consumed: `plain`, or by the `kernels` of `step_kernels`, written for
    NVIDIA's GPUs; None is `plain`. On an H100 the kernels won at 64 rows, and lost from 512 on. Where they
    can't run, `plain` does; a gradient always goes through `plain`.

    The carry is (re, im), each float32 `[B, num_layers, P]`. Matrix products run in the dtype of `x`, the
    states in float32. The other options are `StateSpaceCore`'s.
    """

    # With the paper's .001 to .1 the slowest states forget over 2,000 inputs; episodes are hundreds long.
    dt_min: float = 1e-2
    dt_max: float = 0.5
    gate: str = "half_glu"
    norm: str = "layer"
    prenorm: bool = True
    norm_states: bool = False
    feedthrough: bool = True
    step: str | None = None

    def __post_init__(self) -> None:
        one_of("gate", self.gate, GATES)
        one_of("norm", self.norm, NORMS)
        one_of("step", self.step or STEPS[0], STEPS)
        super().__post_init__()

    def initial_carry(self, batch: int, size: tuple[int, int] | None = None) -> Pair:
        """An empty memory: (re, im), each float32 `[batch, num_layers, P]`."""
        return self.empty(batch)

    @nn.compact
    def __call__(
        self, carry: Pair, x: Float[Array, "T B D"], reset: Bool[Array, "T B"]
    ) -> tuple[Pair, Float[Array, "T B features"]]:
        """Consume `T` inputs; see `Core`."""
        if len(x) == 1 and not self.is_initializing() and self._by_kernels(*x.shape[1:]):
            plain = self.clone(parent=None, name=None, step="plain")
            return _step_by_kernels(plain, self.variables["params"], carry, x, reset)
        options = {
            "gate": self.gate,
            "norm": self.norm,
            "prenorm": self.prenorm,
            "norm_states": self.norm_states,
            "feedthrough": self.feedthrough,
        }
        return self.run_layers(S5Layer, carry, x, reset, **options)

    def _by_kernels(self, rows: int, width: int) -> bool:
        if self.step != "kernels":
            return False
        why = self._obstacle(rows, width)
        if why is not None:
            say_once(f"step='kernels' cannot run here: {why}; 'plain' runs instead")
        return why is None

    def _obstacle(self, rows: int, width: int) -> str | None:
        """Why the kernels cannot step so many rows of such a width; None where they can."""
        if not self.prenorm or self.norm_states:
            return "it is written for prenorm=True and norm_states=False"
        if width != self.features:
            return f"it needs inputs of features={self.features} channels and there are {width}"
        if axes_in_use():
            return "it is written for rows that one device has to itself"
        from . import step_kernels  # Pallas takes half a second to import

        return step_kernels.obstacle(rows, self.features, self.space.lanes)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _step_by_kernels(plain: S5, params: Any, carry: Pair, x: Array, reset: Array) -> tuple[Pair, Array]:
    """What `plain.apply({"params": params}, carry, x [1, B, D], reset)` gives."""
    from . import step_kernels

    discrete: Any = DiscreteStates(plain.space, plain.num_layers).apply({"params": params["states"]})
    normed = plain.norm == "layer"
    carry, y = step_kernels.step(params["layers"], discrete, carry, x[0], reset[0], plain.gate, normed)
    return carry, y[None]


def _step_forward(plain: S5, params: Any, carry: Pair, x: Array, reset: Array) -> tuple[Any, Any]:
    return jax.vjp(lambda *inputs: plain.apply({"params": inputs[0]}, *inputs[1:], reset), params, carry, x)


def _step_backward(plain: S5, back: Any, cotangents: Any) -> tuple[Any, ...]:
    del plain
    return (*back(cotangents), None)


_step_by_kernels.defvjp(_step_forward, _step_backward)


class S5Layer(nn.Module):
    """One residual layer over `[T, B, features]`."""

    space: StateSpace
    features: int
    gate: str
    norm: str
    prenorm: bool
    norm_states: bool
    feedthrough: bool

    @nn.compact
    def __call__(
        self, x: Array, carry: Pair, discrete: tuple[Pair, Pair], reset: Array
    ) -> tuple[Array, Pair]:
        """Map `(x, carry)`, carry (re, im) `[B, P]`, to the next layer's x and this layer's carry."""
        norm = nn.LayerNorm(dtype=x.dtype, name="norm") if self.norm == "layer" else lambda x: x
        u = norm(x) if self.prenorm else x
        gain, scale = discrete
        b = self.param("B", self.space.input_kernel(1.0), (self.features, 2 * self.space.lanes))
        if len(x) > 1:
            driven = product(u, self.space.scaled(b, scale).astype(x.dtype))
        else:
            driven = self.space.scaled(product(u, b.astype(x.dtype)), scale)
        carry, states = self.space.run(gain, driven, reset, carry)
        if self.norm_states:
            states = nn.LayerNorm(use_bias=False, use_scale=False, dtype=x.dtype)(states)
        shape = (2 * self.space.lanes, self.features)
        y = product(states, self._kernel("C", self.space.output_kernel(1.0), shape, x.dtype))
        if self.feedthrough:
            y += u * self._kernel("D", nn.initializers.normal(1.0), (self.features,), x.dtype)
        y = x + gated(self.gate, y, u)
        return (y if self.prenorm else norm(y)), carry

    def _kernel(
        self, name: str, init: nn.initializers.Initializer, shape: tuple[int, ...], dtype: jnp.dtype
    ) -> Array:
        return self.param(name, init, shape).astype(dtype)
