"""What a memory is compared with: reading only the last steps, or only those that match a question.

`truncate`: every output is that of the same core from an empty memory after the last `keep` inputs alone.
`truncate_middle`: likewise, after the first and the last half of so many inputs of the sequence.
`retrieve`: every question is an episode of its own, in which the `keep` earlier steps that match it best come
first, in the order in which they were shown; nothing else is.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ...cores import Carry, Core
from ...envs.probes.base import FLAGS, Episode, Figure, Probe

BASELINES = ("truncate", "truncate_middle", "retrieve")
_COUNTED = 64  # episodes from which the number of questions is told


class Truncated(Core):
    """`inner` on windows of `keep` inputs, the last of which is the present one; inputs of its own width.

    Its memory is the window's beginning, and what of it there is: `[B, keep - 1, features]`, `[B, keep - 1]`.
    `head` of the inputs are the first of a sequence (as many as lie before the others), and then its memory
    is theirs as well, `[B, head, features]`, and how many inputs the sequence had, `[B]`.
    """

    inner: Core | None = None
    keep: int = 16
    head: int = 0

    def initial_carry(self, batch: int, size: tuple[int, int] | None = None) -> Carry:
        """An empty window."""
        before = self.keep - self.head - 1
        last = jnp.zeros((batch, before, self.features)), jnp.zeros((batch, before), jnp.int32)
        if not self.head:
            return last
        return *last, jnp.zeros((batch, self.head, self.features)), jnp.zeros(batch, jnp.int32)

    @nn.compact
    def __call__(self, carry: Carry, x: Array, reset: Array) -> tuple[Carry, Array]:
        """See the class; a window costs what `keep` steps cost."""
        assert self.inner is not None
        steps, rows = reset.shape
        before, known, *begun = carry
        tail = self.keep - self.head
        window = jnp.concatenate([before.swapaxes(0, 1), x.astype(jnp.float32)])
        # 0: nothing there, 1: there, 2: the first of a sequence
        kind = jnp.concatenate([known.T, jnp.where(reset, 2, 1)])
        at = jnp.arange(steps)[:, None] + jnp.arange(tail)  # [T, tail]
        seen, kinds = window[at], kind[at]
        if begun:
            (firsts, count), first_seen, first_kinds = self._first(begun[0], begun[1], x, reset)
            begun = [firsts, count]
            seen = jnp.concatenate([first_seen, seen], 1)
            kinds = jnp.concatenate([first_kinds, kinds], 1)
        seen = seen.swapaxes(0, 1).reshape(self.keep, steps * rows, -1).astype(x.dtype)
        kinds = kinds.swapaxes(0, 1).reshape(self.keep, steps * rows)
        # after nothing, whatever comes is first
        first = (kinds == 2) | jnp.concatenate([jnp.ones_like(kinds[:1]), kinds[:-1] == 0]).astype(bool)
        # what a reset will clear is not even looked at, so that nothing of it is in a gradient
        cleared = (kinds == 2)[::-1].cumsum(0)[::-1] - (kinds == 2) > 0
        seen = jnp.where((cleared | (kinds == 0))[..., None], 0.0, seen)
        y = self.inner(self.inner.initial_carry(steps * rows), seen, first)[1][-1]
        left = window.shape[0] - (tail - 1)
        return (window[left:].swapaxes(0, 1), kind[left:].T, *begun), y.reshape(steps, rows, -1)

    def _first(
        self, firsts: Array, count: Array, x: Array, reset: Array
    ) -> tuple[tuple[Array, Array], Array, Array]:
        """The first inputs of the sequence and their number after the last step; at every step those that lie
        before the last inputs, `[T, head, B, F]`, at the end, and their kinds, 0 before them."""
        steps, tail = reset.shape[0], self.keep - self.head
        step = jnp.arange(steps)[:, None]
        start = jax.lax.cummax(jnp.where(reset, step, -1))  # of the present sequence, -1: it began before x
        age = jnp.where(start >= 0, step - start, count + step)  # inputs before the present one
        held = jnp.concatenate([firsts.swapaxes(0, 1), x.astype(jnp.float32)])
        number = jnp.arange(self.head)[:, None]

        def places(start: Array) -> Array:
            """Where in `held` input `number` of a sequence lies."""
            old = jnp.where(number < count, number, self.head + number - count)
            return jnp.clip(
                jnp.where(start[..., None, :] >= 0, self.head + start[..., None, :] + number, old),
                0,
                held.shape[0] - 1,
            )

        shown = jnp.clip(age - tail + 1, 0, self.head)[:, None]  # [T, 1, B]
        which = number - (self.head - shown)  # [T, head, B], negative: nothing
        at = jnp.take_along_axis(places(start), jnp.maximum(which, 0), 1)
        seen = jnp.take_along_axis(held[None], at[..., None], 1)
        kinds = jnp.where(which < 0, 0, jnp.where(which == 0, 2, 1))
        kept = jnp.take_along_axis(held, places(start[-1])[..., None], 0).swapaxes(0, 1)
        return (kept, jnp.minimum(age[-1] + 1, self.keep)), seen, kinds


@dataclasses.dataclass(frozen=True, kw_only=True)
class Retrieved(Probe):
    """`probe` as `asked` short episodes in one: `keep` matching steps each, and then the question.

    Matched are the steps since the last reset that aren't filler, by the squared distance between what they
    and the question say in the fields that the question fills; of equal ones the later match better.
    """

    probe: Probe
    keep: int
    asked: int

    @property
    def fields(self) -> dict[str, int]:
        """The probe's."""
        return self.probe.fields

    @property
    def num_answers(self) -> int:
        """The probe's."""
        return self.probe.num_answers

    @property
    def scope(self) -> int:
        """The probe's."""
        return self.probe.scope

    @property
    def diffusion(self) -> float:
        """The probe's."""
        return self.probe.diffusion

    @property
    def distractor_similarity(self) -> float:
        """The probe's."""
        return self.probe.distractor_similarity

    def random(self) -> Figure:
        """The probe's."""
        return self.probe.random()

    def blind(self) -> Figure:
        """The probe's."""
        return self.probe.blind()

    def reference(self) -> Figure:
        """The probe's: of one that sees everything."""
        return self.probe.reference()

    def score(self, episode: Episode, answers: Int[Array, "T ..."]) -> Float[Array, "..."]:
        """As the probe scores."""
        return self.probe.score(episode, answers)

    def grade(self, episode: Episode, outputs: Float[Array, "T B O"]) -> Float[Array, " B"]:
        """As the probe grades."""
        return self.probe.grade(episode, outputs)

    def measures(self, episode: Episode, outputs: Float[Array, "T B O"]) -> dict[str, Float[Array, " B"]]:
        """What the probe measures."""
        return self.probe.measures(episode, outputs)

    def tallies(self, episode: Episode, outputs: Float[Array, "T B O"]) -> dict[str, Float[Array, "B 2 K"]]:
        """What the probe counts."""
        return self.probe.tallies(episode, outputs)

    def told(self, means: dict[str, np.ndarray]) -> dict[str, float]:
        """What the probe says of its measures."""
        return self.probe.told(means)

    def episode(self, key: Array) -> Episode:
        """The probe's episode of the key, each question after what matches it."""
        whole = self.probe.episode(key)
        tokens, steps = whole.tokens, jnp.arange(self.probe.length)
        (where,) = jnp.nonzero(whole.mask, size=self.asked, fill_value=-1)
        content = tokens[:, : -len(FLAGS)]
        widths = list(self.fields.values())
        part = jnp.repeat(jnp.arange(len(widths)), jnp.array(widths), total_repeat_length=sum(widths))
        segment = jnp.cumsum(whole.reset)
        filler = self.field(tokens, "filler") > 0

        def short(at: Array) -> tuple[Array | None, ...]:
            filled = jax.ops.segment_max(jnp.abs(content[at]), part, len(widths))[part] > 0
            distance = (jnp.square(content - content[at]) * filled).sum(-1)
            can = (steps < at) & (segment == segment[at]) & ~filler
            best = jnp.sort(jnp.lexsort((-steps, jnp.where(can, distance, jnp.inf)))[: self.keep])
            order = jnp.argsort(can[best], stable=True)  # what isn't there comes first, as nothing
            best = best[order]
            shown = jnp.concatenate([jnp.where(can[best][:, None], tokens[best], 0.0), tokens[at][None]])
            first, last = (jnp.arange(self.keep + 1) == step for step in (0, self.keep))
            shown = shown.at[:, self.width - 1].set(first)  # the flag of a first step
            asks = last & (at >= 0)
            payoff = jnp.where(asks[:, None], whole.payoff[at], 0.0)
            distance = None if whole.distance is None else jnp.where(asks, whole.distance[at], 0)
            return shown, jnp.where(asks, whole.targets[at], 0), asks, first, payoff, distance

        parts = jax.vmap(short)(where)
        return Episode(*jax.tree.map(lambda leaf: leaf.reshape(self.length, *leaf.shape[2:]), parts))


