"""FAR: frame-autoregressive flow matching over block-causal attention."""

import dataclasses
import inspect
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped

from ..cores import Core
from ..cores.base import Carry
from .autoencoder import Autoencoder
from .clip import ActionSpace, Clip, to_float
from .flow import LeadingAction, Modulated, NoiseLevel, check_flow, euler, guided, noised, twice
from .model import Variables


@dataclasses.dataclass(frozen=True)
class FAR:
    """Frames denoised one after the other, each attending to the clean ones before it (arXiv 2503.19325).

    In the latents of an `Autoencoder` (`variables["frozen"]`, see `Autoencoder.freeze`), with the core
    `frame_attention`: attention within a frame goes both ways, over frames it is causal. A frame's noise
    level and the action that leads to it become one vector, on which all layers are conditioned.

    Training: every frame has a noise level of its own and predicts its velocity; with `clean_probability` a
    frame is given clean instead, with a tag of its own in place of the noise level, and has no loss
    (*stochastic clean context*), so that the context met when sampling is known from training.
    `action_dropout` hides actions, frame by frame, for guidance.

    Sampling: `euler_steps` calls on one noisy frame whose carry is dropped, then one on the finished frame,
    whose carry is kept: a cache of fixed capacity, the core's window. `guidance` other than 1 compares with
    the velocity of the frame whose own action is hidden, at twice the cost; the past keeps its actions, so
    there is one cache (the published code hides them all).

    `dtype` is that of the activations; parameters, latents, caches and losses are float32.
    """

    core: Core
    autoencoder: Autoencoder
    size: int
    channels: int
    actions: ActionSpace
    clean_probability: float = 0.1
    euler_steps: int = 50
    guidance: float = 1.0
    action_dropout: float = 0.1
    dtype: Any = jnp.float32

    streams = False

    def __post_init__(self) -> None:
        check_flow(self.actions, self.euler_steps, self.guidance, self.action_dropout)
        if not 0.0 <= self.clean_probability <= 1.0:
            raise ValueError(f"clean_probability={self.clean_probability} must be from 0 to 1; use 0.1")
        if not (self.core.spatial and "cond" in inspect.signature(type(self.core).__call__).parameters):
            raise ValueError(
                f"the core {type(self.core).__name__} cannot be conditioned frame by frame, as far needs; "
                "use core=frame_attention, or model=recurrent_flow with this one"
            )
        self.autoencoder.check(self.size, self.channels)

    def init(self, key: Array) -> Any:
        """Fresh parameters; see `FrameModel`."""
        grid = self.autoencoder.grid
        latents = jnp.zeros((1, 1, grid, grid, self.autoencoder.latent_channels))
        no, actions = jnp.zeros((1, 1), bool), self.actions.nothing(1, 1)
        return FARNet(self).init(key, self.initial_memory(1), latents, jnp.ones((1, 1)), no, actions, no, no)

    def initial_memory(self, batch: int) -> Carry:
        """An empty cache, from which `step` draws a first frame; training uses none."""
        return self.core.initial_carry(batch, (self.autoencoder.grid, self.autoencoder.grid))

    def velocity(
        self,
        variables: Variables,
        carry: Carry,
        latents: Float[Array, "T B h w D"],
        sigma: Float[Array, "T B"],
        clean: Bool[Array, "T B"],
        leading: Shaped[Array, "T B ..."] | None,
        known: Bool[Array, "T B"],
        reset: Bool[Array, "T B"],
    ) -> tuple[Carry, Float[Array, "T B h w D"]]:
        """The velocity noise - latents of every frame, float32, and the carry after all of them.

        `leading[t]` is the action that leads to frame t, counted where `known`. Where `clean` is true the
        frame is taken as finished, whatever `sigma` says, and its velocity means nothing.
        """
        inputs = (carry, latents, sigma, clean, leading, known, reset)
        return FARNet(self).apply(variables["params"], *inputs)  # pyright: ignore[reportReturnType]

    def loss(
        self, variables: Variables, memory: Carry, clip: Clip, key: Array
    ) -> tuple[Float[Array, ""], Carry]:
        """The mean square error of the velocity, over the noisy frames of each clip, then over clips.

        All T frames are consumed and all are targets, the first of a clip too: it has no context, and is
        trained without any, as FAR does. `memory` is returned as it came.
        """
        key_clean, key_noise, key_drop = jax.random.split(key, 3)
        latents = self._latents(variables, clip)
        sample = noised(latents, key_noise)
        clean = jax.random.bernoulli(key_clean, self.clean_probability, clip.reset.shape)
        x = jnp.where(clean[..., None, None, None], latents, sample.x)
        leading, known = leading_actions(self.actions, clip)
        known &= ~jax.random.bernoulli(key_drop, self.action_dropout, known.shape)
        empty = self.initial_memory(clip.reset.shape[1])
        _, v = self.velocity(variables, empty, x, sample.sigma, clean, leading, known, clip.reset)
        errors = ((v - sample.target) ** 2).mean((2, 3, 4))
        noisy = ~clean
        per_clip = jnp.where(noisy, errors, 0.0).sum(0) / jnp.maximum(noisy.sum(0), 1)
        return per_clip.mean(), memory

    def condition(self, variables: Variables, clip: Clip) -> Carry:
        """See `FrameModel`; the context's frames are all clean."""
        leading, known = leading_actions(self.actions, clip)
        empty = self.initial_memory(clip.reset.shape[1])
        return self._consume(variables, empty, self._latents(variables, clip), leading, known, clip.reset)

    def step(
        self, variables: Variables, memory: Carry, action: Shaped[Array, "B ..."] | None, key: Array
    ) -> tuple[Carry, Float[Array, "B H W C"]]:
        """See `FrameModel`; `action` None draws a frame whose action isn't known."""
        batch = jax.tree.leaves(memory)[0].shape[0]
        grid = self.autoencoder.grid
        noise = jax.random.normal(key, (batch, grid, grid, self.autoencoder.latent_channels))
        known = jnp.full((batch,), action is not None)
        guides = self.guidance != 1.0 and self.actions.kind != "none"
        past, leads = twice((memory, action)) if guides else (memory, action)
        told = jnp.concatenate([known, jnp.zeros_like(known)]) if guides else known
        leads = jax.tree.map(lambda leaf: leaf[None], leads)
        no = jnp.zeros((1, len(told)), bool)

        def velocity(x: Array, sigma: Array) -> Array:
            x, sigma = twice((x, sigma)) if guides else (x, sigma)
            _, v = self.velocity(variables, past, x[None], sigma[None], no, leads, told[None], no)
            return guided(v[0], self.guidance) if guides else v[0]

        latents = euler(velocity, noise, self.euler_steps)
        action = jax.tree.map(lambda leaf: leaf[None], action)
        memory = self._consume(variables, memory, latents[None], action, known[None], no[:, :batch])
        return memory, self.autoencoder.decode(variables["frozen"], latents)

    def _consume(
        self, variables: Variables, carry: Carry, latents: Array, leading: Any, known: Array, reset: Array
    ) -> Carry:
        """The carry after finished frames."""
        sigma, clean = jnp.zeros(reset.shape), jnp.ones(reset.shape, bool)
        return self.velocity(variables, carry, latents, sigma, clean, leading, known, reset)[0]

    def _latents(self, variables: Variables, clip: Clip) -> Float[Array, "T B h w D"]:
        return self.autoencoder.encode(variables["frozen"], to_float(clip.frames))


