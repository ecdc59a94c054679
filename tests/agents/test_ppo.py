"""PPO's invariants for every core: ratio 1, frozen statistics, bad updates skipped, same seed same bits."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resetta.agents import Agent, PPOConfig, ppo
from resetta.agents.normalize import no_statistics
from resetta.cores import core_names, make_core
from resetta.cores.none import Memoryless
from resetta.envs import MetaEnv, make_meta_env

OPTIONS: dict = {
    "stack": {"pattern": "s5 gru attention"},
    "attention": {"window": 8},
    "fast_weights": {"num_layers": 1},
    "frame_attention": {"num_heads": 1},
}
VECTOR_CORES = [
    name for name in core_names() if not make_core(name, features=8, **OPTIONS.get(name, {})).spatial
]


def make_agent(core="gru", env="cartpole_catch", num_envs=4, trials=2, projection="orthogonal", **config):
    config = {"num_steps": 16, "epochs": 1, "minibatches": 2, "head_features": 8, **config}
    meta = make_meta_env(
        {env: {}},
        num_envs=num_envs,
        trials=trials,
        projection=projection,
        permute_actions=projection != "none",
    )
    return Agent(PPOConfig(**config), meta, make_core(core, features=8, **OPTIONS.get(core, {})))


def run(agent, updates, seed=0):
    state = jax.jit(agent.init)(jax.random.key(seed))
    update = jax.jit(agent.update)
    rows = []
    for _ in range(updates):
        state, metrics = update(state)
        rows.append(jax.device_get(metrics))
    return state, rows


def assert_same(a, b):
    raw = [
        jax.tree.map(
            lambda x: jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x, t
        )
        for t in (a, b)
    ]
    for x, y in zip(*map(jax.tree.leaves, raw), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("core", VECTOR_CORES)
def test_first_minibatch_ratio_is_one(core):
    """From the second rollout on, which begins with a carry in the middle of a meta-episode."""
    _, rows = run(make_agent(core, num_steps=40), 3)
    assert [row["first_ratio_error"] <= 1e-5 for row in rows] == [True] * 3
    assert rows[-1]["bad_minibatches"] == 0


def test_first_minibatch_ratio_is_one_with_pixels():
    _, rows = run(make_agent("conv_s5", "minatar_breakout", 2, 1, "none", num_steps=12), 2)
    assert max(row["first_ratio_error"] for row in rows) <= 1e-5


@pytest.mark.parametrize("levels", [None, 5])
def test_first_minibatch_ratio_is_one_with_continuous_actions_and_normalisation(levels):
    options: dict = {"normalize_observations": True, "normalize_returns": True, "action_levels": levels}
    options["hold_noise"] = levels or 1
    agent = make_agent("s5", "pendulum", **options)
    state, rows = run(agent, 4)
    assert max(row["first_ratio_error"] for row in rows) <= 1e-5
    assert state.observations.count == 4 * 16 * 4
    assert state.returns.std > 0
    assert all(
        np.isfinite(value).all() for row in rows for name, value in row.items() if name != "episode_return"
    )


@pytest.mark.parametrize(("core", "env"), [("gru", "pendulum"), ("attention", "cartpole_catch")])
def test_changes_shown_beside_observations_are_those_of_the_trial(core, env):
    """Across rollouts too, nothing where a trial begins, and the replay sees what acting saw."""
    agent = make_agent(core, env, changes=True, normalize_observations=True, num_steps=70)
    width = agent.env.observation_shape[0]
    state = jax.jit(agent.init)(jax.random.key(0))
    update = jax.jit(agent.update)
    seen, starts, shown = [], [], []
    for _ in range(3):
        carry = state.carry
        _, rollout = jax.jit(agent._rollout)(state, jax.random.split(state.key, 3)[1])
        _, inputs = agent._with_changes(carry, rollout.inputs)
        seen.append(rollout.inputs.observation)
        starts.append(rollout.inputs.episode_start)
        shown.append(inputs.observation)
        state, metrics = update(state)
        assert metrics["first_ratio_error"] <= 1e-5
    seen, starts, shown = (np.concatenate(parts) for parts in (seen, starts, shown))
    np.testing.assert_array_equal(shown[..., :width], seen)
    expected = np.zeros_like(seen)
    expected[1:] = np.where(starts[1:, :, None], 0.0, seen[1:] - seen[:-1])
    np.testing.assert_allclose(shown[..., width:], expected, atol=1e-6)
    assert starts[1:].any()
    assert not starts[70].all()  # the second rollout goes on with trials of the first
    np.testing.assert_allclose(state.observations.mean, shown.mean((0, 1)), atol=1e-4)
    np.testing.assert_allclose(state.observations.std, shown.std((0, 1)), rtol=1e-3, atol=1e-3)


def test_changes_of_pixels_are_more_channels():
    agent = make_agent("conv_s5", "minatar_breakout", 2, 1, "none", num_steps=12, changes=True)
    state, rows = run(agent, 2)
    assert max(row["first_ratio_error"] for row in rows) <= 1e-5
    assert state.carry[1].shape == (2, 10, 10, 4)
    kernel = state.params["params"]["Encoder_0"]["conv_0"]["kernel"]
    assert kernel.shape[2] == 8


def test_a_value_at_a_time_limit_sees_the_last_change():
    """What is shown of a truncated trial's final observation is its change since the step that led there."""
    agent = make_agent("none", "pendulum", trials=1, changes=True)
    state = jax.jit(agent.init)(jax.random.key(0))
    action = jnp.zeros((4, 1))
    *_, outcome = agent.env.step(jax.random.key(1), state.env_state, action)
    carry, _ = agent._remember(state.params, state.observations, state.carry, ppo._one_step(state.inputs))
    _, shown = agent._with_changes(carry, ppo._one_step(outcome.final))
    change = shown.observation[0, :, agent.env.observation_shape[0] :]
    np.testing.assert_array_equal(change, outcome.final.observation - state.inputs.observation)
    assert np.abs(change).max() > 0


