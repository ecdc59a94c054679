"""What a memory knows: watching changes nothing, wiping empties, gradients end at resets, readings find."""

import json
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resetta.agents import Agent, PPOConfig, evaluate, input_gradients, watch
from resetta.agents.distributions import Categorical, SquashedGaussian
from resetta.agents.normalize import no_statistics
from resetta.cores import make_core
from resetta.cores.base import numbers
from resetta.cores.timescales import timescales
from resetta.envs import Input, make_meta_env
from resetta.experiments.bench.recall_gradients import Traced, trace
from resetta.experiments.bench.recall_pictures import SHOWN, choose, in_colour, overlaid, pictures
from resetta.experiments.bench.recall_pictures import figure as frames_figure
from resetta.experiments.bench.recall_wipes import in_the_midst, middle
from resetta.experiments.cli import main
from resetta.experiments.probes.knowledge import of_progress
from resetta.experiments.probes.reading import explained, matched, read
from resetta.experiments.probes.targets import task_targets

TASKS, TRIALS, ROWS = 6, 3, np.array([0, 5])
NEVER, START, MIDST = (-1, 0), (1, 0), (1, 3)  # when a memory is emptied: trial and step, from 0
TIMES = np.array([0, 2, 200])  # no meta-episode reaches the last


def make_env(**options):
    lanes, widths = {"cartpole_catch": {}}, {"projection": "orthogonal", "permute_actions": True}
    return make_meta_env(lanes, num_envs=TASKS, trials=TRIALS, split="held_out", **widths, **options)


def make_agent(core, **options):
    core = make_core(core, features=8, **options)
    return Agent(PPOConfig(minibatches=2, head_features=8), make_env(), core)


@pytest.fixture(scope="module")
def played():
    """A GRU's play, its memory kept or emptied in the second trial, and its plain evaluation."""
    agent = make_agent("gru")
    state = jax.jit(agent.init)(jax.random.key(0))
    env, key, ids = agent.env, jax.random.key(1), agent.env.evaluation_ids("held_out")
    entries = np.arange(8)

    @jax.jit
    def both(params, observations, wipe):
        given = (agent, env, params, observations, key, ids)
        return evaluate(*given), watch(*given, wipe, entries, ROWS, TIMES)

    found = {
        wipe: jax.device_get(both(state.params, state.observations, np.array(wipe)))
        for wipe in (NEVER, START, MIDST)
    }
    return agent, state, found


def test_watching_changes_nothing(played):
    returns, watched = played[2][NEVER]
    np.testing.assert_array_equal(watched.returns, returns)
    moments = watched.moments
    starts = moments.inputs.episode_start
    np.testing.assert_array_equal(starts, moments.step == 0)
    assert (moments.step < 25).all()
    assert (np.diff(moments.at, axis=1) > 0).all()  # one moment of each trial, in order
    assert len(set(moments.step.ravel().tolist())) > 3  # and not always the same


def test_the_memory_kept_is_the_one_of_the_inputs_shown(played):
    agent, state, found = played
    watched = found[NEVER][1]
    at = watched.moments.at[ROWS, -1]
    for k, row in enumerate(ROWS):
        inputs = jax.tree.map(lambda x, k=k: x[: at[k] + 1, k : k + 1], watched.inputs)
        carry, _, _ = agent.apply(state.params, state.observations, agent.initial_carry(1), inputs)
        np.testing.assert_allclose(numbers(carry, 1)[0], watched.moments.memory[row, -1], atol=1e-5)


def test_wiping_empties_the_memory_and_nothing_before_it(played):
    agent, state, found = played
    kept, emptied = (found[wipe][1].moments for wipe in (NEVER, START))
    np.testing.assert_array_equal(kept.memory[:, 0], emptied.memory[:, 0])
    assert (np.abs(kept.memory[:, 1:] - emptied.memory[:, 1:]).max(-1) > 1e-6).all()
    shown, row = found[START][1], 0
    begins = int(np.argmax(shown.trial[:, row] == 1))
    assert shown.inputs.action[begins, row].any()  # the previous action is still seen
    at = emptied.at[ROWS[row], 1]
    inputs = jax.tree.map(lambda x: x[begins : at + 1, row : row + 1], shown.inputs)
    carry, _, _ = agent.apply(state.params, state.observations, agent.initial_carry(1), inputs)
    np.testing.assert_allclose(numbers(carry, 1)[0], emptied.memory[ROWS[row], 1], atol=1e-5)


