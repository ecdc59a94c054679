"""What POPGym's environments hide, as fields of our states, and what one who sees it would do.

Every family has `state(env, time, observation)`, the fields of our state that stands for `env` after `time`
steps, and `best(env, observation)`, an action that is right given all that is hidden.
"""

from collections import deque
from types import SimpleNamespace

import numpy as np

MOVES = ((0, -1), (0, 1), (-1, 0), (1, 0))


def left(deck, kinds):
    """A deck that holds one card, POPGym's next: theirs is shuffled beforehand, ours is drawn from."""
    return np.bincount(kinds[deck.idx[deck.deck_len - 1 : deck.deck_len]], minlength=kinds.max() + 1)


def cell(cells):
    """One of the cells that are set, as POPGym's action."""
    return np.argwhere(cells)[0]


def repeat_first(env, time, observation):
    return {"remaining": left(env.deck, env.deck.suits_idx), "first": env.card, "current": observation}


def repeat_previous(env, time, observation):
    recent = np.zeros(env.k, int)
    for i, card in enumerate(env.deck["player"]):
        recent[i % env.k] = env.deck.suits_idx[card]
    return {"remaining": left(env.deck, env.deck.suits_idx), "recent": recent}


def previous(env, observation):
    hand = env.deck["player"]
    return env.deck.suits_idx[hand[-env.k]] if len(hand) >= env.k else 0


def autoencode(env, time, observation):
    cards = env.deck.suits_idx[env.deck.idx[::-1]]
    dealt = np.where(np.arange(len(cards)) <= time, cards, 0)
    return {"remaining": left(env.deck, env.deck.suits_idx), "cards": dealt}


def count_recall(env, time, observation):
    # What is left tells what was counted, so that all of it must be true, and the next card is not known.
    decks, kinds = (env.value_deck, env.query_deck), env.deck_idx_type
    values, queries = (
        np.bincount(kinds[deck.idx[: deck.deck_len]], minlength=env.num_distinct_cards) for deck in decks
    )
    return {"values": values, "queries": queries, "value": env.value, "query": env.query}


def higher_lower(env, time, observation):
    return {"remaining": left(env.deck, env.deck.ranks_idx), "current": observation}


def guess(env, observation):
    return int(env.deck.ranks_idx[env.deck.idx[env.deck.deck_len - 1]] < observation)


def concentration(env, time, observation):
    turned = [*env.last_in_play_idx, -1, -1]
    return {
        "cards": env.deck_idx_type[env.deck.idx],
        "face_up": np.isin(np.arange(env.deck.num_cards), env.deck["face_up_idx"]),
        "first": turned[0],
        "second": turned[1],
        "waiting": len(env.deck["in_play_idx"]) == 1,
    }


def pair(env, observation):
    cards = env.deck_idx_type[env.deck.idx]
    down = ~np.isin(np.arange(len(cards)), env.deck["face_up_idx"] + env.deck["in_play_idx"])
    if env.deck["in_play_idx"]:
        down &= cards == cards[env.deck["in_play_idx"][0]]
    return int(np.argmax(down))


def battleship(env, time, observation):
    return {"ships": env.board == 1, "shots": env.guesses == 1, "hit": observation}


def minesweeper(env, time, observation):
    return {"mines": env.hidden_grid == 1, "viewed": env.hidden_grid == 2, "seen": observation}


def bandit(env, time, observation):
    # Arms that always or never pay make chance play no part.
    env.bandits = (env.bandits > 0.5).astype(np.float32)
    return {"reward_probs": env.bandits, "paid": observation}


def labyrinth(env, time, observation):
    return {
        "grid": env.maze.grid,
        "entered": env.explored == 1,
        "position": np.array(env.position),
        "last": observation[-1],
    }


def nearest(env, wanted):
    """The first move of a shortest way to a cell that is `wanted`, and how long it is."""
    seen, queue = {env.position}, deque([(env.position, None, 0)])
    while queue:
        (y, x), first, steps = queue.popleft()
        if wanted[y, x]:
            return first, steps
        for move, (dy, dx) in enumerate(MOVES):
            to = (y + dy, x + dx)
            inside = min(to) >= 0 and max(to) < len(wanted)
            if inside and to not in seen and env.maze.grid[to] != 1:
                seen.add(to)
                queue.append((to, move if first is None else first, steps + 1))
    return 0, 0


def cartpole(env, time, observation):
    return dict(zip(("x", "x_dot", "theta", "theta_dot"), env.state, strict=True))


def push(env, observation):
    return int(np.dot(env.state, (0.1, 0.5, 5.0, 1.2)) > 0)


def pendulum(env, time, observation):
    return {"theta": env.state[0], "theta_dot": env.state[1], "last_u": 0.0}


def brake(env, observation):
    return np.clip(np.array([-env.state[1]], np.float32), -2, 2)


def family(popgym, state, best, exact=True, follows=True):
    """`exact`: observations are equal; `follows`: so are those after the step."""
    return SimpleNamespace(popgym=popgym, state=state, best=best, exact=exact, follows=exact and follows)


FAMILIES = {
    "autoencode": family(
        "Autoencode",
        autoencode,
        lambda env, o: env.deck.suits_idx[env.deck["system"][-1]],
    ),
    "battleship": family(
        "Battleship", battleship, lambda env, o: cell((env.board == 1) & (env.guesses == 0))
    ),
    "concentration": family("Concentration", concentration, pair),
    "count_recall": family("CountRecall", count_recall, lambda env, o: env.counts[env.query], follows=False),
    "higher_lower": family("HigherLower", higher_lower, guess),
    "labyrinth_escape": family(
        "LabyrinthEscape", labyrinth, lambda env, o: nearest(env, env.maze.grid == 3)[0]
    ),
    "labyrinth_explore": family(
        "LabyrinthExplore",
        labyrinth,
        lambda env, o: nearest(env, (env.maze.grid != 1) & (env.explored == 0))[0],
    ),
    "minesweeper": family("MineSweeper", minesweeper, lambda env, o: cell(env.hidden_grid == 0)),
    "multiarmed_bandit": family("MultiarmedBandit", bandit, lambda env, o: int(np.argmax(env.bandits))),
    "noisy_stateless_cartpole": family("NoisyPositionOnlyCartPole", cartpole, push, exact=False),
    "noisy_stateless_pendulum": family("NoisyPositionOnlyPendulum", pendulum, brake, exact=False),
    "repeat_first": family("RepeatFirst", repeat_first, lambda env, o: env.card),
    "repeat_previous": family("RepeatPrevious", repeat_previous, previous),
    "stateless_cartpole": family("PositionOnlyCartPole", cartpole, push),
    "stateless_pendulum": family("PositionOnlyPendulum", pendulum, brake),
}
