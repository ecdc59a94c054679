"""ConvLSTM: an LSTM whose state is an image, the recurrent baseline for video, with a memory that resets."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .base import Carry, Core, clear
from .conv import Conv, convolve
from .conv_block import resnet_block
from .dense import Dense
from .layers import stacked
from .ssm import one_of

NONLINEARITIES = ("resnet", "none")


class ConvLSTM(Core):
    """ConvLSTM (arXiv 1506.04214): `x [T, B, H, W, C] -> y [T, B, H, W, features]`.

    With `*` a `kernel` x `kernel` convolution (SAME) and h, c the state before the step, zero at a reset:

        (a_i, a_f, a_g, a_o) = W * x + b + U * h,
        c' = sigmoid(a_f) c + sigmoid(a_i) tanh(a_g),  h' = sigmoid(a_o) tanh(c')

    (their equation 3 without the peepholes). W * x is one convolution of all frames, outside the loop; the
    forget gate's bias starts at one. Each of `num_layers` layers is norm(x + f(h)), the layer norm over
    channels, so that ConvS5 and this differ by their recurrence alone: f is ConvS5's ResNet block, or
    nothing with `nonlinearity="none"`. Inputs of another width than `features` first pass a 1 x 1
    convolution. `remat` saves memory: the backward pass recomputes each layer.

    The carry is `{"hidden", "cell"}`, each float32 `[B, num_layers, H, W, features]`.
    """

    num_layers: int = 2
    kernel: int = 3
    nonlinearity: str = "resnet"
    remat: bool = False
    unroll: int = 1

    spatial = True

    def __post_init__(self) -> None:
        one_of("nonlinearity", self.nonlinearity, NONLINEARITIES)
        if self.kernel < 1:
            raise ValueError(f"kernel={self.kernel} is too small; use 1 or more")
        super().__post_init__()

    def initial_carry(self, batch: int, size: tuple[int, int] | None = None) -> Carry:
        """Zeros `[batch, num_layers, H, W, features]`; `size` is `(H, W)`. Raises `TypeError` without it."""
        if size is None:
            raise TypeError(
                "conv_lstm is spatial: its memory has the size of a frame; use initial_carry(batch, (H, W))"
            )
        shape = (batch, self.num_layers, *size, self.features)
        return {"hidden": jnp.zeros(shape, jnp.float32), "cell": jnp.zeros(shape, jnp.float32)}

    @nn.compact
    def __call__(
        self, carry: Carry, x: Float[Array, "T B H W C"], reset: Bool[Array, "T B"]
    ) -> tuple[Carry, Float[Array, "T B H W features"]]:
        """Consume `T` frames; see `Core`."""
        if x.shape[-1] != self.features:
            x = Dense(self.features, dtype=x.dtype, name="encoder")(x)
        layers = stacked(ConvLSTMLayer, self.num_layers, (1, nn.broadcast), self.remat)
        layers = layers(self.features, self.kernel, self.nonlinearity, self.unroll, name="layers")
        y, carry = layers(x, carry, reset)
        return carry, y


class ConvLSTMLayer(nn.Module):
    """One layer over `[T, B, H, W, features]`."""

    features: int
    kernel: int
    nonlinearity: str
    unroll: int

    @nn.compact
    def __call__(self, x: Array, carry: Carry, reset: Array) -> tuple[Array, Carry]:
        """Map `(x, carry)`, the carry's leaves `[B, H, W, features]`, to the next x and this carry."""
        window, d = (self.kernel, self.kernel), self.features
        driven = Conv(4 * d, window, dtype=x.dtype, bias_init=_forget_bias_one, name="input")(x)
        init = nn.initializers.lecun_normal()
        kernel = self.param("recurrent", init, (*window, d, 4 * d)).astype(x.dtype)

        def step(carry: Carry, inputs: tuple[Array, Array]) -> tuple[Carry, Array]:
            u, reset = inputs
            carry = clear(carry, reset, jax.tree.map(jnp.zeros_like, carry))
            h, c = carry["hidden"], carry["cell"]
            mixed = convolve(
                h.astype(u.dtype), kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            i, f, g, o = jnp.split((u + mixed).astype(jnp.float32), 4, axis=-1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return {"hidden": h, "cell": c}, h

        if x.shape[0] == 1:
            carry, h = step(carry, (driven[0], reset[0]))
            states = h[None]
        else:
            carry, states = jax.lax.scan(step, carry, (driven, reset), unroll=self.unroll)
        y = x + states.astype(x.dtype)
        if self.nonlinearity == "resnet":
            y = x + resnet_block(states.astype(x.dtype), self.features, self.kernel)
        return nn.LayerNorm(dtype=x.dtype, name="norm")(y), carry


def _forget_bias_one(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32, **_: Any) -> Array:
    """Zeros, and ones for the forget gate."""
    d = shape[0] // 4
    return jnp.zeros(shape, dtype).at[d : 2 * d].set(1.0)
