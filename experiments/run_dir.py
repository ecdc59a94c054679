"""A run's directory: what lies where, who may write there, and files that are whole or absent."""

import datetime
import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from .atomic import atomic
from .config import TrainConfig, defaults
from .errors import InputError
from .video_config import VideoConfig

try:
    import fcntl
except ImportError:  # Windows has no flock; there, two processes in one directory go unnoticed
    fcntl = None

# What may differ between the runs that share a directory: none of it changes what is learnt.
FREE_KEYS = frozenset(
    {
        *(
            "resume",
            "run_dir",
            "device",
            "log_every",
            "checkpoint_every",
            "keep_checkpoints",
            "max_bad_updates",
            "prefetch",
            "eval_clips",
            "samples",
        ),
        *("tensorboard", "wandb", "render", "eval_tasks", "eval_trials", "eval_greedy"),
        *("mesh", "distributed"),
    }
)
_DIGITS = 7  # significant digits in metrics.jsonl: about what float32 holds
_OTHERS_FILES = re.compile(
    r"\.hydra|\.submitit|.*\.log|\.DS_Store|\.lock"
)  # may lie there before a run begins


class RunDir:
    """The directory of one run.

    `RunDir.open(config)` begins or resumes a run and holds the directory's lock until `close`;
    `RunDir.read(path)` looks at a run and writes nothing. Both raise `InputError`, one sentence, before
    anything is written.
    """

    def __init__(self, path: Path, config: dict[str, Any], resumed: bool = False, writes: bool = True):
        self.path, self.config, self.resumed = path, config, resumed
        self.writes = writes  # of several processes that train together, one
        self.checkpoints = path / "checkpoints"
        self.media = path / "media"
        self.tensorboard = path / "tensorboard"
        self.metrics = path / "metrics.jsonl"
        self.devices = path / "trained_on.json"
        self.report = path / "report.html"
        self.eval_json = path / "eval.json"
        self.eval_npz = path / "eval.npz"
        self.video = _of_video(config)
        self.counter = "step" if self.video else "update"  # what counts the rows of metrics.jsonl
        self._lock: IO[str] | None = None
        self._metrics_file: IO[str] | None = None

    @classmethod
    def open(cls, config: Mapping[str, Any]) -> "RunDir":
        """Begin the run that `config` describes, or go on with it where `config["run_dir"]` holds it.

        `run_dir=None` makes `runs/<env>-<core>-<time>`; `self.config["run_dir"]` says which it is.
        """
        config = dict(config)
        check_run_dir(config)
        try:
            path = Path(config["run_dir"]) if config.get("run_dir") else _new_path(config)
            path.mkdir(parents=True, exist_ok=True)
            run = cls(path, config | {"run_dir": str(path)})
            run._take_lock()
        except OSError as error:
            raise InputError(
                f"run_dir={config.get('run_dir')} cannot be written: {error.strerror}"
            ) from error
        try:
            check_run_dir(run.config)  # again: another process may have begun a run before the lock was ours
            run.resumed = (path / "config.yaml").exists()
            run._write_config()
        except BaseException:
            run.close()
            raise
        return run

    @classmethod
    def read(cls, path: str | Path) -> "RunDir":
        """An existing run, with the configuration it was trained with."""
        path = Path(path)
        if not path.exists():
            near = _nearby_runs(path)
            raise InputError(
                f"run_dir={path} does not exist" + (f"; {path.parent} holds {near}" if near else "")
            )
        config = _saved_config(path) if path.is_dir() else None
        if config is None:
            what = "is a file" if path.is_file() else "holds no run (it has no config.yaml of one)"
            raise InputError(f"run_dir={path} {what}; give the directory that `resetta train` wrote")
        return cls(path, config, resumed=True)

    @classmethod
    def follow(cls, config: Mapping[str, Any]) -> "RunDir":
        """The directory that another process has opened for a run of both; nothing is written there."""
        return cls(Path(config["run_dir"]), dict(config), resumed=True, writes=False)

    def check_kind(self, command: str, video: bool) -> None:
        """Raise `InputError` where `command` is for the other kind of run."""
        if self.video != video:
            kind, others = (
                ("videos", "video-evaluate and video-sample")
                if self.video
                else ("an agent", "evaluate and render")
            )
            raise InputError(
                f"run_dir={self.path} is a run of {kind}, which `resetta {command}` does not take; "
                f"use {others}"
            )

    def append(self, row: Mapping[str, Any]) -> None:
        """Add one line to metrics.jsonl; `row` needs `update` and `env_steps`, or `step` in a video run.

        Arrays become lists, NaN and infinity null. Each line is handed to the operating system whole; it is
        forced to the disk by `sync` only, since a resumed run cuts back to its checkpoint anyway.
        """
        needed = {"step"} if self.video else {"update", "env_steps"}
        if not needed <= row.keys():
            names = " and ".join(map(repr, sorted(needed)))
            raise ValueError(f"a row of metrics needs {names}; it has {sorted(row)}")
        if not self.writes:
            return
        if self._metrics_file is None:
            self._metrics_file = self.metrics.open("a", encoding="utf-8")
        self._metrics_file.write(json.dumps(plain(row), sort_keys=True, allow_nan=False) + "\n")
        self._metrics_file.flush()

    def sync(self) -> None:
        """Force metrics.jsonl to the disk; call it before writing a checkpoint."""
        if self._metrics_file is not None:
            os.fsync(self._metrics_file.fileno())

    def note_device(self, name: str) -> None:
        """Keep the name of what the run is trained on from now on."""
        names = self.trained_on()
        if self.writes and name not in names:
            write_json(self.devices, [*names, name])

    def trained_on(self) -> list[str]:
        """What the run was trained on, one device after the other; empty where nobody kept it."""
        try:
            names = json.loads(self.devices.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return []
        return [str(name) for name in names] if isinstance(names, list) else []

    def rows(self) -> list[dict[str, Any]]:
        """The whole lines of metrics.jsonl."""
        return [row for _, row in self._lines()]

    def truncate_metrics(self, last: int) -> None:
        """Cut metrics.jsonl back to rows whose `update` (or `step`) is at most `last`, and no torn line."""
        if self._metrics_file is not None:
            self._metrics_file.close()
            self._metrics_file = None
        kept = "".join(line for line, row in self._lines() if row.get(self.counter, math.inf) <= last)
        if not self.writes or not self.metrics.exists():
            return
        if kept != self.metrics.read_text(encoding="utf-8", errors="replace"):
            with atomic(self.metrics) as part:
                part.write_text(kept, encoding="utf-8")

    def _lines(self) -> Iterator[tuple[str, dict[str, Any]]]:
        if not self.metrics.exists():
            return
        with self.metrics.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                try:
                    row = json.loads(line)
                except json.JSONDecodeError:
                    return  # torn by a kill or a full disk; whatever follows would leave a gap
                if not line.endswith("\n") or not isinstance(row, dict):
                    return
                yield line, row

    def close(self) -> None:
        """Close metrics.jsonl and release the directory."""
        if self._metrics_file is not None:
            self.sync()
            self._metrics_file.close()
            self._metrics_file = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> "RunDir":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _take_lock(self) -> None:
        """One writer at a time. The kernel drops the lock when its holder dies, so it is never stale."""
        if fcntl is None:
            return
        lock = (self.path / ".lock").open("a+", encoding="utf-8")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            lock.close()
            raise InputError(
                f"run_dir={self.path} is in use by another process (pid {holder}); "
                "wait for it or choose another run_dir"
            ) from error
        except OSError:  # a filesystem without locks
            pass
        lock.seek(0)
        lock.truncate()
        lock.write(str(os.getpid()))
        lock.flush()
        self._lock = lock

    def _write_config(self) -> None:
        from omegaconf import OmegaConf

        with atomic(self.path / "config.yaml") as part:
            part.write_text(
                OmegaConf.to_yaml(OmegaConf.create(plain(self.config, digits=None))), encoding="utf-8"
            )


def check_run_dir(config: Mapping[str, Any]) -> None:
    """Raise `InputError` where the run of `config` may not live in its `run_dir`; writes nothing.

    A directory belongs to the configuration that began it. Only `FREE_KEYS` may change, and `total_steps`
    may grow if the learning rate is constant: a schedule that ends elsewhere is another run.
    """
    path = Path(config.get("run_dir") or "runs")
    existing = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    if not existing.is_dir():
        what = "a file" if existing == path else f"inside {existing}, which is a file"
        raise InputError(f"run_dir={path} is {what}; choose another run_dir")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(
            f"run_dir={path} cannot be written: no permission for {existing}; choose another run_dir"
        )
    if not config.get("run_dir") or existing != path:
        return
    saved = _saved_config(path)
    if saved is None:
        others = sorted(f.name for f in path.iterdir() if not _OTHERS_FILES.fullmatch(f.name))
        if others:
            raise InputError(
                f"run_dir={path} is not empty and holds no run (it has {others[0]}); choose another run_dir"
            )
        return
    if config.get("resume") == "never":
        raise InputError(
            f"run_dir={path} already holds a run; resume=auto goes on with it, or choose another run_dir"
        )
    _check_same(path, saved, config)


def _of_video(config: Mapping[str, Any]) -> bool:
    """Whether a run is one of video-train; else it is one of train."""
    return "data" in config


def _check_same(path: Path, saved: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    # a run from before a key existed did what the key's absence means
    absent = defaults(VideoConfig if _of_video(config) else TrainConfig)
    there, here = flat(saved), flat(plain(config, digits=None))
    gained = {key for key in here if key.startswith("core.") and key not in there}
    core = here.get("core.name")
    if gained and core is not None and core == there.get("core.name"):
        from ..cores import core_options  # not at the top: it loads JAX

        options = core_options(core).items()
        absent |= {f"core.{name}": value for name, value in options if f"core.{name}" in gained}
    old, new = absent | there, absent | here
    differing = [
        k for k in [*old, *(k for k in new if k not in old)] if old.get(k, _ABSENT) != new.get(k, _ABSENT)
    ]
    differing = [key for key in differing if key.partition(".")[0] not in FREE_KEYS]
    if differing == ["total_steps"]:
        before, now = old["total_steps"], new["total_steps"]
        if now < before:
            raise InputError(
                f"total_steps={now} is less than the {before} of the run in {path}; "
                "it can only grow, or choose another run_dir"
            )
        if "lr_final" not in old or old["lr_final"] is not None:
            begun = "" if _of_video(config) else f", and init.run={path} to start from its agent"
            raise InputError(
                f"total_steps={now} would move the end of the learning rate's schedule of the run in {path} "
                f"(total_steps={before}); only a constant rate (lr_final=null) can be extended, "
                f"so choose another run_dir{begun}"
            )
        return
    if differing:
        shown = ", ".join(
            f"{key} is {_shown(old.get(key, _ABSENT))} there and {_shown(new.get(key, _ABSENT))} here"
            for key in differing[:3]
        )
        more = f", and {len(differing) - 3} more" if len(differing) > 3 else ""
        raise InputError(
            f"run_dir={path} holds a run of another configuration ({shown}{more}); choose another run_dir"
        )


_ABSENT = object()


def _shown(value: Any) -> str:
    return "absent" if value is _ABSENT else "null" if value is None else str(value)


def inherit(config: Mapping[str, Any], explicit: set[str] | None) -> dict[str, Any]:
    """`config` with everything that was not asked for taken from the run that lives in its `run_dir`.

    So that `train run_dir=<same>` goes on with that run, whatever it was. `explicit` holds the keys and
    groups named on the command line; None means that all are. What was named stays, for `check_run_dir` to
    compare.
    """
    path = config.get("run_dir")
    saved = _saved_config(Path(path)) if path and Path(path).is_dir() else None
    if saved is None or explicit is None:
        return dict(config)
    return _inherit(config, saved, explicit, "")


def _inherit(
    new: Mapping[str, Any], saved: Mapping[str, Any], explicit: set[str], prefix: str
) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for key in [*new, *(key for key in saved if key not in new)]:
        path = prefix + key
        if path in explicit or path in ("resume", "run_dir"):
            if key in new:
                merged[key] = new[key]
        elif isinstance(new.get(key), Mapping) and isinstance(saved.get(key), Mapping):
            merged[key] = _inherit(new[key], saved[key], explicit, path + ".")
        elif any(name.startswith(path + ".") for name in explicit) and key in new:
            merged[key] = new[key]
        elif key in saved:
            merged[key] = saved[key]
        elif prefix == "":
            merged[key] = new[key]  # a key that this version added since
    return merged


def _saved_config(path: Path) -> dict[str, Any] | None:
    """The configuration of the run in `path`; None where there is none."""
    file = path / "config.yaml"
    if not file.is_file():
        return None
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        saved = OmegaConf.to_container(OmegaConf.load(file))
    except (YAMLError, OmegaConfBaseException, OSError, ValueError):
        return None
    # every command that begins a run has this key, and hardly another program's config.yaml does
    return {str(k): v for k, v in saved.items()} if isinstance(saved, dict) and "run_dir" in saved else None


def _nearby_runs(path: Path) -> str:
    if not path.parent.is_dir():
        return ""
    names = sorted(p.parent.name for p in path.parent.glob("*/config.yaml"))
    return ", ".join(names[-3:]) + (f" and {len(names) - 3} more runs" if len(names) > 3 else "")


def _new_path(config: Mapping[str, Any]) -> Path:
    parts = [config[group] for group in ("env", "core", "data", "model") if group in config]
    names = [str(part.get("name", "custom")) if isinstance(part, Mapping) else str(part) for part in parts]
    time = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    name = "-".join(re.sub(r"[^\w.]+", "_", part) for part in [*names, ""]) + time
    for attempt in range(100):
        path = Path("runs") / (name if attempt == 0 else f"{name}-{attempt + 1}")
        try:
            path.mkdir(parents=True, exist_ok=False)
            return path
        except FileExistsError:
            continue
    raise InputError(f"runs/{name} and 99 like it exist; give run_dir=...")


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested configuration as dotted keys; an empty mapping is a value."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def plain(value: Any, digits: int | None = _DIGITS) -> Any:
    """`value` as JSON holds it: arrays as lists, NaN and infinity null, floats of `digits` digits."""
    if isinstance(value, Mapping):
        return {str(key): plain(item, digits) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, digits) for item in value]
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return value if digits is None else float(f"{value:.{digits}g}")
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    import numpy as np  # not at the top: an error in the input is answered before it is loaded

    array = np.asarray(value)
    if array.dtype == object:
        raise TypeError(f"{value!r} of type {type(value).__name__} cannot be written as JSON")
    return plain(array.tolist(), digits)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON, whole or not at all; NaN and infinity become null."""
    with atomic(path) as part:
        part.write_text(json.dumps(plain(value), indent=2, allow_nan=False) + "\n", encoding="utf-8")


def write_npz(path: Path, **arrays: Any) -> None:
    """Write arrays as a compressed `.npz`, whole or not at all."""
    import numpy as np

    with atomic(path) as part:
        np.savez_compressed(part, allow_pickle=False, **{name: np.asarray(a) for name, a in arrays.items()})
