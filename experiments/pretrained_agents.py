"""Trained agents without their training: what evaluating and filming need, in a few files.

A folder of one is a run's directory in which `agent.npz` stands in for the checkpoints: parameters and
observation statistics as plain arrays, beside the run's `config.yaml` and a `card.json` that says how the
agent was made, what it scored, and which bytes it is. Those in `experiments/pretrained/` come with Resetta.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .atomic import atomic
from .errors import InputError
from .listing import did_you_mean

SHIPPED = Path(__file__).parent / "pretrained"
ARRAYS, CARD, CONFIG = "agent.npz", "card.json", "config.yaml"
_PARTS = ("params", "observations", "update")  # of an agent's state; the rest is for training


def pretrained_names() -> list[str]:
    """The names that `pretrained=` takes."""
    return sorted(path.parent.name for path in SHIPPED.glob(f"*/{ARRAYS}"))


def pretrained_summaries() -> dict[str, str]:
    """What `resetta list pretrained` says of each."""
    return {name: _summary(_card(SHIPPED / name)) for name in pretrained_names()}


def shipped(name: str) -> Path:
    """The folder of the agent `name`. Raises `InputError` for an unknown one."""
    names = pretrained_names()
    if name not in names:
        raise InputError(
            f"unknown pretrained {name!r}{did_you_mean(name, names)}; choose from {', '.join(names)}"
        )
    return SHIPPED / name


def unpack(name: str, run_dir: str | None = None) -> str:
    """The directory, `runs/pretrained/<name>` by default, that holds the agent `name`; filled if need be.

    Raises `InputError` for an unknown name, and for a directory that holds something else.
    """
    source, target = shipped(name), Path(run_dir or Path("runs", "pretrained", name))
    held = [file for file in (CONFIG, "checkpoints", ARRAYS) if (target / file).exists()]
    if held and not (len(held) == 2 and (target / CARD).exists() and _card(target) == _card(source)):
        raise InputError(
            f"run_dir={target} holds something else than pretrained={name}; choose another run_dir"
        )
    if not held:
        for file in (CARD, ARRAYS, CONFIG):  # the configuration makes a run of it: last
            with atomic(target / file) as part:
                part.write_bytes((source / file).read_bytes())
    return str(target)


def find_run(config: dict[str, Any]) -> None:
    """Where `pretrained` is given, put that agent into `run_dir`; one of them must be there."""
    if config.get("pretrained") is not None:
        config["run_dir"] = unpack(str(config["pretrained"]), config["run_dir"])
    elif config["run_dir"] is None:
        raise InputError(
            "run_dir is missing; give run_dir=... (a run), or pretrained=... (`resetta list pretrained`)"
        )


def read_agent(folder: Path, template: dict[str, Any], step: int | None = None) -> dict[str, Any]:
    """What `agent.npz` holds, in the shape of `template`: the parts of the agent's state, abstract.

    Raises `InputError` where the file is not what its card says, or belongs to another agent.
    """
    import jax
    import numpy as np

    file, card = folder / ARRAYS, _card(folder)
    if not file.is_file() or _digest(file) != card.get("sha256"):
        raise InputError(f"{file} is not what its {CARD} says; get it again, or choose another run_dir")
    if step is not None and step != card.get("update"):
        raise InputError(f"{file} holds the agent of update {card.get('update')} alone; leave step out")
    with np.load(file, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    wanted = named_leaves(template)
    if name := differing_leaf(arrays, wanted):
        raise InputError(f"{file} belongs to another agent than {CONFIG} ({name} differs)")
    tree = jax.tree.structure(template)
    return jax.tree.unflatten(tree, [jax.numpy.asarray(arrays[n]) for n in wanted])


def named_leaves(tree: Any) -> dict[str, Any]:
    """The leaves of a tree, in its order, by their paths such as `['params']['bias']`."""
    import jax

    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def differing_leaf(have: Mapping[str, Any], want: Mapping[str, Any], axes: int = 0) -> str | None:
    """The first leaf that one lacks, or whose dtype, or shape from axis `axes` on, differs; or None."""
    for name in [*want, *(name for name in have if name not in want)]:
        one, other = have.get(name), want.get(name)
        if one is None or other is None or one.dtype != other.dtype:
            return name
        if one.shape[axes:] != other.shape[axes:]:
            return name
    return None


def run(raw: Mapping[str, Any]) -> None:
    """resetta export: write the folder of a trained agent from its evaluated run."""
    import numpy as np
    from omegaconf import OmegaConf

    from .restore import restore_run
    from .run_dir import plain, write_json, write_npz

    name, folder = str(raw["name"]), Path(raw["out"]) / str(raw["name"])
    if Path(name).name != name or name in (".", ".."):
        raise InputError(f"name={name} must be the name of a folder, without a path")
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty; choose another name or out")
    run_dir, config, _, state = restore_run(raw)
    try:
        evaluation = json.loads(run_dir.eval_json.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{run_dir.path} is not evaluated; run resetta evaluate run_dir={run_dir.path}"
        ) from error
    update = int(np.asarray(state.update).max())
    if evaluation["update"] != update:
        raise InputError(
            f"{run_dir.eval_json} is of update {evaluation['update']}, not {update}; "
            f"run resetta evaluate run_dir={run_dir.path} step={update}"
        )
    write_npz(folder / ARRAYS, **named_leaves(_parts(state)))
    kept = ("env", "core", "seeds", "env_steps", "update", "device", "date", "versions", "train_seconds")
    scores = ("tasks", "trained_trials", "trials", "greedy", "evaluation_seed", "splits")
    write_json(
        folder / CARD,
        {
            "name": name,
            "command": _command(run_dir.config),
            **{key: evaluation.get(key) for key in kept},
            "begun_from": config.init.named,
            "trained_on": run_dir.trained_on(),
            "evaluation": {key: evaluation.get(key) for key in scores},
            "bytes": (folder / ARRAYS).stat().st_size,
            "sha256": _digest(folder / ARRAYS),
        },
    )
    own = {**run_dir.config, "run_dir": name, "device": "auto"}
    with atomic(folder / CONFIG) as part:
        part.write_text(OmegaConf.to_yaml(OmegaConf.create(plain(own, digits=None))), encoding="utf-8")
    print(folder)


def _parts(state: Any) -> dict[str, Any]:
    return {name: getattr(state, name) for name in _PARTS}


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _card(folder: Path) -> dict[str, Any]:
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{folder} has no {CARD} that can be read; choose another run_dir") from error
    return card if isinstance(card, dict) else {}


def _summary(card: Mapping[str, Any]) -> str:
    played = card["evaluation"]
    curve, last = played["splits"]["held_out"]["mean"], played["trained_trials"]
    trials = f" in trial 1, {curve[last - 1]:.3f} in trial {last}" if last > 1 else ""
    begun = f" after those of {card['begun_from']}" if card.get("begun_from") else ""
    return (
        f"{card['env']} with {card['core']}, {card['env_steps']:,} steps{begun}; held-out return "
        f"{curve[0]:.3f}{trials}; {card['bytes'] // 1000} kB"
    )


def _command(config: Mapping[str, Any]) -> str:
    """The command that trains a run of `config`: its environment, its core, and whatever else differs."""
    import shlex

    from .compose import compose
    from .run_dir import FREE_KEYS, flat

    words = [f"{group}={config[group]['name']}" for group in ("env", "core") if "target" not in config[group]]
    base, own = flat(compose("train", words)), flat(config)
    words += [
        f"{key}={'null' if value is None else str(value).lower() if isinstance(value, bool) else value}"
        for key, value in own.items()
        if key.partition(".")[0] not in FREE_KEYS and (key not in base or base[key] != value)
    ]
    return shlex.join(["resetta", "train", *words])