def test_emptying_in_mid_trial_changes_nothing_before(played):
    """Nor which tasks are reached; what is compared is then the same time of the same play."""
    kept, emptied = (played[2][wipe][1] for wipe in (NEVER, MIDST))
    never = TRIALS * 25
    assert (kept.wiped_at == never).all()
    trial, step = MIDST
    reached = kept.lengths[:, trial] > step
    np.testing.assert_array_equal(emptied.wiped_at < never, reached)
    assert reached.sum() > 1
    begins = kept.lengths[:, :trial].sum(1)
    np.testing.assert_array_equal(emptied.wiped_at[reached], (begins + step)[reached])
    for row, at in enumerate(emptied.wiped_at):
        np.testing.assert_array_equal(emptied.rewards[:at, row], kept.rewards[:at, row])
    # the memory of a moment after the wipe is the one of the inputs since the wipe
    agent, state, _ = played
    row = next(r for r, b in enumerate(ROWS) if reached[b])
    at, seen = emptied.wiped_at[ROWS[row]], emptied.moments.at[ROWS[row], 2]
    inputs = jax.tree.map(lambda x: x[at : seen + 1, row : row + 1], emptied.inputs)
    carry, _, _ = agent.apply(state.params, state.observations, agent.initial_carry(1), inputs)
    np.testing.assert_allclose(numbers(carry, 1)[0], emptied.moments.memory[ROWS[row], 2], atol=1e-5)


def test_rewards_lengths_and_times_are_those_of_the_play(played):
    returns, watched = played[2][NEVER]
    np.testing.assert_allclose(watched.rewards.sum(0), returns.sum(1), atol=1e-5)
    ends = watched.lengths.sum(1)
    for row, end in enumerate(ends):
        assert not watched.rewards[end:, row].any()
    last = watched.moments.at.max(1)
    assert (last < ends).all()
    at_times = watched.at_times
    np.testing.assert_array_equal(at_times.at[:, :2], np.tile(TIMES[:2], (TASKS, 1)))
    assert (at_times.step[:, 0] == 0).all()
    assert not at_times.memory[:, 2].any()  # never reached


def test_reward_around_a_wipe():
    """By hand: 2 tasks, emptied in the second step of their second trial; a third task wasn't reached."""
    rewards = 1 + np.arange(18.0).reshape(1, 6, 3)
    at = np.array([[3, 4, 6]])
    kept, emptied = (
        SimpleNamespace(
            rewards=rewards, wiped_at=at, returns=rewards[:, :2].swapaxes(1, 2), lengths=np.array([lengths])
        )
        for lengths in ([[2, 3], [3, 3], [5, 1]], [[2, 2], [3, 3], [5, 1]])
    )
    row = in_the_midst(kept, emptied, trial=2, step=1, longest=4)
    assert (row["tasks"], [each["from"] for each in row["bins"]]) == (2, [-1, 0, 1, 2])
    first, second = rewards[0, 2:5, 0], rewards[0, 3:6, 1]
    means = [*(first + second) / 2, 0]
    assert [each["kept"]["value"] for each in row["bins"]] == pytest.approx(means)
    means[2] = second[2] / 2  # the trial of the first task ended a step earlier
    assert [each["emptied"]["value"] for each in row["bins"]] == pytest.approx(means)
    assert row["bins"][2]["change"]["value"] == pytest.approx(-first[2] / 2)
    assert middle(np.array([[[9, 7], [9, 8], [9, 1]]]), 2) == 3
    emptied.wiped_at = np.full((1, 3), 6)
    assert in_the_midst(kept, emptied, trial=2, step=1, longest=4)["tasks"] == 0


