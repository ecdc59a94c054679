"""From `resetta bench <name> <overrides>` to one configuration per case, each with a label."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..compose import combinations, compose, compose_each, parse
from ..errors import InputError


def expand(benchmark: str, overrides: Sequence[str], config_dir: Path | None = None) -> list[dict[str, Any]]:
    """One composed configuration of `benchmark`, such as `bench/ppo`, per combination of the comma lists.

    Where no override names a core, the benchmark's own `cores` are compared. To each configuration three keys
    are added: `command`, the command line that asks for it; `label`, its core and whatever else varies; and
    `variant`, the label without the core. Raises `InputError`, as `compose` does.
    """
    command = shlex.join(["resetta", *benchmark.split("/"), *overrides])
    parsed = parse(overrides)
    if all(override.key_or_group != "core" for override in parsed):
        cores = compose(benchmark, next(iter(combinations(parsed))), config_dir).get("cores")
        if cores:
            overrides = [f"core={','.join(map(str, cores))}", *overrides]
            parsed = parse(overrides)
    swept = [override.is_sweep_override() for override in parsed]
    configs: list[dict[str, Any]] = []
    composed = compose_each(benchmark, overrides, config_dir)
    for single, config in zip(combinations(parsed), composed, strict=True):
        varying = [line for line, varies in zip(single, swept, strict=True) if varies]
        variant = " ".join(line for line in varying if not line.startswith("core="))
        core = str(config.get("core", {}).get("name", "")).rpartition(":")[2]
        config |= {"command": command, "label": f"{core} {variant}".strip(), "variant": variant}
        if config["label"] in [other["label"] for other in configs]:
            raise InputError(f"{config['label']!r} is asked for twice; name each case once")
        configs.append(config)
    return configs
