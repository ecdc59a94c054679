"""Rectified flow on frames, each with a noise level of its own: what FAR and its recurrent twin share."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped

from .clip import ActionSpace

SINUSOIDS = 256  # features of a noise level before the MLP


class Noised(NamedTuple):
    """Latents on their way to noise: `x = (1 - sigma) latents + sigma noise`, `target = noise - latents`."""

    x: Float[Array, "*N H W D"]
    sigma: Float[Array, "*N"]
    target: Float[Array, "*N H W D"]


def noised(latents: Float[Array, "*N H W D"], key: Array) -> Noised:
    """Every frame with noise of its own, at a level of its own: sigma ~ logit-normal(0, 1).

    The straight path of rectified flow (arXiv 2209.03003); `target` is its velocity dx/dsigma. The density of
    levels is that of arXiv 2403.03206, section 3.1, and FAR's.
    """
    key_level, key_noise = jax.random.split(key)
    sigma = jax.nn.sigmoid(jax.random.normal(key_level, latents.shape[:-3]))
    noise = jax.random.normal(key_noise, latents.shape)
    level = sigma[..., None, None, None]
    return Noised((1.0 - level) * latents + level * noise, sigma, noise - latents)


def euler(
    velocity: Callable[[Float[Array, "B H W D"], Float[Array, " B"]], Float[Array, "B H W D"]],
    noise: Float[Array, "B H W D"],
    steps: int,
) -> Float[Array, "B H W D"]:
    """From noise at sigma = 1 to latents at sigma = 0 along `velocity(x, sigma)`, in `steps` equal steps."""

    def one(i: Array, x: Array) -> Array:
        sigma = jnp.full(x.shape[:1], 1.0) - i / steps
        return x - velocity(x, sigma) / steps

    return jax.lax.fori_loop(0, steps, one, noise)


def twice(tree: Any) -> Any:
    """Batch-leading arrays with the batch repeated: rows that know the action, then rows that don't."""
    return jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf]), tree)


def guided(velocity: Float[Array, "BB H W D"], guidance: float) -> Float[Array, "B H W D"]:
    """Classifier-free guidance (arXiv 2207.12598): v_none + guidance (v_action - v_none), of `twice` rows."""
    known, unknown = jnp.split(velocity, 2)
    return unknown + guidance * (known - unknown)


def check_flow(actions: ActionSpace, euler_steps: int, guidance: float, action_dropout: float) -> bool:
    """Whether sampling needs guidance; raises `ValueError` for options that make no sense."""
    if euler_steps < 1:
        raise ValueError(f"euler_steps={euler_steps} never leaves the noise; use 1 or more")
    if not 0.0 <= action_dropout < 1.0:
        raise ValueError(f"action_dropout={action_dropout} must be at least 0 and below 1; use 0.1")
    guides = guidance != 1.0 and actions.kind != "none"
    if guides and action_dropout == 0.0:
        raise ValueError(
            f"guidance={guidance} compares with frames whose action is unknown, which action_dropout=0 never "
            "trains; use guidance=1 or action_dropout=0.1"
        )
    return guides


class NoiseLevel(nn.Module):
    """A noise level as a vector: sinusoids of 1000 sigma, then an MLP (as DiT, arXiv 2212.09748).

    Where `clean` is true the level is a learnt vector of its own: a finished frame isn't a frame at sigma 0.
    """

    features: int

    @nn.compact
    def __call__(
        self, sigma: Float[Array, "*N"], clean: Bool[Array, "*N"] | None = None
    ) -> Float[Array, "*N features"]:
        """float32."""
        half = SINUSOIDS // 2
        frequency = 10_000.0 ** (-jnp.arange(half) / half)
        angle = 1000.0 * sigma[..., None] * frequency
        h = jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], -1)
        h = nn.Dense(self.features, name="out")(jax.nn.silu(nn.Dense(self.features, name="in")(h)))
        if clean is None:
            return h
        tag = self.param("clean", nn.initializers.normal(0.02), (self.features,))
        return jnp.where(clean[..., None], tag, h)


class LeadingAction(nn.Module):
    """The action that leads to a frame as a vector; a learnt one of its own where it isn't `known`.

    A discrete action outside the space (`NO_ACTION`) isn't known either, nor is any where `actions` is None.
    """

    space: ActionSpace
    features: int

    @nn.compact
    def __call__(
        self, actions: Shaped[Array, "..."] | None, known: Bool[Array, "*N"]
    ) -> Float[Array, "*N features"] | float:
        """float32; 0 where the world has no actions."""
        if self.space.kind == "none":
            return 0.0
        nothing = self.param("unknown", nn.initializers.normal(0.02), (self.features,))
        if actions is None:
            return jnp.broadcast_to(nothing, (*known.shape, self.features))
        if self.space.kind == "discrete":
            known = known & (actions >= 0) & (actions < self.space.size)
            embedded = nn.Embed(self.space.size, self.features, name="embed")(jnp.where(known, actions, 0))
        else:
            embedded = nn.Dense(self.features, name="embed")(actions)
        return jnp.where(known[..., None], embedded, nothing)


class Modulated(nn.Module):
    """Layer norm over channels whose shift and scale are read from a conditioning vector (adaLN).

    Of frames `x [*N, H, W, D]` with `condition [*N, E]`; shift and scale begin at 0 and 1.
    """

    @nn.compact
    def __call__(
        self, x: Float[Array, "*N H W D"], condition: Float[Array, "*N E"]
    ) -> Float[Array, "*N H W D"]:
        """Same shape and dtype."""
        h = jax.nn.silu(condition).astype(x.dtype)[..., None, None, :]
        zero = nn.initializers.zeros_init()
        both = nn.Dense(2 * x.shape[-1], dtype=x.dtype, kernel_init=zero, name="shift_scale")(h)
        shift, scale = jnp.split(both, 2, -1)
        norm = nn.LayerNorm(use_bias=False, use_scale=False, dtype=x.dtype, name="norm")
        return norm(x) * (1.0 + scale) + shift
