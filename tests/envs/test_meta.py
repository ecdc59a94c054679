"""Meta-episodes step by step, on an environment whose every number is known."""

import dataclasses
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from gymnax.environments import environment, spaces

from resetta.envs import BaseEnv, MetaEnv, TaskFamily, make_meta_env
from resetta.envs.meta import make_lanes


@struct.dataclass
class Params(environment.EnvParams):
    max_steps_in_episode: int = 3


@struct.dataclass
class State(environment.EnvState):
    time: Any
    start: Any


class Clock(environment.Environment):
    """Observes (time, start); start is random; action 1 pays 1, action 2 ends the trial at once."""

    @property
    def default_params(self):
        return Params()

    def reset_env(self, key, params):
        state = State(time=jnp.int32(0), start=jax.random.uniform(key))
        return self.observe(key, state, None, params), state

    def step_env(self, key, state, action, params):
        state = state.replace(time=state.time + 1)
        reward = jnp.where(action == 1, 1.0, 0.0)
        return self.observe(key, state, action, params), state, reward, action == 2, {}

    def observe(self, key, state, action, params):
        return jnp.stack([state.time.astype(jnp.float32), state.start])

    def action_space(self, params):
        return spaces.Discrete(3)

    def observation_space(self, params):
        return spaces.Box(0, 3, (2,))


def clock(rows=2, trials=2, **options):
    env = Clock()
    base = BaseEnv("clock", env, env.default_params)
    family = TaskFamily(base, "none", False, 2, 3, **options)
    return MetaEnv(make_lanes([family], rows, [10.0]), trials)


def play(env, actions, ids=None):
    """Inputs 0..T and outcomes 0..T-1 of row 0, as numpy."""
    state, inputs = env.reset(jax.random.key(0), ids)
    step = jax.jit(env.step)
    seen, done = [inputs], []
    for t, action in enumerate(actions):
        state, inputs, outcome = step(jax.random.key(t + 1), state, jnp.full(env.num_envs, action))
        seen.append(inputs)
        done.append(outcome)
    stack = lambda parts: jax.tree.map(lambda *xs: np.stack([np.asarray(x)[0] for x in xs]), *parts)  # noqa: E731
    return stack(seen), stack(done)


def test_the_three_signals_of_a_meta_episode():
    # trial 1: three steps, a time limit; trial 2: failure at its second step, and the meta-episode ends
    seen, done = play(clock(), [1, 0, 1, 0, 2, 0])
    assert seen.observation[:, 0].tolist() == [0, 1, 2, 0, 1, 0, 1]
    assert seen.episode_start.tolist() == [True, False, False, True, False, True, False]
    assert seen.reset.tolist() == [True, False, False, False, False, True, False]
    assert done.truncated.tolist() == [False, False, True, False, False, False]
    assert done.terminated.tolist() == [False, False, False, False, True, False]
    assert done.trial_end.tolist() == [False, False, True, False, True, False]
    assert done.trial.tolist() == [0, 0, 0, 1, 1, 0]


def test_the_last_trials_time_limit_is_the_meta_episodes_end():
    _, done = play(clock(), [0] * 6)
    assert done.truncated.tolist() == [False, False, True, False, False, False]
    assert done.terminated.tolist() == [False, False, False, False, False, True]


def test_one_trial_is_ordinary_rl():
    seen, done = play(clock(trials=1), [0, 0, 0, 2])
    assert done.truncated.tolist() == [False, False, True, False]
    assert done.terminated.tolist() == [False, False, False, True]
    assert seen.reset.tolist() == [True, False, False, True, True]


def test_action_and_reward_are_remembered_until_the_memory_resets():
    seen, done = play(clock(), [1, 0, 1, 0, 2])
    assert seen.action.argmax(-1)[1:5].tolist() == [1, 0, 1, 0]
    assert seen.reward.tolist() == [0, 10, 0, 10, 0, 0], "scaled, kept over a trial's end, zero at the reset"
    assert not seen.action[0].any()
    assert not seen.action[5].any()
    assert done.trial_return[[2, 4]].tolist() == [2, 0], "raw"
    assert done.reward.tolist() == [10, 0, 10, 0, 0]


