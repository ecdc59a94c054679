"""S5: deep diagonal state-space layers over feature vectors, with a memory that resets."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .dense import product
from .gates import GATES, gated
from .ssm import Pair, StateSpace, StateSpaceCore, one_of

NORMS = ("layer", "none")


class S5(StateSpaceCore):
    """S5 (arXiv 2208.04933), resettable as in arXiv 2303.03982: `x [T, B, D] -> y [T, B, features]`.

    Each of `num_layers` residual layers is x + gate(y), y = 2 Re(C̃s) + D∘u, with the states s of u = norm(x).
    `norm` is `layer` or `none`; with `prenorm=False` it comes after the sum instead. The `gate` is one of
    `gates.gated`, `half_glu` in the paper. `norm_states` normalises what is read of a layer's states, all 2P
    numbers together and without weights of its own; the states that go on are as they were, so that the
    recurrence stays linear. `feedthrough=False` leaves D out. Inputs of another width than `features` first
    pass a dense layer.

    The time steps begin between .01 and .5 (the paper's: .001 and .1).

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

    def __post_init__(self) -> None:
        one_of("gate", self.gate, GATES)
        one_of("norm", self.norm, NORMS)
        super().__post_init__()

    def initial_carry(self, batch: int, size: tuple[int, int] | None = None) -> Pair:
        """An empty memory: (re, im), each float32 `[batch, num_layers, P]`."""
        return self.empty(batch)

    @nn.compact
    def __call__(
        self, carry: Pair, x: Float[Array, "T B D"], reset: Bool[Array, "T B"]
    ) -> tuple[Pair, Float[Array, "T B features"]]:
        """Consume `T` inputs; see `Core`."""
        options = {
            "gate": self.gate,
            "norm": self.norm,
            "prenorm": self.prenorm,
            "norm_states": self.norm_states,
            "feedthrough": self.feedthrough,
        }
        return self.run_layers(S5Layer, carry, x, reset, **options)


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
