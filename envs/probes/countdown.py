"""P10, countdown: how a target is made of numbers, by a search whose every step is told. (LongProc's search
traces in small, Ye et al. 2025, arXiv 2501.05414.)"""

import dataclasses
import functools
import itertools
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .base import FILLER, ITEM, QUERY, Episode, Figure, Probe, at
from .figures import simulated


@dataclasses.dataclass(frozen=True, kw_only=True)
class Countdown(Probe):
    """`numbers` from 1 to `largest` and a target; then the search for signs that make it, depth first.

    The search starts from the first number. It adds the next, or takes it away where adding has led nowhere,
    and goes back when the numbers are used up. Told are the values it meets, one after the other, until the
    target is made of all numbers, and then that it is found: the last answer. The target is what random signs
    make, so that searches have from n to 2ⁿ − 1 answers for n numbers. As in a walk the right value so far is
    shown again, and only answers before the first error count.
    """

    length: int = 32
    numbers: int = 4
    largest: int = 4

    knob: ClassVar[str] = "numbers"
    prefix: ClassVar[bool] = True
    whole: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self.need("numbers", self.numbers >= 2, "leaves nothing to search; use 2 or more")
        self.need("numbers", self.numbers <= 10, "makes a search of thousands of steps; use 10 or fewer")
        self.need("largest", self.largest >= 1, "must be 1 or more")
        least = self.numbers + 1 + self.longest
        self.need("length", self.length >= least, f"has no room for the longest search; use {least} or more")

    @property
    def longest(self) -> int:
        """The most answers: every value but the first number, and that the target is found."""
        return 2**self.numbers - 1

    @property
    def values(self) -> int:
        """How many values can be met: from 1 − (n − 1)·largest to n·largest."""
        return (2 * self.numbers - 1) * self.largest

    @property
    def fields(self) -> dict[str, int]:
        """A number, the target, and in the answer the value before."""
        return {"number": self.largest, "target": self.values, "value": self.values}

    @property
    def num_answers(self) -> int:
        """The values, and that the target is found."""
        return self.values + 1

    @property
    def scope(self) -> int:
        """All numbers and the target."""
        return self.numbers + 1

    @property
    def signs(self) -> Int[np.ndarray, "M N"]:
        """Of every value in the order of the search, what each number is multiplied by: 1, −1 or 0."""

        def below(taken: tuple[int, ...]) -> list[tuple[int, ...]]:
            if len(taken) == self.numbers:
                return []
            deeper = [(*taken, sign) for sign in (1, -1)]
            return list(itertools.chain(*([each, *below(each)] for each in deeper)))

        return np.array([each + (0,) * (self.numbers - len(each)) for each in below((1,))])

    def episode(self, key: Array) -> Episode:
        """Numbers, a target that some signs make, and the search."""
        key_numbers, key_signs = jax.random.split(key)
        numbers = jax.random.randint(key_numbers, (self.numbers,), 1, self.largest + 1)
        least = 1 - (self.numbers - 1) * self.largest
        signs = self.signs
        met, complete = jnp.asarray(signs) @ numbers - least, signs[:, -1] != 0
        target = jax.random.choice(key_signs, met[np.flatnonzero(complete)])
        found = jnp.argmax(complete & (met == target))
        order = jnp.arange(self.longest)
        answers = jnp.where(order <= found, jnp.append(met, -1), self.values)
        before = jnp.concatenate([numbers[:1] - least, met])

        step, first = jnp.arange(self.length), self.length - self.longest
        query = (step >= first) & (step - first <= found + 1)
        tokens = self.encode(
            jnp.where(query, QUERY, jnp.where(step <= self.numbers, ITEM, FILLER)),
            number=at(self.length, jnp.arange(self.numbers), numbers - 1),
            target=at(self.length, jnp.array([self.numbers]), target[None]),
            value=jnp.where(query, at(self.length, first + order, before), -1),
        )
        return self.ask(tokens, at(self.length, first + order, answers), query)

    def random(self) -> Figure:
        """The chance of a right beginning; searches differ in length."""
        return simulated(self, "random")

    def blind(self) -> Figure:
        """The best known of the value before alone."""
        return simulated(self, "blind")

    def blind_policy(self, key: Array, tokens: Float[Array, "T D"]) -> Int[Array, " T"]:
        """What most often follows the value before, in searches that were told rightly so far."""
        return jnp.asarray(self.habits)[self.field(tokens, "value").argmax(-1)]

    @functools.cached_property
    def habits(self) -> Int[np.ndarray, " V"]:
        """What to say after each value, from 4,096 episodes of a seed of its own.

        Where a step stands in the search decides how often it is reached without an error, which is up to
        what is said before: what is likeliest is found again a few times, with the reach that follows.
        """
        with jax.ensure_compile_time_eval():  # a policy may ask while it is compiled
            drawn = jax.jit(self.sequences, static_argnums=1)(jax.random.key(20), 4096)
            episode = jax.tree.map(np.asarray, drawn)
        shown = self.field(episode.tokens, "value").argmax(-1)
        worth = episode.mask / episode.mask.sum(0)
        reach = 0.5 ** np.maximum(episode.mask.cumsum(0) - 1, 0)
        habits = np.zeros(self.values, int)
        for _ in range(4):
            votes = np.zeros((self.values, self.num_answers))
            np.add.at(
                votes, (shown[episode.mask], episode.targets[episode.mask]), (worth * reach)[episode.mask]
            )
            habits = votes.argmax(1)
            right = ~episode.mask | (habits[shown] == episode.targets)
            so_far = np.cumprod(right, 0)
            reach = np.concatenate([np.ones_like(so_far[:1]), so_far[:-1]])
        return habits
