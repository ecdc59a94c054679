"""The command line, `resetta <command> [key=value ...]`; JAX is imported only when work begins."""

import contextlib
import importlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from .compilation_cache import VARIABLE, use_compilation_cache
from .errors import InputError, Interrupted, TrainingFailed, input_errors
from .listing import choices, command_help, did_you_mean, list_text, read_config


class Command(NamedTuple):
    """A command: one line on it, and the module whose `run(config)` does the work."""

    summary: str
    module: str
    reads_run: bool = False  # works on a run directory that exists
    expands: bool = False  # has parts, which take comma lists themselves: `run` gets the configurations


_COMMANDS = {
    "train": Command("train an agent, evaluate it on tasks it never saw, film it, report", "train"),
    "evaluate": Command("evaluate a trained agent, trial by trial", "evaluate", reads_run=True),
    "render": Command("film a trained agent", "render", reads_run=True),
    "video-train": Command("train a model of videos, frame by frame; evaluate, film, report", "video_train"),
    "video-evaluate": Command(
        "evaluate a video model against baselines, frame by frame", "video_evaluate", reads_run=True
    ),
    "video-sample": Command("let a video model go on from a context", "video_sample", reads_run=True),
    "video-inspect": Command("say what is in a folder of videos", "video_inspect"),
    "export": Command(
        "keep a trained agent in a small folder that evaluate and render take",
        "pretrained_agents",
        reads_run=True,
    ),
    "report": Command("write the report of a run again", "report", reads_run=True),
    "bench": Command("measure cores side by side: speed, learning, memory", "bench", expands=True),
}
_BEGINS_RUN = ("train", "video-train")
_HELP = ("-h", "--help")
_MULTIRUN = ("-m", "--multirun")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    0 done; 2 a mistake in the input, one sentence on standard error; 130 or 143 interrupted by Ctrl-C or
    SIGTERM, with a checkpoint written; 1 training that failed; anything unexpected keeps its traceback.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        return _main(words)
    except InputError as error:
        print(f"resetta: {error}", file=sys.stderr)
        return 2
    except TrainingFailed as failure:
        print(f"resetta: {failure}", file=sys.stderr)
        return 1
    except Interrupted as interrupted:
        print(f"resetta: {interrupted}", file=sys.stderr)
        return 128 + interrupted.signum
    except (KeyboardInterrupt, _Terminated) as stop:
        trains = words[:1] and words[0] in _BEGINS_RUN
        kept = (
            "a run goes on from its last checkpoint" if trains else "what was kept by now is not done again"
        )
        print(f"resetta: interrupted; {kept}", file=sys.stderr)
        return 128 + (signal.SIGTERM if isinstance(stop, _Terminated) else signal.SIGINT)
    except BrokenPipeError:  # `resetta list envs | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _main(argv: list[str]) -> int:
    if not argv or argv[0] in (*_HELP, "help"):
        print(_overview(), flush=True, file=sys.stdout if argv else sys.stderr)
        return 0 if argv else 2
    name, *rest = argv
    if name == "--version":
        from .. import __version__

        print(f"resetta {__version__}")
        return 0
    if name == "list":
        return _list(rest)
    available = _available()
    if name not in available:
        valid = [*available, "list"]
        near = did_you_mean(name, valid)
        raise InputError(f"unknown command {name!r}{near}; choose from {', '.join(valid)}")
    if available[name].expands:
        part, rest = _part(name, rest)
        if part is None:
            return 0 if rest else 2
        name = f"{name}/{part}"
    if name == "video-inspect":  # `resetta video-inspect DIR`
        rest = [word if "=" in word or word.startswith("-") else f"data.path={word}" for word in rest]
    flags = [word for word in rest if word in (*_HELP, *_MULTIRUN, "--cfg")]
    overrides = [word for word in rest if word not in flags]
    if any(flag in _HELP for flag in flags):
        chosen = dict(word.split("=", 1) for word in overrides if "=" in word)
        print(command_help(name, chosen), end="", flush=True)
        return 0
    if "--cfg" in flags:
        return _show_config(name, [word for word in overrides if word != "job"])
    if "/" in name:
        from .bench.expand import expand

        work(name, expand(name, overrides))
        return 0
    if any(flag in _MULTIRUN for flag in flags):
        from .compose import multirun

        multirun(name, overrides, work)
        return 0
    from .compose import compose, explicit_keys

    config = compose(name, overrides)
    if name in _BEGINS_RUN:
        from .run_dir import inherit

        config = inherit(config, explicit_keys(overrides))
    work(name, config)
    return 0