def truncated(core: Core, keep: int, middle: bool = False) -> Core:
    """The core that sees `keep` steps alone, the last ones, or without the `middle`.

    Raises `ValueError` where no half is left of `keep`.
    """
    if middle and keep < 2:
        raise ValueError(f"baseline=truncate_middle keeps two ends, and keep={keep} has one; keep 2 or more")
    return Truncated(features=core.features, inner=core, keep=keep, head=keep // 2 if middle else 0)


def retrieved(probe: Probe, keep: int) -> Probe:
    """The probe as questions with the `keep` steps that match them best.

    Raises `ValueError` for a probe in which acting changes what is seen, or episodes are compared.
    """
    if probe.closed_loop:
        raise ValueError(
            f"baseline=retrieve needs questions that are there at once, and {type(probe).__name__} is acted "
            "in; take another probe, or baseline=truncate"
        )
    if probe.together > 1:
        raise ValueError(
            f"baseline=retrieve needs questions about earlier steps, and {type(probe).__name__} asks about "
            "whole episodes; take another probe, or baseline=truncate"
        )
    keys = jax.random.split(jax.random.key(0), _COUNTED)
    asked = int(jax.jit(jax.vmap(lambda key: probe.episode(key).mask.sum()))(keys).max())
    return Retrieved(length=asked * (keep + 1), probe=probe, keep=keep, asked=asked)
