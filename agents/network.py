"""Encoder -> core -> heads."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..cores import Carry, Core
from ..cores.conv import Conv
from ..cores.dense import Dense
from ..envs import Input

ENCODERS = ("dense", "mlp", "bilinear")


class Encoder(nn.Module):
    """Turns an `Input` into features `[T, B, features]`, or `[T, B, H, W, features]` for a spatial core.

    Vectors: observation, previous action, previous reward and the trial's start flag side by side, through
    one dense layer (`dense`), two (`mlp`), or `gelu(W1 x) + (W2 x) * (W3 x)` (`bilinear`): a product of
    inputs is what ties an action to its effect. Pixels: two 3x3 convolutions, with the rest added as a bias.
    Features have the given dtype.
    """

    features: int
    kind: str
    spatial: bool
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, inputs: Input) -> Float[Array, "T B ..."]:
        """See the class."""
        dense, conv = partial(Dense, dtype=self.dtype), partial(Conv, dtype=self.dtype)
        rest = [inputs.action, inputs.reward[..., None], inputs.episode_start[..., None].astype(jnp.float32)]
        if inputs.observation.ndim == 5:  # [T, B, H, W, C]
            x = jnp.concatenate(rest, axis=-1)
            bias = dense(self.features, name="context")(x)[..., None, None, :]
            pixels = nn.relu(conv(self.features, (3, 3), name="conv_0")(inputs.observation))
            pixels = nn.relu(conv(self.features, (3, 3), name="conv_1")(pixels) + bias)
            if self.spatial:
                return pixels
            flat = pixels.reshape((*pixels.shape[:2], -1))  # [T, B, H * W * features]
            return nn.relu(dense(self.features, name="flat")(flat))
        x = jnp.concatenate([inputs.observation, *rest], axis=-1)
        if self.kind == "bilinear":
            product = dense(self.features, name="left")(x) * dense(self.features, name="right")(x)
            return nn.gelu(dense(self.features, name="dense_0")(x)) + product
        x = nn.gelu(dense(self.features, name="dense_0")(x))
        return nn.gelu(dense(self.features, name="dense_1")(x)) if self.kind == "mlp" else x


class ActorCritic(nn.Module):
    """A policy and a value function over one memory core.

    Its two halves can be called apart: what remembers must go step by step when acting, and what only looks
    at the present (the heads) may then run once over a whole rollout.

    `dtype` is that of activations: of the encoder's, the core's and the heads' hidden ones. Parameters, the
    carry and the last layer of each head, and with it all that is computed of policy and value, are float32.
    """

    core: Core
    num_params: int
    encoder: str = "bilinear"
    head_features: int = 0
    dtype: Any = jnp.float32

    def initial_carry(self, batch: int, observation_shape: tuple[int, ...]) -> Carry:
        """The core's empty memory; `observation_shape` gives a spatial core its (H, W)."""
        if self.core.spatial:
            return self.core.initial_carry(batch, (observation_shape[0], observation_shape[1]))
        return self.core.initial_carry(batch)

    def setup(self) -> None:
        """The parts, under the names that their parameters have."""
        dense, spatial = partial(Dense, dtype=self.dtype), self.core.spatial
        self._encode = Encoder(self.core.features, self.encoder, spatial, self.dtype, name="Encoder_0")
        self._readout = dense(2 * self.core.features, name="readout") if spatial else None
        self._policy = self._head("policy", self.num_params, 0.01)
        self._value = self._head("value", 1, 1.0)

    def _head(self, name: str, size: int, scale: float) -> nn.Sequential:
        last = Dense(size, dtype=jnp.float32, kernel_init=nn.initializers.orthogonal(scale), name=name)
        if not self.head_features:
            return nn.Sequential([last])
        hidden = Dense(self.head_features, dtype=self.dtype, name=f"{name}_hidden")
        return nn.Sequential([hidden, nn.gelu, last])

    def remember(self, carry: Carry, inputs: Input) -> tuple[Carry, Float[Array, "T B D"]]:
        """Inputs with axes `[T, B, ...]` to (carry, what the heads read)."""
        carry, y = self.core(carry, self._encode(inputs), inputs.reset)
        if self._readout is not None:
            y = nn.relu(self._readout(y.reshape((*y.shape[:2], -1))))  # [T, B, H * W * features]
        return carry, y

    def policy(self, y: Float[Array, "T B D"]) -> Float[Array, "T B P"]:
        """Policy parameters."""
        return self._policy(y)

    def value(self, y: Float[Array, "T B D"]) -> Float[Array, "T B"]:
        """Values."""
        return self._value(y)[..., 0]

    def __call__(
        self, carry: Carry, inputs: Input
    ) -> tuple[Carry, Float[Array, "T B P"], Float[Array, "T B"]]:
        """Inputs with axes `[T, B, ...]` to (carry, policy parameters `[T, B, P]`, values `[T, B]`)."""
        carry, y = self.remember(carry, inputs)
        return carry, self.policy(y), self.value(y)
