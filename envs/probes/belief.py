"""P10, belief states: where somebody believes a thing to be that is moved while they look on or not, event by
event. (LongProc's tracking of a theory of mind, Ye et al. 2025, arXiv 2501.05414.)"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array

from .base import FILLER, ITEM, QUERY, Episode, Figure, Probe, at, exact
from .walk import uniform_prefix


@dataclasses.dataclass(frozen=True, kw_only=True)
class BeliefState(Probe):
    """`events` put a thing in one of `places`; then, after each, where one of `agents` believed it to be.

    An event shows the place, uniform and independent, and who is present: everyone at first, later each agent
    every other time. An agent believes the thing to be where it last saw it. As in a walk the right answer so
    far is shown again, and only answers before the first error count.
    """

    length: int = 64
    places: int = 8
    agents: int = 4
    events: int = 12

    knob: ClassVar[str] = "events"
    prefix: ClassVar[bool] = True
    whole: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self.need("places", self.places >= 2, "leaves nothing to believe; use 2 or more")
        self.need("agents", self.agents >= 1, "must be 1 or more")
        self.need("events", self.events >= 1, "must be 1 or more")
        least = 2 * self.events
        self.need("length", self.length >= least, f"has no room for events and answers; use {least} or more")

    @property
    def fields(self) -> dict[str, int]:
        """The place, of the thing or of the belief before; who is present; whose belief is asked for."""
        return {"place": self.places, "present": self.agents, "agent": self.agents}

    @property
    def num_answers(self) -> int:
        """The places."""
        return self.places

    def episode(self, key: Array) -> Episode:
        """Events, and one agent's beliefs after each."""
        key_places, key_present, key_agent = jax.random.split(key, 3)
        places = jax.random.randint(key_places, (self.events,), 0, self.places)
        present = jax.random.bernoulli(key_present, 0.5, (self.events, self.agents)).at[0].set(True)
        agent = jax.random.randint(key_agent, (), 0, self.agents)
        event = jnp.arange(self.events)
        beliefs = places[jax.lax.cummax(jnp.where(present[:, agent], event, 0))]
        step, first = jnp.arange(self.length), self.length - self.events
        query = step >= first
        tokens = self.encode(
            jnp.where(query, QUERY, jnp.where(step < self.events, ITEM, FILLER)),
            place=at(self.length, event, places).at[first + 1 :].set(beliefs[:-1]),
            present=jnp.zeros((self.length, self.agents)).at[event].set(present),
            agent=jnp.where(query, agent, -1),
        )
        return self.ask(tokens, at(self.length, first + event, beliefs), query)

    def random(self) -> Figure:
        """The chance of a right beginning."""
        return uniform_prefix(1 / self.places, self.events)

    def blind(self) -> Figure:
        """Any place, and then that the belief stays what it was, as it does when nothing is seen."""
        stays = 1 / 2 + 1 / (2 * self.places)
        value = sum(stays**i for i in range(self.events)) / (self.places * self.events)
        return exact(value, "mean over i below h of c^i/P, with c = 1/2 + 1/(2P): the belief before, again")
