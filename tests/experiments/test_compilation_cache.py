"""Compiled programs are kept: where, how many, and that nothing in the folder can do harm."""

import os

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache import compilation_cache

from resetta.cores.sharded import make_mesh
from resetta.experiments.bench.timing import prepare
from resetta.experiments.build import begin_again_seeds, build_agent, init_seeds
from resetta.experiments.compilation_cache import VARIABLE, cache_folder, prune, use_compilation_cache
from resetta.experiments.compose import compose
from resetta.experiments.config import train_config
from resetta.experiments.devices import agent_shardings, place


@pytest.fixture
def variable(monkeypatch):
    """Sets the variable, and leaves JAX as it was."""
    names = (
        "jax_compilation_cache_dir",
        "jax_persistent_cache_min_compile_time_secs",
        "jax_enable_compilation_cache",
    )
    before = {name: getattr(jax.config, name) for name in names}
    yield lambda value: monkeypatch.setenv(VARIABLE, str(value))
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def test_the_folder_is_the_users_own_unless_told_otherwise(monkeypatch, variable, tmp_path):
    variable("")
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "resetta" / "compiled"
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "elsewhere")
    assert cache_folder() is None, "JAX has its own"
    variable(tmp_path / "mine")
    assert cache_folder() == tmp_path / "mine"
    variable("OFF")
    assert cache_folder() is None


def test_a_program_is_found_again_and_a_spoilt_entry_is_compiled_again(variable, tmp_path):
    variable(tmp_path / "kept")
    use_compilation_cache()
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    compilation_cache.reset_cache()

    def compiled():
        jax.clear_caches()
        return float(jax.jit(lambda x: jnp.sin(x) + 2)(0.0))

    assert compiled() == 2
    kept = [path for path in (tmp_path / "kept").iterdir() if path.name.endswith("-cache")]
    assert kept
    for path in kept:
        path.write_bytes(b"not a program")
    with pytest.warns(UserWarning, match="Error reading persistent compilation cache"):
        assert compiled() == 2


def test_a_benchmark_compiles_what_is_kept_anew(variable, tmp_path):
    variable(tmp_path / "kept")
    use_compilation_cache()
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    compilation_cache.reset_cache()
    jax.jit(lambda x: jnp.cos(x) + 2)(0.0)  # as a simulator does while it is made
    kept = sorted((tmp_path / "kept").iterdir())
    prepare()
    jax.jit(lambda x: jnp.cos(x) + 3)(0.0)
    assert kept == sorted((tmp_path / "kept").iterdir()) != []


def test_a_run_that_begins_its_environments_again_finds_their_start_compiled(variable, tmp_path):
    sizes = ["num_envs=2", "num_steps=4", "minibatches=1", "core.features=4"]
    config = train_config(compose("train", ["core=none", *sizes]))
    agent, mesh = build_agent(config), make_mesh()
    variable(tmp_path / "kept")
    use_compilation_cache()
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    compilation_cache.reset_cache()
    state = init_seeds(agent, config)
    state = place(state, agent_shardings(mesh, state))
    jax.clear_caches()
    begin_again_seeds(agent, state)
    kept = [path.name for path in (tmp_path / "kept").iterdir() if path.name.endswith("-cache")]
    assert len([name for name in kept if name.startswith("jit_environments")]) == 1


def test_a_folder_that_cannot_be_made_is_said_and_no_more(variable, tmp_path, capsys):
    (tmp_path / "file").touch()
    variable(tmp_path / "file" / "below")
    use_compilation_cache()
    assert "compiled programs are not kept" in capsys.readouterr().err


def test_the_programs_written_longest_ago_go_first(tmp_path):
    for age, name in enumerate(["new", "middle", "old"]):
        path = tmp_path / name
        path.write_bytes(bytes(10))
        os.utime(path, (1000 - age, 1000 - age))
    prune(tmp_path, 20)
    assert {path.name for path in tmp_path.iterdir()} == {"new", "middle"}
    prune(tmp_path, 20)
    assert len([*tmp_path.iterdir()]) == 2
