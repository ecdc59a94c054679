"""Teachers: what they show is right behind any projection, is learnt from, and who may not be one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resetta.agents import Agent, PPOConfig, Teacher
from resetta.agents.normalize import no_statistics
from resetta.cores import make_core
from resetta.envs import make_meta_env

LANES = {"point_mass": {}, "pendulum": {}}


def make_agent(projection, core="none", teacher=None, lanes=LANES, num_envs=8, env=None, **config):
    config = {"num_steps": 16, "minibatches": 2, "head_features": 8, "action_levels": 3, **config}
    env = {"trials": 1, "projection": projection, "observation_width": 6, "action_width": 2, **(env or {})}
    meta = make_meta_env(lanes, num_envs=num_envs, **env)
    return Agent(PPOConfig(**config), meta, make_core(core, features=8), teacher)


def teacher_of(agent, seed=0):
    state = jax.jit(agent.init)(jax.random.key(seed))
    return Teacher(agent, state.params, state.observations)


def straight_ahead():
    """A teacher of point_mass that goes for the goal along each axis with all its force."""
    agent = make_agent("none", lanes={"point_mass": {}}, encoder="dense", head_features=0)

    class Straight:
        env, policy = agent.env, agent.policy
        initial_carry = agent.initial_carry

        @staticmethod
        def apply(params, observations, carry, inputs):
            towards = jnp.sign(inputs.observation[..., 2:4] - inputs.observation[..., :2])
            return (
                carry,
                (towards[..., None] * jnp.asarray([-30.0, 0.0, 30.0])).reshape(*towards.shape[:2], 6),
                0,
            )

    return Teacher(Straight(), None, no_statistics((6,)))  # type: ignore[arg-type]


def test_what_is_shown_leads_to_the_goal_behind_any_projection():
    """On projected tasks following the advice earns what the unprojected player earns: 45 of 50."""
    teacher = straight_ahead()
    env = make_meta_env(
        {"point_mass": {}},
        num_envs=64,
        trials=1,
        projection="orthogonal",
        observation_width=6,
        action_width=2,
    )
    states, inputs = env.reset(jax.random.key(0))
    total = 0.0
    step = jax.jit(lambda key, states, inputs: env.step(key, states, teacher.advise(env, states, inputs)))
    for t in range(50):
        states, inputs, outcome = step(jax.random.key(t), states, inputs)
        total = total + outcome.reward
    assert np.mean(total) > 42  # rotated, full force along both axes may be too much for the box


def test_the_advice_is_that_of_every_step_of_the_rollout():
    """Recomputed from tasks that do not change within a rollout, and the unprojected input at each step."""
    teacher = teacher_of(make_agent("none"))
    agent = make_agent("orthogonal", "gru", teacher)
    state = jax.jit(agent.init)(jax.random.key(1))
    _, rollout = jax.jit(agent._rollout)(state, jax.random.key(2))
    assert rollout.advice.shape == (16, 8, 2)
    for t in (0, 7, 15):
        inputs = jax.tree.map(lambda leaf, t=t: leaf[t], rollout.inputs)
        expected = teacher.advise(agent.env, state.env_state, inputs)
        np.testing.assert_allclose(rollout.advice[t], expected, atol=1e-5)


def test_a_teacher_is_followed_and_its_word_fades():
    teacher = teacher_of(make_agent("none"))
    losses = {}
    for name, options in {"always": {}, "faded": {"teacher_updates": 1e-6}}.items():
        agent = make_agent("none", "gru", teacher, entropy=0.0, lr=3e-3, teacher_weight=3.0, **options)
        state, update = jax.jit(agent.init)(jax.random.key(1)), jax.jit(agent.update)
        state = state.replace(update=jnp.int32(1))
        rows = []
        for _ in range(12):
            state, metrics = update(state)
            rows.append(float(metrics["teacher_loss"]))
        losses[name] = rows
        if name == "faded":  # as an agent without a teacher, though it is still measured
            alone = make_agent("none", "gru", entropy=0.0, lr=3e-3)
            again = jax.jit(alone.init)(jax.random.key(1)).replace(update=jnp.int32(1))
            for _ in range(12):
                again, metrics = jax.jit(alone.update)(again)
            assert "teacher_loss" not in metrics
            for a, b in zip(jax.tree.leaves(state.params), jax.tree.leaves(again.params), strict=True):
                np.testing.assert_allclose(a, b, atol=1e-5)
    assert losses["always"][-1] < losses["always"][0] - 0.02
    assert losses["always"][-1] < losses["faded"][-1] - 0.02


@pytest.mark.parametrize(
    ("own", "learner", "message"),
    [
        ({"core": "gru"}, {}, "train it with core=none"),
        ({"changes": True}, {}, "train it with core=none network.changes=false"),
        ({"projection": "orthogonal"}, {}, "train it with env.projection=none"),
        ({"env": {"observation_width": 5}}, {}, "train the teacher with the same env"),
        ({"lanes": {"pendulum": {}}}, {}, "not trained on point_mass; it knows pendulum"),
    ],
)
def test_who_cannot_teach_gets_a_sentence(own, learner, message):
    teacher = Teacher(make_agent(**{"projection": "none", **own}), None, no_statistics(()))
    with pytest.raises(ValueError, match=message):
        make_agent(**{"projection": "orthogonal", "core": "gru", "teacher": teacher, **learner})
