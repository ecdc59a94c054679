"""Compiled programs are kept in the user's cache folder: what was compiled once is there the next time."""

import contextlib
import os
import sys
from pathlib import Path

VARIABLE = "RESETTA_COMPILATION_CACHE"
_OFF = ("off", "0", "false", "no")
_LARGEST = 2 * 2**30  # bytes; beyond, the programs written longest ago go


def cache_folder() -> Path | None:
    """Where compiled programs are kept; None where they are not.

    `RESETTA_COMPILATION_CACHE=off` turns it off, and any other value is the folder. Otherwise it is the
    user's cache folder, unless JAX has been given one of its own.
    """
    asked = os.environ.get(VARIABLE, "")
    if asked.lower() in _OFF:
        return None
    if asked:
        return Path(asked).expanduser()
    if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return None
    home = Path.home()
    if sys.platform == "darwin":
        caches = home / "Library" / "Caches"
    elif sys.platform == "win32":
        caches = Path(os.environ.get("LOCALAPPDATA", home / "AppData" / "Local"))
    else:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    return caches / "resetta" / "compiled"


def use_compilation_cache() -> None:
    """Let JAX keep what takes a second or more to compile, and find it again.

    A folder that cannot be made is said, and an entry that cannot be read is compiled again: neither is an
    error.
    """
    folder = cache_folder()
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        prune(folder, _LARGEST)
    except OSError as error:
        print(f"compiled programs are not kept: {error}; set {VARIABLE}=off or a folder", file=sys.stderr)
        return
    import jax

    jax.config.update("jax_compilation_cache_dir", str(folder))


def prune(folder: Path, largest: int) -> None:
    """Delete the files written longest ago until the rest are no more than `largest` bytes."""
    found = []
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # another process may be pruning
            if path.is_file():
                stat = path.stat()
                found.append((stat.st_mtime, stat.st_size, path))
    total = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if total <= largest:
            return
        with contextlib.suppress(OSError):
            path.unlink()
        total -= size