def test_a_pixels_gradient_is_its_finite_difference():
    """Along the gradient of one frame: an untrained agent, two rows of noise, one with a reset."""
    env = make_meta_env({"minatar_breakout": {}}, num_envs=2, trials=2)
    core = make_core("conv_s5", features=4, num_layers=1, nonlinearity="gelu")
    agent = Agent(PPOConfig(minibatches=1, head_features=0), env, core)
    steps, keys = 5, jax.random.split(jax.random.key(3))
    inputs = Input(
        observation=jax.random.uniform(keys[0], (steps, 2, *env.observation_shape)),
        action=jnp.zeros((steps, 2, 3)),
        reward=jnp.zeros((steps, 2)),
        episode_start=jnp.zeros((steps, 2), bool),
        reset=jnp.zeros((steps, 2), bool).at[1, 0].set(True),
    )
    params = jax.jit(agent.network.init)(keys[1], agent.initial_carry(2), inputs)
    params["params"]["policy"]["kernel"] *= 100  # a fresh policy says next to nothing
    nothing, at = no_statistics(env.observation_shape), jnp.array([4, 3])

    @jax.jit
    def decided(observation):
        shown = inputs.replace(observation=observation)
        _, logits, value = agent.apply(params, nothing, agent.initial_carry(2), shown)
        return value[at, jnp.arange(2)], (logits[..., 1] - logits.mean(-1))[at, jnp.arange(2)]

    actions = jnp.ones((steps, 2), jnp.int32)
    gradients = jax.jit(lambda: input_gradients(agent, params, nothing, inputs, actions, at))()
    assert not any(found[0, 0].any() for found in gradients)  # before the reset
    assert not any(found[4, 1].any() for found in gradients)  # after the decision
    for which, found in enumerate(gradients):
        for step, row in ((1, 0), (4, 0), (0, 1)):
            change = np.linalg.norm(found[step, row])
            assert change > 1e-3
            along = found[step, row] / change
            up, down = (decided(inputs.observation.at[step, row].add(e * along)) for e in (0.002, -0.002))
            np.testing.assert_allclose((up[which] - down[which])[row] / 0.004, change, rtol=0.05)


def test_a_films_decisions_are_traced_one_by_one():
    """Norms are those of the maps, those kept are the ones asked for, and no other row's steps count."""
    env = make_meta_env({"minatar_breakout": {"max_steps_in_episode": 2}}, num_envs=3, trials=2)
    agent = Agent(PPOConfig(minibatches=1, head_features=0), env, make_core("gru", features=4))
    steps, rows, keys = 4, 3, jax.random.split(jax.random.key(4))
    no = np.zeros((1, steps, rows), bool)
    first = no.copy()
    first[:, 0] = True
    inputs = Input(
        observation=np.asarray(jax.random.uniform(keys[0], (1, steps, rows, *env.observation_shape))),
        action=np.zeros((1, steps, rows, 3), np.float32),
        reward=np.zeros((1, steps, rows), np.float32),
        episode_start=first,
        reset=first,
    )
    moments = SimpleNamespace(at=np.array([[[0, 3], [1, 2], [0, 3]]]))
    watched = SimpleNamespace(inputs=inputs, actions=np.zeros((1, steps, rows), np.int32), moments=moments)
    given = agent.initial_carry(rows), jax.tree.map(lambda x: x[0], inputs)
    params = jax.tree.map(lambda x: x[None], jax.jit(agent.network.init)(keys[1], *given))
    nothing = jax.tree.map(lambda x: x[None], no_statistics(env.observation_shape))
    state: Any = SimpleNamespace(params=params, observations=nothing)
    traced = trace(agent, state, env, watched, np.arange(rows), 2, np.array([0, 2]))
    assert traced.across_reset == 0
    assert traced.at.tolist() == [[3, 2, 3]]
    assert traced.maps is not None
    assert traced.maps.shape == (2, 1, steps, 2, 10, 10)
    for found, maps in zip((traced.value, traced.action), traced.maps, strict=True):
        assert (found[0, :3] > 0).all()
        assert found[0, 3, 1] == 0  # after the decision
        np.testing.assert_allclose(np.sqrt(np.square(maps).sum((-2, -1))), found[..., [0, 2]], rtol=1e-5)


