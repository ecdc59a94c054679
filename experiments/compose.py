"""From a command and its Hydra overrides to one plain dictionary, or to one sentence on what is wrong."""

import contextlib
import itertools
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir, initialize_config_module
from hydra import main as hydra_main
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.errors import HydraException, MissingConfigException
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from .errors import InputError
from .listing import choices, did_you_mean, entries, installed_parts, plural, read_config

GROUPS = ("core", "env", "data", "model", "experiment")
_OPEN = ("core", "data", "model")  # with module:Name, any option may be given
_VERSION_BASE = "1.3"
_MISSING = re.compile(r"Missing mandatory value: (\S+)(?:.*?full_key: (\S+))?", re.DOTALL)
_MOST_CHECKED = 64  # combinations of a sweep composed ahead of it


class PartsSource(ConfigSource):
    """Entries of the groups that need no file: `core=module:Name`, `env=module:Name`, and `env=NAME`.

    The last for every registered environment that has no file of its own; and `core=NAME` and `env=NAME` for
    what other installed packages bring.

    Being part of Hydra's search path, they work wherever a group is chosen: sweeps, launchers, experiments.
    """

    @staticmethod
    def scheme() -> str:
        """How the search path names this source."""
        return "resetta"

    def available(self) -> bool:
        """Always."""
        return True

    def is_group(self, config_path: str) -> bool:
        """Whether the path is a group with such entries."""
        return config_path.rstrip("/") in ("core", "env", "data", "model")

    def is_config(self, config_path: str) -> bool:
        """Whether the path is an entry made here."""
        return _part(config_path) is not None

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """Nothing: the entries are endless."""
        return []

    def load_config(self, config_path: str) -> ConfigResult:
        """The entry: `core/custom` or `env/plain` with the name filled in."""
        package, content = _part(config_path) or (None, {})
        path = f"{self.scheme()}://{self.path}"
        header = {"package": package}
        return ConfigResult(self.provider, path, OmegaConf.create(content), header)


def _part(config_path: str) -> tuple[str | None, dict[str, Any]] | None:
    group, _, name = config_path.removesuffix(".yaml").partition("/")
    if group in _OPEN and (":" in name or name in _installed(group)):
        return None, {"defaults": ["custom", "_self_"], "target": name}
    if group != "env":
        return None
    if ":" in name:
        own = {"name": name.rpartition(":")[2], "target": name, "lanes": {name: {}}}
        return "_global_", {"defaults": ["plain", "_self_"], "env": own}
    from ..envs.registry import env_names

    if name not in env_names() and name not in _installed(group):
        return None
    return "_global_", {"defaults": ["plain", "_self_"], "env": {"name": name, "lanes": {name: {}}}}


def _installed(group: str) -> dict[str, str]:
    # A file of ours wins over it, being in front on the search path.
    return installed_parts(group, ("custom", "plain"))


class PartsSearchPath(SearchPathPlugin):
    """Puts `PartsSource` behind the files, so that a file of the same name wins."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Called by Hydra."""
        search_path.append("resetta", "resetta://")


def compose(command: str, overrides: Sequence[str], config_dir: Path | None = None) -> dict[str, Any]:
    """The resolved configuration of `command` with Hydra overrides applied.

    `config_dir` replaces the package's configs in tests. Raises `InputError`, one sentence with the nearest
    valid name, for whatever Hydra or OmegaConf does not accept.
    """
    parsed = parse(overrides)
    for override in parsed:
        if override.is_sweep_override():
            raise InputError(
                f"{override.input_line} gives several values; add --multirun to run each, "
                f"or write a list as {override.key_or_group}=[...]"
            )
    return resolve(_compose(command, _opened(command, parsed, config_dir), config_dir), command, config_dir)


def compose_each(
    command: str, overrides: Sequence[str], config_dir: Path | None = None
) -> list[dict[str, Any]]:
    """One configuration per combination of the comma lists in `overrides`, the last varying fastest."""
    return [compose(command, single, config_dir) for single in combinations(parse(overrides))]


