"""Hand-written controllers: yardsticks that a score can be set against, and proofs that a task is solvable.

A controller sees what an agent sees, observation after observation, and may remember. None of them is
claimed to be optimal unless its docstring says so. The noisy tasks' controllers are extended Kalman
filters that also model the clipping of the observation.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments.classic_control import cartpole
from jaxtyping import Array, Float

from .base import BaseEnv
from .cartpole_catch import OBSERVATION_SCALE
from .memory.players import PLAYERS, Player


class Controller(NamedTuple):
    """`act(carry, observation) -> carry, action` for one environment, beginning from `initial`."""

    initial: Any
    act: Callable[[Any, Array], tuple[Any, Array]]


def controller(base_env: BaseEnv) -> Controller | None:
    """The controller for a registered environment, or None where there is none."""
    family, _, grade = base_env.name.rpartition("_")
    build = _CONTROLLERS.get(family if grade in ("easy", "medium", "hard") else base_env.name)
    return build(base_env) if build else None


def _memoryless(act: Callable[[Array], Array]) -> Callable[[BaseEnv], Controller]:
    return lambda base_env: Controller((), lambda carry, observation: (carry, act(observation)))


# Of position, velocity, angle and angular velocity. Under heavy noise the rates deserve more trust.
_GAINS, _NOISY_GAINS = (0.1, 0.5, 5.0, 1.2), (0.05, 0.25, 5.0, 1.6)


def push(state: Float[Array, " 4"], gains: tuple[float, ...] = _GAINS) -> Array:
    """CartPole: push towards where the pole falls; (x, x', θ, θ') to 0 or 1."""
    return (state @ jnp.array(gains) > 0).astype(jnp.int32)


def swing_up(theta: Array, theta_dot: Array) -> Float[Array, " 1"]:
    """Pendulum: pump energy towards that of the upright, then a PD law near it; a torque in [−2, 2]."""
    angle = (theta + jnp.pi) % (2 * jnp.pi) - jnp.pi
    energy = theta_dot**2 / 6 + 5 * (jnp.cos(angle) - 1)
    pump = -2 * jnp.sign(energy) * jnp.where(theta_dot < 0, -1.0, 1.0)
    near = (jnp.abs(angle) < 0.6) & (jnp.abs(theta_dot) < 3)
    return jnp.clip(jnp.where(near, -(10 * angle + 2 * theta_dot), pump), -2, 2).reshape(1)


def _stateless_cartpole(base_env: BaseEnv) -> Controller:
    """Velocities from differences; none is known at the first step."""
    tau = base_env.params.tau

    def act(carry, observation):
        previous, steps = carry
        velocity = jnp.where(steps > 0, (observation - previous) / tau, 0.0)
        state = jnp.stack([observation[0], velocity[0], observation[1], velocity[1]])
        return (observation, steps + 1), push(state)

    return Controller((jnp.zeros(2), jnp.int32(0)), act)


def _stateless_pendulum(base_env: BaseEnv) -> Controller:
    """The velocity from the turn since the last step, exact in this integrator; unknown at the first step."""
    dt = base_env.params.dt

    def act(carry, observation):
        previous, steps = carry
        theta = jnp.arctan2(observation[1], observation[0])
        turn = (theta - previous + jnp.pi) % (2 * jnp.pi) - jnp.pi
        return (theta, steps + 1), swing_up(theta, jnp.where(steps > 0, turn / dt, 0.0))

    return Controller((jnp.float32(0), jnp.int32(0)), act)


_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(20)
_WEIGHTS = _WEIGHTS / math.sqrt(2 * math.pi)


def _clipped(mean: Array, noise: float, bound: Array | float) -> tuple[Array, Array, Array]:
    """Mean, its slope and the variance of clip(mean + noise·n, ±bound), n standard normal; elementwise."""
    limit = jnp.asarray(bound)[..., None]
    draws = jnp.clip(mean[..., None] + noise * _NODES, -limit, limit)
    first, second = (draws * _WEIGHTS).sum(-1), (draws**2 * _WEIGHTS).sum(-1)
    below, above = (-bound - mean) / noise, (bound - mean) / noise
    slope = jax.scipy.stats.norm.cdf(above) - jax.scipy.stats.norm.cdf(below)
    return first, slope, jnp.maximum(second - first**2, 1e-4 * noise**2)


def _correct(mean: Array, cov: Array, seen: Array, expected: Array, jacobian: Array, variance: Array):
    """The Kalman update with independent measurement noises."""
    innovation = jacobian @ cov @ jacobian.T + jnp.diag(variance)
    gain = jnp.linalg.solve(innovation, jacobian @ cov).T
    return mean + gain @ (seen - expected), cov - gain @ jacobian @ cov


def _noisy_cartpole(base_env: BaseEnv) -> Controller:
    params, bound = base_env.params, jnp.asarray(base_env.env.observation_space(base_env.params).high)
    plant = cartpole.CartPole()

    def advance(state, action):
        x, x_dot, theta, theta_dot = state
        before = cartpole.EnvState(x=x, x_dot=x_dot, theta=theta, theta_dot=theta_dot, time=0)
        return plant.step_env(jax.random.key(0), before, action, params)[0]

    def linear(state, action):
        # gymnax detaches its transitions; central differences stand in for their derivative.
        steps = 1e-2 * jnp.eye(4)
        return jax.vmap(lambda d: (advance(state + d, action) - advance(state - d, action)) / 2e-2)(steps).T

    def act(carry, observation):
        mean, cov = carry
        expected, slope, variance = _clipped(mean[jnp.array([0, 2])], params.noise, bound)
        jacobian = jnp.zeros((2, 4)).at[0, 0].set(slope[0]).at[1, 2].set(slope[1])
        mean, cov = _correct(mean, cov, observation, expected, jacobian, variance)
        action = push(mean, _NOISY_GAINS)
        transition = linear(mean, action)
        return (advance(mean, action), transition @ cov @ transition.T + 1e-7 * jnp.eye(4)), action

    return Controller((jnp.zeros(4), jnp.eye(4) * 0.05**2 / 3), act)  # the start's own spread


def _noisy_pendulum(base_env: BaseEnv) -> Controller:
    params = base_env.params

    def act(carry, observation):
        mean, cov, steps = carry
        first = jnp.arctan2(observation[1], observation[0])
        mean = jnp.where(steps > 0, mean, jnp.stack([first, 0.0]))
        cov = jnp.where(steps > 0, cov, jnp.diag(jnp.array([max(params.noise, 0.05) ** 2 * 4, 1 / 3])))
        direction = jnp.stack([jnp.cos(mean[0]), jnp.sin(mean[0])])
        expected, slope, variance = _clipped(direction, params.noise, 1.0)
        jacobian = jnp.zeros((2, 2)).at[:, 0].set(slope * jnp.stack([-direction[1], direction[0]]))
        corrected = _correct(mean, cov, observation, expected, jacobian, variance)
        # The first observation has been spent on the first estimate.
        mean, cov = jax.tree.map(lambda new, old: jnp.where(steps > 0, new, old), corrected, (mean, cov))
        action = swing_up(mean[0], mean[1])
        pull = 3 * params.g / (2 * params.l)
        push_ = 3 / (params.m * params.l**2)
        speed = mean[1] + (pull * jnp.sin(mean[0]) + push_ * action[0]) * params.dt
        speed = jnp.clip(speed, -params.max_speed, params.max_speed)
        kick = pull * jnp.cos(mean[0]) * params.dt
        transition = jnp.stack([jnp.stack([1 + kick * params.dt, params.dt]), jnp.stack([kick, 1.0])])
        cov = transition @ cov @ transition.T + jnp.diag(jnp.array([1e-6, 1e-4]))
        return (jnp.stack([mean[0] + speed * params.dt, speed]), cov, steps + 1), action

    return Controller((jnp.zeros(2), jnp.eye(2), jnp.int32(0)), act)


def _remembering(player: Callable[[BaseEnv], Player]) -> Callable[[BaseEnv], Controller]:
    return lambda base_env: Controller(*player(base_env))


_CONTROLLERS: dict[str, Callable[[BaseEnv], Controller]] = {
    **{family: _remembering(player) for family, player in PLAYERS.items()},
    # The torque works on the second joint: along its velocity it always adds energy.
    "acrobot": _memoryless(lambda o: jnp.where(o[5] < 0, 0, 2)),
    "cartpole": _memoryless(push),
    "cartpole_catch": _memoryless(lambda o: push(o / jnp.array(OBSERVATION_SCALE))),
    "mountain_car": _memoryless(lambda o: jnp.where(o[1] < 0, 0, 2)),
    # The force costs its square: 0.4 of it still gets over the hill in time.
    "mountain_car_continuous": _memoryless(lambda o: jnp.where(o[1:2] < 0, -0.4, 0.4)),
    "noisy_stateless_cartpole": _noisy_cartpole,
    "noisy_stateless_pendulum": _noisy_pendulum,
    "pendulum": _memoryless(lambda o: swing_up(jnp.arctan2(o[1], o[0]), o[2])),
    # Optimal: every axis covers its distance as fast as it can, and the axes do not interact.
    "point_mass": _memoryless(lambda o: jnp.clip((o[2:] - o[:2]) * 10, -1, 1)),
    "stateless_cartpole": _stateless_cartpole,
    "stateless_pendulum": _stateless_pendulum,
}
