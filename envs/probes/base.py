"""What a probe is: a frozen dataclass of options that turns a key into an episode of fixed shape.

An episode does not depend on what the learner answers: it is all there at once, with what every answer pays
at every step (`payoff`). The sequence view hands it over as it is; the environment view (`environment`) shows
it a step at a time. Both pay the same score. Probes in which acting changes what is seen are `imitation`'s.
"""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

ITEM, QUERY, FILLER = range(3)  # what a step is for; the fourth flag marks the first step of a (sub-)episode
FLAGS = ("item", "query", "filler", "start")


class Episode(NamedTuple):
    """One episode, or a batch of them with the batch as second axis.

    `targets` is the right answer where `mask` is true (elsewhere 0 and meaningless), `payoff` what each
    answer pays, and `reset` says that the memory is cleared before the step. `distance`, where a probe says
    it, is how many steps back the earliest item lies that an answer depends on, 0 where there is none.
    """

    tokens: Float[Array, "T D"]
    targets: Int[Array, " T"]
    mask: Bool[Array, " T"]
    reset: Bool[Array, " T"]
    payoff: Float[Array, "T A"]
    distance: Int[Array, " T"] | None = None


class Figure(NamedTuple):
    """A known score: a closed form, or a simulation's mean with its standard error; `note` says which."""

    value: float
    std_error: float
    exact: bool
    note: str