def test_an_agent_may_be_kept_from_its_rewards():
    blind = dataclasses.replace(clock(), reward_input=False)
    seen, done = play(blind, [1, 0, 1, 1])
    assert not seen.reward.any()
    assert not done.final.reward.any()
    assert done.reward.tolist() == [10, 0, 10, 10]


def test_the_final_observation_is_the_one_the_reset_hides():
    seen, done = play(clock(), [0, 0, 0])
    assert done.final.observation[2, 0] == 3
    assert seen.observation[3, 0] == 0
    assert not done.final.episode_start.any()
    assert not done.final.reset.any()
    assert done.final.action[2].argmax() == 0


def test_every_trial_starts_afresh():
    seen, _ = play(clock(trials=4), [0] * 12)
    starts = seen.observation[seen.episode_start, 1]
    assert len(set(starts.tolist())) == 5


def test_trials_may_start_from_one_state_of_their_task():
    env = dataclasses.replace(clock(physics={"max_steps_in_episode": (3, 3)}), same_start=True)
    seen, _ = play(env, [0] * 12)  # four trials: two of one task, two of another
    starts = seen.observation[seen.episode_start, 1]
    assert starts[0] == starts[1] != starts[2] == starts[3]
    again, _ = play(env, [2], ids=jnp.full(2, 7))  # wherever a task is met, its start is the same
    other, _ = play(env, [0, 2], ids=jnp.array([7, 8]))
    assert again.observation[0, 1] == again.observation[1, 1] == other.observation[0, 1]


def test_flickering_blanks_observations_and_changes_nothing_else():
    envs = [clock(rows=400), dataclasses.replace(clock(rows=400), flicker=0.25)]
    programs = [jax.jit(env.step) for env in envs]
    states, (still, seen) = zip(*(env.reset(jax.random.key(3)) for env in envs), strict=True)
    blanks, hidden_ends = [], 0
    for t in range(30):
        blank = ~np.asarray(seen.observation).any(-1)
        blanks.append(blank)
        np.testing.assert_array_equal(seen.observation[~blank], still.observation[~blank])
        for field in ("action", "reward", "episode_start", "reset"):
            np.testing.assert_array_equal(getattr(seen, field), getattr(still, field))
        action = jax.random.randint(jax.random.key(t), (400,), 0, 3)
        steps = [step(jax.random.key(t), state, action) for step, state in zip(programs, states, strict=True)]
        states, (still, seen), (done, shown) = zip(*steps, strict=True)
        np.testing.assert_array_equal(shown.reward, done.reward)
        last = np.asarray(shown.final.observation)
        hidden = ~last.any(-1)
        np.testing.assert_array_equal(last[~hidden], done.final.observation[~hidden])
        np.testing.assert_array_equal(hidden, ~np.asarray(seen.observation).any(-1))
        hidden_ends += int((hidden & np.asarray(done.trial_end)).sum())
    assert hidden_ends > 0
    # 12,000 draws of 1/4, each by itself: five standard deviations of their mean are .02
    assert abs(np.mean(blanks) - 0.25) < 0.02
    together = np.mean([a & b for a, b in itertools.pairwise(blanks)])
    assert abs(together - 0.0625) < 0.012, "one step's blanks tell nothing of the next one's"


def test_a_chance_lies_between_0_and_1():
    with pytest.raises(ValueError, match=r"env.flicker=1.5 must be a chance, from 0 to 1"):
        make_meta_env({"cartpole": {}}, num_envs=1, trials=1, flicker=1.5)


def test_a_task_lasts_for_its_meta_episode():
    env = make_meta_env(
        {"cartpole_catch": {}}, num_envs=6, trials=2, projection="orthogonal", permute_actions=True
    )
    state, _ = env.reset(jax.random.key(0))
    step = jax.jit(env.step)
    ended = np.zeros(6, int)
    for t in range(60):
        before = jax.device_get(state[0].task)
        state, inputs, _ = step(jax.random.key(t), state, jnp.zeros(6, jnp.int32))
        after, reset = jax.device_get(state[0].task), np.asarray(inputs.reset)
        np.testing.assert_array_equal(before.id != after.id, reset)
        same = np.isclose(before.observation_matrix, after.observation_matrix).all((1, 2))
        np.testing.assert_array_equal(same, ~reset)
        ended += reset
    assert (ended > 0).all()