class FARNet(nn.Module):
    """The network of a `FAR`."""

    of: FAR

    @nn.compact
    def __call__(
        self,
        carry: Carry,
        latents: Float[Array, "T B h w D"],
        sigma: Float[Array, "T B"],
        clean: Bool[Array, "T B"],
        leading: Shaped[Array, "T B ..."] | None,
        known: Bool[Array, "T B"],
        reset: Bool[Array, "T B"],
    ) -> tuple[Carry, Float[Array, "T B h w D"]]:
        """See `FAR.velocity`."""
        f = self.of
        features = f.core.features
        condition = NoiseLevel(features, name="level")(sigma, clean)
        condition += LeadingAction(f.actions, features, name="action")(leading, known)
        x = nn.Dense(features, dtype=f.dtype, name="tokens")(latents)
        core: Any = f.core.clone(parent=self, name="core")
        carry, y = core(carry, x, reset, condition)
        y = Modulated(name="head")(y, condition).astype(jnp.float32)
        return carry, nn.Dense(latents.shape[-1], kernel_init=nn.initializers.zeros_init(), name="velocity")(
            y
        )


def leading_actions(
    space: ActionSpace, clip: Clip
) -> tuple[Shaped[Array, "T B ..."] | None, Bool[Array, "T B"]]:
    """The action that leads to each frame, and where it is known: not at the first frame of a clip."""
    known = jnp.asarray(~clip.reset).at[0].set(False)
    if space.kind == "none":
        return None, jnp.zeros_like(known)
    first = jnp.asarray(space.nothing(1, known.shape[1]))
    return jnp.concatenate([first, jnp.asarray(clip.actions)[:-1]]), known
