"""Frame-autoregressive flow matching over a recurrent memory: each frame drawn from the state before it."""

import dataclasses
import math
from typing import Any, NamedTuple

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

TOKENS = ("grid", "pooled", "patch")


class RecurrentFlowMemory(NamedTuple):
    """The core's memory of all frames but the newest, and the newest's latents, consumed at the next step."""

    carry: Carry
    latents: Float[Array, "B h w D"]


@dataclasses.dataclass(frozen=True)
class RecurrentFlow:
    """Rectified flow for every frame, from the state that any core is in after the clean frame before it.

    The core consumes clean latents of an `Autoencoder` (`variables["frozen"]`), each with the action that
    follows it, once a frame; a convolutional denoiser draws frame t from noise, conditioned on the core's
    output for frame t - 1, the action between them and the noise level (targets and levels as in `noised`).
    The memory never sees noise. So sampling costs one step of the core and `euler_steps` of the denoiser,
    and training carries the memory through clips of any length.

    `tokens` says what the core sees: `grid`, the image of latents (spatial cores); `pooled`, one vector a
    frame; `patch`, every place as a batch row of its own with shared parameters. In training each frame is
    noised `samples_per_frame` times, which costs the denoiser only. `action_dropout` hides actions, frame by
    frame, from core and denoiser, for a `guidance` other than 1 (`guided`); the past keeps its actions.

    `dtype` is that of the activations; parameters, latents, memories and losses are float32.
    """

    core: Core
    autoencoder: Autoencoder
    size: int
    channels: int
    actions: ActionSpace
    tokens: str = "grid"
    denoiser_features: int = 64
    denoiser_layers: int = 3
    samples_per_frame: int = 1
    euler_steps: int = 50
    guidance: float = 1.0
    action_dropout: float = 0.1
    dtype: Any = jnp.float32

    streams = True

    def __post_init__(self) -> None:
        check_flow(self.actions, self.euler_steps, self.guidance, self.action_dropout)
        if self.samples_per_frame < 1:
            raise ValueError(f"samples_per_frame={self.samples_per_frame} trains nothing; use 1 or more")
        if self.tokens not in TOKENS:
            raise ValueError(f"tokens={self.tokens!r} must be one of {', '.join(TOKENS)}")
        if self.core.spatial != (self.tokens == "grid"):
            cure = "grid" if self.core.spatial else "pooled (one a frame) or patch (one a place)"
            raise ValueError(
                f"the core {type(self.core).__name__} does not go with tokens={self.tokens}; "
                f"use tokens={cure}"
            )
        self.autoencoder.check(self.size, self.channels)

    @property
    def guides(self) -> bool:
        """Whether sampling takes the batch twice."""
        return self.guidance != 1.0 and self.actions.kind != "none"

    def init(self, key: Array) -> Any:
        """Fresh parameters; see `FrameModel`."""
        memory = self.initial_memory(1)
        actions, known = self.actions.nothing(1, 1), jnp.zeros((1, 1), bool)
        x = memory.latents[None]
        inputs = (memory.carry, x, actions, known, known, x[None], jnp.ones((1, 1, 1)))
        return RecurrentFlowNet(self).init(key, *inputs)

    def initial_memory(self, batch: int) -> RecurrentFlowMemory:
        """An empty memory; see `FrameModel`."""
        grid = self.autoencoder.grid
        rows = batch * grid**2 if self.tokens == "patch" else batch
        place = ((grid, grid),) if self.tokens == "grid" else ()
        latents = jnp.zeros((batch, grid, grid, self.autoencoder.latent_channels))
        return RecurrentFlowMemory(self.core.initial_carry(rows, *place), latents)

    def remember(
        self,
        variables: Variables,
        carry: Carry,
        latents: Float[Array, "T B h w D"],
        actions: Shaped[Array, "T B ..."] | None,
        known: Bool[Array, "T B"],
        reset: Bool[Array, "T B"],
    ) -> tuple[Carry, Float[Array, "T B h w E"]]:
        """Consume clean latents, and where `known` the actions that follow them: the state after each."""
        inputs = (carry, latents, actions, known, reset)
        net = RecurrentFlowNet(self)
        return net.apply(variables["params"], *inputs, method="remember")  # pyright: ignore[reportReturnType]

    def velocity(
        self,
        variables: Variables,
        state: Float[Array, "*N h w E"],
        actions: Shaped[Array, "..."] | None,
        known: Bool[Array, "*N"],
        x: Float[Array, "*N h w D"],
        sigma: Float[Array, "*N"],
    ) -> Float[Array, "*N h w D"]:
        """The velocity noise - latents, float32, of the frames that follow the states."""
        inputs = (state, actions, known, x, sigma)
        net = RecurrentFlowNet(self)
        return net.apply(variables["params"], *inputs, method="denoise")  # pyright: ignore[reportReturnType]

    def loss(
        self, variables: Variables, memory: RecurrentFlowMemory, clip: Clip, key: Array
    ) -> tuple[Float[Array, ""], RecurrentFlowMemory]:
        """See `FrameModel`: the mean square error of the velocity."""
        key_noise, key_drop = jax.random.split(key)
        latents = self._latents(variables, clip)
        actions = jax.tree.map(lambda leaf: leaf[:-1], clip.actions)
        known = ~jax.random.bernoulli(key_drop, self.action_dropout, clip.reset[1:].shape)
        carry, state = self.remember(variables, memory.carry, latents[:-1], actions, known, clip.reset[:-1])

        def repeated(leaf: Array) -> Array:
            return jnp.broadcast_to(leaf, (self.samples_per_frame, *leaf.shape))

        sample = noised(repeated(latents[1:]), key_noise)
        following = jax.tree.map(repeated, (state, actions, known))
        state, actions, known = following
        v = self.velocity(variables, state, actions, known, sample.x, sample.sigma)
        errors = ((v - sample.target) ** 2).mean((0, 3, 4, 5))
        follows = ~clip.reset[1:]
        total = jnp.where(follows, errors, 0.0).sum()
        return total / jnp.maximum(follows.sum(), 1), RecurrentFlowMemory(carry, latents[-1])

    def condition(self, variables: Variables, clip: Clip) -> RecurrentFlowMemory:
        """See `FrameModel`."""
        latents = self._latents(variables, clip)
        carry = self.initial_memory(latents.shape[1]).carry
        if latents.shape[0] > 1:
            actions = jax.tree.map(lambda leaf: leaf[:-1], clip.actions)
            known, reset = jnp.ones(clip.reset[1:].shape, bool), clip.reset[:-1]
            carry, _ = self.remember(variables, carry, latents[:-1], actions, known, reset)
        return RecurrentFlowMemory(carry, latents[-1])

    def step(
        self,
        variables: Variables,
        memory: RecurrentFlowMemory,
        action: Shaped[Array, "B ..."] | None,
        key: Array,
    ) -> tuple[RecurrentFlowMemory, Float[Array, "B H W C"]]:
        """See `FrameModel`."""
        batch = memory.latents.shape[0]
        known = jnp.ones((batch,), bool)
        past = memory
        if self.guides:
            past, action = twice((memory, action))
            known = jnp.concatenate([known, jnp.zeros_like(known)])
        led = jax.tree.map(lambda leaf: leaf[None], action)
        no = jnp.zeros((1, known.shape[0]), bool)
        carry, state = self.remember(variables, past.carry, past.latents[None], led, known[None], no)

        def velocity(x: Array, sigma: Array) -> Array:
            x, sigma = twice((x, sigma)) if self.guides else (x, sigma)
            v = self.velocity(variables, state[0], action, known, x, sigma)
            return guided(v, self.guidance) if self.guides else v

        latents = euler(velocity, jax.random.normal(key, memory.latents.shape), self.euler_steps)
        # Rows whose action was hidden served the guidance only (`patch` has several rows a clip).
        carry = jax.tree.map(lambda new, old: new[: old.shape[0]], carry, memory.carry)
        return RecurrentFlowMemory(carry, latents), self.autoencoder.decode(variables["frozen"], latents)

    def _latents(self, variables: Variables, clip: Clip) -> Float[Array, "T B h w D"]:
        return self.autoencoder.encode(variables["frozen"], to_float(clip.frames))


