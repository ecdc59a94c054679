"""Does a sequence core obey the laws? `check_core(core)` returns what it found, in words.

The laws (the interface is in `resetta.cores.Core`):

1. step = sequence: T calls with T=1 equal one call with T, and a single step runs no loop over time.
2. chunks: any split of T, the carry passed on, equals the whole.
3. reset = fresh start: from a reset on, outputs equal those from `initial_carry`.
4. nothing leaks: NaN or infinity before a reset never reaches after it; d y_after / d x_before is exactly 0.
5. causality: d y_t / d x_s = 0 for s > t.
6. batch rows are independent.
7. the carry's structure, shapes and dtypes never change; leaves begin with the batch axis; floats are fp32.
8. `jit`, `vmap` over seeds, finite gradients, bfloat16 inputs.
9. scan engines agree, in values and gradients.
10. it can learn: to recall, after a delay, the first symbol since the reset (`check_learning`).
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .cores import Core

LAWS = {
    1: "step = sequence",
    2: "chunks",
    3: "reset = fresh start",
    4: "nothing leaks",
    5: "causality",
    6: "batch rows are independent",
    7: "the carry keeps its form",
    8: "jit, vmap, grad, bfloat16",
    9: "engines agree",
    10: "it can learn",
}


@dataclasses.dataclass(frozen=True)
class Finding:
    """One way in which a core breaks a law; `str` of it is a line to read."""

    law: int
    text: str

    def __str__(self) -> str:
        return f"law {self.law} ({LAWS[self.law]}): {self.text}"


def check_core(
    core: Core,
    *,
    width: int = 8,
    size: tuple[int, int] = (4, 4),
    exempt: Sequence[int] = (),
    tolerance: float = 1e-4,
    learn: bool = False,
) -> list[Finding]:
    """Run the laws on `core` and return the findings: empty when all hold.

    Inputs are `[12, 3, width]` (`[12, 3, *size, width]` for a spatial core), so give the core few features:
    8 keeps a check at a few seconds. `tolerance` is relative to the largest output. Laws in `exempt` are not
    run; a core with `engine="paper"` is exempt from law 4. `learn` also runs law 10, which trains.

    Never raises for a fault of the core: an exception inside it is a finding.
    """
    paper = getattr(core, "engine", None) == "paper"
    with jax.default_matmul_precision("highest"):
        bench = _Bench(core, width, size, tolerance)
        # Nothing else can be asked of a core whose carry has no fixed form.
        findings = _run(7, _form, bench)
        if findings:
            return findings
        for law, check in _CHECKS.items():
            if law not in exempt and not (law == 4 and paper):
                findings += _run(law, check, bench)
    if learn and 10 not in exempt:
        findings += check_learning(core)
    return findings


def _run(law: int, check: Callable[["_Bench"], list[str]], bench: "_Bench") -> list[Finding]:
    try:
        texts = check(bench)
    except Exception as error:  # whatever a core may do wrong is a finding
        reason = str(error).strip().split("\n")[0]
        texts = [f"raised {type(error).__name__}: {reason}"]
    return [Finding(law, text) for text in texts]


# --- what the laws are tried on -----------------------------------------------------------------------------

_T, _B, _CHUNK = 12, 3, 4
# In the middle and at the end of a chunk, at the first and the last step, twice running, and never.
_RESETS = ((3, 7), (0, 9, 10), (11,))


class _Bench:
    """A core with parameters, inputs and a few compiled functions, made when first needed and then shared."""

    def __init__(self, core: Core, width: int, size: tuple[int, int], tolerance: float) -> None:
        self.core, self.tolerance = core, tolerance
        self.function: Callable[..., Any] = core.apply
        self.size = size if core.spatial else None
        self.shape = (*size, width) if core.spatial else (width,)
        rng = np.random.default_rng(0)
        self.x, self.x2 = rng.normal(size=(2, _T, _B, *self.shape)).astype(np.float32)
        self.reset = np.zeros((_T, _B), bool)
        for row, times in enumerate(_RESETS):
            self.reset[list(times), row] = True
        self.never = np.zeros((_T, _B), bool)
        self.at_start = self.never.copy()
        self.at_start[0] = True
        self.apply = _jit(self.function)

    def empty(self, batch: int = _B) -> Any:
        return (
            self.core.initial_carry(batch) if self.size is None else self.core.initial_carry(batch, self.size)
        )

    @cached_property
    def seeds(self) -> Any:
        """Parameters of two seeds, stacked; moved a little, so that nothing is hidden by a zero at birth."""
        # This generator compiles in a fraction of the default one's time.
        keys = jax.random.split(jax.random.key(0, impl="unsafe_rbg"), 2)
        init = _jit(lambda key: self.core.init(key, self.empty(), self.x, self.never))
        rng = np.random.default_rng(1)
        return jax.tree.map(
            lambda *seeds: np.stack([p + 0.05 * rng.normal(size=p.shape).astype(p.dtype) for p in seeds]),
            *[init(key) for key in keys],
        )

    @cached_property
    def params(self) -> Any:
        return jax.tree.map(lambda p: p[0], self.seeds)

    @cached_property
    def weight(self) -> np.ndarray:
        """A random cotangent of the output."""
        y = jax.eval_shape(self.apply, self.params, self.empty(), self.x, self.never)[1]
        return np.random.default_rng(2).normal(size=y.shape).astype(np.float32)

    @cached_property
    def warm(self) -> Any:
        """A carry with something in it."""
        return self.apply(self.params, self.empty(), self.x2, self.never)[0]

    def run(
        self, carry: Any, x: np.ndarray, reset: np.ndarray, lengths: Sequence[int] = (_T,)
    ) -> tuple[Any, np.ndarray]:
        """Consume `x` in chunks of these `lengths`."""
        outputs, start = [], 0
        for length in lengths:
            end = start + length
            carry, y = self.apply(self.params, carry, x[start:end], reset[start:end])
            outputs.append(np.asarray(y, np.float32))
            start = end
        return carry, np.concatenate(outputs)

    def after(self, carry: Any) -> np.ndarray:
        """What a carry makes of another chunk: two carries are equal when this is."""
        return self.run(carry, self.x2, self.never)[1]

    def poisoned(self, value: float) -> Any:
        """The warm carry, with `value` in every float and a plausible 3 in every counter."""
        return jax.tree.map(
            lambda a: np.full(a.shape, value if jnp.issubdtype(a.dtype, jnp.inexact) else 3, a.dtype),
            self.warm,
        )

    @cached_property
    def losses(self) -> Callable[..., Any]:
        """`(seeds, carry, x, reset) -> ((loss, y), gradients of the parameters)`, vmapped over the seeds."""

        def loss(params: Any, carry: Any, x: Array, reset: Array) -> tuple[Array, Array]:
            y = self.function(params, carry, x, reset)[1]
            return jnp.vdot(y, self.weight), y

        graded = jax.value_and_grad(loss, has_aux=True)
        # two seeds also where there are no parameters to say so
        return _jit(jax.vmap(graded, in_axes=(0, None, None, None), axis_size=2))

    @cached_property
    def sensitivity(self) -> Callable[..., Any]:
        """`(carry, x, reset)` -> how much a random part of each `y[t, b]` depends on each `x[s, b']`.

        `[T, B, T, B]` (of y, then of x); and on each float leaf of the carry, `[T, B, B]`.
        """

        def compute(params: Any, carry: Any, x: Array, reset: Array) -> Any:
            leaves, tree = jax.tree.flatten(carry)
            moving = [jnp.issubdtype(a.dtype, jnp.inexact) for a in leaves]

            def outputs(floats: list[Array], x: Array) -> Array:
                rest = iter(floats)
                full = [next(rest) if m else a for m, a in zip(moving, leaves, strict=True)]
                return self.function(params, jax.tree.unflatten(tree, full), x, reset)[1]

            y, pull = jax.vjp(outputs, [a for m, a in zip(moving, leaves, strict=True) if m], x)
            one = jnp.eye(_T * _B).reshape((_T * _B, _T, _B) + (1,) * (y.ndim - 2))
            by_carry, by_x = jax.vmap(pull)(one * self.weight)

            def strength(a: Array, kept: int) -> Array:
                return jnp.abs(a).reshape((_T, _B, *a.shape[1:kept], -1)).max(-1, initial=0.0)

            return strength(by_x, 3), [strength(a, 2) for a in by_carry]

        compiled = _jit(compute)
        return lambda carry, x, reset: compiled(self.params, carry, x, reset)

    def differs(self, a: np.ndarray, b: np.ndarray) -> str | None:
        """None if equal within the tolerance, else by how much."""
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        if not np.array_equal(np.isfinite(a), np.isfinite(b)):
            return "by NaN or infinity"
        error = np.abs(np.where(np.isfinite(a), a - b, 0.0)).max(initial=0.0)
        scale = max(1.0, np.abs(np.where(np.isfinite(b), b, 0.0)).max(initial=0.0))
        return f"by up to {error:.1e}" if error > self.tolerance * scale else None


def _jit(function: Callable[..., Any], optimise: int = 0) -> Any:
    # The laws are about values, and on a CPU most of a check is compiling: optimising would double it, and
    # XLA's older way of writing fusions halves it.
    options = {"xla_backend_optimization_level": optimise, "xla_cpu_use_fusion_emitters": False}
    return jax.jit(function, compiler_options=options if jax.default_backend() == "cpu" else None)


def _finite(tree: Any) -> bool:
    return all(np.isfinite(np.asarray(a, np.float32)).all() for a in jax.tree.leaves(tree))


# --- the laws -----------------------------------------------------------------------------------------------


def _form(bench: _Bench) -> list[str]:
    """Law 7."""
    core, found = bench.core, []
    carry, other = bench.empty(_B), bench.empty(_B + 2)
    for (path, a), b in zip(jax.tree.leaves_with_path(carry), jax.tree.leaves(other), strict=True):
        name = f"carry{jax.tree_util.keystr(path)}"
        if a.shape[:1] != (_B,) or b.shape != (_B + 2, *a.shape[1:]):
            found.append(
                f"{name} has shape {a.shape} for batch={_B} and {b.shape} for {_B + 2}; put the batch first"
            )
        if jnp.issubdtype(a.dtype, jnp.inexact) and a.dtype not in (jnp.float32, jnp.complex64):
            found.append(f"{name} has dtype {a.dtype}; memory is kept in float32")
    if found:
        return found
    form = jax.eval_shape(lambda c: c, carry)
    params = jax.eval_shape(lambda: core.init(jax.random.key(0), carry, bench.x, bench.never))
    for dtype in (jnp.float32, jnp.bfloat16):
        for length in (1, _CHUNK):
            x = jax.ShapeDtypeStruct((length, *bench.x.shape[1:]), dtype)
            reset = jax.ShapeDtypeStruct((length, _B), bool)
            after, y = jax.eval_shape(bench.apply, params, form, x, reset)
            given = f"x {dtype.__name__}{list(x.shape)}"
            if jax.tree.structure(after) != jax.tree.structure(form):
                found.append(
                    f"{given}: the carry turns from {jax.tree.structure(form)} to {jax.tree.structure(after)}"
                )
                continue
            for (path, a), b in zip(jax.tree.leaves_with_path(form), jax.tree.leaves(after), strict=True):
                if (a.shape, a.dtype) != (b.shape, b.dtype):
                    found.append(
                        f"{given}: carry{jax.tree_util.keystr(path)} changes from {a.dtype}{list(a.shape)} "
                        f"to {b.dtype}{list(b.shape)}"
                    )
            shape = (*x.shape[:-1], core.features)
            if y.shape != shape:
                found.append(f"{given}: the output has shape {y.shape} and should have {shape}")
            if y.dtype != dtype:
                found.append(f"{given}: the output is {y.dtype}; it should have the dtype of x")
    return found


def _steps(bench: _Bench) -> list[str]:
    """Law 1."""
    found = []
    carry, y = bench.run(bench.warm, bench.x, bench.reset)
    stepped, y1 = bench.run(bench.warm, bench.x, bench.reset, (1,) * _T)
    if error := bench.differs(y1, y):
        found.append(f"{_T} single steps differ from one call {error}")
    elif error := bench.differs(bench.after(stepped), bench.after(carry)):
        found.append(f"after {_T} single steps the carry's future differs from that after one call {error}")

    # A loop over layers is as long at any T; a loop over time is not.
    longer = _loops(bench, _CHUNK)
    for loop in _loops(bench, 1):
        if loop in longer:
            longer.remove(loop)
        else:
            found.append(f"a single step runs a {loop}: T=1 must cost a step")
    return found


def _loops(bench: _Bench, length: int) -> list[str]:
    """The loops in the program for `length` steps, as words."""
    program = bench.apply.trace(bench.params, bench.empty(), bench.x[:length], bench.reset[:length])

    def loops(jaxpr: Any) -> list[str]:
        found = []
        for equation in jaxpr.eqns:
            if equation.primitive.name == "scan":
                found.append(f"scan of length {equation.params['length']}")
            elif equation.primitive.name == "while":
                found.append("while loop")
            for inner in jax.tree.leaves(equation.params, is_leaf=_is_jaxpr):
                if _is_jaxpr(inner):
                    found += loops(getattr(inner, "jaxpr", inner))
        return found

    return loops(program.jaxpr.jaxpr)


def _is_jaxpr(a: Any) -> bool:
    return hasattr(a, "eqns") or hasattr(a, "jaxpr")


def _chunks(bench: _Bench) -> list[str]:
    """Law 2."""
    found = []
    carry, y = bench.run(bench.warm, bench.x, bench.reset)
    for lengths in ((_CHUNK,) * 3, (1, _CHUNK, 1, 1, _CHUNK, 1)):
        split, y2 = bench.run(bench.warm, bench.x, bench.reset, lengths)
        if error := bench.differs(y2, y):
            found.append(f"chunks of {lengths} differ from the whole {error}")
        elif error := bench.differs(bench.after(split), bench.after(carry)):
            found.append(f"after chunks of {lengths} the carry's future differs from the whole's {error}")
    return found


def _fresh(bench: _Bench) -> list[str]:
    """Law 3."""
    found = []
    carry, y = bench.run(bench.warm, bench.x, bench.at_start)
    fresh, expected = bench.run(bench.empty(), bench.x, bench.never)
    if error := bench.differs(y, expected):
        found.append(f"a reset at the first step differs from initial_carry {error}")
    elif error := bench.differs(bench.after(carry), bench.after(fresh)):
        found.append(f"after a reset at the first step the carry's future differs from a fresh one's {error}")
    _, y = bench.run(bench.warm, bench.x, bench.reset)
    for nth in range(max(map(len, _RESETS))):
        starts = {row: times[nth] for row, times in enumerate(_RESETS) if nth < len(times)}
        # Each row's sequence, moved to the front: causality makes what is behind it irrelevant.
        x = np.array(bench.x)
        for row, start in starts.items():
            x[:, row] = np.roll(x[:, row], -start, axis=0)
        expected = bench.run(bench.empty(), x, bench.never)[1]
        for row, start in starts.items():
            end = min((t for t in _RESETS[row] if t > start), default=_T)
            if error := bench.differs(y[start:end, row], expected[: end - start, row]):
                found.append(f"from a reset at step {start} on, outputs differ from a fresh start {error}")
    return found


def _leaks(bench: _Bench) -> list[str]:
    """Law 4."""
    found = []
    fresh, expected = bench.run(bench.empty(), bench.x, bench.never)
    future = bench.after(fresh)
    clean_carry, clean = bench.run(bench.warm, bench.x, bench.reset)
    segment = np.cumsum(bench.reset, axis=0)
    before = segment < segment[-1]  # [T, B]: before the last reset of its row
    for value in (np.nan, np.inf):
        stale = bench.poisoned(value)
        for lengths, name in (((_T,), "a sequence"), ((1,) * _T, "single steps")):
            carry, y = bench.run(stale, bench.x, bench.at_start, lengths)
            if error := bench.differs(y, expected):
                found.append(
                    f"{value} in the stale carry reaches past a reset in {name}: outputs differ {error}"
                )
            elif error := bench.differs(bench.after(carry), future):
                found.append(
                    f"{value} in the stale carry outlives a reset in {name}: the future differs {error}"
                )
        x = np.where(before.reshape(before.shape + (1,) * len(bench.shape)), np.float32(value), bench.x)
        carry, y = bench.run(bench.warm, x, bench.reset)
        if error := bench.differs(y[~before], clean[~before]):
            found.append(f"{value} in the inputs before a reset reaches past it: outputs differ {error}")
        elif error := bench.differs(bench.after(carry), bench.after(clean_carry)):
            found.append(f"{value} in the inputs before a reset outlives it: the future differs {error}")
        if not _finite(bench.losses(bench.seeds, stale, bench.x, bench.at_start)[1]):
            found.append(f"{value} in the stale carry makes the gradients after a reset not finite")
    by_x, by_carry = (
        jax.tree.map(np.asarray, s) for s in bench.sensitivity(bench.warm, bench.x, bench.reset)
    )
    past = segment[:, None, :] > segment[None, :, :]  # [t, s, b]: s lies before a reset that t lies after
    leak = np.abs(np.einsum("tbsb->tsb", by_x))[past].max(initial=0.0)
    if leak != 0.0:
        found.append(f"d y_after / d x_before is {leak:.1e} and should be exactly 0")
    leak = max((np.einsum("tbb->tb", a)[segment > 0].max(initial=0.0) for a in by_carry), default=0.0)
    if leak != 0.0:
        found.append(f"d y_after / d carry is {leak:.1e} after a reset and should be exactly 0")
    return found


def _causal(bench: _Bench) -> list[str]:
    """Law 5."""
    by_x = np.asarray(bench.sensitivity(bench.empty(), bench.x, bench.never)[0])
    t, s = np.arange(_T)[:, None], np.arange(_T)[None]
    leak = np.einsum("tbsb->tsb", by_x)[s > t].max()
    return [f"d y_t / d x_s is up to {leak:.1e} for s > t"] if not leak <= 1e-6 * max(1.0, by_x.max()) else []


def _rows(bench: _Bench) -> list[str]:
    """Law 6."""
    found = []
    by_x, by_carry = bench.sensitivity(bench.warm, bench.x, bench.reset)
    by_x, other = np.asarray(by_x), ~np.eye(_B, dtype=bool)
    leak = max(
        a.max(initial=0.0)
        for a in (by_x.swapaxes(1, 2)[..., other], *(np.asarray(a)[:, other] for a in by_carry))
    )
    if not leak <= 1e-6 * max(1.0, by_x.max()):
        found.append(f"one row's output depends on another row: a derivative of {leak:.1e}")
    clean = bench.run(bench.warm, bench.x, bench.reset)[1]
    x = bench.x.copy()
    x[:, 0] = np.nan
    y = bench.run(bench.warm, x, bench.reset)[1]
    if error := bench.differs(y[:, 1:], clean[:, 1:]):
        found.append(f"NaN in one row changes the others {error}")
    return found


def _transforms(bench: _Bench) -> list[str]:
    """Law 8."""
    found = []
    (_, ys), gradients = bench.losses(bench.seeds, bench.warm, bench.x, bench.reset)
    if error := bench.differs(ys[0], bench.run(bench.warm, bench.x, bench.reset)[1]):
        found.append(f"vmapped over seeds, outputs differ from a single seed's {error}")
    if not _finite(gradients):
        found.append("the gradients of the parameters are not finite")
    y = bench.apply(bench.params, bench.warm, jnp.bfloat16(bench.x[:_CHUNK]), bench.reset[:_CHUNK])[1]
    if not _finite(y):
        found.append("bfloat16 inputs give outputs that are not finite")
    return found


def _engines(bench: _Bench) -> list[str]:
    """Law 9."""
    if not hasattr(bench.core, "engine"):
        return []
    from .cores.scan import ENGINES, resolve_engine

    engines = [name for name in ENGINES if name != "chunked" or resolve_engine(None) == "chunked"]
    found, length = [], 7  # an odd length, and few levels of an associative scan to compile
    params, warm, weight = bench.params, bench.warm, bench.weight[:length]

    def outcome(core: Core) -> tuple[np.ndarray, list[np.ndarray]]:
        def loss(params: Any, x: Array) -> tuple[Array, Array]:
            apply: Callable[..., Any] = core.apply
            y = apply(params, warm, x, bench.reset[:length])[1]
            return (y * weight).sum(), y

        (_, y), gradients = _jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(params, bench.x[:length])
        return np.asarray(y), [np.asarray(g) for g in jax.tree.leaves(gradients)]

    y, gradients = outcome(bench.core)
    for engine in engines:
        if engine == bench.core.engine:
            continue
        other, others = outcome(bench.core.clone(engine=engine))
        if error := bench.differs(other, y):
            found.append(f"engine={engine!r} differs from engine={bench.core.engine!r} {error}")
        errors = [bench.differs(a, b) for a, b in zip(others, gradients, strict=True)]
        if error := next(filter(None, errors), None):
            found.append(f"engine={engine!r}: gradients differ from engine={bench.core.engine!r}'s {error}")
    return found


_CHECKS = {
    1: _steps,
    2: _chunks,
    3: _fresh,
    4: _leaks,
    5: _causal,
    6: _rows,
    8: _transforms,
    9: _engines,
}


# --- law 10 -------------------------------------------------------------------------------------------------


def check_learning(
    core: Core,
    *,
    delay: int = 10,
    floor: float = 0.9,
    steps: int = 150,
    learning_rate: float = 1e-2,
    size: tuple[int, int] = (2, 2),
) -> list[Finding]:
    """Law 10: train `core` and a linear readout to name, `delay` steps on, the first symbol since the reset.

    Another symbol, which the reset makes obsolete, comes before; noise comes between. Chance is 1/4 and
    `floor` the accuracy asked for on fresh sequences after `steps` steps of Adam. A bounded memory (an
    attention window) has to reach back `delay` steps.
    """
    accuracy = _run_learning(core, delay, steps, learning_rate, size)
    if isinstance(accuracy, Finding):
        return [accuracy]
    if accuracy >= floor:
        return []
    text = (
        f"recalls the first symbol {delay} steps on with accuracy {accuracy:.2f}, below {floor} (chance 0.25)"
    )
    return [Finding(10, text)]


def _run_learning(
    core: Core, delay: int, steps: int, learning_rate: float, size: tuple[int, int]
) -> float | Finding:
    import optax

    symbols, batch = 4, 32
    length = 2 + delay
    plane = size if core.spatial else ()

    def episode(key: Array) -> tuple[Array, Array, Array]:
        """x `[T, B, 8]`: symbols in the first four channels, noise in the others; reset; the answer."""
        noise, symbol, when = jax.random.split(key, 3)
        shown = jax.random.randint(symbol, (2, batch), 0, symbols)
        start = jax.random.randint(when, (batch,), 1, 3)
        time = jnp.arange(length)[:, None]
        cue = (time == 0)[..., None] * jax.nn.one_hot(shown[0], symbols)
        cue += (time == start)[..., None] * jax.nn.one_hot(shown[1], symbols)
        x = jnp.concatenate([cue, 0.5 * jax.random.normal(noise, (length, batch, 4))], axis=-1)
        x = jnp.broadcast_to(x[:, :, *[None] * len(plane)], (length, batch, *plane, 8))
        return x, time == start, shown[1]

    def logits(params: Any, x: Array, reset: Array) -> Array:
        carry = core.initial_carry(batch, size) if core.spatial else core.initial_carry(batch)
        apply: Callable[..., Any] = core.apply
        y = apply(params["core"], carry, x, reset)[1][-1]
        return y.reshape(batch, -1, y.shape[-1]).mean(1) @ params["readout"]

    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(learning_rate))

    def train(key: Array) -> Array:
        init, data, test = jax.random.split(key, 3)
        x, reset, _ = episode(init)
        carry = core.initial_carry(batch, size) if core.spatial else core.initial_carry(batch)
        params = {
            "core": core.init(init, carry, x, reset),
            "readout": 0.1 * jax.random.normal(init, (core.features, symbols)),
        }

        def update(state: Any, key: Array) -> tuple[Any, None]:
            params, moments = state
            x, reset, answer = episode(key)

            def loss(params: Any) -> Array:
                return optax.softmax_cross_entropy_with_integer_labels(
                    logits(params, x, reset), answer
                ).mean()

            updates, moments = optimiser.update(jax.grad(loss)(params), moments, params)
            return (optax.apply_updates(params, updates), moments), None

        state = (params, optimiser.init(params))
        (params, _), _ = jax.lax.scan(update, state, jax.random.split(data, steps))

        def score(key: Array) -> Array:
            x, reset, answer = episode(key)
            return (logits(params, x, reset).argmax(-1) == answer).mean()

        return jax.lax.map(score, jax.random.split(test, 8)).mean()

    try:
        # Unoptimised convolutions are fifty times as slow; all else is over before optimising would pay.
        return float(_jit(train, optimise=int(core.spatial))(jax.random.key(0)))
    except Exception as error:
        return Finding(10, f"raised {type(error).__name__}: {str(error).strip().splitlines()[0]}")
