"""What `--help` and `resetta list` print, read from the text of the configurations; imports nothing heavy."""

import difflib
import re
import textwrap
from collections.abc import Iterable, Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import NamedTuple

from .errors import InputError

_KEY = re.compile(r"^( *)([A-Za-z_]\w*):(?:\s+(.*))?$")
_GROUP = re.compile(r"^ +- (?:optional |override )*/?(\w+): *(\S+)")
_COMMENT = re.compile(r"(?:^|\s)#\s?(.*)$")
CLASSES = (
    "memoryless",
    "gated",
    "structural",
    "recurrent",
    "convolution",
    "attention",
    "fast-weight",
    "composite",
)
_LISTS = {
    "cores": "core",
    "envs": "env",
    "probes": "probe",
    "datasets": "data",
    "models": "model",
    "experiments": "experiment",
    "pretrained": "pretrained",
}


class Entry(NamedTuple):
    """One key of a configuration, its default as written, and its comment."""

    key: str
    default: str
    help: str


def configs(config_dir: Path | None = None) -> Traversable:
    """The folder of configurations: the package's own, or another in tests."""
    return config_dir or resources.files(__name__.partition(".")[0] + ".configs")


def read_config(name: str, config_dir: Path | None = None) -> str | None:
    """The text of configs/`name`.yaml, None where there is no such file."""
    path = configs(config_dir).joinpath(*f"{name}.yaml".split("/"))
    return path.read_text(encoding="utf-8") if path.is_file() else None


def entries(text: str, prefix: str = "") -> list[Entry]:
    """Every key of a configuration's text in order, sections joined by dots.

    A key's help is the comment at the end of its line, or else the comment lines directly above it.
    """
    found: list[Entry] = []
    sections: list[tuple[int, str]] = []
    above: list[str] = []
    lines = text.splitlines()
    while lines and (lines[0].startswith("#") or not lines[0].strip()):
        lines.pop(0)  # the file's own heading
    for line in lines:
        if line.strip().startswith("#"):
            above.append(line.strip().lstrip("# "))
            continue
        match = _KEY.match(line)
        if match:
            indent, key = len(match[1]), match[2]
            value, comment = _split_comment(match[3] or "")
            while sections and sections[-1][0] >= indent:
                sections.pop()
            path = ".".join([*(name for _, name in sections), key])
            if value:
                found.append(Entry(prefix + path, value, comment or " ".join(above)))
            else:
                sections.append((indent, key))
        above = []
    return found


def _split_comment(text: str) -> tuple[str, str]:
    quoted = re.match(r"""\s*("[^"]*"|'[^']*')""", text)
    start = quoted.end() if quoted else 0
    match = _COMMENT.search(text, start)
    return (text[: match.start()].strip(), match[1].strip()) if match else (text.strip(), "")


def heading(text: str) -> str:
    """The comment that a configuration's file opens with, as one line."""
    lines: list[str] = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        if not line.lstrip("# ").startswith("@package"):
            lines.append(line.lstrip("# ").strip())
    return " ".join(lines)


def groups(text: str) -> dict[str, str]:
    """The config groups in a configuration's defaults list and what each is by default."""
    return {match[1]: match[2] for match in map(_GROUP.match, text.splitlines()) if match}


def choices(group: str, config_dir: Path | None = None) -> dict[str, str]:
    """The names that `group=` takes, with a sentence on each; core and env take `module:Name` beside them.

    Of cores, environments and probes, those that other installed packages bring come last.
    """
    folder = configs(config_dir).joinpath(group)
    files = sorted(folder.iterdir(), key=lambda file: file.name) if folder.is_dir() else []
    texts = {
        f.name.removesuffix(".yaml"): f.read_text(encoding="utf-8") for f in files if f.name.endswith(".yaml")
    }
    found = {name: re.split(r"(?<=\.) |: ", heading(text))[0] for name, text in texts.items()}
    if group == "env":
        from ..envs.registry import env_names

        found |= {name: "" for name in env_names() if name not in found}
    if group == "pretrained":
        from .pretrained_agents import pretrained_summaries

        return pretrained_summaries()
    if group == "probe":
        from ..envs.probes.registry import probe_summaries

        found = probe_summaries()
    else:
        found = {name: found[name] for name in sorted(found) if name not in ("custom", "plain")}
    others = installed_parts(group, found) if config_dir is None else {}
    return found | {name: f"{path}, installed beside Resetta" for name, path in others.items()}


