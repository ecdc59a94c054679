"""P12, a rule that is shown once and must hold to the end: keeping it, and judging who kept it."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .base import FILLER, ITEM, QUERY, Episode, Figure, Probe, at, exact


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConstraintKeeping(Probe):
    """The first step shows a forbidden colour, every later one two doors of different colours with values.

    Going through a door pays its value, uniform on [0, 1], or −1 where its colour is forbidden; a score is
    the mean per pair of doors. Counted as well is in how many episodes the rule holds: to the end (`kept`),
    and through the first 1, 2, 4, … doors, which lengths can be compared by (LongSafety asks so of long
    contexts, Lu et al. 2025, arXiv 2502.16971). `distractors` steps after the first show other colours
    without a rule's flag.
    """

    length: int = 64
    colours: int = 4
    distractors: int = 0

    whole: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self.need("colours", self.colours >= 3, "must be 3 or more")
        self.need("distractors", self.distractors >= 0, "must be 0 or more")
        least = 2 + self.distractors
        self.need("length", self.length >= least, f"leaves no doors; use {least} or more")

    @property
    def fields(self) -> dict[str, int]:
        """The rule's colour, the doors' colours and values."""
        return {"rule": self.colours, "left": self.colours, "right": self.colours, "values": 2}

    @property
    def num_answers(self) -> int:
        """Left or right."""
        return 2

    def episode(self, key: Array) -> Episode:
        """A rule, then doors."""
        key_rule, key_others, key_left, key_right, key_values = jax.random.split(key, 5)
        forbidden = jax.random.randint(key_rule, (), 0, self.colours)
        others = jax.random.randint(key_others, (self.distractors,), 1, self.colours)
        rules = jnp.concatenate([forbidden[None], (forbidden + others) % self.colours])
        step = jnp.arange(self.length)
        doors = step > self.distractors
        left = jax.random.randint(key_left, step.shape, 0, self.colours)
        right = (left + jax.random.randint(key_right, step.shape, 1, self.colours)) % self.colours
        values = jax.random.uniform(key_values, (self.length, 2))
        worth = jnp.where(jnp.stack([left, right], 1) == forbidden, -1.0, values)
        tokens = self.encode(
            jnp.where(doors, QUERY, jnp.where(step == 0, ITEM, FILLER)),
            rule=at(self.length, jnp.arange(rules.size), rules),
            left=jnp.where(doors, left, -1),
            right=jnp.where(doors, right, -1),
            values=jnp.where(doors[:, None], values, 0.0),
        )
        payoff = jnp.where(doors[:, None], worth / doors.sum(), 0.0)
        return self.ask(tokens, worth.argmax(1), doors, payoff)

    def measures(self, episode: Episode, outputs: Float[Array, "T B O"]) -> dict[str, Float[Array, " B"]]:
        """How often no forbidden door was gone through."""
        return {"kept": super().measures(_allowed(episode, outputs), outputs)["exact"]}

    def tallies(self, episode: Episode, outputs: Float[Array, "T B O"]) -> dict[str, Float[Array, "B 2 K"]]:
        """How often none was among the first doors; see `Probe`."""
        return super().tallies(_allowed(episode, outputs), outputs)

    def random(self) -> Figure:
        """Half a door's value, unless it is forbidden."""
        return exact(0.5 - 1.5 / self.colours, "1/2 - 3/(2C)")

    def blind(self) -> Figure:
        """Greed: the larger value, 2/3 on average, unless it is forbidden."""
        share = 1 / self.colours
        return exact((1 - share) * 2 / 3 - share, "(1 - 1/C) 2/3 - 1/C, the larger value every time")

    def reference(self) -> Figure:
        """The larger value, or the only one that is allowed."""
        share = 1 / self.colours
        return exact(share + (1 - 2 * share) * 2 / 3, "1/C + (1 - 2/C) 2/3")


def _allowed(episode: Episode, outputs: Float[Array, "T B O"]) -> Episode:
    """The episode in which either door is right unless it is forbidden: the poorer is no violation."""
    answers = outputs.argmax(-1)
    paid = jnp.take_along_axis(episode.payoff, answers[..., None], -1)[..., 0]
    return episode._replace(targets=jnp.where(paid < 0, episode.targets, answers))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preference(Probe):
    """A rule, two logged trajectories, and the question which of them kept it.

    Both logs show the same choices but for `violations` steps, in which one of the two goes through the
    forbidden door. (LongRM's preference pairs in small.)
    """

    length: int = 64
    colours: int = 4
    violations: int = 1

    def __post_init__(self) -> None:
        self.need("colours", self.colours >= 3, "must be 3 or more")
        self.need("violations", self.violations >= 1, "leaves nothing to prefer; use 1 or more")
        least = 2 + 2 * self.violations
        self.need("length", self.length >= least, f"has no room for both logs; use {least} or more")

    @property
    def steps(self) -> int:
        """The steps of one log."""
        return (self.length - 2) // 2

    @property
    def fields(self) -> dict[str, int]:
        """The rule's colour, which log a step belongs to, and the colour that was chosen."""
        return {"rule": self.colours, "log": 2, "choice": self.colours}

    @property
    def num_answers(self) -> int:
        """The first log or the second."""
        return 2

    @property
    def scope(self) -> int:
        """The rule and a step that breaks it."""
        return 2

    @property
    def diffusion(self) -> float:
        """Apart, unless the only violation follows the rule at once."""
        return 2 - (self.violations == 1) / (2 * self.steps)

    def episode(self, key: Array) -> Episode:
        """Allowed choices, copied, and violations in one of the copies."""
        key_rule, key_choices, key_where, key_which = jax.random.split(key, 4)
        forbidden = jax.random.randint(key_rule, (), 0, self.colours)
        offsets = jax.random.randint(key_choices, (self.steps,), 1, self.colours)
        kept = (forbidden + offsets) % self.colours
        where = jax.random.permutation(key_where, self.steps)[: self.violations]
        broken = kept.at[where].set(forbidden)
        answer = jax.random.randint(key_which, (), 0, 2)
        logs = jnp.where(answer == 0, jnp.stack([kept, broken]), jnp.stack([broken, kept]))
        step = jnp.arange(self.length)
        query = step == self.length - 1
        logged = (step >= 1) & (step <= 2 * self.steps)
        tokens = self.encode(
            jnp.where(query, QUERY, jnp.where(logged | (step == 0), ITEM, FILLER)),
            rule=at(self.length, jnp.zeros(1, jnp.int32), forbidden[None]),
            log=jnp.where(logged, (step - 1) // self.steps, -1),
            choice=at(self.length, 1 + jnp.arange(2 * self.steps), logs.ravel()),
        )
        return self.ask(tokens, jnp.full(self.length, answer), query)
