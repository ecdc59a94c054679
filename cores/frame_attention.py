"""Attention for frames: both ways inside a frame, causal over frames, with a memory that resets."""

from functools import partial
from math import inf
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped

from .attention import Places, attend
from .base import Carry, Core
from .dense import Dense
from .layers import stacked
from .rope import rotate

BLOCK_TOKENS = 1024  # queries whose scores are computed together: 16 frames of 64 tokens


class FrameAttention(Core):
    """A Transformer over frames: `x [T, B, H, W, C] -> y [T, B, H, W, features]`.

    Every place of a frame is a token. A token attends to all tokens of its own frame and of the frames before
    it in the same sequence, at most `window` frames counting its own: FAR's block-causal mask
    (arXiv 2503.19325, section 3). Positions are rotary in three dimensions, time, row and column; keys are
    kept before the rotation and turned when they are used, by their age, so that nothing depends on when a
    sequence began. Queries and keys are RMS-normalised. Layers are residual: attention and an MLP of
    `mlp_ratio` times the width (gelu).

    A condition `cond [T, B, D]`, if given, sets each layer's shift, scale and gate for its frame (adaLN-zero,
    arXiv 2212.09748): at initialisation every layer is the identity. Without it layers are pre-normed, with a
    layer norm at the end.

    `decay` takes that much off a score for every frame between query and key (`head_slopes`). It is meant
    for test time, with a `window` longer than was trained, on which no parameter depends: our reading of
    FlexRoPE, which the first version of FAR has and whose formula was not available.

    The carry is `{"keys", "values"}`, float32 `[B, num_layers, window - 1, H, W, num_heads, D]`, the last
    frames in order, and `valid`, int32 `[B, window - 1]`: whether each is of the current sequence.
    """

    num_layers: int = 2
    num_heads: int = 2
    window: int = 16
    mlp_ratio: float = 4.0
    theta: float = 10000.0
    decay: float | tuple[float, ...] | None = None
    slopes: str = "equal"
    remat: bool = False

    spatial = True

    def __post_init__(self) -> None:
        if self.window < 1:
            raise ValueError(f"window={self.window} must count the current frame; use 1 or more")
        if self.num_heads < 1 or self.features % self.num_heads or self.features // self.num_heads % 2:
            raise ValueError(
                f"features={self.features} must be an even multiple of num_heads={self.num_heads}; "
                f"use features={max(self.features // (2 * self.num_heads), 3) * 2 * self.num_heads}"
            )
        if self.features // self.num_heads < 6:
            raise ValueError(
                f"features={self.features} leaves {self.features // self.num_heads} channels a head and "
                f"three axes need 6; use features={6 * self.num_heads} or fewer heads"
            )
        head_slopes(self.decay, self.slopes, self.num_heads)
        super().__post_init__()

    def initial_carry(self, batch: int, size: tuple[int, int] | None = None) -> Carry:
        """An empty cache; `size` is `(H, W)`. Raises `TypeError` without it."""
        if size is None:
            raise TypeError(
                "frame_attention is spatial: its memory has the size of a frame; "
                "use initial_carry(batch, (H, W))"
            )
        heads = (self.num_heads, self.features // self.num_heads)
        shape = (batch, self.num_layers, self.window - 1, *size, *heads)
        return {
            "keys": jnp.zeros(shape, jnp.float32),
            "values": jnp.zeros(shape, jnp.float32),
            "valid": jnp.zeros((batch, self.window - 1), jnp.int32),
        }

    @nn.compact
    def __call__(
        self,
        carry: Carry,
        x: Float[Array, "T B H W C"],
        reset: Bool[Array, "T B"],
        cond: Float[Array, "T B D"] | None = None,
    ) -> tuple[Carry, Float[Array, "T B H W features"]]:
        """Consume `T` frames; see `Core`."""
        length, batch, height, width, _ = x.shape
        if x.shape[-1] != self.features:
            x = Dense(self.features, dtype=x.dtype, name="encoder")(x)
        x = x.swapaxes(0, 1).reshape(batch, length, height * width, self.features)  # [B, T, N, D]
        cond = None if cond is None else cond.swapaxes(0, 1).astype(x.dtype)
        segment = jnp.cumsum(reset.T, axis=1, dtype=jnp.int32)  # [B, T]
        kept = self.window - 1
        # the frames of the cache stand before the chunk's; one of another sequence is of none
        segments = jnp.concatenate([jnp.where(carry["valid"] > 0, 0, -1), segment], axis=1)
        times = jnp.arange(-kept, length)
        tokens = (batch, self.num_layers, kept, height * width, *carry["keys"].shape[-2:])
        cache = tuple(carry[name].reshape(tokens) for name in ("keys", "values"))
        layers = stacked(FrameAttentionLayer, self.num_layers, (1, *(nn.broadcast,) * 3), self.remat)
        decay = head_slopes(self.decay, self.slopes, self.num_heads)
        options = (self.num_heads, self.window, self.mlp_ratio, self.theta, decay, (height, width))
        x, cache = layers(*options, name="layers")(x, cache, segments, times, cond)
        if cond is None:
            x = nn.LayerNorm(dtype=x.dtype, name="norm")(x)
        keys, values = (leaf.reshape(carry["keys"].shape) for leaf in cache)
        # what comes next belongs to the chunk's last sequence
        valid = segments[:, length:] == segments[:, -1:]
        carry = {"keys": keys, "values": values, "valid": valid.astype(jnp.int32)}
        y = x.reshape(batch, length, height, width, self.features).swapaxes(0, 1)
        return carry, y


class FrameAttentionLayer(nn.Module):
    """One layer over `[B, T, N, D]`, N the tokens of a frame."""

    num_heads: int
    window: int
    mlp_ratio: float
    theta: float
    decay: tuple[float, ...] | None
    size: tuple[int, int]

    @nn.compact
    def __call__(
        self, x: Array, cache: tuple[Array, ...], segments: Array, times: Array, cond: Array | None
    ) -> tuple[Array, tuple[Array, ...]]:
        """Map x and the cache (keys, values), each `[B, window - 1, N, heads, D / heads]`, to the next."""
        batch, length, tokens, features = x.shape
        heads = (self.num_heads, features // self.num_heads)
        h, gate = self._normed(x, cond, "attention")
        qkv = Dense(3 * features, use_bias=False, dtype=x.dtype, name="qkv")(h).astype(jnp.float32)
        q, k, v = (part.reshape(batch, length, tokens, *heads) for part in jnp.split(qkv, 3, axis=-1))
        q, k = nn.RMSNorm(name="norm_q")(q), nn.RMSNorm(name="norm_k")(k)
        keys, values = (jnp.concatenate([old, new], 1) for old, new in zip(cache, (k, v), strict=True))
        y = self._attend(q, keys, values, segments, times, x.dtype)
        x = x + gate * Dense(features, use_bias=False, dtype=x.dtype, name="out")(y)
        h, gate = self._normed(x, cond, "mlp")
        h = jax.nn.gelu(Dense(round(self.mlp_ratio * features), dtype=x.dtype, name="up")(h))
        x = x + gate * Dense(features, dtype=x.dtype, name="down")(h)
        return x, (keys[:, length:], values[:, length:])

    def _normed(self, x: Array, cond: Array | None, name: str) -> tuple[Array, Any]:
        """x as a sub-layer sees it, and the gate of what it adds."""
        if cond is None:
            return nn.LayerNorm(dtype=x.dtype, name=f"norm_{name}")(x), 1.0
        zeros = nn.initializers.zeros_init()
        made = Dense(3 * x.shape[-1], dtype=x.dtype, kernel_init=zeros, name=f"condition_{name}")
        shift, scale, gate = jnp.split(made(jax.nn.silu(cond))[:, :, None], 3, axis=-1)
        norm = nn.LayerNorm(use_scale=False, use_bias=False, dtype=x.dtype, name=f"norm_{name}")
        return norm(x) * (1 + scale) + shift, gate

    def _attend(self, q: Array, k: Array, v: Array, segments: Array, times: Array, dtype: Any) -> Array:
        """In equal blocks of frames, one after another, so that memory is linear in T: `[B, T, N, D]`."""
        batch, length, tokens = q.shape[:3]
        kept = self.window - 1
        # no longer than the window, and small where that is long: a block's scores are held all at once
        blocks = -(-length // min(self.window, max(BLOCK_TOKENS // tokens, 1)))
        block = -(-length // blocks)
        pad = blocks * block - length

        def padded(a: Array, axis: int = 1, value: int = 0) -> Array:
            widths = [(0, pad if i == axis else 0) for i in range(a.ndim)]
            return jnp.pad(a, widths, constant_values=value)

        q, k, v, segments = padded(q), padded(k), padded(v), padded(segments, value=-2)
        times = padded(times, axis=0)

        def one(start: Any) -> Array:
            queries = jax.lax.dynamic_slice_in_dim(q, start, block, 1)
            own = partial(jax.lax.dynamic_slice_in_dim, start_index=start, slice_size=kept + block)
            at, of = own(times, axis=0), own(segments, axis=1)
            # ages are all that counts: times are those inside the block, small numbers however long T is
            at = at - at[kept]
            key = self._places(at, of)
            query = self._places(at[kept:], of[:, kept:])
            y = attend(
                self._turned(queries, at[kept:]).astype(dtype),
                self._turned(own(k, axis=1), at),
                _flat(own(v, axis=1)),
                query,
                key,
                self.window,
                None if self.decay is None else jnp.asarray(self.decay),
            )
            return y.reshape(batch, block, -1, y.shape[-2] * y.shape[-1])

        if blocks == 1:
            return one(0)[:, :length]
        # again: in a loop over layers, who sees whom, which no gradient passes, would be kept of every block
        one = jax.checkpoint(jax.checkpoint(one))
        y = jax.lax.map(one, jnp.arange(blocks) * block)  # [blocks, B, block, N, D]
        return jnp.moveaxis(y, 0, 1).reshape(batch, blocks * block, *y.shape[3:])[:, :length]

    def _places(self, times: Array, segments: Array) -> Places:
        """Every token of a frame stands where its frame does."""
        tokens = self.size[0] * self.size[1]
        times = jnp.broadcast_to(times, segments.shape)
        return Places(times.repeat(tokens, axis=1), segments.repeat(tokens, axis=1))

    def _turned(self, x: Array, times: Array) -> Array:
        """Every token at its frame's time and its own row and column: `[B, S, heads, D]`."""
        rows, columns = jnp.mgrid[: self.size[0], : self.size[1]].reshape(2, -1)
        return rotate_frames(x, times, rows, columns, self.theta)


def head_slopes(
    decay: float | tuple[float, ...] | None, slopes: str, num_heads: int
) -> tuple[float, ...] | None:
    """What every head takes off a score for each frame of a key's age; None: nothing.

    One number stands for all heads where `slopes` is `equal`; where they are `geometric`, head h of H has
    decay * 2^(-8h/H), h = 1 … H: at decay = 1 the slopes of ALiBi (arXiv 2108.12409). Or there is one number
    a head. Raises `ValueError` for anything else.
    """
    if slopes not in ("equal", "geometric"):
        raise ValueError(f"slopes={slopes!r} must be one of equal, geometric")
    if decay is None:
        return None
    given = decay if isinstance(decay, tuple) else (decay,) * num_heads
    if len(given) != num_heads:
        raise ValueError(f"decay has {len(given)} numbers for num_heads={num_heads}; give one each")
    if any(isinstance(s, bool) or not isinstance(s, int | float) or not 0 <= s < inf for s in given):
        raise ValueError(f"decay={decay} must be a number of 0 or more, or one a head; use null for none")
    if slopes == "equal":
        return given
    if isinstance(decay, tuple):
        raise ValueError(f"slopes=geometric makes the heads' slopes from one number, not decay={decay}")
    return tuple(decay * 2.0 ** (-8.0 * (h + 1) / num_heads) for h in range(num_heads))


def rotate_frames(
    x: Float[Array, "B F N heads D"],
    times: Shaped[Array, "*B F"],
    rows: Shaped[Array, " N"],
    columns: Shaped[Array, " N"],
    theta: float,
) -> Float[Array, "B S heads D"]:
    """Rotary positions in time, row and column, each for its share of a head, of N tokens a frame; S = F N.

    A quarter of the pairs is for time, the rest in halves for rows and columns; positions may be fractions.
    """
    batch, frames, tokens = x.shape[:3]
    pairs = x.shape[-1] // 2
    of_time = max(pairs // 4, 1)
    of_rows = (pairs - of_time) // 2
    parts = jnp.split(x, [2 * of_time, 2 * (of_time + of_rows)], axis=-1)
    turned = [
        rotate(_flat(part), jnp.broadcast_to(at, (batch, frames, tokens)).reshape(batch, -1), theta)
        for part, at in zip(parts, (times[..., None], rows, columns), strict=True)
    ]
    return jnp.concatenate(turned, axis=-1)


def _flat(x: Array) -> Array:
    """`[B, T, N, heads, D]` as `[B, T * N, heads, D]`."""
    return x.reshape(x.shape[0], -1, *x.shape[3:])
