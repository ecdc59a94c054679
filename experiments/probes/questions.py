"""What `resetta bench probes` is asked: cores by probes by lengths, and the seeds of each."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from ...cores import Core
from ...cores.registry import core_names, core_options
from ...envs.probes import Probe, make_probe
from ...testing import check_core
from ..bench.core_cases import CoreCase, bytes_of, count_core, inputs, of_width
from ..bench.expand import given_keys
from ..bench.flops import count_flops
from ..config import DEVICES, build_dataclass, check_choice
from ..errors import InputError, input_errors
from ..logs import phase
from .baselines import BASELINES, Truncated, retrieved, truncated
from .learn import Budget, learn
from .maps import look_into
from .source import code_of

MODES = ("in_length", "extrapolate")
_SWEPT = ("core", "probe", "length", "options", "baseline", "keep", "seed")  # what comma lists may vary
_ADDED = ("command", "label", "variant")
_STEP = 8  # widths of cores made equal are multiples of it


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProbesSettings:
    """configs/bench/probes.yaml says what each key means."""

    cores: list[str]
    core: dict[str, Any]
    probes: list[str]
    probe: str | None
    length: int | None
    options: dict[str, Any]
    mode: str
    factors: list[int]
    equal: str | None
    amount: int
    baseline: str | None
    keep: int
    full_attention: bool
    tokens: int
    batch_tokens: int
    lr: float
    dispatch: int
    solved: float
    episodes: int
    depths: list[float]
    maps: bool
    seed: int
    seeds: int
    device: str
    precision: str
    out: str

    def __post_init__(self) -> None:
        check_choice("device", self.device, DEVICES)
        check_choice("precision", self.precision, ("default", "highest"))
        check_choice("mode", self.mode, MODES)
        if self.equal is not None:
            check_choice("equal", self.equal, tuple(MEASURES))
        if self.baseline is not None:
            check_choice("baseline", self.baseline, BASELINES)
        for name in ("amount", "keep", "tokens", "batch_tokens", "dispatch", "episodes", "seeds"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if any(not isinstance(factor, int) or factor < 2 for factor in self.factors):
            raise ValueError(f"factors={self.factors} must be whole numbers from 2, such as factors=[2,4,8]")
        if any(not 0 <= depth <= 1 for depth in self.depths):
            raise ValueError(f"depths={self.depths} must lie between 0, the beginning, and 1, the end")

    @property
    def folder(self) -> Path:
        """Where results go."""
        return Path(self.out)

    @property
    def budget(self) -> Budget:
        """How long a core is trained."""
        return Budget(**{field.name: getattr(self, field.name) for field in dataclasses.fields(Budget)})


@dataclasses.dataclass(frozen=True)
class Question:
    """A core, a probe to train it on, the probes to test it on (the first is the same), and seeds."""

    case: CoreCase
    probe_name: str
    probe: Probe
    tests: tuple[Probe, ...]
    seeds: tuple[int, ...]
    baseline: str | None = None
    keep: int = 0

    @property
    def core(self) -> Core:
        """The core, made anew; it may be cut short, see `baselines`."""
        made = self.case.make()
        if self.baseline in ("truncate", "truncate_middle"):
            return truncated(made, self.keep, self.baseline == "truncate_middle")
        return made

    def read(self, probe: Probe) -> Probe:
        """What is read of a probe: all of it, unless it is searched first."""
        return retrieved(probe, self.keep) if self.baseline == "retrieve" else probe


def read_questions(configs: Sequence[Mapping[str, Any]]) -> tuple[ProbesSettings, list[Question]]:
    """The settings, which are the same for all, and the questions; `InputError` for a mistake.

    Configurations that differ in their seed alone are one question. A user's own core is held to the laws.
    """
    found, questions = [], {}
    with input_errors():
        for config in configs:
            raw = {key: value for key, value in config.items() if key not in _ADDED}
            own: ProbesSettings = build_dataclass(ProbesSettings, raw, "")
            _check_together(own, config["command"])
            found.append(own)
            for question in _questions(own, _label(config, own), raw["core"]):
                key = (question.case.label, question.probe_name, question.probe)
                known = questions.get(key, question)
                seeds = sorted({*known.seeds, *question.seeds})
                questions[key] = dataclasses.replace(question, seeds=tuple(seeds))
    if "keep" in given_keys(configs[0]["command"]) and all(own.baseline is None for own in found):
        raise InputError(
            f"keep={found[0].keep} says nothing without baseline={'|'.join(BASELINES)}; "
            "add it, or leave keep out"
        )
    for field in dataclasses.fields(ProbesSettings):
        values = [getattr(each, field.name) for each in found]
        if field.name not in _SWEPT and any(value != values[0] for value in values):
            raise InputError(f"{field.name} takes one value, not {values[0]} and others")
    for case in {question.case.label: question.case for question in questions.values()}.values():
        _check(case)
    with input_errors(), phase("sizing the cores"):
        sized = _sized(found[0], list(questions.values()))
    return found[0], sized


def _check_together(own: ProbesSettings, command: str) -> None:
    """Raise `InputError` for settings that contradict each other."""
    if own.length is not None and "length" in own.options:
        raise InputError(f"length={own.length} and options.length={own.options['length']}; give one of them")
    given = given_keys(command)
    if own.equal is not None and "core.features" in given:
        raise InputError(f"equal={own.equal} chooses core.features for each core; leave one of the two out")
    if own.full_attention and "core.window" in given:
        raise InputError(
            "full_attention=true makes core.window as long as the longest episode; "
            "add full_attention=false, or leave core.window out"
        )
    for name, used, cure in (
        ("amount", own.equal is not None, f"equal={'|'.join(MEASURES)}"),
        ("factors", own.mode == "extrapolate", "mode=extrapolate"),
    ):
        if name in given and not used:
            value = getattr(own, name)
            raise InputError(f"{name}={value} says nothing without {cure}; add it, or leave {name} out")
    if own.equal == "state" and own.baseline in ("truncate", "truncate_middle"):
        raise InputError(
            f"equal=state is about a core's own memory, which baseline={own.baseline} does without; "
            "use equal=parameters or compute"
        )


def _label(config: Mapping[str, Any], own: ProbesSettings) -> str:
    """The core, what else of it varies, and what it is a baseline of."""
    words = [word for word in config["variant"].split() if word.startswith(("core.", "+core.", "++core."))]
    if own.baseline is not None:
        words.append(f"{own.baseline} {own.keep}")
    return " ".join([str(config["core"]["name"]).rpartition(":")[2], *words])


def _questions(own: ProbesSettings, label: str, core: Mapping[str, Any]) -> list[Question]:
    options = {key: value for key, value in core.items() if key not in ("name", "target")}
    case = CoreCase(label, str(core["name"]), options)
    if case.make().spatial:
        raise InputError(f"core={case.name} is spatial; probes are sequences of vectors, take another core")
    questions = []
    for name in own.probes if own.probe is None else [own.probe]:
        length = {} if own.length is None else {"length": own.length}
        probe = make_probe(name, **own.options, **length)
        factors = [1, *own.factors] if own.mode == "extrapolate" else [1]
        tests = [dataclasses.replace(probe, length=probe.length * factor) for factor in factors]
        seeds = range(own.seed, own.seed + own.seeds)
        question = Question(case, name, probe, tuple(tests), tuple(seeds), own.baseline, own.keep)
        if own.baseline is not None and own.keep >= probe.length:
            raise InputError(
                f"keep={own.keep} leaves out none of the {probe.length} steps of {name}; keep fewer"
            )
        _ = question.read(probe), question.core  # what can't be is said here
        questions.append(question)
    return questions


def _check(case: CoreCase) -> None:
    """The laws, for a core that isn't the package's own; `InputError` with all that was found."""
    if case.name in core_names():
        return
    with phase(f"checking {case.name} against the laws"):
        small = {"features": 8} if "features" in core_options(case.name) else {}
        findings = check_core(case.make(**small))
    if findings:
        raise InputError(f"core={case.name} breaks laws of a core: {'; '.join(map(str, findings))}")


def _sized(own: ProbesSettings, questions: list[Question]) -> list[Question]:
    """Attention windows as long as the longest episode, and widths that make cores equal."""
    longest: dict[str, int] = {}
    for question in questions:
        label = question.case.label
        longest[label] = max(longest.get(label, 2), *(test.length for test in question.tests))
    cases: dict[str, CoreCase] = {}
    for question in questions:
        case = question.case
        if case.label in cases:
            continue
        if own.full_attention and "window" in case.options:
            case = dataclasses.replace(case, options={**case.options, "window": longest[case.label]})
        if own.equal is not None and MEASURES[own.equal](case.make()):  # no width gives none a memory
            width = of_width(case, own.amount, MEASURES[own.equal], _STEP)
            case = dataclasses.replace(case, options={**case.options, "features": width})
        cases[question.case.label] = case
    return [dataclasses.replace(question, case=cases[question.case.label]) for question in questions]


def state_bytes(core: Core) -> int:
    """Bytes of one row's memory."""
    return bytes_of(jax.eval_shape(lambda: core.initial_carry(1)))


