"""What a return is worth: the random policy's and a reference's, for every registered environment.

The numbers live in `scores.json` beside this file. They hold for an environment made without options;
for a family of tasks they are means over its tasks. This command measures them again:

    python -m resetta.envs.scores [names ...] [--episodes 1024] [--seed 0]
"""

import argparse
import datetime
import importlib.metadata
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .registry import env_names, make_env

if TYPE_CHECKING:
    from jaxtyping import Array, Float

    from .base import BaseEnv

_PATH = Path(__file__).with_name("scores.json")


class Score(NamedTuple):
    """Mean returns over a trial. `kind` is optimum, controller, trained, published or None.

    `optimum` is attained by, or bounds, the best policy that knows the task, `controller` is a hand-written
    one of `envs.controllers`; a trained agent may exceed the latter. None stands for what nobody measured.
    """

    random: float | None
    random_std_error: float | None
    random_episodes: int
    reference: float | None
    kind: str | None
    note: str


def score(name: str) -> Score:
    """The scores of a registered environment; raises ValueError on a name that has none."""
    table = _table()
    if name not in table:
        raise ValueError(f"{name} has no scores; only registered environments have them")
    random, reference = table[name]["random"], table[name]["reference"]
    return Score(
        random=random["mean"],
        random_std_error=random["std_error"],
        random_episodes=random["episodes"],
        reference=reference["value"],
        kind=reference["kind"],
        note=reference["note"],
    )


def observation_rms(name: str) -> tuple[float, ...]:
    """The root mean square of each entry of an observation under random actions; 1 for one that was always 0.

    Raises ValueError for a name of which it is not known.
    """
    measured = _table().get(name, {}).get("random", {}).get("observation_rms")
    if measured is None:
        known = ", ".join(each for each, entry in _table().items() if entry["random"].get("observation_rms"))
        raise ValueError(
            f"env.observation_scale=random: what {name} observes under random actions was never measured; "
            f"it is known of {known}"
        )
    return tuple(value or 1.0 for value in measured)


def normalize(name: str, returns: "np.ndarray | Float[Array, '...'] | float") -> "Any | None":
    """(returns − random)/(reference − random): 0 is random, 1 the reference, and above 1 is allowed.

    None where an environment has no reference or no random score, and for names without scores, so that a
    missing yardstick is never taken for a number.
    """
    if name not in _table():
        return None
    known = score(name)
    if known.random is None or known.reference is None:
        return None
    return (returns - known.random) / (known.reference - known.random)


def measure_random(name: str, episodes: int, seed: int) -> dict[str, Any]:
    """Mean, standard error and number of trials of the uniformly random policy, one task each.

    Of a simulator's observations, whose entries differ most in size, also the root mean square of each.
    """
    import jax
    import jax.numpy as jnp

    base_env = make_env(name)
    action = base_env.action
    if not hasattr(action, "low"):
        size = action.size

        def act(carry, key, observation):
            return carry, jax.random.randint(key, (), 0, size)
    else:
        low, high = jnp.array(action.low), jnp.array(action.high)  # pyright: ignore

        def act(carry, key, observation):
            return carry, jax.random.uniform(key, low.shape, minval=low, maxval=high)

    trials = _trials(base_env, (), act, episodes, seed)
    if not base_env.simulated:
        return _summary(trials.returns)
    rms = np.sqrt(trials.squares.sum(0) / trials.steps.sum())
    return {**_summary(trials.returns), "observation_rms": [float(f"{value:.4g}") for value in rms]}


def measure_controller(name: str, episodes: int, seed: int) -> dict[str, Any]:
    """The same for the hand-written controller; raises ValueError where there is none."""
    from .controllers import controller

    base_env = make_env(name)
    made = controller(base_env)
    if made is None:
        raise ValueError(f"{name} has no controller")
    return _summary(trial_returns(base_env, made.initial, lambda c, _, o: made.act(c, o), episodes, seed))


def trial_returns(
    base_env: "BaseEnv", carry: Any, act: Callable[[Any, Any, Any], tuple[Any, Any]], episodes: int, seed: int
) -> "Float[np.ndarray, ' episodes']":
    """The return of one whole trial in each of `episodes` tasks, under `act(carry, key, observation)`."""
    return _trials(base_env, carry, act, episodes, seed).returns


class _Trials(NamedTuple):
    """Of each trial: its steps, its return, and the squares of what it observed, summed over its steps."""

    steps: "Float[np.ndarray, ' episodes']"
    returns: "Float[np.ndarray, ' episodes']"
    squares: "Float[np.ndarray, 'episodes ...']"


