"""Splits of an evaluation, kept as they are played: one that is killed goes on with what is missing."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ..envs import SPLITS
from .run_dir import plain, write_npz

_ASKED = "asked"  # the array that says, in JSON, what a file answers


class KeptSplits:
    """A file a split, `eval.<split>.npz` in `folder`, with the question that it answers inside.

    Arrays stay bit for bit what they were, which rows of JSON (`bench.kept_rows`) would not.
    """

    def __init__(self, folder: Path, asked: Mapping[str, Any]):
        """`asked` is everything that a result depends on or is told of it."""
        self._folder, self._asked = folder, json.dumps(plain(asked, digits=None), sort_keys=True)

    def get(self, split: str) -> dict[str, np.ndarray] | None:
        """The arrays of `split`, None where none are kept for this question."""
        try:
            with np.load(_path(self._folder, split), allow_pickle=False) as stored:
                arrays = dict(stored)
        except Exception:  # a damaged archive raises what zipfile, zlib or numpy please
            return None
        return arrays if str(arrays.pop(_ASKED, "")) == self._asked else None

    def keep(self, split: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Write the arrays of `split` at once, whole or not at all."""
        write_npz(_path(self._folder, split), **{_ASKED: np.array(self._asked), **arrays})


def forget_splits(folder: Path) -> None:
    """Remove what was kept in `folder`: the whole evaluation is written."""
    for split in SPLITS:
        _path(folder, split).unlink(missing_ok=True)


def digest(tree: Any) -> str:
    """Which arrays these are, to the bit."""
    found = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.asarray(leaf)
        found.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape} ".encode())
        found.update(array.tobytes())
    return found.hexdigest()


def _path(folder: Path, split: str) -> Path:
    return folder / f"eval.{split}.npz"
