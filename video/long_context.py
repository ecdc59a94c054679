"""FAR over long contexts: few tokens for frames far back, many for the near ones, and a cache of both."""

import dataclasses
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

from ..cores.attention import Places, attend
from ..cores.frame_attention import FrameAttention, head_slopes, rotate_frames
from ..cores.layers import stacked
from .autoencoder import Autoencoder
from .clip import ActionSpace, Clip, to_float
from .encoder import space_to_depth
from .far import leading_actions
from .flow import LeadingAction, Modulated, NoiseLevel, check_flow, euler, guided, noised, twice
from .model import Variables

KINDS = ("coarse", "fine")
ALWAYS = np.iinfo(np.int32).max  # a window that never ends


class Frames(NamedTuple):
    """F frames for the network, batch first; `places` are [B, F]. Coarse ones ignore `sigma` and `clean`."""

    latents: Float[Array, "B F h w D"]
    sigma: Float[Array, "B F"]
    clean: Bool[Array, "B F"]
    leading: Shaped[Array, "B F ..."] | None
    known: Bool[Array, "B F"]
    places: Places


class Past(NamedTuple):
    """The S cached tokens of one kind in L layers: keys, already turned to their places, and values."""

    keys: Float[Array, "B L S heads D"]
    values: Float[Array, "B L S heads D"]
    places: Places


class LongMemory(NamedTuple):
    """What `LongFAR` remembers between frames; W is `window`, N the tokens of a coarse frame.

    The last W - 1 frames in order, oldest first: their latents, the actions that led to them (None where the
    world has none), whether those are `known`, and whether the frame is of the current sequence (`valid`).
    Of every older one, up to `capacity` of them: keys (before the rotation) and values, in a ring in which
    frame i has place i mod `capacity`, and whether there is one of this sequence (`stored`). `count` is how
    many frames there were. Flags are int32, everything else float32.
    """

    latents: Float[Array, "B W-1 h w D"]
    leading: Shaped[Array, "B W-1 ..."] | None
    known: Int[Array, "B W-1"]
    valid: Int[Array, "B W-1"]
    keys: Float[Array, "B L capacity N heads D"]
    values: Float[Array, "B L capacity N heads D"]
    stored: Int[Array, "B capacity"]
    count: Int[Array, " B"]