def test_rewards_are_scaled_lane_by_lane():
    """A lane that pays a hundred times as much counts as much; one that never paid is lifted tenfold."""
    lanes = {"pendulum": {}, "mountain_car_continuous": {}, "point_mass": {}}
    meta = make_meta_env(lanes, num_envs=6, trials=1, projection="orthogonal")
    agent = Agent(PPOConfig(minibatches=2, normalize_returns=True), meta, make_core("none", features=8))
    state = jax.eval_shape(agent.init, jax.random.key(0))
    assert state.returns.mean.shape == (3,)
    state = state.replace(returns=no_statistics((3,)), discounted=jnp.zeros(6))
    no = jnp.zeros((50, 6), bool)
    reward = jax.random.normal(jax.random.key(1), (50, 6)) * jnp.array([1.0, 1.0, 100.0, 100.0, 0.0, 0.0])
    rollout = SimpleNamespace(reward=reward, terminated=no, truncated=no)
    first, returns, _ = agent._scale_rewards(state, rollout)
    np.testing.assert_array_equal(first, reward)  # nothing is known yet
    second, *_ = agent._scale_rewards(state.replace(returns=returns), rollout)
    totals = np.zeros((50, 6))
    for t in range(50):
        totals[t] = reward[t] + (agent.config.gamma * totals[t - 1] if t else 0.0)
    for lane in range(2):
        rows = slice(2 * lane, 2 * lane + 2)
        spread = max(totals[:, rows].std(), totals[:, 2:4].std() / 10)
        np.testing.assert_allclose(second[:, rows], reward[:, rows] / spread, rtol=1e-4)
    np.testing.assert_allclose(returns.std[1], totals[:, 2:4].std(), rtol=1e-4)
    paid = SimpleNamespace(reward=jnp.ones((50, 6)), terminated=no, truncated=no)
    late, *_ = agent._scale_rewards(state.replace(returns=returns), paid)
    np.testing.assert_allclose(late[0, 4:], 10 / totals[:, 2:4].std(), rtol=1e-4)


@pytest.mark.parametrize("lanes", [{"point_mass": {}}, {"point_mass": {}, "pendulum": {}}])
def test_the_first_reward_ever_is_not_blown_up(lanes):
    """After rollouts that paid nothing no spread is known, and rewards stay as they are."""
    meta = make_meta_env(lanes, num_envs=4, trials=1, projection="orthogonal")
    agent = Agent(PPOConfig(minibatches=2, normalize_returns=True), meta, make_core("none", features=8))
    shapes = jax.eval_shape(agent.init, jax.random.key(0))
    state = shapes.replace(returns=no_statistics(shapes.returns.mean.shape), discounted=jnp.zeros(4))
    no = jnp.zeros((50, 4), bool)

    def scale(state, reward):
        scaled, returns, _ = agent._scale_rewards(
            state, SimpleNamespace(reward=reward, terminated=no, truncated=no)
        )
        return scaled, state.replace(returns=returns)

    nothing = jnp.zeros((50, 4))
    paid = nothing.at[25, 0].set(1.0)
    _, state = scale(state, nothing)
    first, state = scale(state, paid)
    np.testing.assert_array_equal(first, paid)
    second, _ = scale(state, paid)
    np.testing.assert_allclose(second[25, 0], 1 / state.returns.std.max(), rtol=1e-5)  # now one is known


