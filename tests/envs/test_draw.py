import itertools
import os
import sys

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from resetta.envs.base import BaseEnv
from resetta.envs.bernoulli_bandit import BernoulliBandit
from resetta.envs.cartpole_catch import CartPoleCatch
from resetta.envs.dark_room import DarkRoom
from resetta.envs.draw import draw
from resetta.envs.draw_bars import draw_bars
from resetta.envs.draw_canvas import ACCENT, GOAL, PAPER, Canvas
from resetta.envs.memory.autoencode import Autoencode
from resetta.envs.memory.battleship import Battleship
from resetta.envs.memory.concentration import Concentration
from resetta.envs.memory.count_recall import CountRecall
from resetta.envs.memory.higher_lower import HigherLower
from resetta.envs.memory.labyrinth import LabyrinthEscape, LabyrinthExplore
from resetta.envs.memory.minesweeper import MineSweeper
from resetta.envs.memory.multiarmed_bandit import MultiarmedBandit
from resetta.envs.memory.repeat_first import RepeatFirst
from resetta.envs.memory.repeat_previous import RepeatPrevious
from resetta.envs.memory.stateless_cartpole import StatelessCartPole
from resetta.envs.memory.stateless_pendulum import StatelessPendulum
from resetta.envs.point_mass import PointMass

OURS = {
    cls.__name__: cls
    for cls in (
        Autoencode,
        Battleship,
        BernoulliBandit,
        CartPoleCatch,
        Concentration,
        CountRecall,
        DarkRoom,
        HigherLower,
        LabyrinthEscape,
        LabyrinthExplore,
        MineSweeper,
        MultiarmedBandit,
        PointMass,
        RepeatFirst,
        RepeatPrevious,
        StatelessCartPole,
        StatelessPendulum,
    )
}
GYMNAX = [
    "CartPole-v1", "Pendulum-v1", "Acrobot-v1", "MountainCar-v0", "MountainCarContinuous-v0",
    "PointRobot-misc", "Reacher-misc", "Swimmer-misc", "FourRooms-misc", "MetaMaze-misc", "FrozenLake-misc",
    "DeepSea-bsuite", "Catch-bsuite", "Pong-misc", "Asterix-MinAtar", "Breakout-MinAtar",
    "BernoulliBandit-misc", "GaussianBandit-misc", "SimpleBandit-bsuite", "MemoryChain-bsuite",
]  # fmt: skip


def play(name, steps=0):
    """A base environment, its states as host arrays, and the last action and reward."""
    env, params = (OURS[name](), OURS[name]().default_params) if name in OURS else gymnax.make(name)
    key = jax.random.key(0)
    step = jax.jit(env.step_env)  # compiled only where it is taken
    _, state = jax.jit(env.reset_env)(key, params)
    states, action, reward = [jax.tree.map(np.asarray, state)], None, 0.0
    for t in range(steps):
        action = env.action_space(params).sample(jax.random.fold_in(key, t))
        _, state, reward, _, _ = step(jax.random.fold_in(key, 100 + t), state, action, params)
        states.append(jax.tree.map(np.asarray, state))
    return BaseEnv(name, env, params), states, action if action is None else np.asarray(action), float(reward)


def count(picture, color, tolerance=12):
    rgb = [int(color[k : k + 2], 16) for k in (1, 3, 5)]
    return int((np.abs(picture.astype(int) - rgb).max(-1) <= tolerance).sum())


@pytest.mark.parametrize("name", [*OURS, *GYMNAX])
def test_every_environment_has_a_picture(name):
    base, (state,), *_ = play(name)
    picture = draw(base, state, base.params, (96, 96))
    assert picture.shape == (96, 96, 3)
    assert picture.dtype == np.uint8
    assert picture.std() > 5  # something is on it
    np.testing.assert_array_equal(picture, draw(base, state, base.params, (96, 96)))


@pytest.mark.parametrize("name", ["CartPole-v1", "RepeatPrevious", "PointMass", "DarkRoom", "Catch-bsuite"])
def test_films_move(name):
    base, states, action, reward = play(name, 3)
    pictures = [
        draw(base, state, base.params, (96, 96), last_action=action, last_reward=reward) for state in states
    ]
    assert any((a != b).any() for a, b in itertools.pairwise(pictures))


def test_sizes_and_the_bare_environment():
    base, states, *_ = play("CartPole-v1")
    for size in ((16, 16), (64, 120), (121, 63), (256, 256)):
        assert draw(base, states[0], base.params, size).shape == (*size, 3)
    np.testing.assert_array_equal(
        draw(base.env, states[0], base.params, (64, 64)), draw(base, states[0], base.params, (64, 64))
    )
    wide = draw(base, states[0], base.params, (64, 192))
    assert count(wide[:, :32], PAPER) == 64 * 32  # fitted into the middle, not stretched


def test_mistakes_are_one_sentence():
    base, states, *_ = play("CartPole-v1")
    with pytest.raises(ValueError, match="too small"):
        draw(base, states[0], base.params, (8, 256))
    batched = jax.tree.map(lambda leaf: np.stack([leaf, leaf]), states[0])
    with pytest.raises(ValueError, match=r"batch axis of \(2,\)"):
        draw(base, batched, base.params)


