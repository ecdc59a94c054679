"""What a memory knows: watching changes nothing, wiping empties, gradients end at resets, readings find."""

import json

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
from resetta.experiments.cli import main
from resetta.experiments.probes.knowledge import of_progress
from resetta.experiments.probes.reading import explained, matched, read
from resetta.experiments.probes.targets import task_targets

TASKS, TRIALS, ROWS = 6, 3, np.array([0, 5])


def make_env(**options):
    lanes, widths = {"cartpole_catch": {}}, {"projection": "orthogonal", "permute_actions": True}
    return make_meta_env(lanes, num_envs=TASKS, trials=TRIALS, split="held_out", **widths, **options)


def make_agent(core, **options):
    core = make_core(core, features=8, **options)
    return Agent(PPOConfig(minibatches=2, head_features=8), make_env(), core)


@pytest.fixture(scope="module")
def played():
    """A GRU's play, kept whole and emptied before the second trial, and its plain evaluation."""
    agent = make_agent("gru")
    state = jax.jit(agent.init)(jax.random.key(0))
    env, key, ids = agent.env, jax.random.key(1), agent.env.evaluation_ids("held_out")
    entries = np.arange(8)

    @jax.jit
    def both(params, observations, wipe):
        given = (agent, env, params, observations, key, ids)
        return evaluate(*given), watch(*given, wipe, entries, ROWS)

    found = {wipe: jax.device_get(both(state.params, state.observations, wipe)) for wipe in (-1, 1)}
    return agent, state, found


def test_watching_changes_nothing(played):
    returns, watched = played[2][-1]
    np.testing.assert_array_equal(watched.returns, returns)
    moments = watched.moments
    starts = moments.inputs.episode_start
    np.testing.assert_array_equal(starts, moments.step == 0)
    assert (moments.step < 25).all()
    assert (np.diff(moments.at, axis=1) > 0).all()  # one moment of each trial, in order
    assert len(set(moments.step.ravel().tolist())) > 3  # and not always the same


def test_the_memory_kept_is_the_one_of_the_inputs_shown(played):
    agent, state, found = played
    watched = found[-1][1]
    at = watched.moments.at[ROWS, -1]
    for k, row in enumerate(ROWS):
        inputs = jax.tree.map(lambda x, k=k: x[: at[k] + 1, k : k + 1], watched.inputs)
        carry, _, _ = agent.apply(state.params, state.observations, agent.initial_carry(1), inputs)
        np.testing.assert_allclose(numbers(carry, 1)[0], watched.moments.memory[row, -1], atol=1e-5)


def test_wiping_empties_the_memory_and_nothing_before_it(played):
    agent, state, found = played
    kept, emptied = (found[wipe][1].moments for wipe in (-1, 1))
    np.testing.assert_array_equal(kept.memory[:, 0], emptied.memory[:, 0])
    assert (np.abs(kept.memory[:, 1:] - emptied.memory[:, 1:]).max(-1) > 1e-6).all()
    shown, row = found[1][1], 0
    begins = int(np.argmax(shown.trial[:, row] == 1))
    assert shown.inputs.action[begins, row].any()  # the previous action is still seen
    at = emptied.at[ROWS[row], 1]
    inputs = jax.tree.map(lambda x: x[begins : at + 1, row : row + 1], shown.inputs)
    carry, _, _ = agent.apply(state.params, state.observations, agent.initial_carry(1), inputs)
    np.testing.assert_allclose(numbers(carry, 1)[0], emptied.memory[ROWS[row], 1], atol=1e-5)


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

    for found in trace(jnp.array([6, 3])):
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
    moments = played[2][-1][1].moments
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
    assert {row["part"] for row in result["rows"]} == {"reading", "wipe", "timescales", "gradients"}
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
        "tasks=8": "run_dir is missing",
    }.items():
        assert main(["bench", "recall", *wrong.split(" ")]) == 2
        err = capsys.readouterr().err
        assert said in err, err