def test_ratio_moves_when_the_memory_is_not_the_one_that_acted():
    """The invariant can fail: a carry that is forgotten shows."""
    agent = make_agent("gru", num_steps=40)
    state, _ = run(agent, 2)
    _, rollout = jax.jit(agent._rollout)(state, jax.random.key(5))

    @jax.jit
    def first_ratio_error(carry):
        advantage = jnp.ones_like(rollout.value)
        return agent._epochs(state, carry, rollout, advantage, jax.random.key(0))[2]["ratio_error"][0]

    assert first_ratio_error(state.carry) <= 1e-5
    assert first_ratio_error(jnp.zeros_like(state.carry)) > 1e-4


def test_same_seed_same_bits_and_another_seed_other_bits():
    agent = make_agent()
    (a, _), (b, _), (c, _) = run(agent, 2), run(agent, 2), run(agent, 2, seed=1)
    assert_same(a, b)
    # the next update is the same program: nothing changed its shape or dtype
    shapes = [jax.eval_shape(agent.init, jax.random.key(0)), a]
    assert [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(shapes[0])] == [
        (leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(shapes[1])
    ]
    with pytest.raises(AssertionError):
        assert_same(a.params, c.params)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_levels_of_continuous_actions_are_learnt(dtype):
    """A point steered to a goal: chance earns some 12, full speed ahead 45."""
    options: dict = {"num_envs": 32, "trials": 1, "projection": "none", "num_steps": 50, "epochs": 4}
    options |= {"minibatches": 4, "lr": 1e-2, "gamma": 0.8, "normalize_returns": True, "encoder": "mlp"}
    _, rows = run(make_agent("none", "point_mass", action_levels=3, dtype=dtype, **options), 15)
    returns = [float(row["episode_return"]) for row in rows]
    assert returns[0] < 20
    assert returns[-1] > 32, returns


@pytest.mark.parametrize(("hold", "pairs"), [(1, 0), (4, 3 + 3 + 1), (64, 9)])
def test_noise_is_held_for_as_many_steps_as_asked(hold, pairs):
    """Without parameters the actions are the noise alone: equal neighbours are counted."""
    agent = make_agent("none", "pendulum", projection="none", num_steps=10, hold_noise=hold)
    state, _ = run(agent, 0)
    state = state.replace(params=jax.tree.map(jnp.zeros_like, state.params))
    action = np.asarray(jax.jit(agent._rollout)(state, jax.random.key(0))[1].action)
    same = (action[1:] == action[:-1]).all(-1)  # [T - 1, B]
    np.testing.assert_array_equal(same.sum(0), pairs)
    np.testing.assert_array_equal(same, np.broadcast_to(same[:, :1], same.shape))
    assert len(np.unique(action[0])) == 4  # rows have their own


def test_a_bad_update_is_skipped_and_counted():
    agent = make_agent(epochs=2)
    state, _ = run(agent, 1)
    poisoned = state.replace(
        inputs=state.inputs.replace(observation=state.inputs.observation.at[0].set(jnp.nan))
    )
    after, metrics = jax.jit(agent.update)(poisoned)
    # the poisoned row sits in one of two minibatches of each epoch
    assert metrics["bad_minibatches"] == 2
    assert (after.bad_updates, after.bad_in_a_row) == (1, 1)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(after.params))
    everywhere = state.replace(inputs=state.inputs.replace(observation=state.inputs.observation * jnp.nan))
    after, metrics = jax.jit(agent.update)(everywhere)
    assert metrics["bad_minibatches"] == 4
    assert_same((after.params, after.opt_state), (state.params, state.opt_state))