def test_projection_is_what_the_agent_sees():
    env = make_meta_env(
        {"cartpole_catch": {}}, num_envs=4, trials=2, projection="orthogonal", observation_width=7
    )
    plain = make_meta_env({"cartpole_catch": {}}, num_envs=4, trials=2)
    ids = jnp.arange(4)
    state, inputs = env.reset(jax.random.key(3), ids)
    _, bare = plain.reset(jax.random.key(3), ids * 0)
    matrix = state[0].task.observation_matrix
    np.testing.assert_allclose(
        inputs.observation, jnp.einsum("bwd,bd->bw", matrix, bare.observation), atol=1e-5
    )
    norms = [jnp.linalg.norm(x.observation, axis=-1) for x in (inputs, bare)]
    np.testing.assert_allclose(*norms, rtol=1e-5)


def test_continuous_actions_are_projected_clipped_and_brought_to_bounds():
    env = make_meta_env({"pendulum": {}}, num_envs=3, trials=2, projection="orthogonal", action_width=4)
    assert env.action.size == 4
    state, _ = env.reset(jax.random.key(0))
    matrix = np.asarray(state[0].task.action_matrix)
    action = np.array([[0.1, -0.2, 0.3, 0.05], [5, 5, 5, 5], [0, 0, 0, 0]], np.float32)
    expected = 2.0 * np.clip(np.einsum("bea,ba->be", matrix, np.clip(action, -1, 1)), -1, 1)
    got = jax.vmap(env._act, (None, 0, 0))(env.lanes[0].family, state[0].task, jnp.asarray(action))
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_lanes_keep_their_rows():
    env = make_meta_env(
        {"cartpole": {}, "acrobot": {}}, num_envs=6, trials=3, projection="orthogonal", permute_actions=True
    )
    assert env.observation_shape == (6,)
    assert env.action.size == 3
    state, inputs = jax.jit(env.reset)(jax.random.key(0))
    assert [lane.base.time.shape for lane in state] == [(3,), (3,)]
    state, inputs, outcome = jax.jit(env.step)(jax.random.key(1), state, jnp.arange(6) % 3)
    np.testing.assert_allclose(outcome.raw_reward, [1, 1, 1, -1, -1, -1])
    assert inputs.observation.shape == (6, 6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lanes": {"cartpole": {}, "acrobot": {}}, "num_envs": 5}, "use 4 or 6"),
        ({"lanes": {"cartpole": {}, "pendulum": {}}, "num_envs": 4}, "cannot share a batch"),
        ({"lanes": {"cartpole": {}, "minatar_breakout": {}}, "num_envs": 4}, "cannot share a batch"),
        ({"lanes": {"minatar_breakout": {}}, "num_envs": 4, "projection": "orthogonal"}, "pixels"),
        ({"lanes": {"cartpole": {}}, "num_envs": 4, "observation_width": 3}, "use 4 or more"),
        ({"lanes": {"cartpole": {}}, "num_envs": 4, "action_width": 1}, "use 2 or more"),
        (
            {"lanes": {"cartpole": {}}, "num_envs": 4, "projection": "gaussian"},
            "choose from none, orthogonal, words",
        ),
        (
            {"lanes": {"mountain_car": {}}, "num_envs": 4, "projection": "words"},
            "observation_width=3 or more",
        ),
        (
            {"lanes": {"cartpole": {}}, "num_envs": 4, "projection": "words", "word_length": 0},
            "word_length=0 is too small; use 1 or more",
        ),
        ({"lanes": {"cartpole": {}}, "num_envs": 4, "physics": {"lenght": [0, 1]}}, "does not have"),
        ({"lanes": {"cartpole": {}}, "num_envs": 4, "physics": {"length": [2, 1]}}, "low <= high"),
        (
            {"lanes": {"cartpole": {}}, "num_envs": 4, "physics": {"max_steps_in_episode": [100, 900]}},
            "all trials of a lane have one limit",
        ),
        (
            {"lanes": {"cartpole": {}}, "num_envs": 4, "held_out_physics": {"length": [1, 2]}},
            "for training too",
        ),
        (
            {"lanes": {"cartpole": {}}, "num_envs": 4, "reward_scales": {"acrobot": 1.0}},
            "names 'acrobot', which is no lane; it may name cartpole",
        ),
        (
            {"lanes": {"cartpole": {}}, "num_envs": 4, "reward_scales": {"cartpole": "big"}},
            "reward_scales.cartpole='big' must be a number",
        ),
        (
            {"lanes": {"cartpole": {}}, "num_envs": 4, "observation_scale": "unit"},
            "unknown observation_scale 'unit'; choose from own, random",
        ),
        (
            {"lanes": {"cartpole": {}}, "num_envs": 4, "observation_scale": "random"},
            "use env.projection=orthogonal, or normalize_observations=true",
        ),
        (
            {
                "lanes": {"cartpole": {}},
                "num_envs": 4,
                "observation_scale": "random",
                "projection": "orthogonal",
            },
            "what cartpole observes under random actions was never measured; it is known of .*dm_point_mass",
        ),
        ({"lanes": {"cartpole": {}}, "num_envs": 4, "trials": 0}, "trials=0"),
        ({"lanes": {}, "num_envs": 4}, "no base environment"),
        ({"lanes": {"cartpol": {}}, "num_envs": 4}, "did you mean"),
    ],
)
def test_mistakes_get_a_sentence(options, message):
    options = {"trials": 2, **options}
    with pytest.raises(ValueError, match=message):
        make_meta_env(options.pop("lanes"), **options)


