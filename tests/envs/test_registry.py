"""Names, options and the errors that answer mistakes."""

import ast
import inspect
import subprocess
import sys
import textwrap
from pathlib import Path

import gymnax
import jax.numpy as jnp
import pytest

from resetta.envs.base import BaseEnv
from resetta.envs.registry import env_names, make_env

PLAIN = [name for name in env_names() if not name.startswith(("brax_", "dm_"))]


def test_listing_imports_neither_jax_nor_gymnax():
    program = """
        import sys
        from resetta.envs.registry import env_names
        from resetta.envs.scores import normalize, score
        assert "repeat_previous_easy" in env_names() and "brax_ant" in env_names()
        assert normalize("cartpole", 500.0) == 1.0 and score("cartpole").kind == "optimum"
        heavy = {"jax", "gymnax", "brax", "flax"} & set(sys.modules)
        assert not heavy, heavy
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True)


def test_brax_is_imported_in_one_file_and_that_file_only_on_demand():
    folder = Path(inspect.getfile(make_env)).parent
    for path in folder.rglob("*.py"):
        tree = ast.parse(path.read_text())
        everywhere = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
        names = {
            alias.name.split(".")[0]
            for node in everywhere
            if isinstance(node, ast.Import)
            for alias in node.names
        }
        assert ("brax" in names) == (path.name == "brax.py"), path
        at_once = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
        assert not [node for node in at_once if node.level and (node.module or "").split(".")[0] == "brax"], (
            path
        )


def test_every_gymnax_environment_is_offered_but_the_one_that_downloads():
    offered = {
        type(make_env(name).env)
        for name in PLAIN
        if type(make_env(name).env).__module__.startswith("gymnax.")
    }
    available = {type(gymnax.make(name)[0]) for name in gymnax.registered_envs if "MNIST" not in name}
    assert offered == available


@pytest.mark.parametrize("name", PLAIN)
def test_every_name_makes_an_environment(name):
    base_env = make_env(name)
    assert isinstance(base_env, BaseEnv)
    assert base_env.name == name
    assert base_env.max_steps >= 1
    assert len(base_env.observation_shape) in (1, 3)


def test_options_are_parameters_or_constructor_arguments():
    base_env = make_env("cartpole", gravity=12, max_steps_in_episode=37)
    assert base_env.params.gravity == 12.0
    assert base_env.max_steps == 37
    assert make_env("frozen_lake", map_name="8x8").observation_shape == (64,)
    assert make_env("bernoulli_bandit", arms=7).action.size == 7
    assert make_env("repeat_previous_easy", k=7).env.k == 7  # pyright: ignore
    assert make_env("dark_room", goal=[3, 4]).params.goal.tolist() == [3, 4]
    assert make_env("stateless_cartpole_medium", max_steps_in_episode=50).max_steps == 50


def test_trials_that_end_by_themselves_know_their_length():
    for name, steps in {
        "bsuite_catch": 9,
        "bsuite_bandit": 1,
        "bsuite_memory_chain": 6,
        "bsuite_deep_sea": 8,
    }.items():
        base_env = make_env(name)
        assert (base_env.max_steps, base_env.truncates) == (steps, False)
    assert make_env("bsuite_memory_chain", memory_length=20).max_steps == 21
    limited = make_env("bsuite_catch", max_steps_in_episode=4)
    assert (limited.max_steps, limited.truncates) == (4, True)


def test_a_derived_parameter_follows_and_cannot_be_set():
    params = make_env("cartpole", masspole=0.4, length=1.5, masscart=2.0).params
    assert params.total_mass == pytest.approx(2.4)
    assert params.polemass_length == pytest.approx(0.6)
    with pytest.raises(ValueError, match="total_mass of cartpole is derived: it is always masscart"):
        make_env("cartpole", total_mass=3.0)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("cartpol", {}, "unknown environment 'cartpol'; did you mean cartpole"),
        ("CartPole-v1", {}, "did you mean cartpole"),
        ("zzzzzz", {}, "`resetta list envs`"),
        ("bsuite_mnist_bandit", {}, "downloads MNIST"),
        ("cartpole", {"gravty": 9.0}, "cartpole has no option 'gravty'; valid names are gravity"),
        ("cartpole", {"gravity": "heavy"}, "gravity='heavy' of cartpole must be a number"),
        ("cartpole", {"max_steps_in_episode": 10.5}, "must be a whole number"),
        ("cartpole", {"max_steps_in_episode": 0}, "must be at least 1"),
        ("dark_room", {"goal": [1, 2, 3]}, r"must be numbers of shape \(2,\)"),
        ("repeat_previous_easy", {"max_steps_in_episode": 9}, "ends by itself"),
        ("repeat_previous_easy", {"k": 52}, "k=52 does not fit num_decks=1"),
        ("no_such_module_anywhere:Env", {}, "there is no module 'no_such_module_anywhere'"),
        ("resetta.envs.dark_room:DarkRom", {}, "did you mean DarkRoom"),
        ("resetta.envs.dark_room:MOVES", {}, "is a tuple, not an Environment"),
        (":Env", {}, "write module:Name"),
    ],
)
def test_mistakes_are_answered_in_a_sentence(name, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        make_env(name, **options)
    assert "\n" not in str(caught.value)


USERS = """
import jax.numpy as jnp
from gymnax.environments import environment, spaces
from resetta.envs.dark_room import DarkRoom

