"""From `resetta bench <name> <overrides>` to one configuration per case, each with a label."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..compose import combinations, compose, compose_each, parse
from ..errors import InputError
from ..listing import choices, did_you_mean, entries, groups, read_config


def expand(benchmark: str, overrides: Sequence[str], config_dir: Path | None = None) -> list[dict[str, Any]]:
    """One composed configuration of `benchmark`, such as `bench/ppo`, per combination of the comma lists.

    Where no override names a core, the benchmark's own `cores` are compared; one with `changes` compares
    those, whatever they name. To each configuration three keys
    are added: `command`, the command line that asks for it; `label`, its core and whatever else varies; and
    `variant`, the label without the core. Raises `InputError`, as `compose` does.
    """
    command = shlex.join(["resetta", *benchmark.split("/"), *overrides])
    configs: list[dict[str, Any]] = []
    for lines in _experiments(overrides, config_dir):
        for config in _cases(benchmark, lines, config_dir):
            config["command"] = command
            if config["label"] in [other["label"] for other in configs]:
                raise InputError(f"{config['label']!r} is asked for twice; name each case once")
            configs.append(config)
    return configs


def given_keys(command: str) -> set[str]:
    """The keys that a command line sets."""
    return {word.partition("=")[0].lstrip("+") for word in shlex.split(command)}


def _cases(benchmark: str, overrides: Sequence[str], config_dir: Path | None) -> list[dict[str, Any]]:
    parsed = parse(overrides)
    first = compose(benchmark, next(iter(combinations(parsed))), config_dir)
    if "changes" in first:
        return _changed(benchmark, overrides, first, config_dir)
    if first.get("cores") and all(override.key_or_group != "core" for override in parsed):
        overrides = [f"core={','.join(map(str, first['cores']))}", *overrides]
    return _labelled(benchmark, overrides, config_dir)


def _changed(
    benchmark: str, overrides: Sequence[str], first: Mapping[str, Any], config_dir: Path | None
) -> list[dict[str, Any]]:
    """A case for each of the benchmark's `changes`, or for those that `only` names: overrides by name."""
    changes, only = first["changes"], first["only"] or [*first["changes"]]
    cases = []
    for name in only:
        if name not in changes:
            near = did_you_mean(str(name), changes)
            raise InputError(f"only={name} is none of the changes{near}; choose from {', '.join(changes)}")
        for config in _labelled(benchmark, [*overrides, *shlex.split(str(changes[name]))], config_dir, name):
            cases.append({**config, "only": only})
    return cases


def _labelled(
    benchmark: str, overrides: Sequence[str], config_dir: Path | None, name: str | None = None
) -> list[dict[str, Any]]:
    """A case for each combination, labelled by its core, or by `name`, and what varies."""
    parsed = parse(overrides)
    swept = [override.is_sweep_override() for override in parsed]
    composed = compose_each(benchmark, overrides, config_dir)
    for single, config in zip(combinations(parsed), composed, strict=True):
        varying = [line for line, varies in zip(single, swept, strict=True) if varies]
        variant = " ".join(line for line in varying if not line.startswith("core="))
        core = str(config.get("core", {}).get("name", "")).rpartition(":")[2]
        config |= {"label": f"{name or core} {variant}".strip(), "variant": variant}
    return composed


def _experiments(overrides: Sequence[str], config_dir: Path | None) -> list[list[str]]:
    """The overrides once for each experiment among them, with what it chooses and sets written out.

    (A benchmark's own settings come after any that Hydra would let an experiment make.)
    """
    parsed = parse(overrides)
    rest = [override for override in parsed if override.key_or_group != "experiment"]
    given = {override.key_or_group for override in rest}
    if "cores" in given:  # those are compared, not the experiment's own
        given.add("core")
    lines = [override.input_line or "" for override in rest]
    for override in parsed:
        if override.key_or_group == "experiment":
            names = override.sweep_string_iterator() if override.is_sweep_override() else [override.value()]
            return [[*_settings(str(name), given, config_dir), *lines] for name in names]
    return [lines]


def _settings(experiment: str, given: set[str], config_dir: Path | None) -> list[str]:
    text = read_config(f"experiment/{experiment}", config_dir)
    if text is None:
        valid = [*choices("experiment", config_dir)]
        near = did_you_mean(experiment, valid)
        raise InputError(f"unknown experiment {experiment!r}{near}; choose from {', '.join(valid)}")
    chosen = [f"{group}={name}" for group, name in groups(text).items() if group not in given]
    return chosen + [
        f"{entry.key}={entry.default}" for entry in entries(text) if entry.key not in (*given, "defaults")
    ]