def test_held_out_environments_take_the_place_of_the_others():
    options = {"num_envs": 4, "trials": 2, "projection": "orthogonal", "held_out_lanes": {"acrobot": {}}}
    train = make_meta_env({"cartpole": {}}, **options)
    held_out = make_meta_env({"cartpole": {}}, **options, split="held_out")
    assert train.lanes[0].family.base.name == "cartpole"
    assert held_out.lanes[0].family.base.name == "acrobot"
    assert (train.observation_shape, train.action) == (held_out.observation_shape, held_out.action)


def test_observations_of_one_size(monkeypatch):
    """A state of as many times an entry's root mean square looks the same whatever the entries' sizes."""
    rms = (0.5, 2.0, 0.01, 1.0)
    options = {"num_envs": 2, "trials": 1, "projection": "orthogonal", "observation_width": 6}
    own = make_meta_env({"cartpole": {}}, **options).lanes[0].family
    monkeypatch.setattr("resetta.envs.make.observation_rms", {"cartpole": rms}.get)
    family = make_meta_env({"cartpole": {}}, **options, observation_scale="random").lanes[0].family
    scaled, plain = (each.make(jnp.int32(3)).observation_matrix for each in (family, own))
    np.testing.assert_allclose(scaled @ jnp.asarray(rms), plain.sum(1), rtol=1e-5)


def test_a_reward_scale_of_ones_own():
    lanes = {"cartpole": {}, "acrobot": {}, "mountain_car": {}}
    env = make_meta_env(lanes, num_envs=3, trials=1, reward_scale=0.5, reward_scales={"acrobot": 2})
    assert [lane.reward_scale for lane in env.lanes] == [0.5, 2.0, 0.5]


def test_staggered_trials_end_at_different_times_and_with_a_rollout():
    env = make_meta_env({"pendulum": {}}, num_envs=6, trials=1)
    states, _ = env.reset(jax.random.key(0))
    every = env.max_steps // 4
    (lane,) = env.stagger(states, every)
    assert lane.base.time.tolist() == [0, every, 2 * every, 3 * every, 0, every]
    assert (lane.base.time.dtype, lane.base.time.shape) == (states[0].base.time.dtype, (6,))
    (endless,) = env.stagger(states, 2 * env.max_steps)
    assert endless.base.time.tolist() == [0] * 6
    without_limit = make_meta_env({"repeat_first_easy": {}}, num_envs=2, trials=1)
    states, _ = without_limit.reset(jax.random.key(0))
    assert without_limit.stagger(states, 1)[0] is states[0]


