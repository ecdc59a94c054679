"""The memory suite's own promises: what is drawn at random, what a good memory is worth, what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resetta.envs.controllers import controller
from resetta.envs.memory.battleship import Battleship, place, spread, windows
from resetta.envs.memory.labyrinth import FREE, START, WALL, LabyrinthEscape, LabyrinthState
from resetta.envs.memory.minesweeper import around
from resetta.envs.registry import make_env
from resetta.envs.scores import score, trial_returns


def played(name, episodes=24):
    base_env = make_env(name)
    made = controller(base_env)
    assert made is not None
    return trial_returns(base_env, made.initial, lambda c, _, o: made.act(c, o), episodes, 7)


@pytest.mark.parametrize("name", ["autoencode_medium", "count_recall_hard"])
def test_remembering_answers_everything(name):
    np.testing.assert_allclose(played(name), 1.0, atol=2e-4)


@pytest.mark.parametrize(
    "name",
    [
        "battleship_easy",
        "concentration_hard",
        "higher_lower_easy",
        "labyrinth_escape_easy",
        "labyrinth_explore_easy",
        "minesweeper_easy",
        "multiarmed_bandit_easy",
    ],
)
def test_players_reach_what_their_scores_say(name):
    returns, known = played(name, 64), score(name)
    error = returns.std(ddof=1) / np.sqrt(64)
    if known.kind == "optimum" and name != "higher_lower_easy":  # of one who knows what there is to learn
        assert known.random + 0.7 * (known.reference - known.random) < returns.mean() < known.reference
    else:
        assert abs(returns.mean() - known.reference) < 5 * error
    assert returns.mean() > known.random + 5 * error


def test_a_maze_is_a_tree_of_all_rooms_with_gaps_in_opposite_walls():
    env = LabyrinthEscape(5)
    states = jax.jit(jax.vmap(lambda key: env.reset_env(key, env.default_params)[1]))(
        jax.random.split(jax.random.key(0), 256)
    )
    grids = np.asarray(states.grid)
    assert (grids[:, 1::2, 1::2] == FREE).all()
    assert ((grids == FREE).sum((1, 2)) == 25 + 24).all()
    sides = set()
    for grid in grids[:64]:
        start, goal = (np.argwhere(grid == kind) for kind in (START, START + 1))
        assert len(start) == len(goal) == 1
        axis = int(np.argmax(np.abs(start[0] - goal[0]) == 10))
        assert {start[0][axis], goal[0][axis]} == {0, 10}
        sides.add((axis, start[0][axis]))
        # Without a cycle (as many passages as rooms less one) all rooms are reached: flood from one of them.
        reached, before = np.zeros_like(grid, bool), 0
        reached[1, 1] = True
        while reached.sum() > before:
            before = reached.sum()
            for axis in (0, 1):
                for step in (-1, 1):
                    reached |= np.roll(reached, step, axis) & (grid == FREE)
        assert (reached == (grid == FREE)).all()
    assert len(sides) == 4
    assert len({grid.tobytes() for grid in grids}) == 256


def test_ships_lie_uniformly_where_they_are_free_to():
    corner = jnp.zeros((4, 4), bool).at[0, :].set(True)
    boards = jax.jit(jax.vmap(lambda key: place(key, corner, 3)))(jax.random.split(jax.random.key(0), 4000))
    kinds, counts = np.unique(np.asarray(boards), axis=0, return_counts=True)
    # Of a 3 x 4 rest: two places in each of three rows, one in each of four columns.
    assert len(kinds) == 10
    assert np.abs(counts - 400).max() < 5 * np.sqrt(400)
    assert (kinds.sum((1, 2)) == 7).all()


def test_windows_and_their_reverse():
    cells = jnp.arange(9).reshape(3, 3)
    assert windows(cells, 2).tolist() == [
        [[3, 5, 7], [9, 11, 13], [-1, -1, -1]],
        [[1, 3, -1], [7, 9, -1], [13, 15, -1]],
    ]
    begins = jnp.zeros((2, 3, 3), jnp.int32).at[0, 1, 2].set(5).at[1, 0, 0].set(2)
    assert spread(begins, 2).tolist() == [[2, 2, 0], [0, 0, 5], [0, 0, 5]]


def test_counts_reach_around_corners_of_the_board_only():
    mines = jnp.zeros((4, 4), bool).at[0, 0].set(True).at[1, 2].set(True)
    assert around(mines).tolist() == [[1, 2, 1, 1], [1, 2, 1, 1], [0, 1, 1, 1], [0, 0, 0, 0]]


@pytest.mark.parametrize(
    ("name", "field", "count"), [("battleship_hard", "ships", 12), ("minesweeper_hard", "mines", 10)]
)
def test_boards_hold_what_they_should(name, field, count):
    base_env = make_env(name)
    _, states = jax.jit(jax.vmap(lambda key: base_env.reset(key, base_env.params)))(
        jax.random.split(jax.random.key(0), 64)
    )
    boards = np.asarray(getattr(states, field))
    assert (boards.sum((1, 2)) == count).all()
    assert boards.any(0).mean() > 0.95


def test_walls_and_the_grid_end_the_view():
    env = LabyrinthEscape(2)
    grid = jnp.full((5, 5), WALL).at[1:4, 1:4].set(FREE).at[0, 1].set(START)
    state = LabyrinthState(
        grid=grid,
        entered=grid == START,
        position=jnp.array([0, 1]),
        last=jnp.int32(4),
        time=jnp.int32(0),
    )
    seen = jax.jit(lambda state: env.observe(jax.random.key(0), state, None, env.default_params))(state)
    view = np.argmax(seen.reshape(10, 5), -1)
    assert view[:9].reshape(3, 3).tolist() == [[1, 2, 1], [1, 0, 0], [1, 1, 1]]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("autoencode_easy", {"num_decks": 0}, "num_decks=0 leaves nothing to deal; use 1 or more"),
        ("concentration_easy", {"deck_type": "suits"}, "deck_type='suits' must be colors or ranks"),
        ("battleship_easy", {"board_size": 7}, "board_size=7 is too small for"),
        ("minesweeper_easy", {"mines": 14}, "mines=14 does not fit board_size=4"),
        ("labyrinth_escape_easy", {"rooms": 1}, "rooms=1 is no maze; use 2 or more"),
        ("multiarmed_bandit_easy", {"arms": 0}, "arms=0 leaves nothing to pull"),
    ],
)
def test_mistakes_are_answered_in_a_sentence(name, options, message):
    with pytest.raises(ValueError, match=message):
        make_env(name, **options)


def test_ships_always_fit():
    # The smallest board allowed, with many ships.
    env = Battleship(6, (3, 3, 3, 3))
    reset = jax.jit(jax.vmap(lambda key: env.reset_env(key, env.default_params)[1].ships.sum()))
    assert (reset(jax.random.split(jax.random.key(0), 500)) == 12).all()
