"""A per-frame autoencoder: the space of latents that flow models work in."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .clip import ActionSpace, Clip, to_float
from .encoder import FrameDecoder, FrameEncoder, stride

Frozen = dict[
    str, Any
]  # {"params", "mean" [C], "std" [C]}: a trained autoencoder and its latents' statistics
BLOCK = 64  # frames that `freeze` encodes at a time


@dataclasses.dataclass(frozen=True)
class Autoencoder:
    """Every frame by itself to an image of `latent_channels`, and back; no compression over time.

    The encoder's and the decoder's are `FrameEncoder` and `FrameDecoder` with a 1 x 1 convolution between
    them, and a tanh at the end; the default is 64 latents a frame of 64 x 64 pixels, as in FAR
    (arXiv 2503.19325). The loss is L1 + MSE, mean over pixels. FAR's own autoencoder also has a perceptual
    loss and a discriminator: the first needs a pretrained network, which cannot come with a package, and the
    second is of little use without it, so reconstructions here are softer than the published ones.

    It trains as a `FrameModel` does (`init`, `initial_memory`, `loss`), on all frames. `dtype` is that of the
    activations; parameters and latents are float32.
    """

    size: int
    channels: int
    widths: tuple[int, ...] = (32, 64)
    patch: int = 4
    latent_channels: int = 8
    dtype: Any = jnp.float32

    streams = False
    actions = ActionSpace()

    def __post_init__(self) -> None:
        pixels = stride(self.widths, self.patch)
        if self.size % pixels:
            low = max(self.size // pixels, 1) * pixels
            raise ValueError(
                f"size={self.size} is not divisible by {pixels}, the autoencoder's stride; "
                f"use {low} or {low + pixels}"
            )
        if self.latent_channels < 1:
            raise ValueError(
                f"latent_channels={self.latent_channels} keeps nothing of a frame; use 1 or more"
            )

    @property
    def grid(self) -> int:
        """Height and width of the image of latents."""
        return self.size // stride(self.widths, self.patch)

    def check(self, size: int, channels: int) -> None:
        """Raise `ValueError` where this isn't for frames `[size, size, channels]`."""
        if (self.size, self.channels) != (size, channels):
            raise ValueError(
                f"the autoencoder is for frames of {self.size} x {self.size} x {self.channels}, and the "
                f"data's are {size} x {size} x {channels}; use one that was trained on such frames"
            )

    def init(self, key: Array) -> Any:
        """Fresh parameters."""
        frames = jnp.zeros((1, self.size, self.size, self.channels), self.dtype)
        return AutoencoderNet(self).init(key, frames)

    def initial_memory(self, batch: int) -> tuple[()]:
        """There is none."""
        return ()

    def loss(
        self, variables: dict[str, Any], memory: tuple[()], clip: Clip, key: Array
    ) -> tuple[Float[Array, ""], tuple[()]]:
        """L1 + MSE over all frames of the clip; nothing here is random."""
        frames = to_float(clip.frames).reshape(-1, *clip.frames.shape[2:])
        drawn = AutoencoderNet(self).apply(variables["params"], frames.astype(self.dtype))
        errors = drawn - frames  # pyright: ignore[reportOperatorIssue]
        return jnp.abs(errors).mean() + (errors**2).mean(), memory

    def freeze(self, params: Any, frames: Float[Array, "*N H W C"]) -> Frozen:
        """What `encode` and `decode` take: the parameters, and the latents' mean and deviation per channel.

        Both are taken over `frames`, real ones in [-1, 1], so that normalised latents have about unit
        variance, as the noise of a flow does. A channel that never varies is left at its own scale.
        """
        flat = frames.reshape(-1, *frames.shape[-3:])
        raw = jax.lax.map(lambda frame: self._raw(params, frame[None])[0], flat, batch_size=BLOCK)
        std = raw.std((0, 1, 2))
        std = jnp.where(std > 1e-6, std, 1.0)
        return {"params": params, "mean": raw.mean((0, 1, 2)), "std": std}

    def encode(self, frozen: Frozen, frames: Float[Array, "*N H W C"]) -> Float[Array, "*N h w D"]:
        """Normalised latents of frames in [-1, 1]."""
        raw = self._raw(frozen["params"], frames.reshape(-1, *frames.shape[-3:]))
        return ((raw - frozen["mean"]) / frozen["std"]).reshape(*frames.shape[:-3], *raw.shape[1:])

    def decode(self, frozen: Frozen, latents: Float[Array, "*N h w D"]) -> Float[Array, "*N H W C"]:
        """Frames in [-1, 1] of normalised latents."""
        raw = (latents * frozen["std"] + frozen["mean"]).reshape(-1, *latents.shape[-3:])
        net = AutoencoderNet(self)
        frames: Any = net.apply(frozen["params"], raw.astype(self.dtype), method="decode")
        return frames.reshape(*latents.shape[:-3], *frames.shape[1:])

    def _raw(self, params: Any, frames: Float[Array, "N H W C"]) -> Float[Array, "N h w D"]:
        """Latents as the encoder gives them, float32."""
        raw: Any = AutoencoderNet(self).apply(params, frames.astype(self.dtype), method="encode")
        return raw.astype(jnp.float32)


class AutoencoderNet(nn.Module):
    """The network of an `Autoencoder`."""

    of: Autoencoder

    def setup(self) -> None:
        """The parts, which `encode` and `decode` use apart."""
        a = self.of
        self.encoder = FrameEncoder(a.widths, a.patch)
        self.latents = nn.Conv(a.latent_channels, (1, 1), dtype=a.dtype)
        self.decoder = FrameDecoder(a.widths, a.channels, a.patch)

    def __call__(self, frames: Float[Array, "N H W C"]) -> Float[Array, "N H W C"]:
        """Frames as they come back, float32 in [-1, 1]."""
        return self.decode(self.encode(frames))

    def encode(self, frames: Float[Array, "N H W C"]) -> Float[Array, "N h w D"]:
        """Latents, not normalised."""
        return self.latents(self.encoder(frames))

    def decode(self, latents: Float[Array, "N h w D"]) -> Float[Array, "N H W C"]:
        """Frames of latents that are not normalised, float32."""
        return jnp.tanh(self.decoder(latents).astype(jnp.float32))