def multirun(
    command: str,
    overrides: Sequence[str],
    work: Callable[[str, dict[str, Any]], None],
    config_dir: Path | None = None,
) -> None:
    """Run `work(command, config)` for every combination, through Hydra's sweeper and launcher.

    A run without a `run_dir` lives in its Hydra job directory. Every combination is composed first, so that a
    mistake in the last is found before the first starts. `work` must be importable by other processes.
    """
    parsed = parse(overrides)
    for single in itertools.islice(combinations(parsed), _MOST_CHECKED):
        compose(command, single, config_dir)
    first = next(iter(combinations(parsed)))
    opened = [
        f"++{line}" if plus.startswith("++") and not line.startswith("+") else line
        for line, plus in zip(_lines(parsed), _opened(command, parse(first), config_dir), strict=True)
    ]
    if not any(override.key_or_group == "hydra/job_logging" for override in parsed):
        opened.append("hydra/job_logging=none")  # otherwise every library's INFO lands on the screen

    def job(config: DictConfig) -> None:
        plain = resolve(config, command, config_dir)
        if "run_dir" in plain and plain["run_dir"] is None:
            plain["run_dir"] = HydraConfig.get().runtime.output_dir
        work(command, plain)

    path = f"pkg://{__name__.partition('.')[0]}.configs" if config_dir is None else str(config_dir.absolute())
    _register()
    argv, full_error = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv = [f"resetta {command}", "--multirun", *opened]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # exceptions as they are: the command line words them
    try:
        with _worded(command, config_dir):
            hydra_main(config_path=path, config_name=command, version_base=_VERSION_BASE)(job)()
    finally:
        sys.argv = argv
        if full_error is None:
            del os.environ["HYDRA_FULL_ERROR"]


def parse(overrides: Sequence[str]) -> list[Override]:
    """The overrides as Hydra reads them; `InputError` for one that cannot be read."""
    parser = OverridesParser.create()
    parsed = []
    for line in overrides:
        if line.startswith("-"):
            key = line.lstrip("-").partition("=")[0]
            raise InputError(f"unknown option {line}; settings are written {key}=value, without dashes")
        if line.startswith("experiment="):
            line = "+" + line  # never in a defaults list, so Hydra would ask for the plus
        try:
            parsed.append(_named(parser.parse_override(line)))
        except (HydraException, OmegaConfBaseException) as error:
            if "=" not in line:
                raise InputError(f"{line!r} is not a setting; write {line}=value") from error
            raise InputError(
                f"the setting {line!r} cannot be read ({_first_line(error)}); values with special characters "
                "need quotes of their own, as in 'key=\"a: b\"'"
            ) from error
    return parsed


def _named(override: Override) -> Override:
    """A choice from a group must be a name."""
    value, group = override.value(), override.key_or_group
    if group in GROUPS and not (
        override.is_delete() or override.is_sweep_override() or isinstance(value, str)
    ):
        raise InputError(
            f"{override.input_line} must name one {group}; `resetta list {plural(group)}` shows them all"
        )
    return override


def explicit_keys(overrides: Sequence[str]) -> set[str] | None:
    """The keys and groups that the overrides name; None, meaning all, where an experiment is chosen."""
    keys = {override.key_or_group for override in parse(overrides)}
    return None if "experiment" in keys else keys


def resolve(config: DictConfig, command: str, config_dir: Path | None = None) -> dict[str, Any]:
    """A composed configuration as a plain dictionary, interpolations resolved and nothing missing."""
    with _worded(command, config_dir):
        plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items() if key != "hydra"}


def _register() -> None:
    for plugin in (PartsSource, PartsSearchPath):
        Plugins.instance().register(plugin)


def _compose(command: str, overrides: list[str], config_dir: Path | None) -> DictConfig:
    _register()
    GlobalHydra.instance().clear()
    if config_dir is None:
        start = initialize_config_module(f"{__name__.partition('.')[0]}.configs", version_base=_VERSION_BASE)
    else:
        start = initialize_config_dir(str(config_dir.absolute()), version_base=_VERSION_BASE)
    with _worded(command, config_dir), start:
        return hydra_compose(command, overrides)


@contextlib.contextmanager
def _worded(command: str, config_dir: Path | None) -> Iterator[None]:
    """Hydra's and OmegaConf's exceptions as one sentence."""
    try:
        yield
    except MissingConfigException as error:
        group, _, name = (error.missing_cfg_file or "").rpartition("/")
        valid = list(choices(group, config_dir)) if group in GROUPS else list(error.options or [])
        if group.startswith("hydra/"):
            cure = f"choose from {', '.join(valid)}, or install the Hydra plugin that brings it"
        elif group == "env":
            from ..envs.registry import not_offered

            reason = not_offered(name)
            if reason:
                raise InputError(reason) from error
            cure = "`resetta list envs` shows them all, and module:Name takes your own"
        else:
            cure = f"choose from {', '.join(valid)}" + (", or give module:Name" if group in _OPEN else "")
        raise InputError(
            f"unknown {group or 'config'} {name!r}{did_you_mean(name, valid)}; {cure}"
        ) from error
    except (HydraException, OmegaConfBaseException) as error:
        missing = _MISSING.search(str(error))
        if missing:
            key, full = missing[1], missing[2] or ""
            key = full if full.endswith(f".{key}") else key  # of a node only its own name is told
            text = read_config(command, config_dir) or ""
            meaning = next((f" ({entry.help})" for entry in entries(text) if entry.key == key), "")
            raise InputError(f"{key} is missing; give {key}=...{meaning}") from error
        cause = error.__cause__
        reason = _first_line(error)
        if cause is not None and _first_line(cause) not in reason:
            reason += f" ({_first_line(cause)})"
        raise InputError(reason) from error


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0].rstrip(".:") if text else type(error).__name__


