"""Training on several devices against the same on one; run as a script, this is what eight devices run."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from resetta.agents import Teacher
from resetta.agents.normalize import no_statistics
from resetta.experiments.build import build_agent, init_seeds
from resetta.experiments.checkpoint import Checkpoints
from resetta.experiments.compose import compose
from resetta.experiments.config import MeshConfig, train_config
from resetta.experiments.devices import agent_shardings, on_one_device, place, run_mesh
from resetta.experiments.restore import abstract_state, restore_run
from resetta.experiments.train import lowered_update

SMALL = [
    *("core=s5", "core.features=8", "core.num_layers=1", "network.head_features=0", "trials=2"),
    *("num_envs=16", "num_steps=16", "minibatches=2", "epochs=2", "lr_final=null"),
    *("eval_tasks=0", "render=false", "tensorboard=false", f"total_steps={2 * 16 * 16}", "seeds=2"),
]
UNOPTIMISED = os.environ.get("XLA_FLAGS", "")  # as everything here


def host(tree):
    leaves = jax.tree.leaves(tree)
    keys = [jax.numpy.issubdtype(x.dtype, jax.dtypes.prng_key) for x in leaves]
    return [np.asarray(jax.random.key_data(x) if k else x) for x, k in zip(leaves, keys, strict=True)]


def error(a, b):
    """The largest difference of two trees, against the largest entry of each leaf."""
    pairs = [(x.astype(float), y) for x, y in zip(host(a), host(b), strict=True) if x.size]
    return max(float(np.max(np.abs(x - y)) / (1e-2 + np.max(np.abs(x)))) for x, y in pairs)


def on_eight_devices(directory):
    """Two updates of two seeds on one device and on eight, and checkpoints that go from one to the other."""
    config = train_config(compose("train", SMALL))
    agent = build_agent(config)
    start = init_seeds(agent, config)
    alone, shared = (
        run_mesh(MeshConfig(data, sequence), False, lambda mesh: None) for data, sequence in ((1, 1), (2, 4))
    )
    updates, ends, losses = {}, {}, {}
    for mesh in (alone, shared):
        state = place(jax.tree.map(jax.numpy.copy, start), agent_shardings(mesh, start))
        updates[mesh] = lowered_update(agent, config.seeds, mesh, state).compile()
        losses[mesh] = []
        for _ in range(2):
            state, row = updates[mesh](state)
            losses[mesh].append(np.asarray(row["loss"]).tolist())
        ends[mesh] = state
    np.savez(directory / "alone.npz", *host(ends[alone]))
    known = ["core=none", "env.projection=none", "env.permute_actions=false", "seeds=1"]
    teacher = build_agent(train_config(compose("train", [*SMALL, *known])))
    held = jax.tree.map(np.asarray, teacher.init(jax.random.key(0)).params)
    taught = build_agent(config, Teacher(teacher, held, no_statistics((8,))))
    ends_taught = [
        lowered_update(taught, config.seeds, mesh, start).compile()(
            place(jax.tree.map(jax.numpy.copy, start), agent_shardings(mesh, start))
        )[0]
        for mesh in (alone, shared)
    ]
    gathered = on_one_device(ends[shared])
    found = {
        "error": error(ends[alone], ends[shared]),
        "error of a taught agent": error(*ends_taught),
        "losses": [losses[alone], losses[shared]],
        "rows a device holds": ends[shared].discounted.addressable_shards[0].data.shape[1],
        "gathered": error(ends[shared], gathered),
        "holders": max(len(leaf.devices()) for leaf in jax.tree.leaves(gathered)),
    }
    for name, source, target in (("to one", shared, alone), ("to eight", alone, shared)):
        checkpoints = Checkpoints(directory / name)
        checkpoints.save(1, ends[source])
        back = checkpoints.restore(abstract_state(agent, config, target))
        checkpoints.close()
        same = error(ends[source], back)
        _, row = updates[target](back)  # and it goes on there
        found[name] = {"error": same, "finite": bool(np.isfinite(row["loss"]).all())}
    return found


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("devices")


@pytest.fixture(scope="module")
def found(directory):
    flags = {"XLA_FLAGS": f"--xla_force_host_platform_device_count=8 {UNOPTIMISED}"}
    command = [sys.executable, __file__, str(directory)]
    done = subprocess.run(command, env=os.environ | flags, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_eight_devices_learn_what_one_learns(found):
    assert found["error"] < 1e-4
    assert found["error of a taught agent"] < 1e-4
    np.testing.assert_allclose(*found["losses"], rtol=1e-4, atol=1e-6)
    assert found["rows a device holds"] == 8, "of 16, on two devices"


@pytest.mark.parametrize("direction", ["to one", "to eight"])
def test_a_checkpoint_does_not_mind_the_number_of_devices(found, direction):
    assert found[direction] == {"error": 0.0, "finite": True}


def test_what_is_evaluated_lies_whole_on_one_device(found):
    assert (found["gathered"], found["holders"]) == (0.0, 1)


def test_two_processes_train_as_one(found, directory):
    """Two devices each; what they wrote is read by this process, which has one."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    run = directory / "run"
    command = [sys.executable, "-m", "resetta.experiments.cli", "train", *SMALL]
    processes = [
        subprocess.Popen(
            [*command, "distributed=true", f"run_dir={run}"],
            env=os.environ
            | {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": str(number)}
            | {"XLA_FLAGS": f"--xla_force_host_platform_device_count=2 {UNOPTIMISED}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    said = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert "report:" in said[0][0]
    assert "report:" not in said[1][0], "the first process talks for both"
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    np.testing.assert_allclose([row["loss"] for row in rows], found["losses"][0], rtol=1e-4, atol=1e-6)
    *_, state = restore_run({"run_dir": str(run)})
    with np.load(directory / "alone.npz") as alone:
        assert error([alone[name] for name in alone.files], host(state)) < 1e-4


if __name__ == "__main__":
    print(json.dumps(on_eight_devices(Path(sys.argv[1]))))