def test_the_value_of_a_truncated_state_comes_from_its_final_observation():
    """By hand: one core step more from the carry after the last input, with its action and reward."""
    agent = make_agent("gru", "pendulum", num_envs=2, trials=1, projection="none", num_steps=201)
    state, _ = run(agent, 0)
    state = state.replace(params=jax.tree.map(lambda leaf: leaf + 0.1, state.params))
    _, rollout = jax.jit(agent._rollout)(state, jax.random.key(1))
    assert rollout.truncated[199].all(), "pendulum's time limit is 200"
    assert int(rollout.truncated.sum()) == 2
    upto = jax.tree.map(lambda leaf: leaf[:200], rollout.inputs)
    carry, _, _ = agent.apply(state.params, state.observations, state.carry, upto)
    # the environment's last step again, by hand
    env_state = state.env_state
    key = jax.random.split(jax.random.key(1), 201)
    outcome = None
    step = jax.jit(agent.env.step)
    for t in range(200):
        _, key_env = jax.random.split(key[t])
        env_state, _, outcome = step(key_env, env_state, agent.policy.to_env(rollout.action[t]))
    assert outcome is not None
    final = jax.tree.map(lambda leaf: leaf[None], outcome.final)
    np.testing.assert_allclose(final.action[0], jnp.tanh(rollout.action[199]), rtol=1e-5)
    assert not final.reset.any()
    assert not final.episode_start.any()
    _, _, value = agent.apply(state.params, state.observations, carry, final)
    # 200 steps of a pendulum in float32: the replay drifts by some 1e-5
    np.testing.assert_allclose(rollout.final_value[199], value[0], atol=3e-4)
    assert not np.allclose(rollout.final_value[199], rollout.value[200], atol=3e-3), "the next trial's value"


def test_advantages_across_trials_see_only_the_meta_episodes_end():
    plain, across = make_agent(num_steps=64), make_agent(num_steps=64, gae_across_trials=True)
    state = jax.jit(plain.init)(jax.random.key(0))
    (_, a), (_, b) = (jax.jit(agent._rollout)(state, jax.random.key(1)) for agent in (plain, across))
    ends = np.asarray(a.terminated | a.truncated)
    meta_ends = np.asarray(b.terminated | b.truncated)
    np.testing.assert_array_equal(a.trial_end, ends)
    assert 0 < meta_ends.sum() < ends.sum()
    np.testing.assert_array_equal(meta_ends[:-1], np.asarray(b.inputs.reset)[1:])


def test_seeds_do_not_meet():
    """Agents trained side by side are those trained alone, up to the order of floating-point sums."""
    agent = make_agent()
    init, update = jax.jit(agent.init), jax.jit(lambda state: agent.update(state)[0].params)
    states = [init(jax.random.key(seed)) for seed in range(3)]
    together = jax.jit(jax.vmap(lambda state: agent.update(state)[0].params))(
        jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    )
    alone = update(states[2])
    for x, y in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(x[2], y, atol=2e-5)


@pytest.mark.parametrize(
    ("core", "env", "options"),
    [
        ("gru", "cartpole_catch", {"changes": True}),
        ("conv_s5", "minatar_breakout", {}),
        ("none", "pendulum", {}),
    ],
)
def test_what_is_learnt_begins_without_an_environment(core, env, options, monkeypatch):
    agent = make_agent(core, env, projection="none", **options)
    key = jax.random.key(3)
    whole = agent.init(key)
    monkeypatch.setattr(MetaEnv, "reset", lambda *_: pytest.fail("an environment was reset"))
    learnt = agent.learnt(jax.random.split(key, 3)[2])
    jax.tree.map(np.testing.assert_array_equal, learnt, {name: getattr(whole, name) for name in learnt})