def _lines(parsed: Sequence[Override]) -> list[str]:
    return [override.input_line or "" for override in parsed]


def combinations(parsed: Sequence[Override]) -> Iterator[list[str]]:
    """The overrides of each job; a sweep that isn't a comma list (range, interval) keeps its first value."""
    values = []
    for override in parsed:
        if not override.is_sweep_override():
            values.append([override.input_line or ""])
        elif override.is_discrete_sweep():
            prefix = (override.input_line or "").partition("=")[0]
            values.append([f"{prefix}={value}" for value in override.sweep_string_iterator()])
        else:
            interval: Any = override.value()
            values.append([f"{override.key_or_group}={interval.start}"])
    return (list(combination) for combination in itertools.product(*values))


def _opened(command: str, parsed: Sequence[Override], config_dir: Path | None) -> list[str]:
    """The overrides, each key checked; `++` is added where the key lies in a mapping that is open.

    A mapping written `{}` is open (`env.physics`, a lane's options), and so are the options of a user's core.
    """
    with_values = [o for o in parsed if not _is_structural(o)]
    _check_experiments(parsed, config_dir)
    base: Any = {}
    if with_values:
        structural = [o.input_line or "" for o in parsed if _is_structural(o) and not o.is_delete()]
        base = OmegaConf.to_container(_compose(command, structural, config_dir), resolve=False)
    lines = []
    for override in parsed:
        line = override.input_line or ""
        if override in with_values and not (
            override.is_add() or override.is_force_add() or override.is_delete()
        ):
            line = _checked(line, override, base, command)
        lines.append(line)
    return lines


def _check_experiments(parsed: Sequence[Override], config_dir: Path | None) -> None:
    """Hydra takes `+experiment=name` for a new key while there is no such group."""
    valid = choices("experiment", config_dir)
    for override in parsed:
        name = override.value()
        if override.key_or_group == "experiment" and not valid and isinstance(name, str):
            raise InputError(f"unknown experiment {name!r}; there are none in configs/experiment")


def _is_structural(override: Override) -> bool:
    return override.key_or_group in GROUPS or override.is_hydra_override() or override.package is not None


def _checked(line: str, override: Override, base: Any, command: str) -> str:
    key, node = override.key_or_group, base
    parts = key.split(".")
    for i, part in enumerate(parts):
        if isinstance(node, list) and part.isdigit() and int(part) < len(node):
            node = node[int(part)]
        elif isinstance(node, dict) and part in node:
            node = node[part]
        elif isinstance(node, dict) and i and (not node or (parts[0] in _OPEN and "target" in node)):
            return f"++{line}"
        else:
            raise InputError(_unknown_key(key, base, command))
    value = override.value()
    if isinstance(node, dict) and node and not isinstance(value, dict):
        some = ", ".join(f"{key}.{name}" for name in list(node)[:3])
        raise InputError(f"{line} would replace a whole section; set its keys instead, such as {some}")
    new = (
        [name for name in value if name not in node]
        if isinstance(node, dict) and isinstance(value, dict)
        else []
    )
    if node and new:
        raise InputError(
            f"{key} has no {new[0]!r}, it has {', '.join(node)}; "
            f"'++{line}' adds it, and ~{key}.NAME takes one out"
        )
    return f"++{line}" if node == {} else line


def _unknown_key(key: str, base: Any, command: str) -> str:
    valid = list(_flat(base))
    last = key.rpartition(".")[2]
    same = [name for name in valid if name.rpartition(".")[2] == last]
    if same:
        return f"unknown key {key!r} (did you mean {' or '.join(map(repr, same[:3]))}?)"
    siblings = [name for name in valid if name.rpartition(".")[0] == key.rpartition(".")[0]]
    near = did_you_mean(key, siblings) or did_you_mean(key, valid) or did_you_mean(key, GROUPS)
    listed = f"; {key.rpartition('.')[0]} takes {', '.join(siblings)}" if "." in key and siblings else ""
    return f"unknown key {key!r}{near}" + (
        listed or f"; `resetta {command.replace('/', ' ')} --help` explains every key"
    )


def _flat(node: Any, prefix: str = "") -> Iterator[str]:
    for key, value in node.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")


__all__ = ["combinations", "compose", "compose_each", "explicit_keys", "multirun", "parse", "resolve"]