class RecurrentFlowNet(nn.Module):
    """The network of a `RecurrentFlow`: what remembers, and what denoises."""

    of: RecurrentFlow

    def setup(self) -> None:
        """The parts, which `remember` and `denoise` use apart."""
        f = self.of
        grid, latent = f.autoencoder.grid, f.autoencoder.latent_channels
        self.core = f.core.clone(name="core")
        self.entry = nn.Dense(f.core.features, dtype=f.dtype)
        self.led = LeadingAction(f.actions, f.core.features)
        self.spread = nn.Dense(grid**2 * latent, dtype=f.dtype) if f.tokens == "pooled" else None
        self.denoiser = Denoiser(f.actions, latent, f.denoiser_features, f.denoiser_layers, f.dtype)

    def __call__(
        self, carry: Carry, latents: Array, actions: Any, known: Array, reset: Array, x: Array, sigma: Array
    ) -> tuple[Carry, Float[Array, "S T B h w D"]]:
        """Both, one after the other; `x [S, T, B, h, w, D]`."""
        carry, state = self.remember(carry, latents, actions, known, reset)
        state, actions, known = jax.tree.map(lambda leaf: leaf[None], (state, actions, known))
        return carry, self.denoise(state, actions, known, x, sigma)

    def remember(
        self, carry: Carry, latents: Array, actions: Any, known: Array, reset: Array
    ) -> tuple[Carry, Array]:
        """See `RecurrentFlow.remember`."""
        t, b, h, w, d = latents.shape
        tokens = self.of.tokens
        action = jnp.asarray(self.led(actions, known))  # [T, B, features], or a scalar
        action = action[:, :, None, None] if action.ndim else action
        if tokens == "pooled":
            latents = latents.reshape(t, b, 1, 1, h * w * d)
        x = self.entry(latents)
        x = x + action.astype(x.dtype)
        if tokens == "grid":
            return self.core(carry, x, reset)
        carry, y = self.core(
            carry, x.reshape(t, -1, x.shape[-1]), reset.repeat(x.shape[2] * x.shape[3], axis=1)
        )
        if self.spread is not None:
            y = self.spread(y)
        return carry, y.reshape(t, b, h, w, -1)

    def denoise(self, state: Array, actions: Any, known: Array, x: Array, sigma: Array) -> Array:
        """See `RecurrentFlow.velocity`."""
        return self.denoiser(state, actions, known, x, sigma)


