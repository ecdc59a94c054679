"""P9, the convex hull (Pointer Networks, Vinyals et al. 2015, arXiv 1506.03134): points of the plane in
random order, then the names of the corners of their hull."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .base import FILLER, ITEM, QUERY, Episode, Probe, distinct


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvexHull(Probe):
    """`length`/2 points, each with one of `names` names that no other has; then a question for each corner.

    Points are uniform in the unit square. Asked for are the names of the corners, anticlockwise from the one
    farthest left; the steps that are left after the last corner ask for nothing.
    """

    length: int = 16
    names: int = 32

    knob: ClassVar[str] = "length"
    whole: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self.need("length", self.length >= 8 and self.length % 2 == 0, "must be even, 8 or more")
        self.need(
            "length", self.length <= 2 * self.names, f"is more than twice names={self.names}; give more names"
        )

    @property
    def fields(self) -> dict[str, int]:
        """A name, and where it lies."""
        return {"name": self.names, "place": 2}

    @property
    def num_answers(self) -> int:
        """The names."""
        return self.names

    @property
    def scope(self) -> int:
        """All points."""
        return self.length // 2

    def episode(self, key: Array) -> Episode:
        """Points, and their hull."""
        key_names, key_places = jax.random.split(key)
        points = self.length // 2
        names = distinct(key_names, points, self.names)
        places = jax.random.uniform(key_places, (points, 2))
        corners = hull(places)
        nothing = jnp.full(points, -1)
        asked = jnp.concatenate([nothing, corners]) >= 0
        phase = jnp.where(jnp.arange(self.length) < points, ITEM, jnp.where(asked, QUERY, FILLER))
        tokens = self.encode(
            phase,
            name=jnp.concatenate([names, nothing]),
            place=jnp.concatenate([places, jnp.zeros((points, 2))]),
        )
        return self.ask(tokens, jnp.concatenate([nothing, names[corners]]), asked)


def hull(places: Float[Array, "N 2"]) -> Int[Array, " N"]:
    """Indices of the hull's corners, anticlockwise from the one farthest left, and −1 after the last."""
    to = places[None] - places[:, None]  # [i, j]: from i to j
    turn = to[:, :, None, 0] * to[:, None, :, 1] - to[:, :, None, 1] * to[:, None, :, 0]  # [i, j, k]
    # j follows i where every other point lies to the left of the way from i to j
    same = jnp.eye(places.shape[0], dtype=bool)
    left = (turn > 0) | same[:, None] | same[None]
    after = (left.all(-1) & ~same).argmax(-1)
    first = places[:, 0].argmin()

    def walk(at: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], Array]:
        index, over = at
        following = after[index]
        return (following, over | (following == first)), jnp.where(over, -1, index)

    return jax.lax.scan(walk, (first, jnp.zeros((), bool)), None, length=places.shape[0])[1]
