"""Fast weights: a matrix that keys write to and queries read from, corrected before it is written to.

The delta rule of Linear Transformers Are Secretly Fast Weight Programmers (Schlag et al. 2021, arXiv
2102.11174, section 4.2), whose matrix also fades, as in Gated Delta Networks (Yang et al. 2024, arXiv
2412.06464, the gated delta rule).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped

from .base import Carry, Core, clear
from .dense import Dense
from .layers import stacked
from .mlp import ResidualMLP

_KEPT = 4.0  # the logit of how much of the matrix stays at first: all but a fiftieth


def delta_rule(
    query: Float[Array, "T B H K"],
    key: Float[Array, "T B H K"],
    value: Float[Array, "T B H V"],
    rate: Float[Array, "T B H"],
    keep: Float[Array, "T B H"],
    reset: Bool[Array, "T B"],
    weights: Float[Array, "B H K V"],
) -> tuple[Float[Array, "B H K V"], Float[Array, "T B H V"]]:
    """The matrix after the last step, and what every query reads from its own step's.

    With S the matrix before a step, cleared at a reset, and k of length 1:

        S' = g S,  S_t = S' + β k (v − S'ᵀ k)ᵀ,  y_t = S_tᵀ q.

    At β = 1 the key reads v from then on, whatever it read before.
    """

    def step(weights: Array, inputs: tuple[Array, ...]) -> tuple[Array, Array]:
        query, key, value, rate, keep, reset = inputs
        weights = keep[..., None, None] * clear(weights, reset, jnp.zeros_like(weights))
        wrong = value - (weights * key[..., None]).sum(-2)
        weights = weights + (rate[..., None] * key)[..., None] * wrong[..., None, :]
        return weights, (weights * query[..., None]).sum(-2)

    inputs = (query, key, value, rate, keep, reset)
    if reset.shape[0] == 1:  # acting: no loop
        weights, read = step(weights, tuple(a[0] for a in inputs))
        return weights, read[None]
    return jax.lax.scan(step, weights, inputs)


def _unit(x: Array) -> Array:
    return x * jax.lax.rsqrt(jnp.square(x).sum(-1, keepdims=True) + 1e-6)


class _Block(nn.Module):
    """One layer: pre-normed fast weights and a pre-normed MLP, both residual."""

    num_heads: int
    mlp_ratio: float
    glu: bool

    @nn.compact
    def __call__(self, x: Array, weights: Array, reset: Array) -> tuple[Array, Array]:
        *lead, features = x.shape
        n = nn.LayerNorm(dtype=x.dtype, name="norm")(x)
        qkv = Dense(3 * features, use_bias=False, dtype=x.dtype, name="qkv")(n).astype(jnp.float32)
        q, k, v = (a.reshape(*lead, self.num_heads, -1) for a in jnp.split(qkv, 3, axis=-1))
        gates = Dense(2 * self.num_heads, dtype=x.dtype, name="gates")(n).astype(jnp.float32)
        rate, keep = jnp.split(gates, 2, axis=-1)
        rate, keep = nn.sigmoid(rate), nn.sigmoid(keep + _KEPT)
        weights, y = delta_rule(_unit(q), _unit(k), v, rate, keep, reset, weights)
        y = y.reshape(x.shape).astype(x.dtype)
        x = x + Dense(features, dtype=x.dtype, name="out")(y)
        return ResidualMLP(self.mlp_ratio, self.glu, name="mlp")(x), weights


class FastWeights(Core):
    """`num_layers` pre-normed blocks of fast weights under the delta rule, each followed by an MLP.

    Every one of `num_heads` heads has a matrix, to which each input writes a value under a key, in place of
    what was there, and from which it reads by a query. The input says as well how strongly it is written, and
    how much of the matrix stays. `mlp_ratio` and `glu` are `ResidualMLP`'s. `remat` saves memory: the
    backward pass recomputes each block, whose matrices at every step are what a long sequence leaves most of.

    The carry is `[B, num_layers, num_heads, K, K]` float32 with K = features/num_heads: it does not grow with
    time. A sequence is a loop over its steps. Raises `ValueError` when `features` cannot be cut into heads.
    """

    num_layers: int = 2
    num_heads: int = 4
    mlp_ratio: float = 2.0
    glu: bool = True
    remat: bool = False

    def __post_init__(self) -> None:
        if self.num_heads < 1 or self.features % self.num_heads:
            raise ValueError(
                f"features={self.features} cannot be cut into num_heads={self.num_heads} heads; "
                "use a multiple of it"
            )
        super().__post_init__()

    def initial_carry(self, batch: int, size: tuple[int, int] | None = None) -> Carry:
        """Empty matrices."""
        width = self.features // self.num_heads
        return jnp.zeros((batch, self.num_layers, self.num_heads, width, width), jnp.float32)

    @nn.compact
    def __call__(
        self, carry: Carry, x: Shaped[Array, "T B F"], reset: Bool[Array, "T B"]
    ) -> tuple[Carry, Shaped[Array, "T B D"]]:
        """Consume `T` inputs; see `Core`."""
        if x.shape[-1] != self.features:
            x = Dense(self.features, dtype=x.dtype, name="input")(x)
        layers = stacked(_Block, self.num_layers, (1, nn.broadcast), self.remat)
        x, carry = layers(self.num_heads, self.mlp_ratio, self.glu, name="blocks")(x, carry, reset)
        return carry, x
