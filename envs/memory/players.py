"""Players of the memory tasks: what a good memory and a little thought are worth.

Each sees what an agent sees, observation after observation, and remembers its own actions. `PLAYERS` maps
a family to a function of a `BaseEnv`: an initial carry and `act(carry, observation) -> carry, action`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .battleship import spread, windows
from .labyrinth import GOAL, MOVES, NO_MOVE, START, WALL
from .minesweeper import around

Player = tuple[Any, Callable[[Any, Any], tuple[Any, Any]]]


def autoencode(base_env: Any) -> Player:
    """Optimal: keeps all cards and recites them backwards."""
    last = base_env.env.num_cards - 1

    def act(carry, observation):
        cards, time = carry
        cards = jnp.where(jnp.arange(last + 1) == time, jnp.argmax(observation[2:]), cards)
        return (cards, time + 1), cards[jnp.clip(2 * last - time, 0, last)]

    return (jnp.zeros(last + 1, jnp.int32), jnp.int32(0)), act


def count_recall(base_env: Any) -> Player:
    """Optimal: counts every kind."""
    kinds = base_env.env.kinds

    def act(counts, observation):
        counts = counts + observation[:kinds]
        return counts, jnp.int32(counts @ observation[kinds:])

    return jnp.zeros(kinds), act


def higher_lower(base_env: Any) -> Player:
    """Optimal, since guesses change nothing: counts cards and names the likelier side."""

    def act(remaining, observation):
        remaining = remaining - observation
        below = jnp.cumsum(remaining) @ observation - remaining @ observation
        above = remaining.sum() - jnp.cumsum(remaining) @ observation
        return remaining, (below > above).astype(jnp.int32)

    return jnp.full(13, 4.0 * base_env.env.num_decks), act


def multiarmed_bandit(base_env: Any) -> Player:
    """Pulls the arm whose chance may yet be the best: posterior mean plus a standard deviation and a half."""
    arms = base_env.env.arms

    def act(carry, observation):
        paid, pulls, last = carry  # of Beta(1, 1) priors: `paid` begins at 1, `pulls` at 2
        pulled = jnp.arange(arms) == last
        paid, pulls = paid + pulled * observation[1], pulls + pulled
        mean = paid / pulls
        arm = jnp.argmax(mean + 1.5 * jnp.sqrt(mean * (1 - mean) / (pulls + 1)))
        return (paid, pulls, arm), arm

    return (jnp.ones(arms), jnp.full(arms, 2.0), jnp.int32(-1)), act


def concentration(base_env: Any) -> Player:
    """Forgets no card, turns known pairs, and else a card not yet seen."""
    n, kinds = base_env.env.num_cards, base_env.env.kinds
    places = jnp.arange(n)

    def act(carry, observation):
        known, found, first, last = carry  # kinds, `kinds` where unknown; places, −1 for none
        shown = jnp.argmax(observation.reshape(n, kinds + 1), -1)
        known = jnp.where(shown < kinds, shown, known)
        second = first >= 0  # the last card turned was the second of a turn
        match = second & (known[first] == known[last])
        found = found | (match & ((places == first) | (places == last)))
        first = jnp.where(second, -1, last)
        alike = (known[:, None] == known) & (places[:, None] != places) & ~found & (known < kinds)
        partner = jnp.where(first >= 0, alike[first], alike.any(1) & ~found & (known < kinds))
        last = jnp.where(partner.any(), jnp.argmax(partner), jnp.argmax(known == kinds))
        return (known, found, first, last), last

    none = jnp.int32(-1)
    return (jnp.full(n, kinds), jnp.zeros(n, bool), none, none), act


def battleship(base_env: Any) -> Player:
    """Shoots where most ships could lie, given the misses, those that explain a hit counting more."""
    n, lengths = base_env.env.board_size, base_env.env.ship_sizes
    cells = jnp.arange(n * n).reshape(n, n)

    def act(carry, observation):
        hits, misses, last = carry
        hits, misses = hits | ((cells == last) & (observation[1] > 0)), misses | (cells == last)
        misses = misses & ~hits
        heat = jnp.zeros((n, n), jnp.int32)
        for length in lengths:
            weight = jnp.where(windows(misses, length) == 0, 1 + 30 * windows(hits, length), 0)
            heat = heat + spread(weight, length)
        last = jnp.argmax(jnp.where(hits | misses, -1, heat))
        return (hits, misses, last), last

    none = jnp.zeros((n, n), bool)
    return (none, none, jnp.int32(-1)), act


def minesweeper(base_env: Any) -> Player:
    """Concludes what single counts allow, else views the cell that the counts around make least likely."""
    n, mines = base_env.env.board_size, base_env.env.mines
    cells = jnp.arange(n * n).reshape(n, n)

    def act(carry, observation):
        counts, last = carry  # −1 where not viewed
        counts = jnp.where(cells == last, jnp.argmax(observation), counts)
        viewed = counts >= 0

        def conclude(_, known):
            mined, safe = known
            unknown = ~viewed & ~mined & ~safe
            rest, room = counts - around(mined), around(unknown)
            mined = mined | (unknown & (around(viewed & (rest == room)) > 0))
            safe = safe | (unknown & (around(viewed & (rest == 0)) > 0))
            return mined, safe

        none = jnp.zeros((n, n), bool)
        mined, safe = jax.lax.fori_loop(0, 4, conclude, (none, none))
        unknown = ~viewed & ~mined & ~safe
        share = (counts - around(mined)) / jnp.maximum(around(unknown), 1)
        share = jnp.pad(jnp.where(viewed, share, -1.0), 1, constant_values=-1.0)
        risk = jnp.stack([share[i : i + n, j : j + n] for i in range(3) for j in range(3)]).max(0)
        risk = jnp.where(risk < 0, (mines - mined.sum()) / jnp.maximum(unknown.sum(), 1), risk)
        last = jnp.argmin(jnp.where(viewed, 3.0, jnp.where(mined, 2.0, jnp.where(safe, -1.0, risk))))
        return (counts, last), last

    return (jnp.full((n, n), -1), jnp.int32(-1)), act


def labyrinth(base_env: Any) -> Player:
    """Depth first: into a cell not entered yet, the exit first of all, or back to where it came from."""
    width = 2 * base_env.env.rooms + 1
    moves, back = jnp.array(MOVES), jnp.array([1, 0, 3, 2, NO_MOVE])

    def act(carry, observation):
        came, here, last = carry  # the move that first led into a cell, −1 where none has; `last` 4 at first
        here = here + jnp.where(last < NO_MOVE, moves[last % NO_MOVE], 0)
        came = came.at[here[0], here[1]].set(
            jnp.where(came[here[0], here[1]] < 0, last, came[here[0], here[1]])
        )
        view = jnp.argmax(observation.reshape(10, 5)[:9], -1)
        # At the entrance, and only there, the agent may not be in the middle of what it sees.
        at = jnp.where(last < NO_MOVE, 4, jnp.argmax(view == START))
        view = jnp.pad(view.reshape(3, 3), 1, constant_values=WALL)
        to = jnp.stack([view[1 + at // 3 + r, 1 + at % 3 + c] for r, c in MOVES])
        fresh = (to != WALL) & jnp.stack([came[here[0] + r, here[1] + c] < 0 for r, c in MOVES])
        ahead = jnp.argmax(fresh * (1 + (to == GOAL)))
        last = jnp.where(fresh.any(), ahead, back[came[here[0], here[1]]])
        return (came, here, last), last

    return (jnp.full((2 * width + 1,) * 2, -1), jnp.full(2, width), jnp.int32(NO_MOVE)), act


PLAYERS: dict[str, Callable[[Any], Player]] = {
    "autoencode": autoencode,
    "battleship": battleship,
    "concentration": concentration,
    "count_recall": count_recall,
    "higher_lower": higher_lower,
    "labyrinth_escape": labyrinth,
    "labyrinth_explore": labyrinth,
    "minesweeper": minesweeper,
    "multiarmed_bandit": multiarmed_bandit,
}