def test_learning_rate_schedule():
    agent = make_agent(lr=1e-2, lr_final=1e-3, updates=10, epochs=2)
    steps = 10 * 2 * 2
    got = [float(agent._schedule(jnp.asarray(n))) for n in (0, steps // 2, steps, 2 * steps)]
    np.testing.assert_allclose(got, [1e-2, 5.5e-3, 1e-3, 1e-3], rtol=1e-5)


def test_advantages_of_each_environment_apart():
    """Those of one that pays much and of one that pays little count alike; nothing is lifted over tenfold."""
    lanes = {"pendulum": {}, "mountain_car_continuous": {}, "point_mass": {}}
    meta = make_meta_env(lanes, num_envs=6, trials=1, projection="orthogonal")
    raw = jax.random.normal(jax.random.key(1), (50, 6)) * jnp.array([1.0, 1.0, 50.0, 50.0, 1e-4, 1e-4]) + 3.0
    core = make_core("none", features=8)
    together = Agent(PPOConfig(minibatches=2), meta, core)
    np.testing.assert_array_equal(together._scale_advantages(raw), raw)
    apart = Agent(PPOConfig(minibatches=2, advantages_by_environment=True), meta, core)
    scaled = np.asarray(apart._scale_advantages(raw), np.float64)
    raw = np.asarray(raw, np.float64)
    for lane in range(3):
        rows = slice(2 * lane, 2 * lane + 2)
        spread = max(raw[:, rows].std(), raw[:, 2:4].std() / 10)
        np.testing.assert_allclose(
            scaled[:, rows], (raw[:, rows] - raw[:, rows].mean()) / spread, rtol=1e-3, atol=1e-5
        )
    alone = make_agent("none", "pendulum", advantages_by_environment=True)
    np.testing.assert_array_equal(alone._scale_advantages(raw[:, :2]), raw[:, :2])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"minibatches": 3}, "use 3 or 6"),
        ({"epochs": 0}, "epochs=0"),
        ({"gamma": 1.5}, "gamma=1.5"),
        ({"lr": 0.0}, "lr=0.0"),
        ({"hold_noise": 0}, "hold_noise=0 must be at least 1"),
        ({"encoder": "conv"}, "choose from dense, mlp, bilinear"),
        ({"core": "conv_s5"}, "spatial and needs pixels"),
        ({"action_levels": 3}, "action_levels=3 is for continuous actions"),
        ({"env": "pendulum", "action_levels": 1}, "action_levels=1 must be at least 2"),
        ({"dtype": "float16"}, "choose from float32, bfloat16"),
        ({"observation_clip": 0.0}, "observation_clip=0.0 must be greater than 0"),
    ],
)
def test_mistakes_get_a_sentence(options, message):
    with pytest.raises(ValueError, match=message):
        make_agent(**options)


def test_config_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        PPOConfig().lr = 1.0  # type: ignore[misc]


def test_rows_are_taken_as_an_index_takes_them():
    x = jnp.arange(2 * 5 * 3).reshape(2, 5, 3)
    rows = jnp.asarray([4, 0, 2])
    np.testing.assert_array_equal(ppo._take_rows(x, rows), x[:, rows])
    np.testing.assert_array_equal(ppo._take_rows(x[..., 0] > 6, rows), (x[..., 0] > 6)[:, rows])


def test_in_bfloat16_it_learns_and_all_that_is_learnt_and_remembered_is_float32():
    options: dict = {"projection": "none", "trials": 1, "num_steps": 64, "epochs": 4, "lr": 3e-3}
    plain, half = (make_agent("s5", num_envs=16, dtype=d, **options) for d in ("float32", "bfloat16"))
    state, rows = run(half, 14)
    returns = [float(row["episode_return"]) for row in rows]
    assert max(returns[:3]) < 0.4 < 0.7 < min(returns[-3:])
    # what acts, step by step, and what trains, whole sequences, round at other places
    assert 0 < max(row["first_ratio_error"] for row in rows) < half.config.clip
    assert sum(row["bad_minibatches"] for row in rows) == 0
    for leaf in jax.tree.leaves((state.params, state.opt_state, state.carry)):
        assert leaf.dtype in (jnp.float32, jnp.int32)
    inputs = jax.tree.map(lambda leaf: jnp.stack([leaf] * 5), state.inputs)
    found = [agent.apply(state.params, state.observations, state.carry, inputs) for agent in (plain, half)]
    for exact, rounded in zip(*map(jax.tree.leaves, found), strict=True):
        assert rounded.dtype == exact.dtype == jnp.float32
        assert 0 < np.abs(rounded - exact).max() < 0.03 * max(1, np.abs(exact).max())


class Widening(Memoryless):
    """A core that answers in float32, whatever it is given."""

    def __call__(self, carry, x, reset):
        return carry, x.astype(jnp.float32)


def test_a_core_that_leaves_bfloat16_gets_a_sentence():
    with pytest.raises(ValueError, match=r"the core Widening changes the dtype.*; use precision=default"):
        Agent(PPOConfig(dtype="bfloat16"), make_agent().env, Widening(features=8))