def pole_tip(picture):
    """The highest row's mean column of accent colour."""
    rgb = [int(ACCENT[k : k + 2], 16) for k in (1, 3, 5)]
    rows, columns = np.nonzero(np.abs(picture.astype(int) - rgb).max(-1) < 40)
    return columns[rows == rows.min()].mean()


def test_a_pole_leans_the_way_its_angle_says():
    base, (state,), *_ = play("CartPole-v1")
    state = state.replace(x=np.float32(0))
    tips = [
        pole_tip(draw(base, state.replace(theta=np.float32(a)), base.params, (128, 128)))
        for a in (-0.15, 0.15)
    ]
    assert tips[0] < 60 < 68 < tips[1]


def test_a_pendulum_turns_counter_clockwise_from_upright():
    base, (state,), *_ = play("Pendulum-v1")

    def bob(theta):
        picture = draw(
            base, state.replace(theta=np.float32(theta), last_u=np.float32(0)), base.params, (128, 128)
        )
        rgb = [int(ACCENT[k : k + 2], 16) for k in (1, 3, 5)]
        return np.argwhere(np.abs(picture.astype(int) - rgb).max(-1) < 12).mean(0) - 63.5

    up, left, down = bob(0.0), bob(np.pi / 2), bob(np.pi)
    assert up[0] < -40 and abs(up[1]) < 2  # noqa: PT018
    assert left[1] < -40 and abs(left[0]) < 2  # noqa: PT018
    assert down[0] > 40 and abs(down[1]) < 2  # noqa: PT018


def test_a_simulation_that_blew_up_says_so():
    base, (state,), *_ = play("Reacher-misc")
    broken = [
        draw(base, state.replace(angles=np.array([bad, 0])), base.params, (192, 192))
        for bad in (np.nan, np.inf)
    ]
    np.testing.assert_array_equal(*broken)
    assert count(broken[0], ACCENT, 60) > 10
    far = state.replace(angles=np.array([1e30, 0]), goal_xy=np.array([1e30, -1e30]))
    assert draw(base, far, base.params, (64, 64)).shape == (64, 64, 3)


def test_the_dark_rooms_goal_is_where_the_task_says():
    base, (state,), *_ = play("DarkRoom")
    for goal in ((0, 0), (8, 8), (2, 7)):
        picture = draw(base, state, base.params.replace(goal=jnp.array(goal)), (180, 180))
        row, column = np.argwhere(np.abs(picture.astype(int) - [127, 209, 196]).max(-1) < 12).mean(0) / 20
        assert (int(row), int(column)) == goal


def test_the_arm_that_was_pulled_stands_out():
    base, (state,), *_ = play("BernoulliBandit")
    quiet = draw(base, state, base.params, (128, 128))
    pulled = draw(base, state, base.params, (128, 128), last_action=np.int32(3), last_reward=1.0)
    assert count(quiet, ACCENT) == 0
    columns = np.nonzero(np.abs(pulled.astype(int) - [228, 87, 46]).max(-1) < 12)[1]
    assert len(columns) > 100
    assert 70 < columns.mean() < 105  # the fourth of five


def test_a_right_and_a_wrong_answer_look_different():
    base, states, *_ = play("RepeatPrevious", 3)
    right, wrong = (
        draw(base, states[-1], base.params, (128, 128), last_action=np.int32(0), last_reward=r)
        for r in (0.02, -0.02)
    )
    assert count(right, GOAL, 40) > count(wrong, GOAL, 40)
    assert count(wrong, ACCENT, 40) > count(right, ACCENT, 40)


def test_a_strangers_environment_is_drawn_as_its_observation():
    @struct.dataclass
    class State:
        time: int
        charge: float

    class Catch:  # shares a name with gymnax's, and nothing else
        name = "strange"

        def observe(self, key, state, action, params):
            return jnp.array([state.charge, -1.0])

    pictures = [draw(Catch(), State(0, charge), None, (96, 96)) for charge in (0.0, 3.0)]
    assert count(pictures[1], ACCENT) > count(pictures[0], ACCENT) + 50

    class Silent:
        pass

    assert count(draw(Silent(), State(0, 2.0), None, (96, 96)), ACCENT) > 50


@pytest.mark.parametrize("length", [1, 16, 40, 300])
def test_any_observation_fits(length):
    canvas = Canvas((96, 96))
    draw_bars(canvas, "anything", np.linspace(-1e9, 1e9, length))
    picture = canvas.pixels()
    edge = np.concatenate([picture[:, :2].reshape(-1, 3), picture[:, -2:].reshape(-1, 3)])
    assert (edge == [250, 249, 246]).all()
    assert picture.std() > 5


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="EGL")
def test_brax_is_rendered_or_says_what_is_missing():
    from resetta.envs.brax import BraxEnvironment

    env = BraxEnvironment("inverted_pendulum")
    _, state = jax.jit(env.reset_env)(jax.random.key(0), env.default_params)
    state = jax.tree.map(np.asarray, state)
    try:
        picture = draw(env, state, env.default_params, (64, 80))
    except RuntimeError as error:
        assert "libegl1" in str(error) and "MUJOCO_GL" in str(error)  # noqa: PT017, PT018
        return
    assert picture.shape == (64, 80, 3)
    assert count(picture, PAPER) > 1000
    assert picture.std() > 5
    assert os.environ.get("MUJOCO_GL") or os.environ.get("DISPLAY")