def exact(value: float, note: str) -> Figure:
    """A figure in closed form."""
    return Figure(float(value), 0.0, True, note)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Probe:
    """A task with one question to a memory; subclasses add options, all with defaults.

    `length` is the number of steps T, exactly. Subclasses say in `fields` what a token is made of, in
    `num_answers` (A) what can be answered, and in `episode` how an episode is drawn. `knob` is the option
    that makes the probe harder as it grows (`length` always does), with `prefix` only answers before the
    first wrong one count, and with `whole` it is measured as well how often all are right.
    """

    length: int = 64

    knob: ClassVar[str] = "length"
    prefix: ClassVar[bool] = False
    whole: ClassVar[bool] = False
    closed_loop: ClassVar[bool] = False  # acting changes what is seen; see `imitation`

    @property
    def fields(self) -> dict[str, int]:
        """The parts of a token in order, with their widths; the four flags follow them."""
        raise NotImplementedError

    @property
    def num_answers(self) -> int:
        """A: answers are 0 to A − 1."""
        raise NotImplementedError

    @property
    def outputs(self) -> int:
        """How many numbers a learner gives at every step: a logit per answer."""
        return self.num_answers

    @property
    def together(self) -> int:
        """How many episodes are compared with one another, if `grade` does so; batches hold a multiple."""
        return 1

    @property
    def scope(self) -> int:
        """How many earlier steps an answer depends on: what must be read at the least."""
        return 1

    @property
    def diffusion(self) -> float:
        """Of the `scope` steps, how many there are to each of their longest run; see `diffusion`."""
        return 1.0

    @property
    def distractor_similarity(self) -> float:
        """The expected cosine between what is asked for and what nobody asks for, 0 where all are unlike."""
        return 0.0

    @property
    def trials(self) -> int:
        """How many trials the environment makes of an episode: as many as it has resets."""
        return 1

    @property
    def environments(self) -> tuple[type, ...]:
        """The classes of the environments that are acted in: what a probe depends on beside its own code."""
        return ()

    def episode(self, key: Array) -> Episode:
        """The episode of a key: pure, of static shapes, the same whenever it is drawn."""
        raise NotImplementedError

    def random(self) -> Figure:
        """The mean score of uniformly random answers."""
        return exact(1 / self.num_answers, f"one of {self.num_answers} answers")

    def blind(self) -> Figure:
        """The mean score of the best policy that sees the present token alone."""
        return exact(1 / self.num_answers, f"one of {self.num_answers} equally likely answers")

    def reference(self) -> Figure:
        """The mean score of the best, or best known, policy that remembers everything."""
        return exact(1.0, "every answer right")

    def random_policy(self, key: Array, tokens: Float[Array, "T D"]) -> Int[Array, " T"]:
        """Uniformly random answers."""
        return jax.random.randint(key, tokens.shape[:1], 0, self.num_answers)

    def play(self, which: str, key: Array) -> Float[Array, ""]:
        """The score of `random_policy`, `blind_policy` or `reference_policy` in the episode of a key."""
        key_episode, key_policy = jax.random.split(key)
        episode = self.episode(key_episode)
        return self.score(episode, getattr(self, f"{which}_policy")(key_policy, episode.tokens))

    def sequences(self, key: Array, batch: int) -> Episode:
        """`batch` episodes, time-major: `tokens [T, B, D]`, `targets`, `mask` and `reset` `[T, B]`."""
        return jax.vmap(self.episode, out_axes=1)(jax.random.split(key, batch))

    def score(self, episode: Episode, answers: Int[Array, "T ..."]) -> Float[Array, "..."]:
        """What `answers` earn over the whole episode, one score per row of a batch.

        With `prefix` a wrong answer to a question is the last that counts.
        """
        paid = jnp.take_along_axis(episode.payoff, answers[..., None], -1)[..., 0]
        if self.prefix:
            paid = paid * jnp.cumprod(~episode.mask | (answers == episode.targets), 0)
        return paid.sum(0)

    def loss(self, episode: Episode, outputs: Float[Array, "T B O"]) -> Float[Array, ""]:
        """What a learner of the sequence view minimises: mean cross-entropy wherever it is asked."""
        right = jnp.take_along_axis(outputs, episode.targets[..., None], -1)[..., 0]
        wrong = jax.nn.logsumexp(outputs, -1) - right
        return (wrong * episode.mask).sum() / jnp.maximum(episode.mask.sum(), 1)

    def grade(self, episode: Episode, outputs: Float[Array, "T B O"]) -> Float[Array, " B"]:
        """What a learner's outputs earn, one score per row of a batch: those of the likeliest answers."""
        return self.score(episode, outputs.argmax(-1))

    def measures(self, episode: Episode, outputs: Float[Array, "T B O"]) -> dict[str, Float[Array, "B ..."]]:
        """What else is counted in a learner's outputs beside the score, by name and row of a batch."""
        if not self.whole:
            return {}
        right = ~episode.mask | (outputs.argmax(-1) == episode.targets)
        return {"exact": right.all(0).astype(jnp.float32)}

    def tallies(self, episode: Episode, outputs: Float[Array, "T B O"]) -> dict[str, Float[Array, "B 2 K"]]:
        """How many are right, and of how many, in K classes that begin at 1, 2, 4, …, by what they count.

        `distance`: answers by how far back the earliest item lies that they depend on. `outputs`, of answers
        that are made of several: episodes of at least 1, 2, 4, … outputs, and whether the first so many are
        all right, so that neither long answers nor short ones are favoured.
        """
        right, found = outputs.argmax(-1) == episode.targets, {}
        begins = 2 ** jnp.arange(self.length.bit_length())
        if episode.distance is not None:
            distance = episode.distance[..., None]
            within = (distance >= begins) & (distance < 2 * begins) & episode.mask[..., None]
            found["distance"] = jnp.stack([(within & right[..., None]).sum(0), within.sum(0)], 1)
        if self.whole:
            number = episode.mask.sum(0)[:, None] >= begins
            before = (episode.mask & jnp.cumprod(right | ~episode.mask, 0).astype(bool)).sum(0)
            found["outputs"] = jnp.stack([number & (before[:, None] >= begins), number], 1)
        return jax.tree.map(lambda each: each.astype(jnp.float32), found)

    def told(self, means: dict[str, np.ndarray]) -> dict[str, float]:
        """What is said of the means of `measures` over episodes, numbers by name: here the means."""
        return {name: float(mean) for name, mean in means.items()}

    def normalize(self, score: Any) -> Any:
        """(score − blind)/(reference − blind): 0 needs no memory, 1 is the reference; both can be passed."""
        blind = self.blind().value
        return (score - blind) / (self.reference().value - blind)

    @property
    def width(self) -> int:
        """D, the width of a token."""
        return sum(self.fields.values()) + len(FLAGS)

    def field(self, tokens: Any, name: str) -> Any:
        """The part of `tokens [..., D]` that is called `name`: a field, or a flag (without its axis)."""
        if name in FLAGS:
            return tokens[..., self.width - len(FLAGS) + FLAGS.index(name)]
        names = list(self.fields)
        start = sum(self.fields[before] for before in names[: names.index(name)])
        return tokens[..., start : start + self.fields[name]]

    def encode(self, phase: Int[Array, " T"], **values: Array) -> Float[Array, "T D"]:
        """Tokens of the phases ITEM, QUERY and FILLER and of fields.

        An integer array `[T]` is one-hot (−1: all zero), a float array `[T, width]` stands as it is, and
        fields not given are zero. The first step is marked as a start.
        """
        steps = phase.shape[0]
        parts = []
        for name, width in self.fields.items():
            value = values.pop(name, None)
            if value is None:
                parts.append(jnp.zeros((steps, width)))
            elif jnp.issubdtype(value.dtype, jnp.integer):
                parts.append(jax.nn.one_hot(value, width))
            else:
                parts.append(value.reshape(steps, width))
        assert not values, f"no such field: {values}"
        start = jnp.zeros((steps, 1)).at[0].set(1.0)
        return jnp.concatenate([*parts, jax.nn.one_hot(phase, 3), start], -1)

    def ask(
        self,
        tokens: Array,
        targets: Array,
        mask: Array,
        payoff: Array | None = None,
        reset: Any = None,
        first: Array | None = None,
    ) -> Episode:
        """An episode from its parts; without `payoff` a right answer pays 1/(number of questions).

        `first` is the earliest step that each answer depends on, in the order of the answers; negative: none.
        """
        targets = jnp.where(mask, targets, 0).astype(jnp.int32)
        if payoff is None:
            right = jax.nn.one_hot(targets, self.num_answers) * mask[:, None]
            payoff = right / jnp.maximum(mask.sum(), 1)
        if reset is None:
            reset = jnp.arange(self.length) == 0
        distance = None
        if first is not None:
            needed = first[jnp.maximum(mask.cumsum() - 1, 0)]
            distance = jnp.where(mask & (needed >= 0), jnp.arange(self.length) - needed, 0)
        return Episode(tokens, targets, mask, reset, payoff, distance)

    def need(self, name: str, holds: bool, cure: str) -> None:
        """Raise `ValueError` with the option's value and the cure unless it `holds`; for `__post_init__`."""
        if not holds:
            raise ValueError(f"{name}={getattr(self, name)} of {type(self).__name__} {cure}")


def at(length: int, positions: Array, values: Array, fill: int = -1) -> Int[Array, " T"]:
    """`values` at `positions` of an integer array of `length` that holds `fill` elsewhere."""
    return jnp.full(length, fill, jnp.int32).at[positions].set(values.astype(jnp.int32))


def distinct(key: Array, count: int, among: int) -> Int[Array, " count"]:
    """`count` different numbers below `among`, in random order."""
    return jax.random.permutation(key, among)[:count]