def _trials(
    base_env: "BaseEnv", carry: Any, act: Callable[[Any, Any, Any], tuple[Any, Any]], episodes: int, seed: int
) -> _Trials:
    import jax
    import jax.numpy as jnp

    def trial(key):
        key_task, key_reset, key = jax.random.split(key, 3)
        params = base_env.sample_task(key_task, base_env.params)
        observation, state = base_env.reset(key_reset, params)

        def step(loop):
            steps, _, carry, observation, state, total, squares = loop
            squares = squares + observation.astype(jnp.float32) ** 2
            key_act, key_step = jax.random.split(jax.random.fold_in(key, steps))
            carry, action = act(carry, key_act, observation)
            observation, state, reward, terminated, truncated = base_env.step(key_step, state, action, params)
            return steps + 1, terminated | truncated, carry, observation, state, total + reward, squares

        zero, zeros = jnp.float32(0), jnp.zeros(observation.shape)
        start = (jnp.int32(0), jnp.zeros((), bool), carry, observation, state, zero, zeros)
        end = jax.lax.while_loop(lambda loop: ~loop[1], step, start)
        return end[0], end[-2], end[-1]

    return _Trials(
        *map(np.asarray, jax.jit(jax.vmap(trial))(jax.random.split(jax.random.key(seed), episodes)))
    )


def _summary(returns: np.ndarray) -> dict[str, Any]:
    error = float(returns.std(ddof=1) / np.sqrt(len(returns)))
    return {"mean": round(float(returns.mean()), 5), "std_error": round(error, 5), "episodes": len(returns)}


@cache
def _table() -> dict[str, Any]:
    return json.loads(_PATH.read_text())


# References that follow from the rules; everything else is measured with a controller or left open.
_OPTIMA: dict[str, tuple[float, str]] = {
    "bernoulli_bandit": (10 * 5 / 6, "10 pulls of the best of 5 uniform arms, 5/6 each"),
    "brax_inverted_pendulum": (1000.0, "1 for each of 1000 steps upright"),
    **{f"autoencode_{grade}": (1.0, "every answer right") for grade in ("easy", "medium", "hard")},
    **{f"count_recall_{grade}": (1.0, "every answer right") for grade in ("easy", "medium", "hard")},
    **{
        f"multiarmed_bandit_{grade}": (
            2 * arms / (arms + 1) - 1,
            f"the best of {arms} arms, when it is known",
        )
        for grade, arms in {"easy": 10, "medium": 20, "hard": 30}.items()
    },
    "bsuite_bandit": (1.0, "the best arm"),
    "bsuite_catch": (1.0, "the ball is caught"),
    "bsuite_deep_sea": (0.99, "the treasure less eight moves of 0.01/8"),
    "bsuite_discounting_chain": (1.1, "the best chain"),
    "bsuite_memory_chain": (1.0, "the right answer"),
    "bsuite_umbrella_chain": (1.0, "the right umbrella; the distracting rewards have mean 0"),
    "cartpole": (500.0, "1 for each of 500 steps; the controller attains it"),
    "dark_room": (
        20 - 40 / 9 + 80 / 81,
        "straight to a known goal: 20 - d + 1 for distance d > 0, 20 for d = 0",
    ),
    "four_rooms": (1.0, "the goal is reached; a bound, missed only if 500 steps do not suffice"),
    "gaussian_bandit": (8.33155, "100 E[max(0, mu)] with mu normal(-1, 1), when mu is known"),
    "gymnax_bernoulli_bandit": (90.0, "100 pulls of the better arm, .9 each, when it is known"),
    # the suite's own design, arXiv 1801.00690, section 2
    **{
        name: (1000.0, "at most 1 for each of 1000 steps: a bound")
        for name in env_names()
        if name.startswith("dm_")
    },
    **{f"repeat_first_{grade}": (1.0, "every answer right") for grade in ("easy", "medium", "hard")},
    **{f"repeat_previous_{grade}": (1.0, "every answer right") for grade in ("easy", "medium", "hard")},
    **{
        f"stateless_cartpole_{grade}": (
            1.0,
            "no fall; the controller with velocities from differences attains it",
        )
        for grade in ("easy", "medium", "hard")
    },
}
# Agents that know their body, 256 trials of their likeliest actions: docs/results/h100/brax_expert has more.
_TRAINED: dict[str, float] = {
    "brax_ant": 9684.342,
    "brax_halfcheetah": 9126.701,
    "brax_hopper": 3361.486,
    "brax_inverted_double_pendulum": 9321.665,
    "brax_reacher": -41.568,
    "brax_walker2d": 1048.368,
}
# Random play is measured on fewer trials, or not at all, where compiling and stepping take minutes.
_SLOW_EPISODES = {
    "brax_ant": 256,
    "brax_fast": 64,
    "brax_halfcheetah": 256,
    "brax_hopper": 256,
    "brax_inverted_double_pendulum": 256,
    "brax_inverted_pendulum": 256,
    "brax_reacher": 256,
    "brax_walker2d": 256,
    "dm_ball_in_cup": 256,
    "dm_cartpole_balance": 256,
    "dm_cartpole_swingup": 256,
    "dm_finger_spin": 256,
    "dm_finger_turn_easy": 256,
    "dm_finger_turn_hard": 256,
    "dm_pendulum_swingup": 256,
    "dm_point_mass": 256,
    "dm_reacher_easy": 256,
    "dm_reacher_hard": 256,
}