def test_a_simulators_trials_begin_from_starts_drawn_at_the_reset():
    class Simulator(Clock):
        simulated, resets = True, 0

        def reset_env(self, key, params):
            Simulator.resets += 1
            return super().reset_env(key, params)

    base = BaseEnv("simulator", Simulator(), Params())
    env = MetaEnv(make_lanes([TaskFamily(base, "none", False, 2, 3)], 2, [1.0]), 1)
    states, inputs = jax.jit(env.reset)(jax.random.key(0))
    traced = Simulator.resets
    starts = states[0].starts[1].start
    assert len(np.unique(starts)) == len(starts) == 256
    step = jax.jit(env.step)
    seen = [inputs.observation[:, 1]]
    for t in range(6):
        states, inputs, _ = step(jax.random.key(t), states, jnp.array([0, 2]))
        begun, start = inputs.episode_start, inputs.observation[:, 1]
        assert begun.tolist() == [t % 3 == 2, True]
        assert np.isin(start, starts).all()
        np.testing.assert_array_equal(start != seen[-1], begun)  # another one, where a trial began
        np.testing.assert_array_equal(inputs.observation[:, 0] == 0, begun)
        seen.append(start)
    assert Simulator.resets == traced, "a step holds no reset"
    assert len(np.unique(np.stack(seen)[:, 1])) == 7


@pytest.mark.parametrize(
    ("lanes", "options"),
    [
        ({"pendulum": {}, "point_mass": {}}, {"observation_width": 6, "action_width": 3}),
        ({"pendulum": {}, "point_mass": {}}, {"observation_scale": "random"}),
        ({"pendulum": {}, "point_mass": {}}, {"projection": "words", "observation_width": 5}),
        ({"cartpole": {}, "acrobot": {}}, {"permute_actions": True, "observation_width": 7}),
        ({"cartpole": {}}, {"permute_actions": True, "action_width": 5}),
    ],
)
@jax.default_matmul_precision("highest")
def test_projections_undone_leave_the_plain_environment(lanes, options, monkeypatch):
    """The same trials, step by step, of an environment and of its projected twin."""
    rms = {"pendulum": (0.5, 2.0, 3.0), "point_mass": (1.0, 2.0, 0.1, 4.0)}
    monkeypatch.setattr("resetta.envs.make.observation_rms", rms.get)
    options = {"projection": "orthogonal", **options}
    twin = make_meta_env(lanes, num_envs=8, trials=2, **options)
    width = {"observation_width": twin.observation_shape[0], "action_width": twin.action.size}
    plain = make_meta_env(lanes, num_envs=8, trials=2, **width)
    key = jax.random.key(0)
    (states, inputs), (plain_states, plain_inputs) = twin.reset(key), plain.reset(key)
    step, plain_step = jax.jit(twin.step), jax.jit(plain.step)
    sizes = np.repeat([lane.family.base.action.size for lane in twin.lanes], 4)
    for t in range(12):
        seen = jax.jit(twin.unprojected)(states, inputs)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4), seen, plain_inputs)
        key_step, key_action = jax.random.split(jax.random.fold_in(key, t))
        if "cartpole" in lanes:
            action = jax.random.randint(key_action, (8,), 0, 2)
            shares = twin.projected(states, jax.nn.one_hot(action, twin.action.size))
            np.testing.assert_allclose(shares.sum(-1), 1.0, rtol=1e-6)
            projected = jnp.argmax(shares, -1)
        else:
            # as short as no rotation leaves the box
            action = jax.random.uniform(key_action, (8, twin.action.size), minval=-0.7, maxval=0.7)
            action = jnp.where(np.arange(twin.action.size) < sizes[:, None], action, 0.0)
            projected = twin.projected(states, action)
        states, inputs, outcome = step(key_step, states, projected)
        plain_states, plain_inputs, plain_outcome = plain_step(key_step, plain_states, action)
        np.testing.assert_allclose(outcome.reward, plain_outcome.reward, atol=1e-4)


def test_actions_that_mean_the_same_share_what_is_wanted():
    env = make_meta_env(
        {"cartpole": {}}, num_envs=4, trials=1, projection="orthogonal", permute_actions=True, action_width=5
    )
    states, _ = env.reset(jax.random.key(3))
    shares = env.projected(states, jnp.broadcast_to(jnp.asarray([0.6, 0.1, 0.1, 0.1, 0.1]), (4, 5)))
    table = states[0].task.action_table
    # of five actions the first, third and fifth mean 0, in the teacher's own table too
    for row in range(4):
        means = np.asarray(table[row])
        np.testing.assert_allclose(shares[row][means == 0].sum(), 0.8, rtol=1e-5)
        np.testing.assert_allclose(shares[row][means == 1].sum(), 0.2, rtol=1e-5)
        assert len(np.unique(np.asarray(shares[row][means == 0]))) == 1