def work(name: str, config: Any) -> None:
    """Check what can be checked at once, then load the command's module and run it on `config`."""
    name, _, part = name.partition("/")
    command = _COMMANDS[name]
    with input_errors():
        if name in _BEGINS_RUN:
            _check_training(name, config)
        if command.reads_run:
            from .pretrained_agents import find_run
            from .run_dir import RunDir

            find_run(config)
            run = RunDir.read(config["run_dir"])
            if name != "report":
                run.check_kind(name, video=name.startswith("video-"))
    from .logs import phase

    with _orderly_sigterm():
        if not command.expands and config.get("distributed"):
            from .processes import join_processes

            with phase("waiting for the other processes"):
                join_processes()  # some libraries ask for devices as they are loaded: then it is too late
        with phase("loading libraries"):
            module = importlib.import_module(f".{command.module}{part and '.'}{part}", __package__)
            use_compilation_cache()
        if name == "report":
            print(module.write_report(config["run_dir"]))
        else:
            module.run(config)


@contextlib.contextmanager
def _orderly_sigterm() -> Iterator[None]:
    """Outside the training loop, which holds signals back itself, SIGTERM unwinds as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(signum: int, frame: object) -> None:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Terminated(BaseException):
    pass


def _check_training(name: str, config: dict[str, Any]) -> None:
    from .run_dir import check_run_dir

    if name == "train":
        from .config import train_config

        train_config(config)
    else:
        from .video_config import video_config

        video_config(config)
    if config["wandb"]:
        from .logs import check_loggers

        check_loggers(config)
    check_run_dir(config)


def _available() -> dict[str, Command]:
    """The commands that have a configuration; others are not here yet, and not shown."""
    return {
        name: command
        for name, command in _COMMANDS.items()
        if (choices(name) if command.expands else read_config(name))
    }


def _part(name: str, words: list[str]) -> tuple[str | None, list[str]]:
    """The part of `name` that the first word chooses, and the words after it; else shows which there are."""
    parts = choices(name)
    if not words or words[0] in _HELP:
        lines = "\n".join(f"  {part:<12} {summary.rstrip('.')}" for part, summary in parts.items())
        text = (
            f"usage: resetta {name} <name> [key=value ...]\n\n{lines}\n\n"
            f"`resetta {name} <name> --help` explains its keys."
        )
        print(text, flush=True, file=sys.stdout if words else sys.stderr)
        return None, words
    if words[0] not in parts:
        near = did_you_mean(words[0], parts)
        raise InputError(f"unknown {name} {words[0]!r}{near}; choose from {', '.join(parts)}")
    return words[0], words[1:]


def _show_config(name: str, overrides: list[str]) -> int:
    from omegaconf import OmegaConf

    if "/" in name:  # of a benchmark each case, as YAML's documents
        from .bench.expand import expand

        configs = expand(name, overrides)
    else:
        from .compose import compose

        configs = [compose(name, overrides)]
    print("---\n".join(OmegaConf.to_yaml(OmegaConf.create(config)) for config in configs), end="")
    return 0


def _list(words: list[str]) -> int:
    if len(words) > 1:
        raise InputError(f"`resetta list` takes one name, not {' '.join(words)!r}")
    if words and words[0] in _HELP:
        print("usage: resetta list [cores|envs|probes|datasets|models|experiments|pretrained]\n")
        print("Show the names that core=, env=, probe=, data=, model=, +experiment= and pretrained= take.")
        return 0
    print(list_text(words[0] if words else None), end="", flush=True)
    return 0


def _overview() -> str:
    rows = {name: command.summary for name, command in _available().items()}
    rows["list"] = (
        "show the cores, environments, probes, data sets, models, experiments and trained agents there are"
    )
    lines = "\n".join(f"  {name:<14} {summary}" for name, summary in rows.items())
    return (
        "Resetta: memory that resets.\n\nusage: resetta <command> [key=value ...]\n\n"
        f"{lines}\n\n`resetta <command> --help` explains every key of a command.\n"
        f"Compiled programs are kept in your cache folder; {VARIABLE}=off, or a folder, changes that.\n"
        "Example: resetta train env=meta_cartpole_catch core=gru seeds=2 run_dir=runs/first"
    )


if __name__ == "__main__":
    sys.exit(main())