def token_flops(core: Core) -> int:
    """Operations of a token, forwards and backwards, in products (see `count_flops`)."""
    length = 64
    x, reset = inputs(core, length, 1)
    carry = jax.eval_shape(lambda: core.initial_carry(1))
    params = jax.eval_shape(core.init, jax.random.key(0), carry, x, reset)

    def total(params: Any, carry: Any, x: Any, reset: Any) -> Any:
        out: Any = core.apply(params, carry, x, reset)
        return out[1].sum()

    return count_flops(jax.grad(total, argnums=(0, 2)), params, carry, x, reset) // length


MEASURES = {"parameters": count_core, "state": state_bytes, "compute": token_flops}


def content(question: Question, own: ProbesSettings, seed: int) -> dict[str, Any]:
    """All that the result of a seed depends on; the same content is not trained twice."""
    found = {
        "core": [question.case.name, question.case.options],
        "probe": repr(question.probe),
        "tests": [repr(test) for test in question.tests],
        "budget": dataclasses.asdict(own.budget),
        "episodes": own.episodes,
        "depths": own.depths,
        "precision": own.precision,
        "seed": seed,
        "code": code_of(type(question.case.make()), type(question.probe), learn),
    }
    if question.probe.environments:
        found["environments"] = code_of(*question.probe.environments)
    if question.baseline is not None:
        found["baseline"] = [question.baseline, question.keep, code_of(Truncated)]
    if own.maps and seed == question.seeds[0]:
        found["maps"] = code_of(look_into)
    return found
