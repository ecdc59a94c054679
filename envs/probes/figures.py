"""Scores that have no closed form, simulated with a seed and kept as data.

`envs/probe_scores.json` holds them for the registered probes as they are by default, with the standard error,
the number of episodes and where they were measured. This command measures them again:

    python -m resetta.envs.probes.figures [names ...] [--episodes 16384] [--seed 0]

A probe with other options is simulated when it is first asked, with fewer episodes.
"""

import argparse
import datetime
import functools
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from .base import Figure, Probe

_PATH = Path(__file__).parents[1] / "probe_scores.json"
_ON_DEMAND = 2048  # episodes of a probe that is not in the table
SCORES = ("random", "blind", "reference")


def simulated(probe: Probe, which: str) -> Figure:
    """The mean score of the probe's policy `which`, one of `SCORES`: from the table, or simulated here."""
    entry = _table().get(repr(probe), {}).get(which)
    if entry is None:  # whoever measures the table asks here as well, and may have better things to do
        return _simulate(probe, which, _ON_DEMAND, 0)
    note = f"{entry['policy']}, {entry['episodes']} episodes, {entry['measured']}"
    return Figure(entry["mean"], entry["std_error"], False, note)


def simulate(probe: Probe, which: str, episodes: int, seed: int) -> Float[np.ndarray, " N"]:
    """The scores of the probe's policy `which` in fresh episodes, a few hundred of them at a time.

    Of episodes that are compared with one another there is one score, their mean.
    """
    keys = jax.random.split(jax.random.key(seed), max(-(-episodes // probe.together), 2))

    def every(keys: Array) -> Array:
        return jax.lax.map(
            functools.partial(probe.play, which), keys, batch_size=min(len(keys), -(-256 // probe.together))
        )

    return np.asarray(jax.jit(every)(keys))


@functools.lru_cache
def _simulate(probe: Probe, which: str, episodes: int, seed: int) -> Figure:
    scores = simulate(probe, which, episodes, seed)
    error = float(scores.std(ddof=1) / np.sqrt(len(scores)))
    note = f"{_words(probe, which)}, {episodes} episodes, seed {seed}, simulated when asked"
    return Figure(float(scores.mean()), error, False, note)


def _words(probe: Probe, which: str) -> str:
    """The first line of the policy's docstring, which says what it does."""
    text = getattr(probe, f"{which}_policy").__doc__.strip().splitlines()[0].rstrip(".")
    return text[:1].lower() + text[1:]


@functools.cache
def _table() -> dict[str, Any]:
    return json.loads(_PATH.read_text(encoding="utf-8")) if _PATH.exists() else {}


def measure(probe: Probe, episodes: int, seed: int) -> dict[str, Any]:
    """The probe's simulated figures; those in closed form are not in it."""
    measured = f"seed {seed}, jax {jax.__version__}, {jax.devices()[0].device_kind}, {datetime.date.today()}"
    entry = {}
    for which in SCORES:
        if not getattr(probe, which)().exact:
            figure = _simulate(probe, which, episodes, seed)
            entry[which] = {
                "mean": round(figure.value, 6),
                "std_error": round(figure.std_error, 6),
                "policy": _words(probe, which),
                "episodes": episodes,
                "measured": measured,
            }
    return entry


def main(arguments: list[str] | None = None) -> None:
    """Measures the named probes, or all of them, and writes `probe_scores.json`."""
    from .registry import make_probe, probe_names

    parser = argparse.ArgumentParser(prog="python -m resetta.envs.probes.figures", description=__doc__)
    parser.add_argument("names", nargs="*", help="registered probes; all of them by default")
    parser.add_argument("--episodes", type=int, default=16384, help="episodes of every policy")
    parser.add_argument("--seed", type=int, default=0, help="seed of the measurements")
    given = parser.parse_args(arguments)
    for name in given.names or probe_names():
        probe = make_probe(name)
        entry = measure(probe, given.episodes, given.seed)
        print(name, {which: kept["mean"] for which, kept in entry.items()}, flush=True)
        if entry:
            table = json.loads(_PATH.read_text(encoding="utf-8")) if _PATH.exists() else {}
            table[repr(probe)] = entry
            _PATH.write_text(json.dumps(dict(sorted(table.items())), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