@dataclasses.dataclass(frozen=True)
class LongFAR:
    """`FAR` with long short-term context: asymmetric patches and a cache of two levels (arXiv 2503.19325).

    The last `window` frames, the one being drawn among them, are *fine*: every latent is a token. Older ones
    are *coarse*: `coarse_patch` x `coarse_patch` latents are one token, with an embedding and projections (Q,
    K, V, out, and the norms of Q and K) of their own; the MLPs and the conditioning (adaLN-zero) are shared.
    Coarse frames are always clean, with a tag of their own in place of a noise level. Rotary rows and
    columns are counted in latents, and a coarse token stands at its patch's centre, (coarse_patch - 1) / 2
    from its first latent.

    Attention goes both ways inside a frame and never leaves a sequence. A coarse frame sees the `capacity`
    last coarse ones, itself among them; a fine frame sees the `capacity` last coarse ones of all, and the
    fine ones up to its own. So no coarse token depends on a fine one, and a coarse frame's keys and values
    hold for good: they are the second level of the cache. A fine frame's change when what is coarse does: the
    first level is made anew for every frame drawn, once for all its `euler_steps`. Sampling is exact: every
    velocity is that of `velocity` over the whole past.

    `decay` and `slopes` take the frames' distance off the scores, as in `FrameAttention`: for test time.

    Training: the last `window` frames of a clip are fine and have FAR's loss (a noise level a frame; clean
    with `clean_probability`); the context before them is cut to a random length, for each clip its own.
    `guidance`, `action_dropout` and `dtype` are as in `FAR`.
    """

    autoencoder: Autoencoder
    size: int
    channels: int
    actions: ActionSpace
    features: int = 96
    num_layers: int = 3
    num_heads: int = 3
    mlp_ratio: float = 4.0
    theta: float = 10000.0
    decay: float | tuple[float, ...] | None = None
    slopes: str = "equal"
    window: int = 16
    coarse_patch: int = 4
    capacity: int = 284
    clean_probability: float = 0.1
    euler_steps: int = 50
    guidance: float = 1.0
    action_dropout: float = 0.1
    remat: bool = False
    dtype: Any = jnp.float32

    streams = False

    def __post_init__(self) -> None:
        check_flow(self.actions, self.euler_steps, self.guidance, self.action_dropout)
        asked = {"num_heads": self.num_heads, "window": self.window, "decay": self.decay}
        FrameAttention(self.features, **asked, slopes=self.slopes)  # raises for what is wrong with these
        if not 0.0 <= self.clean_probability <= 1.0:
            raise ValueError(f"clean_probability={self.clean_probability} must be from 0 to 1; use 0.1")
        if self.num_layers < 1:
            raise ValueError(f"num_layers={self.num_layers} leaves no attention; use 1 or more")
        if self.capacity < 1:
            raise ValueError(f"capacity={self.capacity} remembers no coarse frame; use 1 or more")
        grid = self.autoencoder.grid
        if self.coarse_patch < 1 or grid % self.coarse_patch:
            divisors = ", ".join(str(n) for n in range(1, grid + 1) if grid % n == 0)
            raise ValueError(
                f"coarse_patch={self.coarse_patch} does not divide the {grid} x {grid} latents of a frame; "
                f"use one of {divisors}"
            )
        self.autoencoder.check(self.size, self.channels)

    def init(self, key: Array) -> Any:
        """Fresh parameters; see `FrameModel`."""
        grid = self.autoencoder.grid
        latents = jnp.zeros((1, 2, grid, grid, self.autoencoder.latent_channels))
        no, actions = jnp.zeros((1, 2), bool), jax.tree.map(jnp.asarray, self.actions.nothing(1, 2))
        time = jnp.arange(2)[None]
        frames = Frames(latents, jnp.ones((1, 2)), no, actions, no, Places(time, jnp.zeros_like(time)))
        return LongFARNet(self).init(key, frames, 1, self._nothing(1))

    def initial_memory(self, batch: int) -> LongMemory:
        """An empty cache, from which `step` draws a first frame; training uses none."""
        grid, near = self.autoencoder.grid, (batch, self.window - 1)
        ring = (batch, self.num_layers, self.capacity, self.tokens[0], *self.heads)
        leading = self.actions.nothing(*near)
        return LongMemory(
            latents=jnp.zeros((*near, grid, grid, self.autoencoder.latent_channels)),
            leading=None if leading is None else jnp.asarray(leading),
            known=jnp.zeros(near, jnp.int32),
            valid=jnp.zeros(near, jnp.int32),
            keys=jnp.zeros(ring, jnp.float32),
            values=jnp.zeros(ring, jnp.float32),
            stored=jnp.zeros((batch, self.capacity), jnp.int32),
            count=jnp.zeros((batch,), jnp.int32),
        )

    def velocity(
        self,
        variables: Variables,
        latents: Float[Array, "T B h w D"],
        sigma: Float[Array, "T B"],
        clean: Bool[Array, "T B"],
        leading: Shaped[Array, "T B ..."] | None,
        known: Bool[Array, "T B"],
        reset: Bool[Array, "T B"],
        coarse: int,
    ) -> Float[Array, "F B h w D"]:
        """The velocity noise - latents of the F = T - `coarse` last frames, float32, without any cache.

        The first `coarse` frames are coarse, whatever `window` says, and clean, whatever `sigma` and `clean`
        say; for the others, and for `leading`, see `FAR.velocity`.
        """
        frames = self._frames(latents, sigma, clean, leading, known, _segments(reset))
        made: Any = self._apply(variables, frames, coarse, self._nothing(latents.shape[1]))
        return made[0].swapaxes(0, 1)

    def loss(
        self, variables: Variables, memory: LongMemory, clip: Clip, key: Array
    ) -> tuple[Float[Array, ""], LongMemory]:
        """The mean square error of the velocity, over the noisy frames of a clip's window, then over clips.

        Of a clip of T frames the last `window` are fine, all of them if there are no more. Each clip is cut
        at random so that its context has from `window` to T frames: exactly as if the clip began there.
        `memory` is returned as it came.
        """
        key_start, key_clean, key_noise, key_drop = jax.random.split(key, 4)
        length, batch = clip.reset.shape
        coarse = max(length - self.window, 0)
        start = jax.random.randint(key_start, (batch,), 0, coarse + 1)
        clip = clip._replace(reset=clip.reset | (jnp.arange(length)[:, None] == start))
        latents = self._latents(variables, clip)
        sample = noised(latents[coarse:], key_noise)
        clean = jax.random.bernoulli(key_clean, self.clean_probability, (length - coarse, batch))
        x = jnp.where(clean[..., None, None, None], latents[coarse:], sample.x)
        leading, known = leading_actions(self.actions, clip)
        known &= ~jax.random.bernoulli(key_drop, self.action_dropout, known.shape)
        before = ((coarse, 0), (0, 0))
        v = self.velocity(
            variables,
            jnp.concatenate([latents[:coarse], x]),
            jnp.pad(sample.sigma, before),
            jnp.pad(clean, before, constant_values=True),
            leading,
            known,
            clip.reset,
            coarse,
        )
        errors = ((v - sample.target) ** 2).mean((2, 3, 4))
        per_clip = jnp.where(clean, 0.0, errors).sum(0) / jnp.maximum((~clean).sum(0), 1)
        return per_clip.mean(), memory

    def condition(self, variables: Variables, clip: Clip) -> LongMemory:
        """See `FrameModel`; of each row, the frames since its last reset are remembered."""
        length, batch = clip.reset.shape
        leading, known = leading_actions(self.actions, clip)
        segment = _segments(clip.reset)
        no = jnp.zeros((length, batch))
        frames = self._frames(self._latents(variables, clip), no, no > 0, leading, known, segment)
        valid = (segment == segment[-1]).T.astype(jnp.int32)
        memory = _pushed(self.initial_memory(batch), frames, valid)
        coarse = max(length - self.window + 1, 0)
        if coarse == 0:
            return memory
        old = jax.tree.map(lambda leaf: leaf[:, :coarse], frames)
        made: Any = self._apply(variables, old, coarse, self._nothing(batch))
        kept = np.arange(max(coarse - self.capacity, 0), coarse)
        ring = kept % self.capacity
        keys, values = made[1]
        return memory._replace(
            keys=memory.keys.at[:, :, ring].set(keys[:, :, kept]),
            values=memory.values.at[:, :, ring].set(values[:, :, kept]),
            stored=memory.stored.at[:, ring].set(valid[:, kept]),
        )

    def step(
        self, variables: Variables, memory: LongMemory, action: Shaped[Array, "B ..."] | None, key: Array
    ) -> tuple[LongMemory, Float[Array, "B H W C"]]:
        """See `FrameModel`; `action` None draws a frame whose action isn't known."""
        batch, grid = len(memory.count), self.autoencoder.grid
        noise = jax.random.normal(key, (batch, grid, grid, self.autoencoder.latent_channels))
        known = jnp.full((batch,), action is not None)
        levels = self.recall(variables, memory)
        guides = self.guidance != 1.0 and self.actions.kind != "none"
        past, leads = twice((levels, action)) if guides else (levels, action)
        told = jnp.concatenate([known, jnp.zeros_like(known)]) if guides else known

        def velocity(x: Array, sigma: Array) -> Array:
            x, sigma = twice((x, sigma)) if guides else (x, sigma)
            v = self.cached_velocity(variables, past, x, sigma, leads, told)
            return guided(v, self.guidance) if guides else v

        latents = euler(velocity, noise, self.euler_steps)
        memory = self._consume(variables, memory, levels[0], latents, action, known)
        return memory, self.autoencoder.decode(variables["frozen"], latents)

    def recall(self, variables: Variables, memory: LongMemory) -> tuple[Past, Past]:
        """The two levels of the cache, coarse and fine, as the next frame sees them, who stands at time 0."""
        slots = jnp.arange(self.capacity)
        time = -self.window - (memory.count[:, None] - self.window - slots) % self.capacity
        places = Places(time, jnp.where(memory.stored > 0, 0, -1))
        coarse = self._past("coarse", memory.keys, memory.values, places)
        near = self._near(memory)
        made: Any = self._apply(variables, near, 0, (coarse, self._nothing(len(time))[1]))
        keys, values = made[2]
        return coarse, self._past("fine", keys, values, near.places)

    def cached_velocity(
        self,
        variables: Variables,
        levels: tuple[Past, Past],
        x: Float[Array, "B h w D"],
        sigma: Float[Array, " B"],
        action: Shaped[Array, "B ..."] | None,
        known: Bool[Array, " B"],
    ) -> Float[Array, "B h w D"]:
        """The velocity of one more frame, to which `action` leads, after those of `recall`."""
        now = jnp.zeros((len(sigma), 1), jnp.int32)
        action = jax.tree.map(lambda leaf: leaf[:, None], action)
        places = Places(now, now)
        frame = Frames(x[:, None], sigma[:, None], now > 0, action, known[:, None], places)
        made: Any = self._apply(variables, frame, 0, levels)
        return made[0][:, 0]

    def _consume(
        self,
        variables: Variables,
        memory: LongMemory,
        coarse: Past,
        latents: Array,
        action: Any,
        known: Array,
    ) -> LongMemory:
        """The memory after a finished frame: the oldest of the window becomes coarse."""
        batch = len(known)
        now = jnp.zeros((batch, 1), jnp.int32)
        none = jax.tree.map(jnp.asarray, self.actions.nothing(batch, 1))
        leading = none if none is None or action is None else action[:, None]
        new = Frames(latents[:, None], now * 1.0, now > 0, leading, known[:, None], Places(now, now))
        window = jax.tree.map(lambda a, b: jnp.concatenate([a, b], 1), self._near(memory), new)
        oldest = jax.tree.map(lambda leaf: leaf[:, :1], window)
        made: Any = self._apply(variables, oldest, 1, (coarse, self._nothing(batch)[1]))
        rows, slot = jnp.arange(batch), (memory.count + 1 - self.window) % self.capacity
        keys, values = made[1]
        # before the window is full nothing leaves it: an entry is written that isn't valid, where none is
        stored = (oldest.places.segment[:, 0] == 0).astype(jnp.int32)
        return _pushed(memory, new, jnp.ones((batch, 1), jnp.int32))._replace(
            keys=memory.keys.at[rows, :, slot].set(keys[:, :, 0]),
            values=memory.values.at[rows, :, slot].set(values[:, :, 0]),
            stored=memory.stored.at[rows, slot].set(stored),
        )

    def _near(self, memory: LongMemory) -> Frames:
        """The fine frames of a memory, before one that stands at time 0."""
        time = jnp.broadcast_to(jnp.arange(1 - self.window, 0), memory.valid.shape)
        places = Places(time, jnp.where(memory.valid > 0, 0, -1))
        clean = jnp.ones(time.shape, bool)
        known = memory.known > 0
        return Frames(memory.latents, jnp.zeros(time.shape), clean, memory.leading, known, places)

    def _frames(
        self, latents: Array, sigma: Array, clean: Array, leading: Any, known: Array, segment: Array
    ) -> Frames:
        """Time-major frames as the network takes them; the last stands at time 0."""
        time = jnp.broadcast_to(jnp.arange(1 - len(segment), 1)[:, None], segment.shape)
        frames = Frames(latents, sigma, clean, leading, known, Places(time, segment))
        return jax.tree.map(lambda leaf: jnp.asarray(leaf).swapaxes(0, 1), frames)

    def _past(self, kind: str, keys: Array, values: Array, places: Places) -> Past:
        """Keys and values `[B, L, F, N, heads, D]` of frames at `places`, ready to be attended to."""
        turned = jax.vmap(lambda k: self.turned(kind, k, places.time), 1, 1)(keys)
        values = values.reshape(turned.shape)
        tokens = self.tokens[KINDS.index(kind)]
        return Past(turned.astype(self.dtype), values.astype(self.dtype), _spread(places, tokens))

    def _nothing(self, batch: int) -> tuple[Past, Past]:
        """No cache at all."""
        none = jnp.zeros((batch, self.num_layers, 0, *self.heads), self.dtype)
        nowhere = jnp.zeros((batch, 0), jnp.int32)
        past = Past(none, none, Places(nowhere, nowhere))
        return past, past

    def _apply(
        self, variables: Variables, frames: Frames, coarse: int, levels: tuple[Past, Past]
    ) -> tuple[Array, tuple[Array, Array], tuple[Array, Array]]:
        made: Any = LongFARNet(self).apply(variables["params"], frames, coarse, levels)
        return made

    def _latents(self, variables: Variables, clip: Clip) -> Float[Array, "T B h w D"]:
        return self.autoencoder.encode(variables["frozen"], to_float(clip.frames))

    @property
    def tokens(self) -> tuple[int, int]:
        """Tokens of a coarse and of a fine frame."""
        grid = self.autoencoder.grid
        return (grid // self.coarse_patch) ** 2, grid**2

    @property
    def heads(self) -> tuple[int, int]:
        """How many heads, and the channels of each."""
        return self.num_heads, self.features // self.num_heads

    def turned(
        self, kind: str, x: Float[Array, "B F N heads D"], time: Int[Array, "B F"]
    ) -> Float[Array, "B S heads D"]:
        """The tokens of coarse or fine frames, each rotated to its time, row and column."""
        patch = self.coarse_patch if kind == "coarse" else 1
        places = np.arange(self.autoencoder.grid // patch) * patch + (patch - 1) / 2
        rows, columns = np.meshgrid(places, places, indexing="ij")
        return rotate_frames(x, time, jnp.asarray(rows.ravel()), jnp.asarray(columns.ravel()), self.theta)


class LongFARNet(nn.Module):
    """The network of a `LongFAR`: new frames, of which the first `coarse` are, after cached ones."""

    of: LongFAR

    @nn.compact
    def __call__(
        self, frames: Frames, coarse: int, levels: tuple[Past, Past]
    ) -> tuple[Float[Array, "B F h w D"], tuple[Array, Array], tuple[Array, Array]]:
        """The velocity of the fine ones; keys and values `[B, L, F, N, heads, D]`, of either kind."""
        f = self.of
        batch, count, grid, _, channels = frames.latents.shape
        condition = NoiseLevel(f.features, name="level")(frames.sigma, frames.clean)
        tag = self.param("coarse", nn.initializers.normal(0.02), (f.features,))
        condition = jnp.where(jnp.arange(count)[:, None] < coarse, tag, condition)
        condition += LeadingAction(f.actions, f.features, name="action")(frames.leading, frames.known)

        images = frames.latents.reshape(batch * count, grid, grid, channels)
        tokens = []
        for kind, patch, own in (("coarse", f.coarse_patch, slice(coarse)), ("fine", 1, slice(coarse, None))):
            side = grid // patch
            x = space_to_depth(images, patch).reshape(batch, count, side**2, patch**2 * channels)[:, own]
            x = x.reshape(batch, x.shape[1] * side**2, patch**2 * channels)
            tokens.append(nn.Dense(f.features, dtype=f.dtype, name=f"{kind}_tokens")(x))
        x = jnp.concatenate(tokens, 1)

        places = tuple(
            jax.tree.map(lambda a, own=own: a[:, own], frames.places)
            for own in (slice(coarse), slice(coarse, None))
        )
        past = tuple(level[:2] for level in levels)
        shared = condition.astype(f.dtype), places, tuple(level.places for level in levels)
        made = []
        if f.num_layers > 1:
            axes = (1, *(nn.broadcast,) * len(shared))
            layers = stacked(LongFARLayer, f.num_layers - 1, axes, f.remat)(f, False, name="layers")
            x, new = layers(x, jax.tree.map(lambda leaf: leaf[:, :-1], past), *shared)
            made.append(new)
        past = jax.tree.map(lambda leaf: leaf[:, -1], past)
        x, new = LongFARLayer(f, True, name="last_layer")(x, past, *shared)
        made.append(jax.tree.map(lambda leaf: leaf[:, None], new))
        of_coarse, of_fine = jax.tree.map(lambda *leaves: jnp.concatenate(leaves, 1), *made)
        y = x.reshape(batch, count - coarse, grid, grid, f.features)
        y = Modulated(name="head")(y, condition[:, coarse:]).astype(jnp.float32)
        velocity = nn.Dense(channels, kernel_init=nn.initializers.zeros_init(), name="velocity")(y)
        return velocity, of_coarse, of_fine


class LongFARLayer(nn.Module):
    """One layer over the tokens of coarse and then of fine frames; after the `last` only the fine go on."""

    of: LongFAR
    last: bool

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B S features"],
        past: tuple[tuple[Array, Array], ...],
        condition: Float[Array, "B F features"],
        places: tuple[Places, ...],
        cached: tuple[Places, ...],
    ) -> tuple[Array, tuple[tuple[Array, Array], ...]]:
        """x, and keys and values of its frames, at `places`; `past` has those of the tokens at `cached`."""
        f = self.of
        counts = [place.time.shape[1] for place in places]
        cut = counts[0] * f.tokens[0]
        frame = np.repeat(np.arange(sum(counts)), np.repeat(f.tokens, counts))  # which a token is of
        h, gate = Gated(name="attention")(x, condition, frame)
        queries, keys, values, whose, new = [], [], [], [], []
        for i, (kind, part) in enumerate(zip(KINDS, (h[:, :cut], h[:, cut:]), strict=True)):
            # what the last layer's coarse tokens gather would go nowhere: they have no queries
            names = "kv" if self.last and kind == "coarse" else "qkv"
            dense = nn.Dense(len(names) * f.features, use_bias=False, dtype=x.dtype, name=f"{kind}_{names}")
            parts = jnp.split(dense(part).astype(jnp.float32), len(names), -1)
            shape = (len(x), counts[i], f.tokens[i], *f.heads)
            *q, k, v = (a.reshape(shape) for a in parts)
            k = nn.RMSNorm(name=f"{kind}_norm_k")(k)
            turn = [nn.RMSNorm(name=f"{kind}_norm_q")(a) for a in q] + [k]
            *q, turned = (f.turned(kind, a, places[i].time) for a in turn)
            queries.append(q[0].astype(x.dtype) if q else None)
            keys.append(jnp.concatenate([past[i][0], turned.astype(x.dtype)], 1))
            values.append(jnp.concatenate([past[i][1], v.reshape(turned.shape).astype(x.dtype)], 1))
            own = _spread(places[i], f.tokens[i])
            whose.append((own, _joined(cached[i], own)))
            new.append((k, v))

        (coarse, coarse_key), (fine, fine_key) = whose
        every = _joined(_last(coarse_key, f.capacity), fine_key)
        every_key, every_value = (jnp.concatenate(both, 1) for both in (keys, values))
        slopes = head_slopes(f.decay, f.slopes, f.num_heads)
        gathered = [_attend(queries[1], every_key, every_value, fine, every, ALWAYS, slopes)]
        if self.last:
            x, gate, frame = x[:, cut:], gate[:, cut:], frame[cut:]
        else:
            own = _attend(queries[0], keys[0], values[0], coarse, coarse_key, f.capacity, slopes)
            gathered.insert(0, own)
        outs = [
            nn.Dense(f.features, use_bias=False, dtype=x.dtype, name=f"{kind}_out")(y)
            for kind, y in zip(KINDS[-len(gathered) :], gathered, strict=True)
        ]
        x = x + gate * jnp.concatenate(outs, 1)
        h, gate = Gated(name="mlp")(x, condition, frame)
        h = jax.nn.gelu(nn.Dense(round(f.mlp_ratio * f.features), dtype=x.dtype, name="up")(h))
        return x + gate * nn.Dense(f.features, dtype=x.dtype, name="down")(h), tuple(new)


class Gated(nn.Module):
    """A layer norm whose shift and scale, and the gate of what follows, are of a condition (adaLN-zero)."""

    @nn.compact
    def __call__(
        self, x: Float[Array, "B S D"], condition: Float[Array, "B F E"], frame: Int[np.ndarray, " S"]
    ) -> tuple[Float[Array, "B S D"], Float[Array, "B S D"]]:
        """x as a sub-layer sees it, and the gate; token s is of frame `frame[s]`."""
        zeros = nn.initializers.zeros_init()
        made = nn.Dense(3 * x.shape[-1], dtype=x.dtype, kernel_init=zeros, name="condition")
        shift, scale, gate = jnp.split(made(jax.nn.silu(condition))[:, frame], 3, -1)
        norm = nn.LayerNorm(use_scale=False, use_bias=False, dtype=x.dtype, name="norm")
        return norm(x) * (1 + scale) + shift, gate


def _attend(
    q: Array,
    k: Array,
    v: Array,
    query: Places,
    key: Places,
    window: int,
    slopes: tuple[float, ...] | None,
) -> Array:
    """`attend` with the heads joined, `[B, S, features]`; there may be no query."""
    decay = None if slopes is None else jnp.asarray(slopes)
    y = attend(q, k, v, query, key, window, decay) if q.shape[1] else q
    return y.reshape(*y.shape[:2], y.shape[2] * y.shape[3])


def _last(places: Places, frames: int) -> Places:
    """Those of the last `frames` frames, whatever their sequence; the others as of none."""
    if places.time.shape[1] == 0:
        return places
    late = places.time > places.time.max(1, keepdims=True) - frames
    return places._replace(segment=jnp.where(late, places.segment, -1))


def _joined(first: Places, second: Places) -> Places:
    return Places(*(jnp.concatenate(pair, 1) for pair in zip(first, second, strict=True)))


def _spread(places: Places, tokens: int) -> Places:
    """Every token of a frame stands where its frame does."""
    return Places(*(part.repeat(tokens, axis=1) for part in places))


def _segments(reset: Bool[Array, "T B"]) -> Int[Array, "T B"]:
    return jnp.cumsum(jnp.asarray(reset), axis=0, dtype=jnp.int32)


def _pushed(memory: LongMemory, frames: Frames, valid: Int[Array, "B F"]) -> LongMemory:
    """The memory with its window moved on by `frames`, of which some are `valid`."""

    def push(old: Array, new: Array) -> Array:
        return jnp.concatenate([old, new.astype(old.dtype)], 1)[:, new.shape[1] :]

    leading = memory.leading if memory.leading is None else push(memory.leading, jnp.asarray(frames.leading))
    return memory._replace(
        latents=push(memory.latents, frames.latents),
        leading=leading,
        known=push(memory.known, frames.known),
        valid=push(memory.valid, valid),
        count=memory.count + valid.shape[1],
    )