class DictObservation(DarkRoom):
    def observation_space(self, params):
        return spaces.Dict({"cell": spaces.Discrete(81)})

class MatrixAction(DarkRoom):
    def action_space(self, params=None):
        return spaces.Box(-1, 1, (2, 2))

class WrongShape(DarkRoom):
    def observation_space(self, params):
        return spaces.Box(0, 1, (3,))

class Drifting(DarkRoom):
    def step_env(self, key, state, action, params):
        observation, state, *rest = super().step_env(key, state, action, params)
        return observation, state.replace(time=state.time + 0.5), *rest

class Broken(DarkRoom):
    def step_env(self, key, state, action, params):
        raise RuntimeError("out of order")

class Other:
    default_params = None

def factory(size=5):
    return DarkRoom(size)

def pair():
    env = DarkRoom(3)
    return env, env.default_params.replace(max_steps_in_episode=11)
"""


@pytest.fixture
def users_module(tmp_path, monkeypatch):
    (tmp_path / "users_envs.py").write_text(USERS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield "users_envs"
    sys.modules.pop("users_envs", None)


def test_a_users_own_environments(users_module):
    assert make_env(f"{users_module}:factory").observation_shape == (25,)
    assert make_env(f"{users_module}:factory", size=4, max_steps_in_episode=7).max_steps == 7
    assert make_env(f"{users_module}:pair").max_steps == 11
    assert make_env("resetta.envs.point_mass:PointMass", speed=0.2).params.speed == 0.2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("DictObservation", "observation space is a Dict"),
        ("MatrixAction", r"action space has shape \(2, 2\)"),
        ("WrongShape", r"returns an observation of shape \(\); its space says \(3,\)"),
        ("Drifting", r"state.time is int32\[\] after a reset but float32\[\] after a step"),
        ("Broken", "cannot be traced by JAX: RuntimeError: out of order"),
        ("Other", "Other is not a gymnax 1.0 Environment"),
    ],
)
def test_a_users_environment_that_does_not_fit(users_module, name, message):
    with pytest.raises(ValueError, match=message) as caught:
        make_env(f"{users_module}:{name}")
    assert "\n" not in str(caught.value)


def test_a_users_broken_module_keeps_its_own_error(tmp_path, monkeypatch):
    (tmp_path / "users_broken.py").write_text("import a_module_that_does_not_exist")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(ModuleNotFoundError, match="a_module_that_does_not_exist"):
        make_env("users_broken:Env")


def test_parameters_stay_static_python_numbers():
    # Numbers that become arrays would make every `int(params...)` a device transfer.
    params = make_env("cartpole", gravity=3).params
    assert isinstance(params.gravity, float)
    assert not isinstance(make_env("cartpole_catch").params.tau, jnp.ndarray)
