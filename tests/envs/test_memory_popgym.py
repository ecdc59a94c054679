"""Every memory task against the `popgym` package: spaces, lengths, rewards, ends, what chance is worth.

Their hidden state is put into our environment before every step of an episode, so that both judge the same
state and the same action.
"""

import functools

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import popgym.envs
import pytest

from resetta.envs.base import Continuous
from resetta.envs.registry import make_env
from resetta.envs.scores import score

from .popgym_states import FAMILIES

GRADES = ("easy", "medium", "hard")
NAMES = [f"{family}_{grade}" for family in FAMILIES for grade in GRADES]

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


@functools.cache
def theirs(name):
    family, _, grade = name.rpartition("_")
    made = getattr(popgym.envs, FAMILIES[family].popgym + grade.capitalize())()
    made.action_space.seed(0)
    return FAMILIES[family], made


def flat(space, action):
    """POPGym's action as ours: a row and a column become one number."""
    if isinstance(space, gymnasium.spaces.MultiDiscrete):
        return int(np.ravel_multi_index(tuple(action), tuple(space.nvec)))
    return action


def episode(name, seed, skill):
    """One episode in which a share of the actions is the best one: a list of what happened, a step each."""
    family, env = theirs(name)
    rng, steps, over = np.random.default_rng(seed), [], False
    observation, _ = env.reset(seed=seed)
    while not over:
        state = family.state(env, len(steps), observation) | {"time": len(steps)}
        state = {key: np.array(value) for key, value in state.items()}
        action = family.best(env, observation) if rng.random() < skill else env.action_space.sample()
        seen = gymnasium.spaces.flatten(env.observation_space, observation)
        observation, reward, terminated, truncated, _ = env.step(action)
        after = gymnasium.spaces.flatten(env.observation_space, observation)
        over = terminated or truncated
        ends = terminated, truncated and not terminated
        steps.append((state, flat(env.action_space, action), seen, after, reward, *ends))
    return steps


@pytest.mark.parametrize("name", NAMES)
def test_spaces_are_popgyms(name):
    _, env = theirs(name)
    ours = make_env(name)
    assert ours.observation_shape == (gymnasium.spaces.flatdim(env.observation_space),)
    if isinstance(ours.action, Continuous):
        assert (ours.action.low, ours.action.high) == (
            tuple(env.action_space.low),
            tuple(env.action_space.high),
        )
    else:
        sizes = getattr(env.action_space, "nvec", None)
        assert ours.action.size == (env.action_space.n if sizes is None else np.prod(sizes))


@pytest.mark.parametrize("name", [name for name in NAMES if not name.endswith("medium")])
def test_rewards_ends_and_observations_are_popgyms(name):
    family, _ = theirs(name)
    ours = make_env(name)
    steps = [step for seed, skill in enumerate((0.5, 0.9)) for step in episode(name, seed, skill)]
    states, actions, seen, after, *judged = (
        jax.tree.map(lambda *leaves: np.stack(leaves), *column) for column in zip(*steps, strict=True)
    )
    _, like = jax.eval_shape(lambda: ours.reset(jax.random.key(0), ours.params))
    assert vars(like).keys() == states.keys()
    state = like.replace(**{key: jnp.asarray(value, vars(like)[key].dtype) for key, value in states.items()})

    @jax.jit
    @jax.vmap
    def judge(state, action):
        key = jax.random.key(0)
        return ours._observation(ours.env.observe(key, state, None, ours.params)), ours.step(
            key, state, action, ours.params
        )

    observed, (observed_after, _, *ours_judged) = judge(state, jnp.asarray(actions))
    for mine, popgyms in zip(ours_judged, judged, strict=True):
        np.testing.assert_allclose(mine, popgyms, atol=1e-6)
    if family.exact:
        np.testing.assert_allclose(observed, seen, atol=1e-6)
    if family.follows:
        np.testing.assert_allclose(observed_after, after, atol=1e-5)
    # Neither a trial's end nor both signs of the reward may be missing from what was compared.
    assert len(steps) > 2
    assert judged[1].any() or judged[2].any()


EPISODES = 24


@pytest.mark.parametrize("name", NAMES)
def test_random_actions_are_worth_the_same(name):
    _, env = theirs(name)
    returns = np.zeros(EPISODES)
    for seed in range(EPISODES):
        env.reset(seed=seed)
        over = False
        while not over:
            _, reward, terminated, truncated, _ = env.step(env.action_space.sample())
            returns[seed] += reward
            over = terminated or truncated
    known = score(name)
    # Ours says how far returns spread: theirs would seem certain where few episodes have all failed.
    error = known.random_std_error * np.sqrt(1 + known.random_episodes / EPISODES)
    assert abs(returns.mean() - known.random) < 4 * error


# What one who sees everything earns; equal rewards (above) make it ours too.
TOP = {
    **dict.fromkeys(("autoencode", "battleship", "concentration", "count_recall", "minesweeper"), 1.0),
    **dict.fromkeys(("repeat_first", "repeat_previous", "stateless_cartpole", "multiarmed_bandit"), 1.0),
}


@pytest.mark.parametrize("family", TOP)
def test_whoever_sees_everything_scores_one(family):
    assert sum(step[4] for step in episode(f"{family}_medium", 3, 1.0)) == pytest.approx(1.0, abs=1e-6)
