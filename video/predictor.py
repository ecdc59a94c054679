"""Deterministic next-frame models: encoder, any core over the frames' features, decoder."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped

from ..cores import Core
from ..cores.base import Carry
from .clip import ActionSpace, Clip, to_float
from .encoder import FrameDecoder, FrameEncoder, over_frames, stride
from .model import Variables

TOKENS = ("grid", "pooled", "patch")


class PredictorMemory(NamedTuple):
    """The core's memory of all frames but the newest, and the newest, which comes with the next action."""

    carry: Carry
    frame: Float[Array, "B H W C"]


@dataclasses.dataclass(frozen=True)
class Predictor:
    """Next-frame prediction with teacher forcing, in the form of ConvS5 (arXiv 2310.19694) without VQ.

    A frame goes through a convolutional encoder, its action is embedded and added to every location, the core
    mixes over time, and a decoder draws the next frame. `tokens` says what the core sees: `grid`, the image
    of features (spatial cores); `pooled`, one vector a frame (cores over vectors; `pooled_channels` channels
    of every location are kept); `patch`, every location as a batch row of its own with shared parameters.

    The loss is `mse_weight` · MSE + (1 − `mse_weight`) · L1, mean over pixels (ConvS5 sums over rows).

    `own_frames` is the share of training clips that from a random frame on are fed the model's own
    predictions in place of the true frames, as happens to it after a context: scheduled sampling (arXiv
    1506.03099) in parallel passes (arXiv 1906.07651). After `own_passes` of them, none with gradients, a
    frame is at most that many predictions away from a true one.

    `dtype` is that of the activations; parameters and memories are float32.
    """

    core: Core
    size: int
    channels: int
    actions: ActionSpace
    widths: tuple[int, ...] = (64, 128, 256)
    patch: int = 1
    tokens: str = "grid"
    pooled_channels: int = 16
    mse_weight: float = 0.5
    own_frames: float = 0.0
    own_passes: int = 1
    dtype: Any = jnp.float32

    streams = True

    def __post_init__(self) -> None:
        if self.tokens not in TOKENS:
            raise ValueError(f"tokens={self.tokens!r} must be one of {', '.join(TOKENS)}")
        if not 0 <= self.mse_weight <= 1:
            raise ValueError(f"mse_weight={self.mse_weight} must be from 0 to 1; use 0.5")
        if not 0 <= self.own_frames <= 1:
            raise ValueError(f"own_frames={self.own_frames} must be from 0 to 1; use 0.5")
        if self.core.spatial != (self.tokens == "grid"):
            cure = (
                "tokens=grid" if self.core.spatial else "tokens=pooled (one a frame) or patch (one a place)"
            )
            raise ValueError(
                f"the core {type(self.core).__name__} does not go with tokens={self.tokens}; use {cure}"
            )
        pixels = stride(self.widths, self.patch)
        if self.size % pixels:
            low = self.size // pixels * pixels
            raise ValueError(
                f"size={self.size} is not divisible by {pixels}, the encoder's stride; "
                f"use {low or pixels} or {low + pixels}"
            )

    @property
    def grid(self) -> int:
        """Height and width of the image of features."""
        return self.size // stride(self.widths, self.patch)

    def init(self, key: Array) -> Any:
        """Fresh parameters; see `FrameModel`."""
        frames = jnp.zeros((1, 1, self.size, self.size, self.channels), self.dtype)
        actions, reset = self.actions.nothing(1, 1), jnp.zeros((1, 1), bool)
        return PredictorNet(self).init(key, self.initial_memory(1).carry, frames, actions, reset)

    def initial_memory(self, batch: int) -> PredictorMemory:
        """An empty memory; see `FrameModel`."""
        rows = batch * self.grid**2 if self.tokens == "patch" else batch
        place = ((self.grid, self.grid),) if self.tokens == "grid" else ()
        frame = jnp.zeros((batch, self.size, self.size, self.channels), self.dtype)
        return PredictorMemory(self.core.initial_carry(rows, *place), frame)

    def apply(
        self,
        variables: Variables,
        carry: Carry,
        frames: Float[Array, "T B H W C"],
        actions: Shaped[Array, "T B ..."] | None,
        reset: Bool[Array, "T B"],
    ) -> tuple[Carry, Float[Array, "T B H W C"]]:
        """Consume frames and the actions that follow them; the prediction at t is of frame t + 1, float32."""
        return PredictorNet(self).apply(variables["params"], carry, frames, actions, reset)  # pyright: ignore

    def loss(
        self, variables: Variables, memory: PredictorMemory, clip: Clip, key: Array
    ) -> tuple[Float[Array, ""], PredictorMemory]:
        """See `FrameModel`; which frames are the model's own is all that is random."""
        frames = to_float(clip.frames, self.dtype)
        actions = jax.tree.map(lambda leaf: leaf[:-1], clip.actions)

        def predict(inputs: Array) -> tuple[Carry, Array]:
            return self.apply(variables, memory.carry, inputs, actions, clip.reset[:-1])

        inputs = frames[:-1]
        if self.own_frames:
            inputs = self._own_inputs(predict, inputs, clip.reset[:-1], key)
        carry, predicted = predict(inputs)
        errors = predicted - to_float(clip.frames[1:])
        per_frame = (self.mse_weight * errors**2 + (1 - self.mse_weight) * jnp.abs(errors)).mean((2, 3, 4))
        follows = ~clip.reset[1:]
        total = jnp.where(follows, per_frame, 0.0).sum()
        return total / jnp.maximum(follows.sum(), 1), PredictorMemory(carry, frames[-1])

    def _own_inputs(
        self,
        predict: Callable[[Array], tuple[Carry, Array]],
        frames: Float[Array, "T B H W C"],
        reset: Bool[Array, "T B"],
        key: Array,
    ) -> Float[Array, "T B H W C"]:
        """In some clips, the model's own predictions from a random frame on; a clip's first stays true."""
        chosen, when = jax.random.split(key)
        t, b = reset.shape
        last_true = jax.random.randint(when, (b,), 0, t)
        own = jax.random.bernoulli(chosen, self.own_frames, (b,)) & (jnp.arange(t)[:, None] > last_true)
        own = (own & ~reset)[:, :, None, None, None]

        def again(_: int, inputs: Array) -> Array:
            _, predicted = predict(inputs)
            before = jnp.concatenate([frames[:1], predicted[:-1].astype(frames.dtype)])
            return jnp.where(own, before, frames)

        return jax.lax.stop_gradient(jax.lax.fori_loop(0, self.own_passes, again, frames))

    def condition(self, variables: Variables, clip: Clip) -> PredictorMemory:
        """See `FrameModel`."""
        frames = to_float(clip.frames, self.dtype)
        carry = self.initial_memory(frames.shape[1]).carry
        if frames.shape[0] > 1:
            actions = jax.tree.map(lambda leaf: leaf[:-1], clip.actions)
            carry, _ = self.apply(variables, carry, frames[:-1], actions, clip.reset[:-1])
        return PredictorMemory(carry, frames[-1])

    def step(
        self,
        variables: Variables,
        memory: PredictorMemory,
        action: Shaped[Array, "B ..."] | None,
        key: Array,
    ) -> tuple[PredictorMemory, Float[Array, "B H W C"]]:
        """See `FrameModel`."""
        action = jax.tree.map(lambda leaf: leaf[None], action)
        reset = jnp.zeros((1, memory.frame.shape[0]), bool)
        carry, frame = self.apply(variables, memory.carry, memory.frame[None], action, reset)
        return PredictorMemory(carry, frame[0].astype(self.dtype)), frame[0]


