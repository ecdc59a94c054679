"""Causal attention over a sliding window, with a ring of past keys and values as its memory."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

from .base import Carry, Core
from .dense import Dense
from .mlp import ResidualMLP
from .rope import positions, rotate
from .scan import say_once
from .sharded import by_heads, over_time
from .ssm import one_of

WAYS = ("plain", "kernels")


class Places(NamedTuple):
    """Where queries or keys stand: `time` in the chunk (negative: before it), and which sequence they are of.

    Both int32 `[B, S]`. `segment` counts the resets of the chunk so far; -1 is no sequence at all.
    """

    time: Int[Array, "B S"]
    segment: Int[Array, "B S"]


def attend(
    q: Float[Array, "B T H D"],
    k: Float[Array, "B S H D"],
    v: Float[Array, "B S H D"],
    query: Places,
    key: Places,
    window: int,
    decay: Float[Array, " H"] | None = None,
) -> Float[Array, "B T H D"]:
    """Softmax attention of every query over the keys of its own sequence and the last `window` steps.

    `decay` is taken off the scores of each head for every step of a key's age.

    A key is masked by where it stands, never by its value; an entry whose key or value is not finite is
    never attended, and its gradient is zero. A query that may attend to nothing gives zero. The softmax is
    in float32; the products are in the dtype of `q`, and so is the result.
    """
    dtype = q.dtype
    # Selected away before the products: 0 * NaN would bring a masked NaN back, here or in the gradient.
    finite = jnp.isfinite(k).all((2, 3)) & jnp.isfinite(v).all((2, 3))
    k = jnp.where(finite[..., None, None], k, 0).astype(dtype)
    v = jnp.where(finite[..., None, None], v, 0).astype(dtype)
    q = jnp.where(jnp.isfinite(q).all((2, 3), keepdims=True), q, 0)

    age = query.time[:, :, None] - key.time[:, None, :]
    allowed = (age >= 0) & (age < window) & (query.segment[:, :, None] == key.segment[:, None, :])
    allowed = (allowed & finite[:, None, :])[:, None]  # [B, 1, T, S]

    scores = jnp.einsum("bthd,bshd->bhts", q, k, preferred_element_type=jnp.float32) * q.shape[-1] ** -0.5
    if decay is not None:
        scores = scores - decay[:, None, None] * age[:, None].astype(jnp.float32)
    scores = jnp.where(allowed, scores, -jnp.inf)
    top = jax.lax.stop_gradient(scores.max(-1, keepdims=True))
    weights = jnp.exp(scores - jnp.where(jnp.isfinite(top), top, 0.0))
    total = weights.sum(-1, keepdims=True)
    weights = (weights / jnp.where(total > 0, total, 1.0)).astype(dtype)
    return jnp.einsum("bhts,bshd->bthd", weights, v)


def attend_blocks(
    q: Float[Array, "B T H D"],
    k: Float[Array, "B S H D"],
    v: Float[Array, "B S H D"],
    query: Places,
    key: Places,
    window: int,
) -> Float[Array, "B T H D"]:
    """`attend` in blocks of `window` queries, each over its own block and the one before: memory linear in T.

    The keys are `window` entries of the past (in any order), and then the T of the chunk.
    """
    batch, length = query.time.shape
    blocks = -(-length // window)
    pad = blocks * window - length

    def cut(a: Array) -> Array:
        """`[B, blocks * window, ...]` -> `[B * blocks, window, ...]`"""
        return a.reshape(batch * blocks, window, *a.shape[2:])

    def padded(a: Array, value: int = 0) -> Array:
        return jnp.pad(a, [(0, 0), (0, pad)] + [(0, 0)] * (a.ndim - 2), constant_values=value)

    def pairs(a: Array) -> Array:
        """Keys, padded: `[B, (1 + blocks) * window, ...]` -> `[B * blocks, 2 * window, ...]`"""
        own, previous = cut(a[:, window:]), cut(a[:, : blocks * window])
        return jnp.concatenate([previous, own], axis=1)

    q = cut(padded(q))
    query = Places(cut(padded(query.time)), cut(padded(query.segment, -2)))
    key = Places(pairs(padded(key.time)), pairs(padded(key.segment, -1)))
    y = attend(q, pairs(padded(k)), pairs(padded(v)), query, key, window)
    return y.reshape(batch, blocks * window, *y.shape[2:])[:, :length]


# Queries that are attended together where a window is long, and the scores, of a row and a head, from which
# that is done: below, all scores at once fit, and are not computed again in the backward pass.
_QUERIES = 512
_MANY_SCORES = 2**21


def attend_in_turns(
    q: Float[Array, "B T H D"],
    k: Float[Array, "B S H D"],
    v: Float[Array, "B S H D"],
    query: Places,
    key: Places,
    window: int,
) -> Float[Array, "B T H D"]:
    """`attend`, `_QUERIES` queries after the other: memory linear in T however long the window is.

    The keys are as for `attend_blocks`. A turn sees the past and those steps of the chunk that its window
    reaches; the past is left out where no row remembers any or the window does not reach it. Scores are
    computed again in the backward pass.
    """
    batch, length = query.time.shape
    turns = -(-length // _QUERIES)
    pad = turns * _QUERIES - length
    reach = min(turns * _QUERIES, window + _QUERIES)

    def padded(a: Array, value: int = 0) -> Array:
        return jnp.pad(a, [(0, 0), (0, pad)] + [(0, 0)] * (a.ndim - 2), constant_values=value)

    def turned(a: Array) -> Array:
        """`[B, turns * _QUERIES, ...]` -> `[turns, B, _QUERIES, ...]`"""
        return a.reshape(batch, turns, _QUERIES, *a.shape[2:]).swapaxes(0, 1)

    everything = (k, v, key.time, key.segment)
    past = tuple(a[:, :window] for a in everything)
    chunk = tuple(padded(a[:, window:], -1 if i == 3 else 0) for i, a in enumerate(everything))
    remembers = (key.segment[:, :window] >= 0).any()

    @jax.checkpoint
    def turn(inputs: tuple[Array, Array, Array, Array]) -> Array:
        number, q, time, segment = inputs
        start = jnp.maximum(number * _QUERIES - window, 0)
        near = tuple(jax.lax.dynamic_slice_in_dim(a, start, reach, axis=1) for a in chunk)

        @jax.checkpoint  # again: in a loop over layers, what a branch keeps would be kept of every turn
        def over(keys: tuple[Array, ...]) -> Array:
            return attend(q, keys[0], keys[1], Places(time, segment), Places(keys[2], keys[3]), window)

        return jax.lax.cond(
            remembers & (number * _QUERIES < window),
            lambda: over(tuple(jnp.concatenate(pair, axis=1) for pair in zip(past, near, strict=True))),
            lambda: over(near),
        )

    queries = (turned(padded(q)), turned(padded(query.time)), turned(padded(query.segment, -2)))
    y = jax.lax.map(turn, (jnp.arange(turns), *queries))  # [turns, B, _QUERIES, H, D]
    return y.swapaxes(0, 1).reshape(batch, turns * _QUERIES, *y.shape[3:])[:, :length]


def _over(length: int, window: int, by_kernels: bool) -> Callable[..., Array]:
    """The way to attend over a chunk of `length`."""
    if by_kernels:
        from . import attention_kernels  # Pallas takes half a second to import

        return attention_kernels.attend
    if window > _QUERIES and length > _QUERIES and length * window > _MANY_SCORES:
        return attend_in_turns
    return attend if length <= window else attend_blocks


class _Block(nn.Module):
    """One layer: pre-normed attention and a pre-normed MLP, both residual. Reads the ring only."""

    num_heads: int
    window: int
    mlp_ratio: float
    glu: bool
    rope_theta: float
    by_kernels: bool

    @nn.compact
    def __call__(
        self, x: Array, layer: Array, ring: dict[str, Array], position: Array, query: Places, key: Places
    ) -> tuple[Array, dict[str, Array]]:
        batch, length, features = x.shape
        heads = (batch, -1, self.num_heads, features // self.num_heads)
        n = nn.LayerNorm(dtype=x.dtype, name="norm")(x)
        qkv = Dense(3 * features, use_bias=False, dtype=x.dtype, name="qkv")(n).astype(jnp.float32)
        q, k, v = (a.reshape(heads) for a in jnp.split(qkv, 3, axis=-1))
        q = rotate(q, position, self.rope_theta).astype(x.dtype)
        k = rotate(k, position, self.rope_theta)

        past = {name: jax.lax.dynamic_index_in_dim(a, layer, 1, keepdims=False) for name, a in ring.items()}
        keys = jnp.concatenate([past["key"].reshape(heads), k], axis=1)
        values = jnp.concatenate([past["value"].reshape(heads), v], axis=1)
        over = partial(_over(length, self.window, self.by_kernels), window=self.window)
        y = by_heads(over, (q, keys, values), (query, key))
        y = over_time(y, axis=1).reshape(batch, length, features)
        x = x + Dense(features, dtype=x.dtype, name="out")(y)
        x = ResidualMLP(self.mlp_ratio, self.glu, name="mlp")(x)

        kept = min(length, self.window)
        new = {"key": k[:, -kept:], "value": v[:, -kept:]}
        return x, {name: a.reshape(batch, kept, features) for name, a in new.items()}


class Attention(Core):
    """`num_layers` pre-normed blocks of causal attention with rotary positions, each followed by an MLP.

    An input attends to the last `window` inputs of its own sequence, itself among them; through L layers a
    memory reaches back at most `L * (window - 1)` steps. Nothing before a reset is ever seen, and positions
    count from it. `mlp_ratio` and `glu` are `ResidualMLP`'s; `rope_theta` is the base of the slowest
    rotation (RoFormer, arXiv 2104.09864).

    The carry holds a ring of `window` entries for every layer: `key` (rotated) and `value`,
    `[B, num_layers, window, features]` float32, and `position`, int32 `[B]`: how many inputs the sequence has
    had. The entry of the p-th input lies at `p mod window`, so `position` alone says which entries are valid
    and how old they are; stale ones are masked by it and never looked at.

    Time is O(T * window); so is memory over short windows, and over long ones it is O(T): scores are then
    found for some queries after the other. `remat` saves memory: the backward pass recomputes each block.

    `attend` is how a sequence is attended over: `plain`, or by the `kernels` of `attention_kernels`, written
    for NVIDIA's GPUs, whose memory is O(T) whatever the window; None is `plain` on a CPU and `kernels`
    elsewhere. Where they can't run, `plain` does, and one logged sentence says why; so it does for one
    input (T = 1).

    Raises `ValueError` when `features` cannot be cut into `num_heads` heads of even width (rotation works on
    pairs), when `window` is less than 1, and for an unknown `attend`.
    """

    num_layers: int = 2
    num_heads: int = 4
    window: int = 128
    mlp_ratio: float = 2.0
    glu: bool = True
    rope_theta: float = 10_000.0
    remat: bool = False
    attend: str | None = None

    def __post_init__(self) -> None:
        one_of("attend", self.attend or WAYS[0], WAYS)
        unit = 2 * self.num_heads
        if self.features % unit:
            below, above = self.features // unit * unit, -(-self.features // unit) * unit
            raise ValueError(
                f"features={self.features} cannot be cut into num_heads={self.num_heads} heads of even width;"
                f" use features={' or '.join(str(f) for f in (below, above) if f)}"
            )
        if self.window < 1:
            raise ValueError(f"window={self.window} leaves nothing to attend to; use 1 (itself only) or more")
        super().__post_init__()

    def initial_carry(self, batch: int, size: tuple[int, int] | None = None) -> Carry:
        """An empty ring: position 0, and zeros that nothing will read."""
        shape = (batch, self.num_layers, self.window, self.features)
        return {
            "key": jnp.zeros(shape, jnp.float32),
            "value": jnp.zeros(shape, jnp.float32),
            "position": jnp.zeros((batch,), jnp.int32),
        }

    @nn.compact
    def __call__(
        self, carry: Carry, x: Shaped[Array, "T B F"], reset: Bool[Array, "T B"]
    ) -> tuple[Carry, Shaped[Array, "T B D"]]:
        """Consume `T` inputs; see `Core`."""
        length, batch = reset.shape
        x, reset = x.swapaxes(0, 1), reset.swapaxes(0, 1)  # [B, T, F]: attention multiplies within rows
        position = positions(carry["position"], reset)
        time = jnp.broadcast_to(jnp.arange(length), (batch, length))
        query = Places(time, jnp.cumsum(reset, axis=1, dtype=jnp.int32))
        past = _ring_places(carry["position"], self.window)
        key = Places(*(jnp.concatenate(pair, axis=1) for pair in zip(past, query, strict=True)))

        if x.shape[-1] != self.features:
            x = Dense(self.features, dtype=x.dtype, name="input")(x)
        by_kernels = length > 1 and not self.is_initializing() and self._by_kernels()
        # Scanned over layers, so that compiling takes the same time at any depth.
        blocks = nn.scan(
            nn.remat(_Block, prevent_cse=False) if self.remat else _Block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(0, *[nn.broadcast] * 4),  # pyright: ignore[reportArgumentType]
            length=self.num_layers,
        )(
            self.num_heads,
            self.window,
            self.mlp_ratio,
            self.glu,
            self.rope_theta,
            by_kernels,
            name="blocks",
        )
        ring = {name: carry[name] for name in ("key", "value")}
        x, new = blocks(x, jnp.arange(self.num_layers), ring, position, query, key)

        position = position[:, -1] + 1
        carry = {name: _remember(a, new[name], position, length) for name, a in ring.items()}
        return {**carry, "position": position}, x.swapaxes(0, 1)

    def _by_kernels(self) -> bool:
        if self.attend == "plain" or (self.attend is None and jax.default_backend() == "cpu"):
            return False
        from . import attention_kernels  # Pallas takes half a second to import

        why = attention_kernels.obstacle(self.features // self.num_heads)
        if why is not None:
            say_once(f"attend='kernels' cannot run here: {why}; 'plain' runs instead")
        return why is None


def _ring_ages(position: Int[Array, " B"], window: int) -> Int[Array, "B W"]:
    """How many steps ago each entry of a ring was written (1: the last), were it full."""
    return (position[:, None] - 1 - jnp.arange(window)) % window + 1


def _ring_places(position: Int[Array, " B"], window: int) -> Places:
    """Where the entries of a ring stand: the one written last at time -1, in segment 0 if valid."""
    age = _ring_ages(position, window)
    return Places(-age, jnp.where(age <= position[:, None], 0, -1))


def _remember(
    ring: Float[Array, "B L W D"], new: Float[Array, "L B K D"], position: Int[Array, " B"], length: int
) -> Float[Array, "B L W D"]:
    """The ring after a chunk of `length` inputs, `new` being the last of them and `position` that after it.

    Every slot fetches the entry that belongs to it, so that nothing is written twice, and one that belongs
    to an earlier sequence becomes zero: after a reset the carry is that of a fresh start.
    """
    window, kept = ring.shape[2], new.shape[2]
    age = _ring_ages(position, window)
    rows = jnp.arange(ring.shape[0])[:, None]
    fetched = jnp.moveaxis(new[:, rows, jnp.clip(kept - age, 0)], 0, 1)  # [B, L, W, D]
    age, position = age[:, None, :, None], position[:, None, None, None]
    return jnp.where(age <= position, jnp.where(age <= length, fetched, ring), 0.0)
