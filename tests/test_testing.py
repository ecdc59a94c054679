"""`check_core` must be able to fail: every core here breaks one law on purpose."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from resetta.cores import Core
from resetta.cores.base import clear
from resetta.testing import LAWS, check_core


class Average(Core):
    """An honest leaky average; the wrong cores below are this with one thing changed."""

    def initial_carry(self, batch, size=None):
        return jnp.zeros((batch, self.features), jnp.float32)

    def forget(self, h, reset):
        return clear(h, reset, jnp.zeros_like(h))

    def look(self, u):
        return u

    def loop(self, carry, u, reset):
        def step(h, inputs):
            u, reset = inputs
            h = 0.9 * self.forget(h, reset) + 0.1 * u
            return h, h

        return jax.lax.scan(step, carry, (u, reset))

    @nn.compact
    def __call__(self, carry, x, reset):
        u = self.look(nn.Dense(self.features)(x.astype(jnp.float32)))
        if x.shape[0] == 1:
            h = 0.9 * self.forget(carry, reset[0]) + 0.1 * u[0]
            return h, h[None].astype(x.dtype)
        h, hs = self.loop(carry, u, reset)
        return h, hs.astype(x.dtype)


class Multiplies(Average):
    """0 * NaN is NaN."""

    def forget(self, h, reset):
        return h * (1 - reset[:, None])


class SelectsTooLate(Average):
    """Selects the value but not what it was computed from: 0 * NaN again, in the gradient."""

    @nn.compact
    def __call__(self, carry, x, reset):
        u = nn.Dense(self.features)(x.astype(jnp.float32))
        kernel = self.param("kernel", nn.initializers.normal(0.1), (self.features, self.features))

        def step(h, inputs):
            u, reset = inputs
            h = jnp.where(reset[:, None], u, u + jnp.tanh(h @ kernel))
            return h, h

        h, hs = jax.lax.scan(step, carry, (u, reset))
        return h, hs.astype(x.dtype)


class Forgetful(Average):
    """Resets to something that is not the initial carry."""

    def forget(self, h, reset):
        return clear(h, reset, jnp.full_like(h, 0.1))


class ResetsLate(Average):
    """Clears the memory after the first input of the new sequence."""

    def loop(self, carry, u, reset):
        def step(h, inputs):
            u, reset = inputs
            h = 0.9 * h + 0.1 * u
            return self.forget(h, reset), h

        return jax.lax.scan(step, carry, (u, reset))


class LeaksALittle(Average):
    """A reset that keeps one part in ten thousand: below any tolerance on values, but not zero."""

    def forget(self, h, reset):
        return h * jnp.where(reset[:, None], 1e-6, 1.0)


class LooksAhead(Average):
    """Subtracts the mean over the chunk."""

    def look(self, u):
        return u - u.mean(0, keepdims=True)


class BatchNorm(Average):
    """Normalises across rows."""

    def look(self, u):
        return u - u.mean(1, keepdims=True)


class Drifts(Average):
    """Keeps its memory in the dtype of the inputs."""

    @nn.compact
    def __call__(self, carry, x, reset):
        h, hs = self.loop(carry, nn.Dense(self.features)(x.astype(jnp.float32)), reset)
        return h.astype(x.dtype), hs.astype(x.dtype)


class TimeFirst(Average):
    """Its carry does not begin with the batch."""

    def initial_carry(self, batch, size=None):
        return jnp.zeros((self.features, batch), jnp.float32)


class Widens(Average):
    """Answers in float32 whatever it is asked in."""

    @nn.compact
    def __call__(self, carry, x, reset):
        return self.loop(carry, nn.Dense(self.features)(x.astype(jnp.float32)), reset)


class ScansOneStep(Average):
    """Runs a loop even for one step."""

    @nn.compact
    def __call__(self, carry, x, reset):
        h, hs = self.loop(carry, nn.Dense(self.features)(x.astype(jnp.float32)), reset)
        return h, hs.astype(x.dtype)


class ForgetsBetweenChunks(Average):
    """Starts every longer chunk afresh."""

    def loop(self, carry, u, reset):
        return super().loop(jnp.zeros_like(carry), u, reset)


class RootAtZero(Average):
    """Finite values whose gradient is not."""

    def look(self, u):
        return u + jnp.sqrt(u - u)


class Engines(Average):
    """One of its engines computes something else."""

    engine: str | None = None

    def look(self, u):
        return 1.1 * u if self.engine == "associative" else u


class Bare(Average):
    """Has nothing to learn; an honest one."""

    def __call__(self, carry, x, reset):
        return carry, 2 * x


class Raises(Average):
    """Never gets as far as an answer."""

    def look(self, u):
        raise RuntimeError("out of order")


@pytest.mark.parametrize(
    ("wrong", "law", "words"),
    [
        (Multiplies, 4, "nan in the stale carry reaches past a reset"),
        (Multiplies, 4, "nan in the inputs before a reset reaches past it"),
        (SelectsTooLate, 4, "gradients after a reset not finite"),
        (Forgetful, 3, "a reset at the first step differs from initial_carry"),
        (ResetsLate, 3, "from a reset at step 3 on, outputs differ from a fresh start"),
        (LeaksALittle, 4, "should be exactly 0"),
        (LooksAhead, 5, "for s > t"),
        (BatchNorm, 6, "one row's output depends on another row"),
        (BatchNorm, 6, "NaN in one row changes the others"),
        (Drifts, 7, "changes from float32[3, 8] to bfloat16[3, 8]"),
        (TimeFirst, 7, "put the batch first"),
        (Widens, 7, "it should have the dtype of x"),
        (ScansOneStep, 1, "a single step runs a scan of length 1"),
        (ForgetsBetweenChunks, 1, "12 single steps differ from one call"),
        (ForgetsBetweenChunks, 2, "differ from the whole"),
        (RootAtZero, 8, "gradients of the parameters are not finite"),
        (Engines, 9, "engine='associative' differs from engine=None"),
        (Raises, 7, "raised RuntimeError: out of order"),
    ],
)
def test_a_broken_law_is_found(wrong, law, words):
    findings = _findings(wrong)
    assert any(f.law == law and words in str(f) for f in findings), [str(f) for f in findings]


def test_an_honest_core_passes():
    assert _findings(Average) == []


def test_a_core_without_parameters_passes():
    assert check_core(Bare(features=5), width=5) == []


def test_a_finding_reads_as_a_sentence():
    (finding,) = [f for f in _findings(ScansOneStep) if f.law == 1]
    assert (
        str(finding) == "law 1 (step = sequence): a single step runs a scan of length 1: T=1 must cost a step"
    )


def test_exempt_laws_are_not_run():
    assert check_core(Multiplies(features=8), exempt=tuple(LAWS)) == []


_CACHE = {}


def _findings(cls):
    if cls not in _CACHE:
        _CACHE[cls] = check_core(cls(features=8), width=5)
    return _CACHE[cls]