def _measure(name: str, episodes: int, seed: int) -> dict[str, Any]:
    if name.startswith(("brax_", "dm_")):
        episodes = _SLOW_EPISODES.get(name, 0)
    random: dict[str, Any] = {
        "mean": None,
        "std_error": None,
        "episodes": 0,
        "measured": "not measured: slow to compile",
    }
    if episodes:
        random = {**measure_random(name, episodes, seed), "measured": _stamp(seed)}
    return {"random": random, "reference": _reference(name, episodes, seed)}


def _reference(name: str, episodes: int, seed: int) -> dict[str, Any]:
    from .controllers import controller

    if name in _OPTIMA:
        value, note = _OPTIMA[name]
        return {"value": round(value, 5), "kind": "optimum", "note": note}
    if name in _TRAINED:
        note = "+experiment=brax_expert, 100 M steps, 256 trials (docs/results/h100/brax_expert)"
        return {"value": _TRAINED[name], "kind": "trained", "note": note}
    if name == "frozen_lake":
        return {
            "value": round(frozen_lake_optimum(), 5),
            "kind": "optimum",
            "note": "backward induction over 100 steps",
        }
    if name.startswith("brax_") or controller(make_env(name)) is None:
        return {"value": None, "kind": None, "note": "no reference measured yet"}
    measured = measure_controller(name, episodes, seed)
    kind = "optimum" if name == "point_mass" or name.startswith("higher_lower") else "controller"
    note = f"envs.controllers, {episodes} trials, standard error {measured['std_error']}, {_stamp(seed)}"
    return {"value": measured["mean"], "kind": kind, "note": note}


def frozen_lake_optimum() -> float:
    """The best chance of reaching frozen_lake's goal in time, by backward induction over the slippery map.

    A move goes where it is meant with probability 1/3, else to either side with 1/3 each.
    """
    base_env = make_env("frozen_lake")
    tiles = np.asarray(base_env.env.desc)  # pyright: ignore[reportAttributeAccessIssue]
    hole, goal = 2, 3
    rows, columns = tiles.shape
    value = np.zeros(tiles.shape)
    for _ in range(base_env.max_steps):
        landing = np.where(tiles == goal, 1.0, np.where(tiles == hole, 0.0, value))
        padded = np.pad(landing, 1, mode="edge")
        left, right = padded[1:-1, :columns], padded[1:-1, 2:]
        up, down = padded[:rows, 1:-1], padded[2:, 1:-1]
        moves = np.stack([left, down, right, up])
        value = ((moves + np.roll(moves, 1, 0) + np.roll(moves, -1, 0)) / 3).max(0)
    return float(value[tiles == 0][0])


def _stamp(seed: int) -> str:
    import jax

    device, gymnax = jax.devices()[0].device_kind, importlib.metadata.version("gymnax")
    return f"seed {seed}, jax {jax.__version__}, gymnax {gymnax}, {device}, {datetime.date.today()}"


def main(arguments: list[str] | None = None) -> None:
    """Measures the named environments, or all of them, and writes `scores.json`."""
    parser = argparse.ArgumentParser(prog="python -m resetta.envs.scores", description=__doc__)
    parser.add_argument("names", nargs="*", help="registered environments; all of them by default")
    parser.add_argument(
        "--episodes", type=int, default=1024, help="trials of the random policy and the controllers"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the measurements")
    given = parser.parse_args(arguments)
    for name in given.names or env_names():
        entry = _measure(name, given.episodes, given.seed)
        print(name, entry["random"]["mean"], entry["reference"]["value"], flush=True)
        # Read again every time: two of these may run side by side.
        table = json.loads(_PATH.read_text()) if _PATH.exists() else {}
        table[name] = entry
        _PATH.write_text(json.dumps(dict(sorted(table.items())), indent=1) + "\n")


if __name__ == "__main__":
    main()
