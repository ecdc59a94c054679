"""Supervised training of a core on a probe: fresh episodes every step, and the loss that the probe defines.

A core is put between two dense layers and trained with AdamW. The loss is cross-entropy wherever something is
asked, unless the probe has another (`Probe.loss`), as a contrastive one is. Seeds are an axis that everything
is vmapped over, and many steps are one dispatch. A seed that answers as the reference does stops changing, so
that its result is the same in whatever company it was trained.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float

from ...cores import Carry, Core
from ...cores.dense import Dense
from ...envs.probes.base import Probe

if TYPE_CHECKING:
    from ...envs.probes.imitation import Imitation


class Reader(nn.Module):
    """Tokens `[T, B, D]` and resets `[T, B]` to outputs `[T, B, O]`, as logits of answers, through a core."""

    core: Core
    outputs: int

    @nn.compact
    def __call__(self, carry: Carry, tokens: Array, reset: Array) -> tuple[Carry, Array]:
        """See the class."""
        x = Dense(self.core.features, name="embed")(tokens)
        carry, y = self.core(carry, x, reset)
        return carry, Dense(self.outputs, name="answers")(nn.LayerNorm(name="norm")(y))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Budget:
    """How long to train: `tokens` in all (per seed), `batch_tokens` a step, `dispatch` steps at a time.

    A seed whose mean score of a dispatch is at least `solved` of the way from blind to reference is done.
    """

    tokens: int
    batch_tokens: int
    lr: float
    dispatch: int
    solved: float

    def batch(self, probe: Probe) -> int:
        """Episodes of a step: the same tokens whatever the length, and at least as many as are compared."""
        return max(self.batch_tokens // (probe.length * probe.together), 1) * probe.together

    def dispatches(self, probe: Probe) -> int:
        """How often `dispatch` steps are taken, so that at least `tokens` are seen."""
        return -(-self.tokens // (self.batch(probe) * probe.length * self.dispatch))


class Learnt(NamedTuple):
    """Parameters, leaves `[S, ...]`; per seed the dispatches taken `[S]`; a loss and a score a dispatch."""

    params: Any
    dispatches: np.ndarray
    loss: Float[np.ndarray, "N S"]
    score: Float[np.ndarray, "N S"]
    seconds: float


Report = Callable[[float, float, float], None]  # the share of the budget used, mean loss, mean score


def learn(core: Core, probe: Probe, budget: Budget, seeds: Sequence[int], report: Report) -> Learnt:
    """Train one reader a seed. The score of a closed-loop probe is agreement here, and stops nothing."""
    reader, batch = Reader(core, probe.outputs), budget.batch(probe)
    total = budget.dispatches(probe)
    steps = total * budget.dispatch
    schedule = optax.warmup_cosine_decay_schedule(0, budget.lr, min(steps // 10, 100), steps, budget.lr / 10)
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=0.01))

    def loss(params: Any, key: Array) -> tuple[Array, Array]:
        episode = probe.sequences(key, batch)
        outputs = _apply(reader, params, core.initial_carry(batch), episode.tokens, episode.reset)[1]
        return probe.loss(episode, outputs), probe.grade(episode, outputs).mean()

    def step(state: Any, key: Array) -> tuple[Any, tuple[Array, Array]]:
        params, moments = state
        found, gradients = jax.value_and_grad(loss, has_aux=True)(params, key)
        updates, moments = optimiser.update(gradients, moments, params)
        return (optax.apply_updates(params, updates), moments), found

    def several(state: Any, key: Array, number: Array, going: Bool[Array, ""]) -> tuple[Any, Array, Array]:
        keys = jax.random.split(jax.random.fold_in(key, number), budget.dispatch)
        after, (losses, scores) = jax.lax.scan(step, state, keys)
        kept = jax.tree.map(lambda old, new: jnp.where(going, new, old), state, after)
        return kept, losses.mean(), scores.mean()

    start = time.perf_counter()
    init = jax.jit(functools.partial(_init, reader, probe, optimiser))
    # One after the other: see `experiments.build.init_seeds`.
    states = [init(jax.random.fold_in(jax.random.key(seed), 0)) for seed in seeds]
    state = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    keys = jnp.stack([jax.random.fold_in(jax.random.key(seed), 1) for seed in seeds])
    train = jax.jit(jax.vmap(several, in_axes=(0, 0, None, 0)), donate_argnums=0)
    going, taken, history = np.ones(len(seeds), bool), np.zeros(len(seeds), int), []
    for number in range(total):
        state, losses, scores = train(state, keys, number, going)
        history.append((np.asarray(losses), np.asarray(scores)))
        taken += going
        report((number + 1) / total, history[-1][0].mean(), history[-1][1].mean())
        if not probe.closed_loop:
            going &= ~(probe.normalize(history[-1][1]) >= budget.solved)
        if not going.any():
            break
    losses, scores = (np.stack(each) for each in zip(*history, strict=True))
    return Learnt(state[0], taken, losses, scores, time.perf_counter() - start)


class Examined(NamedTuple):
    """Scores of episodes, and what else the probe measures and counts (`Probe.measures`, `Probe.tallies`)."""

    scores: Float[np.ndarray, "S N"]
    measures: dict[str, Float[np.ndarray, "S N ..."]]
    tallies: dict[str, Float[np.ndarray, "S N 2 K"]]


def examine(
    core: Core, probe: Probe, params: Any, seeds: Sequence[int], episodes: int, batch_tokens: int
) -> Examined:
    """What fresh episodes say, of every seed's own; a closed-loop probe is acted in.

    Of episodes that are compared with one another there is one score, their mean; they are at least as many.
    """
    reader, several = Reader(core, probe.outputs), probe.together
    groups = -(-episodes // several)
    batch = min(max(batch_tokens // (probe.length * several), 1), groups)

    def one(params: Any, keys: Array) -> tuple[Array, dict[str, Array], dict[str, Array]]:
        if probe.closed_loop:
            return _acted(reader, cast("Imitation", probe), params, keys[0]), {}, {}
        episode = jax.vmap(probe.episode, out_axes=1)(keys)
        outputs = _apply(reader, params, core.initial_carry(several), episode.tokens, episode.reset)[1]
        found = tuple(each(episode, outputs) for each in (probe.grade, probe.measures, probe.tallies))
        return jax.tree.map(lambda each: each.mean(0), found)

    def every(params: Any, key: Array) -> Any:
        keys = jax.random.split(key, (groups, several))
        return jax.lax.map(functools.partial(one, params), keys, batch_size=batch)

    keys = jnp.stack([jax.random.fold_in(jax.random.key(seed), 2) for seed in seeds])
    return Examined(*jax.tree.map(np.asarray, jax.jit(jax.vmap(every))(params, keys)))


def _acted(reader: Reader, probe: "Imitation", params: Any, key: Array) -> Array:
    """The score of sampling from what the reader expects the reference to do."""

    def act(carry: Any, key: Array, token: Array, state: Any) -> tuple[Any, Array]:
        reset = token[-1:] > 0  # the flag of a first step
        carry, logits = _apply(reader, params, carry, token[None, None], reset[None])
        return carry, jax.random.categorical(key, logits[0, 0])

    return probe.rollout(key, reader.core.initial_carry(1), act)[2]


def _apply(reader: Reader, params: Any, *inputs: Any) -> Any:
    return reader.apply(params, *inputs)


def _init(reader: Reader, probe: Probe, optimiser: optax.GradientTransformation, key: Array) -> Any:
    tokens, reset = jnp.zeros((1, 1, probe.width)), jnp.ones((1, 1), bool)
    params = reader.init(key, reader.core.initial_carry(1), tokens, reset)
    return params, optimiser.init(params)


def count_parameters(core: Core, probe: Probe) -> int:
    """Parameters of the core alone, as it is used on the probe's embedded tokens; nothing is computed."""
    shapes = jax.eval_shape(
        functools.partial(_init, Reader(core, probe.outputs), probe, optax.identity()), jax.random.key(0)
    )[0]
    return sum(leaf.size for leaf in jax.tree.leaves(shapes["params"].get("core", {})))