def test_pictures_show_the_frames_with_the_largest_gradients():
    generator, steps = np.random.default_rng(0), 12
    observation = (generator.uniform(size=(1, steps, 3, 6, 5, 4)) > 0.8).astype(np.float32)
    starts = np.zeros((1, steps, 3), bool)
    starts[:, [0, 5]] = True
    watched = SimpleNamespace(
        inputs=SimpleNamespace(observation=observation, episode_start=starts),
        trial=starts.cumsum(1) - 1,
    )
    maps = generator.uniform(size=(2, 1, steps, 2, 6, 5)).astype(np.float32)
    value, action = (np.sqrt((part**2).sum((-2, -1)))[..., [0, 0, 1]] for part in maps)
    at = np.array([[10, 3, 7]])
    pictured = choose(3, 2)
    np.testing.assert_array_equal(pictured, [0, 2])
    rows = np.array([0, 4, 9])
    row, arrays = pictures(Traced(value, action, maps, at, 0.0), watched, rows, pictured)
    first, last = row["decisions"]
    assert (first["task"], last["task"], first["starts"]) == (0, 9, [0, 5])
    shown = [each["at"] for each in first["value"]]
    most = np.argsort(value[0, :10, 0])[::-1][:SHOWN]
    assert shown == [10, *sorted(most.tolist())]
    assert (first["value"][0]["trial"], first["value"][0]["step"]) == (2, 6)
    assert sum(each["share"] for each in last["action"]) == pytest.approx(
        1
    )  # 7 earlier frames: all are shown
    np.testing.assert_array_equal(arrays["maps"][0, 1, 0], maps[1, 0, 10, 0])
    colours = in_colour(observation[0, :11, 0])
    np.testing.assert_array_equal(arrays["frames"][0, 0, 1], colours[shown[1]])
    assert np.isnan(arrays["norms"][1, 0, 8:]).all()
    assert frames_figure(row, arrays).axes


def test_what_is_drawn_over_a_frame():
    grey = in_colour(np.array([0.0, 0.5, 1.0]).reshape(1, 1, 3, 1))
    assert grey[0, 0, :, 0].tolist() == [0, 128, 255]
    blank = in_colour(np.zeros((1, 1, 2, 4)))
    one = in_colour(np.eye(4)[None, None, :2])
    assert (one[0, 0] != blank[0, 0]).any(-1).all()  # each channel has a colour of its own
    assert (one[0, 0, 0] != one[0, 0, 1]).any()
    red = overlaid(blank, np.array([[[0.0, 2.0]]]))[0, 0]
    assert (red[0] == blank[0, 0, 0]).all()
    assert red[1][0] > red[1][2] + 100


def test_a_decision_rests_on_nothing_before_a_reset():
    """Of any kind of memory: a leak in one part would be one of the whole."""
    agent = make_agent("stack", pattern="s5 gru mamba attention", options={"attention": {"window": 8}})
    steps, rows = 9, 2
    keys = jax.random.split(jax.random.key(2), 3)
    no = jnp.zeros((steps, rows), bool)
    inputs = Input(
        observation=jax.random.normal(keys[0], (steps, rows, *agent.env.observation_shape)),
        action=jax.random.normal(keys[1], (steps, rows, agent.env.action.size)),
        reward=jnp.zeros((steps, rows)),
        episode_start=no,
        reset=no.at[4].set(True),
    )

    @jax.jit
    def trace(at):
        params = agent.network.init(keys[2], agent.initial_carry(rows), inputs)
        nothing = no_statistics(agent.env.observation_shape)
        return input_gradients(agent, params, nothing, inputs, jnp.zeros((steps, rows), jnp.int32), at)

    for found in map(np.abs, trace(jnp.array([6, 3]))):
        assert found.shape == inputs.observation.shape
        found = found.max(-1)
        assert (found[:4, 0] == 0).all()
        assert (found[7:, 0] == 0).all()
        assert (found[4:7, 0] > 0).all()
        assert (found[:4, 1] > 0).all()  # before the reset is its own time
        assert (found[4:, 1] == 0).all()


def test_what_speaks_for_an_action():
    logits = jnp.array([1.0, 2.0, 6.0])
    one, shifted = (Categorical(3).preference(x, jnp.array(2)) for x in (logits, logits + 5))
    assert one == shifted == 3.0
    params = jnp.array([3.0, 4.0, 9.0, 9.0])  # means, and spreads that don't matter
    np.testing.assert_allclose(SquashedGaussian(2).preference(params, jnp.array([0.0, 2.0])), 4.0)


def test_timescales_are_those_of_the_time_steps():
    same = {"dt_min": 0.1, "dt_max": 0.1}
    options = {"s5": same, "mamba": {"state_size": 3, **same}}
    core = make_core("stack", features=8, pattern="gru s5 mamba", options=options)
    given = core.initial_carry(1), jnp.zeros((1, 1, 8)), jnp.zeros((1, 1), bool)
    found = timescales(core, jax.jit(core.init)(jax.random.key(0), *given)["params"])
    assert [*found] == ["s5 (2)", "mamba (3)"]  # a GRU has no eigenvalues
    assert found["s5 (2)"].shape == (1, 4)
    np.testing.assert_allclose(found["s5 (2)"], 2 / 0.1, rtol=1e-4)  # HiPPO's all have the real part -1/2
    np.testing.assert_allclose(np.sort(found["mamba (3)"][0]), np.repeat([10 / 3, 5, 10], 8), rtol=1e-4)


