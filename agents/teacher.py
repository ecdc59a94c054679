"""Kickstarting (arXiv 1803.03835): an agent that knows the tasks shows another what it would do.

What takes long to learn from rewards alone is a memory that finds out what a task's projections are. An
agent that was trained without projections needs no memory for it, and tells at every step, in whatever
state the learner has come to, which action would be right. It is asked in training alone: the learner sees
neither its states nor its actions.
"""

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
from jaxtyping import Array, Float

from ..envs import Input, MetaEnv
from .normalize import Statistics

if TYPE_CHECKING:
    from .ppo import Agent


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A trained agent without memory, of the same environments and widths but without projections.

    So its observations are as wide as any, and a projection to their width loses nothing.
    """

    agent: "Agent"
    params: Any
    observations: Statistics

    def check(self, env: MetaEnv) -> None:
        """Raise `ValueError` unless the teacher can read what an agent sees in `env`, and tell what to do."""
        own = self.agent.env
        if jax.tree.leaves(self.agent.initial_carry(1)):
            raise ValueError("a teacher has no memory; train it with core=none network.changes=false")
        if any(lane.family.projection != "none" or lane.family.permute_actions for lane in own.lanes):
            raise ValueError(
                "a teacher sees tasks as they are; train it with env.projection=none "
                "env.observation_scale=own env.permute_actions=false"
            )
        if len(env.observation_shape) != 1:
            raise ValueError(f"a teacher reads vectors, and the environment shows {env.observation_shape}")
        if (own.observation_shape, own.action) != (env.observation_shape, env.action):
            raise ValueError(
                f"the teacher observes {own.observation_shape} and acts by {own.action}, the agent "
                f"{env.observation_shape} and {env.action}; train the teacher with the same env"
            )
        if env.flicker:
            raise ValueError(
                f"a teacher sees what the agent sees, and env.flicker={env.flicker} hides it; set it to 0"
            )
        names = [lane.family.base.name for lane in own.lanes]
        for lane in env.lanes:
            name = lane.family.base.name
            if name not in names:
                raise ValueError(f"the teacher was not trained on {name}; it knows {', '.join(names)}")

    def advise(self, env: MetaEnv, states: Any, inputs: Input) -> Float[Array, "B A"]:
        """What the learner should do at `inputs` `[B, ...]`: see `MetaEnv.projected`."""
        seen = jax.tree.map(lambda leaf: leaf[None], env.unprojected(states, inputs))
        carry = self.agent.initial_carry(inputs.reward.shape[0])
        _, policy_params, _ = self.agent.apply(self.params, self.observations, carry, seen)
        return env.projected(states, self.agent.policy.expected(policy_params[0]))
