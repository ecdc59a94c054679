"""ConvS5: state-space layers whose state is an image, for frames, with a memory that resets."""

from typing import Any

import flax.linen as nn
import jax
from jaxtyping import Array, Bool, Float

from .conv import Conv
from .conv_block import resnet_block
from .dense import Dense
from .ssm import Pair, StateSpace, StateSpaceCore, one_of

NONLINEARITIES = ("resnet", "half_glu", "gelu")


class ConvS5(StateSpaceCore):
    """ConvS5 (arXiv 2310.19694), made resettable: `x [T, B, H, W, C] -> y [T, B, H, W, features]`.

    The state is an image of P complex channels with a diagonal pointwise transition, s_t = Ā∘s_{t-1} + B̄*u_t,
    y_t = 2 Re(C̃*s_t). B̄ and C̃ are `kernel` x `kernel` convolutions (SAME, as real convolutions to and from
    2P channels) that are applied to all frames at once, outside the recurrence. Each of `num_layers` residual
    layers is x + f(y), followed by a layer norm over channels (`prenorm=True`: preceded by it).

    The `nonlinearity` f is `resnet` gelu(y + conv(gelu(norm(conv(gelu(norm(y))))))), norm over groups of
    channels of one frame; `half_glu` g∘σ(W g) with g = gelu(layer norm(y)); or `gelu` gelu(y). Inputs of
    another width than `features` first pass a 1 x 1 convolution.

    The carry is (re, im), each float32 `[B, num_layers, H, W, P]`. The other options are `StateSpaceCore`'s.
    """

    kernel: int = 3
    nonlinearity: str = "resnet"
    prenorm: bool = False

    spatial = True

    def __post_init__(self) -> None:
        one_of("nonlinearity", self.nonlinearity, NONLINEARITIES)
        if self.kernel < 1:
            raise ValueError(f"kernel={self.kernel} is too small; use 1 or more")
        super().__post_init__()

    def initial_carry(self, batch: int, size: tuple[int, int] | None = None) -> Pair:
        """An empty memory: (re, im), each float32 `[batch, num_layers, H, W, P]`; `size` is `(H, W)`.

        Raises `TypeError` without `size`.
        """
        if size is None:
            raise TypeError(
                "conv_s5 is spatial: its memory has the size of a frame; use initial_carry(batch, (H, W))"
            )
        return self.empty(batch, size)

    @nn.compact
    def __call__(
        self, carry: Pair, x: Float[Array, "T B H W C"], reset: Bool[Array, "T B"]
    ) -> tuple[Pair, Float[Array, "T B H W features"]]:
        """Consume `T` frames; see `Core`."""
        options = {"kernel": self.kernel, "nonlinearity": self.nonlinearity, "prenorm": self.prenorm}
        return self.run_layers(ConvS5Layer, carry, x, reset, **options)


class ConvS5Layer(nn.Module):
    """One residual layer over `[T, B, H, W, features]`."""

    space: StateSpace
    features: int
    kernel: int
    nonlinearity: str
    prenorm: bool

    @nn.compact
    def __call__(
        self, x: Array, carry: Pair, discrete: tuple[Pair, Pair], reset: Array
    ) -> tuple[Array, Pair]:
        """Map `(x, carry)`, carry (re, im) `[B, H, W, P]`, to the next layer's x and this layer's carry."""
        norm = nn.LayerNorm(dtype=x.dtype, name="norm")
        u = norm(x) if self.prenorm else x
        he = 2.0  # He's variance, as published
        b_init, c_init = self.space.input_kernel(he), self.space.output_kernel(he)
        gain, scale = discrete
        driven = self._conv(u, 2 * self.space.lanes, "B", kernel_init=b_init, use_bias=False)
        carry, states = self.space.run(gain, self.space.scaled(driven, scale), reset, carry)
        y = self._conv(states, self.features, "C", kernel_init=c_init, use_bias=False)
        y = x + self._nonlinear(y)
        return (y if self.prenorm else norm(y)), carry

    def _conv(self, x: Array, features: int, name: str, **options: Any) -> Array:
        return Conv(features, (self.kernel, self.kernel), dtype=x.dtype, name=name, **options)(x)

    def _nonlinear(self, y: Array) -> Array:
        if self.nonlinearity == "gelu":
            return jax.nn.gelu(y)
        if self.nonlinearity == "half_glu":
            y = jax.nn.gelu(nn.LayerNorm(dtype=y.dtype, name="glu_norm")(y))
            return y * jax.nn.sigmoid(Dense(self.features, dtype=y.dtype, name="gate")(y))
        return resnet_block(y, self.features, self.kernel)
