"""Checkpoints of everything (Orbax): parameters, optimiser, keys, environments, memory, step.

Orbax writes arrays and JSON into a temporary directory that is renamed when complete: a kill at any moment
leaves the last whole checkpoint, and reading one runs no code.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp


class Checkpoints:
    """The checkpoints of one run, by update."""

    def __init__(self, directory: Path, keep: int = 2):
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, create=False, enable_async_checkpointing=False
        )
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._manager = ocp.CheckpointManager(directory.absolute(), options=options)

    def latest(self) -> int | None:
        """The update of the newest complete checkpoint."""
        return self._manager.latest_step()

    def save(self, update: int, state: Any) -> None:
        """Write a checkpoint; returns when it is complete on disk."""
        if update in self._manager.all_steps():
            return
        self._manager.save(update, args=ocp.args.StandardSave(jax.tree.map(_filled, state)))
        self._manager.wait_until_finished()

    def restore(self, template: Any, update: int | None = None) -> Any:
        """The state at `update` (the newest by default), with the structure, shapes and dtypes of `template`.

        `template` holds arrays or `jax.ShapeDtypeStruct`s. Raises `ValueError`, one sentence, where there is
        no such checkpoint, or it is damaged, or of another agent or version.
        """
        steps = sorted(self._manager.all_steps())
        update = self.latest() if update is None else update
        if update is None or update not in steps:
            have = f"it holds {', '.join(map(str, steps))}" if steps else "it holds none"
            wanted = "a checkpoint" if update is None else f"the checkpoint of update {update}"
            raise ValueError(f"{self.directory} does not hold {wanted}; {have}")
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, template)
        try:
            state = self._manager.restore(
                update, args=ocp.args.StandardRestore(jax.tree.map(_filled, abstract))
            )
        except Exception as error:  # Orbax raises many kinds for a damaged or foreign checkpoint
            first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ValueError(
                f"the checkpoint {self.directory / str(update)} is damaged, or of another agent or version "
                f"({first[:200]}); delete it to go on from an older one, or choose another run_dir"
            ) from error
        state = jax.tree.map(
            lambda leaf, want: leaf if getattr(want, "size", 1) else jnp.zeros(want.shape, want.dtype),
            state,
            abstract,
        )
        for path, (have, want) in _pairs(state, abstract):
            if have.shape != want.shape or have.dtype != want.dtype:
                raise ValueError(
                    f"the checkpoint {self.directory / str(update)} belongs to another agent: "
                    f"{path} is {have.dtype}{list(have.shape)}, not {want.dtype}{list(want.shape)}; "
                    "choose another run_dir"
                )
        return state

    def close(self) -> None:
        """Wait for whatever is still being written."""
        self._manager.close()


def _filled(leaf: Any) -> Any:
    """A leaf, or one zero in place of an empty array: Orbax refuses those, and MJX's states hold some."""
    return leaf if getattr(leaf, "size", 1) else jnp.zeros(1, leaf.dtype)


def _pairs(state: Any, abstract: Any) -> list[tuple[str, tuple[Any, Any]]]:
    have = jax.tree_util.tree_leaves_with_path(state)
    want = jax.tree.leaves(abstract)
    return [(jax.tree_util.keystr(path), (leaf, w)) for (path, leaf), w in zip(have, want, strict=True)]
