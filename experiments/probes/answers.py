"""From questions to rows: what is not kept from an earlier run is trained, and kept as it ends."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from ...envs.probes import Probe
from ...envs.probes.registry import probe_category
from ..bench.core_cases import count_core
from ..bench.kept_rows import KeptRows
from ..devices import device_name
from .learn import Examined, Learnt, examine, learn
from .maps import look_into
from .progress import Bar
from .questions import ProbesSettings, Question, content, state_bytes, token_flops

_BLOCKS = 16  # episodes' scores are kept as the means of so many blocks


def answer(own: ProbesSettings, questions: Sequence[Question]) -> list[dict[str, Any]]:
    """A row per question and tested length, in the order asked."""
    kept, rows = KeptRows(own.folder / "probes_rows", {}), []
    with Bar(len(questions)) as bar:
        for question in questions:
            wanted = {seed: content(question, own, seed) for seed in question.seeds}
            found = {seed: kept.get(_digest(asked), asked) for seed, asked in wanted.items()}
            missing = [seed for seed, result in found.items() if result is None]
            name = f"{question.case.label} on {question.probe_name}, {question.probe.length} steps"
            bar.begin(f"{name}: seeds {missing}" if missing else f"{name}: known already")
            if missing:
                for seed, result in zip(missing, _results(own, question, missing, bar), strict=True):
                    kept.keep(_digest(wanted[seed]), wanted[seed], result)
                    found[seed] = json.loads(json.dumps(result))
            bar.end()
            results: list[Any] = [found[seed] for seed in question.seeds]
            rows += [_row(question, test, results, own) for test in range(len(question.tests))]
    return rows


def _digest(asked: Any) -> str:
    return hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()[:24]


def _results(own: ProbesSettings, question: Question, seeds: list[int], bar: Bar) -> Iterator[dict[str, Any]]:
    """What is kept of each seed."""
    core, probe = question.core, question.read(question.probe)
    learnt = learn(core, probe, own.budget, seeds, lambda share, loss, score: bar.tell(share, loss, score))

    def asked(test: Probe) -> Examined:
        return examine(core, question.read(test), learnt.params, seeds, own.episodes, own.batch_tokens)

    tests = [asked(test) for test in question.tests]
    depths = [[asked(deep).scores for deep in at_depths(test, own.depths)] for test in question.tests]
    for k, seed in enumerate(seeds):
        maps = {}
        if own.maps and seed == question.seeds[0]:
            params = jax.tree.map(lambda leaf, k=k: leaf[k], learnt.params)
            maps["maps"] = look_into(core, probe, params, seed)
        yield {
            "blocks": [_blocks(test.scores[k]) for test in tests],
            "measures": [
                probe.told({name: each[k].mean(0) for name, each in test.measures.items()}) for test in tests
            ],
            "tallies": [
                {name: each[k].sum(0).tolist() for name, each in test.tallies.items()} for test in tests
            ],
            "depths": [[float(deep[k].mean()) for deep in each] for each in depths],
            **_training(own, probe, learnt, k),
            **maps,
        }


def _blocks(scores: np.ndarray) -> list[float]:
    return [float(block.mean()) for block in np.array_split(scores, _BLOCKS) if block.size]


def at_depths(probe: Probe, depths: Sequence[float]) -> list[Probe]:
    """The probe with what it asks about at each depth, where it has such: a fraction, unlike a formula's."""
    if not isinstance(getattr(probe, "depth", None), float):
        return []
    return [dataclasses.replace(probe, **{"depth": float(depth)}) for depth in depths]


def _training(own: ProbesSettings, probe: Probe, learnt: Learnt, k: int) -> dict[str, Any]:
    budget, taken = own.budget, int(learnt.dispatches[k])
    step_tokens = budget.batch(probe) * probe.length  # of what is read
    return {
        "trained_tokens": taken * budget.dispatch * step_tokens,
        "stopped_early": taken < budget.dispatches(probe),
        "loss": learnt.loss[:taken, k].tolist(),
        "seconds": learnt.seconds / learnt.loss.shape[1],
        "device": device_name(),
    }


def _row(question: Question, test: int, results: Sequence[Any], own: ProbesSettings) -> dict[str, Any]:
    """The one schema of all probes: what was asked, the figures that are known, and a value per seed."""
    probe, core = question.tests[test], question.core
    figures = {which: getattr(probe, which)() for which in ("random", "blind", "reference")}
    deep, measured = at_depths(probe, own.depths), results[0]["measures"][test]
    return {
        "label": question.case.label,
        "core": question.case.name,
        "features": core.features,
        "parameters": count_core(core),
        "state_bytes": state_bytes(core),
        "token_flops": token_flops(core),
        "probe": question.probe_name,
        "category": probe_category(question.probe_name),
        "options": dataclasses.asdict(probe),
        "mode": own.mode,
        "baseline": question.baseline,
        "trained_length": question.probe.length,
        "length": probe.length,
        "scope": probe.scope,
        "diffusion": round(probe.diffusion, 4),
        "distractor_similarity": probe.distractor_similarity,
        **{which: figure._asdict() for which, figure in figures.items()},
        "seeds": list(question.seeds),
        "scores": [float(np.mean(result["blocks"][test])) for result in results],
        "blocks": [result["blocks"][test] for result in results],
        "measures": {name: [result["measures"][test][name] for result in results] for name in measured},
        "tallies": {
            name: [result["tallies"][test][name] for result in results]
            for name in results[0]["tallies"][test]
        },
        "depths": own.depths if deep else [],
        "depth_scores": [result["depths"][test] for result in results] if deep else [],
        "trained_tokens": [result["trained_tokens"] for result in results],
        "stopped_early": [result["stopped_early"] for result in results],
        "seconds": [result["seconds"] for result in results],
        "devices": sorted({result["device"] for result in results}),
        "maps": results[0].get("maps") if own.maps and test == 0 else None,
    }
