"""The probes by name. Listing them imports neither JAX nor gymnax; making one does.

    probe = make_probe("multi_query_recall", length=256, pairs=32)

Options are the fields of the probe's class; `module:Name` stands for a user's own subclass of `Probe`, and so
does the name of an entry point of another package (see `envs.installed`).
"""

import dataclasses
import difflib
from typing import TYPE_CHECKING, Any, NamedTuple

from ..installed import installed
from ..registry import fitted, load_attribute

if TYPE_CHECKING:
    from .base import Probe


class _Entry(NamedTuple):
    """A probe's number in the specification, its category, what it asks in a line, its home and what sets it
    apart.
    """

    number: str
    category: str  # of LongBench's six (Bai et al. 2023, arXiv 2308.14508), as far as they are about memory
    summary: str
    path: str
    options: dict[str, Any] = {}  # noqa: RUF012  # never changed


CATEGORIES = ("lookup", "multi-lookup", "aggregate", "few-shot", "synthetic", "formal language")

_PROBES = {
    "projected_cartpole": _Entry(
        "P1", "few-shot", "a pole to balance behind an unknown projection", "projected:Projected"
    ),
    "projected_pendulum": _Entry(
        "P1",
        "few-shot",
        "a pendulum to swing up behind an unknown projection",
        "projected:Projected",
        {"task": "pendulum"},
    ),
    "projected_point_mass": _Entry(
        "P1",
        "few-shot",
        "a goal to steer to behind an unknown projection",
        "projected:Projected",
        {"task": "point_mass", "length": 400, "steps": 50},
    ),
    "bandit": _Entry("P2", "few-shot", "the best of arms with unknown chances", "imitation:Bandit"),
    "dark_room": _Entry("P2", "few-shot", "an unseen goal, found once and remembered", "imitation:DarkRoom"),
    "tmaze": _Entry("P3", "lookup", "a cue at the start, a turn at the end", "delayed:TMaze"),
    "repeat_previous": _Entry(
        "P3", "lookup", "the suit k cards back, at every step", "delayed:RepeatPrevious"
    ),
    "associative_recall": _Entry(
        "P4", "lookup", "one of the values by its key", "recall:Recall", {"queries": 1}
    ),
    "multi_query_recall": _Entry("P4", "multi-lookup", "many of the values by their keys", "recall:Recall"),
    "joint_recall": _Entry(
        "P4",
        "multi-lookup",
        "values of keys that depend on a context",
        "recall:Recall",
        {"contexts": 4, "keys": 4},
    ),
    "table_recall": _Entry("P4", "lookup", "cells by row and column", "table:TableRecall"),
    "table_largest": _Entry(
        "P4", "aggregate", "the column of a row's largest value", "table:TableRecall", {"question": "largest"}
    ),
    "table_count": _Entry(
        "P4", "aggregate", "how often a column has a value", "table:TableRecall", {"question": "count"}
    ),
    "needle": _Entry("P5", "lookup", "one pair hidden at a depth among filler", "needle:Needle"),
    "multi_needle": _Entry(
        "P5", "multi-lookup", "several pairs hidden among filler", "needle:Needle", {"needles": 4}
    ),
    "abstain_needle": _Entry(
        "P5",
        "lookup",
        "a hidden pair, or that it was never shown",
        "needle:Needle",
        {"distractors": 3, "absent": 0.2},
    ),
    "ancestral_trace": _Entry(
        "P5", "multi-lookup", "an ancestor, some hops up shuffled facts", "needle:AncestralTrace"
    ),
    "attribute_needle": _Entry(
        "P5",
        "lookup",
        "one attribute of an entity, by a noisy key",
        "spans:Spans",
        {"semantic": True, "attributes": 4},
    ),
    "explicit_single": _Entry("P6", "lookup", "one span by its name", "spans:Spans"),
    "semantic_single": _Entry("P6", "lookup", "one span by a noisy key", "spans:Spans", {"semantic": True}),
    "explicit_multi": _Entry(
        "P6", "multi-lookup", "all spans of a name, in order", "spans:Spans", {"spans": 4}
    ),
    "semantic_multi": _Entry(
        "P6",
        "multi-lookup",
        "all spans near a noisy key, in order",
        "spans:Spans",
        {"spans": 4, "semantic": True},
    ),
    "majority": _Entry("P6", "aggregate", "the most frequent symbol of the stream", "aggregate:Aggregate"),
    "count": _Entry(
        "P6",
        "aggregate",
        "how often a symbol came, modulo their number",
        "aggregate:Aggregate",
        {"question": "count"},
    ),
    "regular_language": _Entry(
        "P7", "formal language", "the next symbol of an unknown automaton", "language:RegularLanguage"
    ),
    "many_shot": _Entry("P8", "few-shot", "labels of points, from examples", "many_shot:ManyShot"),
    "many_shot_online": _Entry(
        "P8", "few-shot", "labels of points, each told afterwards", "many_shot:ManyShot", {"online": True}
    ),
    "sorting": _Entry("P9", "aggregate", "names in the order of their values", "order:Order"),
    "timeline": _Entry("P9", "aggregate", "names in the order of their dates", "order:Order", {"by": "date"}),
    "convex_hull": _Entry(
        "P9", "aggregate", "the corners of points' convex hull, in order", "hull:ConvexHull"
    ),
    "graph_walk": _Entry("P10", "synthetic", "a walk along edges that were shown", "walk:GraphWalk"),
    "table_extract": _Entry("P10", "multi-lookup", "all records of a tag, in order", "walk:TableExtract"),
    "countdown": _Entry(
        "P10", "synthetic", "a search for how numbers make a target, step by step", "countdown:Countdown"
    ),
    "belief_state": _Entry(
        "P10", "synthetic", "where an agent believed a thing to be, event by event", "belief:BeliefState"
    ),
    "list_ops": _Entry("P11", "formal language", "the value of a nested expression", "formula:ListOps"),
    "multiply": _Entry("P11", "formal language", "the digits of a product", "formula:Multiply"),
    "pathfinder": _Entry("P11", "synthetic", "whether a line joins two dots", "pathfinder:Pathfinder"),
    "constraint_keeping": _Entry(
        "P12", "synthetic", "the better door that a rule shown once allows", "constraint:ConstraintKeeping"
    ),
    "preference": _Entry("P12", "synthetic", "which of two logs kept the rule", "constraint:Preference"),
    "sprite_motion": _Entry(
        "P13", "synthetic", "where a moving square will be, seen and unseen", "sprites:Motion"
    ),
    "sprite_colours": _Entry("P13", "lookup", "the colours of squares behind a wall", "sprites:Occlusion"),
    "sprite_revisit": _Entry("P13", "lookup", "what is where the camera was before", "panning:Revisit"),
    "episode_retrieval": _Entry(
        "P14", "few-shot", "which stretches are of one automaton, by embeddings", "retrieval:EpisodeRetrieval"
    ),
    "projection_retrieval": _Entry(
        "P14",
        "few-shot",
        "which stretches are behind one projection, by embeddings",
        "retrieval:EpisodeRetrieval",
        {"source": "cartpole"},
    ),
    "interference": _Entry(
        "P15",
        "multi-lookup",
        "recall in consecutive episodes with the same keys",
        "interference:Interference",
    ),
}