def test_readings_find_what_is_there():
    generator = np.random.default_rng(0)
    x, weights = generator.normal(size=(400, 30)), generator.normal(size=(30, 3))
    known, noise = x @ weights, generator.normal(size=(400, 3))
    for wanted, low, high in ((known, 0.99, 1.0), (noise, -0.15, 0.05)):
        found = read(x[:200], wanted[:200], x[200:])
        assert low < explained(found, wanted[200:], wanted[:200].mean(0)).mean() <= high
    choice = np.eye(3)[known.argmax(1)][:, None]
    found = read(x[:200], choice[:200].reshape(200, -1), x[200:])
    assert matched(found.reshape(200, 1, 3), choice[200:]).mean() > 0.7
    assert np.isnan(explained(noise, np.ones((400, 3)), np.ones(3))).all()


def test_a_core_without_a_memory_knows_nothing(played):
    moments = played[2][NEVER][1].moments
    empty = moments.replace(memory=moments.memory[..., :0])
    for known in of_progress([empty, empty]):
        np.testing.assert_allclose(known.memory.mean(0), 0, atol=1e-6)
        assert known.memory.shape == known.input.shape


def test_targets_are_what_differs_among_tasks():
    env = make_env(physics={"length": (0.3, 0.7)})
    found = {t.name: t for t in task_targets(env.lanes[0], env.evaluation_ids("train")) if not t.of}
    assert {*found} == {
        *("observation matrix", "action permutation", "matrix signed by the permutation", "length"),
    }
    assert np.ptp(found["length"].values) > 0.01  # and what follows from it, polemass_length, is left out
    sign = found["action permutation"].values[:, 0] @ [1, -1]
    signed = found["observation matrix"].values * sign[:, None]
    np.testing.assert_allclose(found["matrix signed by the permutation"].values, signed)


def test_the_benchmark_writes_and_the_report_shows(tmp_path, capsys):
    run_dir = tmp_path / "agent"
    words = ["pretrained=meta_cartpole_catch_s5", f"run_dir={run_dir}"]
    assert main(["bench", "recall", *words, "tasks=8", "trials=2", "decisions=2"]) == 0
    result = json.loads((run_dir / "recall.json").read_text())
    parts = {"reading", "over time", "wipe", "midway", "timescales", "gradients"}
    assert {row["part"] for row in result["rows"]} == parts  # and no pictures: there are no pixels
    assert not (run_dir / "recall_frames.png").exists()
    (gradients,) = (row for row in result["rows"] if row["part"] == "gradients")
    assert gradients["across_reset"] == 0
    assert gradients["value"]["lags"][0]["value"] > 0
    shares = [share["value"] for share in gradients["action"]["shares"].values()]
    assert sum(shares) == pytest.approx(1, abs=1e-5)
    scales = [row for row in result["rows"] if row["part"] == "timescales"]
    assert [len(row["after"]) for row in scales] == [32, 32]
    assert scales[0]["before"] != scales[0]["after"]
    text = (run_dir / "recall.md").read_text()
    assert "return, memory emptied before trial 2" in text
    assert "across a reset: 0" in text
    assert (run_dir / "recall.png").stat().st_size > 10_000
    assert "What the memory knows" in (run_dir / "report.html").read_text()
    capsys.readouterr()
    for wrong, said in {
        f"run_dir={run_dir} wipe=[3] trials=2": "give trials=3",
        f"run_dir={run_dir} wipe=[0]": "ascending whole numbers",
        f"run_dir={run_dir} tasks=2": "tasks=2 must be at least 8",
        f"run_dir={tmp_path}": "holds no run",
        f"run_dir={run_dir} wipe_step=-1": "wipe_step=-1 must be at least 0",
        "tasks=8": "run_dir is missing",
    }.items():
        assert main(["bench", "recall", *wrong.split(" ")]) == 2
        err = capsys.readouterr().err
        assert said in err, err