def installed_parts(group: str, ours: Iterable[str]) -> dict[str, str]:
    """What `group=` takes from other installed packages: names not ours, and `module:Name` of each."""
    from ..envs.installed import installed

    return installed(plural(group), [*ours]) if group in ("core", "env", "probe") else {}


def command_help(
    command: str, chosen: Mapping[str, str] | None = None, config_dir: Path | None = None
) -> str:
    """What `resetta <command> --help` prints: every key in one line, and those of the chosen groups."""
    text = read_config(command, config_dir) or ""
    rows: list[tuple[str, str]] = []
    own: dict[str, str] = {}  # the defaults that the chosen environment brings
    for group, default in groups(text).items():
        name = (chosen or {}).get(group, default)
        rows.append(
            (f"{group}={name}", f"one of `resetta list {plural(group)}`, or module:Name for your own")
        )
        chosen_text = read_config(f"{group}/{name}", config_dir) or ""
        if "@package _global_" in chosen_text:
            own |= {entry.key: entry.default for entry in entries(chosen_text)}
        # an environment without a file of its own is the plain one; every env file starts from it
        described = read_config(f"{group}/{'plain' if group == 'env' else name}", config_dir) or ""
        described = described or read_config(f"{group}/custom", config_dir) or ""
        for entry in entries(described, "" if "@package _global_" in described else f"{group}."):
            if entry.key != f"{group}.name":
                rows.append((f"  {entry.key}={own.get(entry.key, entry.default)}", entry.help))
    rows += [(f"{entry.key}={own.get(entry.key, entry.default)}", entry.help) for entry in entries(text)]
    title = heading(text).removeprefix(f"resetta {command}: ")
    title = textwrap.fill(title[:1].upper() + title[1:], 100)
    flags = {"--cfg": "print the composed configuration and stop"}
    if not command.startswith("bench/"):
        flags["--multirun"] = "run every combination of comma lists, as in core=s5,gru seed=0,1"
    elif "- /train" in text:
        flags["core=, env="] = "take comma lists, as any key of training: core=s5,gru num_envs=16,64"
        flags["KEY="] = "every other key of `resetta train --help`"
    return (
        f"usage: resetta {command.replace('/', ' ')} [key=value ...]\n\n{title}\n\n{_table(rows)}\n\n"
        f"{_table([*flags.items()])}\n"
    )


def list_text(kind: str | None, config_dir: Path | None = None) -> str:
    """What `resetta list [kind]` prints."""
    if kind is None:
        return "\n".join(
            f"{name}:\n{list_text(name, config_dir)}" for name in _LISTS if _listed(name, config_dir)
        )
    if kind not in _LISTS:
        raise InputError(
            f"unknown list {kind!r}{did_you_mean(kind, _LISTS)}; choose from {', '.join(_LISTS)}"
        )
    return _table([*_listed(kind, config_dir).items()]) + "\n"


def _listed(kind: str, config_dir: Path | None) -> dict[str, str]:
    found = choices(_LISTS[kind], config_dir)
    if kind != "cores":
        return found
    classes = {name: ", ".join(core_classes(name, config_dir)) for name in found}
    width = max(map(len, classes.values()), default=0)
    return {name: f"{classes[name]:<{width}}  {text}" for name, text in found.items()}


def core_classes(name: str, config_dir: Path | None = None) -> list[str]:
    """How a core remembers, some of `CLASSES`: what its configuration says after "Class:"."""
    said = re.search(r"Class: ([^.]*)\.", heading(read_config(f"core/{name}", config_dir) or ""))
    return said[1].split(", ") if said else []


def plural(group: str) -> str:
    """What `resetta list` calls the entries of a config group."""
    return next(name for name, of in _LISTS.items() if of == group)


def did_you_mean(word: str, valid: Iterable[str], n: int = 3) -> str:
    """`" (did you mean 'x' or 'y'?)"`, empty where nothing is close."""
    near = difflib.get_close_matches(word, list(valid), n=n, cutoff=0.6)
    return f" (did you mean {' or '.join(map(repr, near))}?)" if near else ""


def _table(rows: list[tuple[str, str]]) -> str:
    width = min(max((len(name) for name, _ in rows), default=0), 34)
    return "\n".join(f"  {name:<{width}}  {text}".rstrip() for name, text in rows)