class PredictorNet(nn.Module):
    """The network of a `Predictor`."""

    of: Predictor

    @nn.compact
    def __call__(
        self,
        carry: Carry,
        frames: Float[Array, "T B H W C"],
        actions: Shaped[Array, "T B ..."] | None,
        reset: Bool[Array, "T B"],
    ) -> tuple[Carry, Float[Array, "T B H W C"]]:
        """See `Predictor.apply`."""
        p = self.of
        x = over_frames(FrameEncoder(p.widths, p.patch, name="encoder"), frames)
        if actions is not None:
            embedded = ActionEmbedding(p.actions, x.shape[-1], name="actions")(actions)
            x = x + embedded[:, :, None, None].astype(x.dtype)
        core = p.core.clone(parent=self, name="core")
        if p.tokens == "grid":
            carry, y = core(carry, x, reset)
        elif p.tokens == "pooled":
            carry, y = self._pooled(core, carry, x, reset)
        else:
            carry, y = self._patches(core, carry, x, reset)
        decoder = FrameDecoder(p.widths, p.channels, p.patch, name="decoder")
        return carry, jnp.tanh(over_frames(decoder, y).astype(jnp.float32))

    def _pooled(self, core: Core, carry: Carry, x: Array, reset: Array) -> tuple[Carry, Array]:
        few = nn.Dense(self.of.pooled_channels, dtype=x.dtype, name="pool")(x)
        tokens = nn.Dense(core.features, dtype=x.dtype, name="token")(few.reshape(*x.shape[:2], -1))
        carry, y = core(carry, tokens, reset)
        y = nn.Dense(few.shape[2] * few.shape[3] * few.shape[4], dtype=x.dtype, name="spread")(y)
        return carry, y.reshape(few.shape)

    def _patches(self, core: Core, carry: Carry, x: Array, reset: Array) -> tuple[Carry, Array]:
        t, b, h, w, d = x.shape
        carry, y = core(carry, x.reshape(t, b * h * w, d), reset.repeat(h * w, axis=1))
        return carry, y.reshape(t, b, h, w, -1)


class ActionEmbedding(nn.Module):
    """Actions `[...]` or `[..., A]` as vectors `[..., features]`; no action has a learnt one of its own."""

    space: ActionSpace
    features: int

    @nn.compact
    def __call__(self, actions: Shaped[Array, "..."]) -> Float[Array, "... features"]:
        """float32."""
        if self.space.kind == "discrete":
            known = (actions >= 0) & (actions < self.space.size)
            return nn.Embed(self.space.size + 1, self.features)(jnp.where(known, actions, self.space.size))
        return nn.Dense(self.features)(actions)