class Denoiser(nn.Module):
    """The velocity of single noisy frames: residual blocks of two 3 x 3 convolutions, modulated.

    Every block begins as the identity, and the velocity at 0.
    """

    actions: ActionSpace
    channels: int
    features: int
    layers: int
    dtype: Any

    @nn.compact
    def __call__(
        self,
        state: Float[Array, "*N h w E"],
        actions: Shaped[Array, "..."] | None,
        known: Bool[Array, "*N"],
        x: Float[Array, "*N h w D"],
        sigma: Float[Array, "*N"],
    ) -> Float[Array, "*N h w D"]:
        """float32."""
        lead, frames, zero = sigma.shape, math.prod(sigma.shape), nn.initializers.zeros_init()
        condition = NoiseLevel(self.features, name="level")(sigma)
        condition += LeadingAction(self.actions, self.features, name="action")(actions, known)
        condition = condition.reshape(frames, -1)
        h = nn.Conv(self.features, (3, 3), dtype=self.dtype, name="noisy")(x.reshape(frames, *x.shape[-3:]))
        y = nn.LayerNorm(dtype=self.dtype, name="state_norm")(state)
        y = nn.Conv(self.features, (3, 3), dtype=self.dtype, name="state")(y.reshape(frames, *y.shape[-3:]))
        h = h + y
        for i in range(self.layers):
            g = jax.nn.silu(Modulated(name=f"norm_{i}_1")(h, condition))
            g = nn.Conv(self.features, (3, 3), dtype=self.dtype, name=f"conv_{i}_1")(g)
            g = jax.nn.silu(Modulated(name=f"norm_{i}_2")(g, condition))
            h = h + nn.Conv(self.features, (3, 3), dtype=self.dtype, kernel_init=zero, name=f"conv_{i}_2")(g)
        h = Modulated(name="head")(h, condition).astype(jnp.float32)
        return nn.Dense(self.channels, kernel_init=zero, name="velocity")(h).reshape(*lead, *x.shape[-3:])