def probe_names() -> list[str]:
    """Every name of ours that `make_probe` knows, in the specification's order; nothing is imported."""
    return list(_PROBES)


def installed_probes() -> dict[str, str]:
    """Probes of other installed packages, name to `module:Name`."""
    return installed("probes", _PROBES)


def probe_summaries() -> dict[str, str]:
    """A line on each probe: its number in the specification and what it asks for."""
    return {name: f"{entry.number}: {entry.summary}" for name, entry in _PROBES.items()}


def probe_category(name: str) -> str:
    """What kind of remembering a probe is about, one of `CATEGORIES`; "other" of a probe that isn't ours."""
    return _PROBES[name].category if name in _PROBES else "other"


def make_probe(name: str, **options: Any) -> "Probe":
    """A probe by name, or a user's own as `module:Name`, with options.

    Raises ValueError, in one sentence, on an unknown name or option and on a value that does not fit.
    """
    cls, defaults = _class(name)
    fields = {field.name: field.default for field in dataclasses.fields(cls)}
    for key in options:
        if key not in fields:
            near = difflib.get_close_matches(key, fields, 3, 0.4) or fields
            raise ValueError(f"probe {name} has no option {key!r}; valid names are {', '.join(near)}")
    return cls(
        **{**defaults, **{key: fitted(name, key, value, fields[key]) for key, value in options.items()}}
    )


def probe_options(name: str) -> dict[str, Any]:
    """The options of a probe and their defaults."""
    return dataclasses.asdict(make_probe(name))


def _class(name: str) -> "tuple[type[Probe], dict[str, Any]]":
    from .base import Probe

    others = {} if name in _PROBES or ":" in name else installed_probes()
    if ":" in name or name in others:
        cls, defaults = load_attribute(others.get(name, name)), {}
        if not (isinstance(cls, type) and issubclass(cls, Probe) and dataclasses.is_dataclass(cls)):
            raise ValueError(f"{name} is not a subclass of resetta.envs.probes.Probe; derive it from that")
        return cls, defaults
    if name not in _PROBES:
        near = difflib.get_close_matches(name.lower().replace("-", "_"), [*_PROBES, *others], 3, 0.5)
        cure = f"did you mean {' or '.join(near)}?" if near else "`resetta list probes` shows them all"
        raise ValueError(f"unknown probe {name!r}; {cure}")
    entry = _PROBES[name]
    return load_attribute(f"{__package__}.{entry.path}"), entry.options
