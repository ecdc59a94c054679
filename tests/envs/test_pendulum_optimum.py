"""What can be earned at most on StatelessPendulumHard: value iteration with the velocity known.

The published figures of this task are means of an update at best (arXiv 2303.01859), so that they hold luck;
the optimum says how much of them can be skill. Run with -s, it prints both figures.
"""

import jax
import jax.numpy as jnp
import numpy as np

from resetta.envs.memory.stateless_pendulum import LOWEST_REWARD
from resetta.envs.registry import make_env

ANGLES, SPEEDS, TORQUES = 200, 161, 9


def test_the_optimum_of_the_hard_task_is_little_above_its_target():
    """No player earns more than .835 on average, seeing all; one that follows the values earns as much."""
    base_env = make_env("stateless_pendulum_hard")
    params = base_env.params
    steps = params.max_steps_in_episode
    angles = jnp.arange(ANGLES) * 2 * jnp.pi / ANGLES
    speeds = jnp.linspace(-params.max_speed, params.max_speed, SPEEDS)
    torques = jnp.linspace(-params.max_torque, params.max_torque, TORQUES)

    def read(values, angle, speed):
        """Values between grid points, bilinearly; angles go round."""
        x = (angle % (2 * jnp.pi)) / (2 * jnp.pi) * ANGLES
        y = (speed + params.max_speed) / (2 * params.max_speed) * (SPEEDS - 1)
        i, j = jnp.int32(x), jnp.clip(jnp.int32(y), 0, SPEEDS - 2)
        fx, fy, i, after = x - i, y - j, i % ANGLES, (i + 1) % ANGLES
        low = (1 - fx) * values[i, j] + fx * values[after, j]
        return (1 - fy) * low + fy * ((1 - fx) * values[i, j + 1] + fx * values[after, j + 1])

    def outcomes(values, angle, speed):
        """The reward now and the value after it, for every torque along the first axis."""
        push = torques.reshape(-1, *[1] * angle.ndim)
        off = (angle + jnp.pi) % (2 * jnp.pi) - jnp.pi
        cost = off**2 + 0.1 * speed**2 + 0.001 * push**2
        faster = speed + (1.5 * params.g / params.l * jnp.sin(angle) + 3 * push / params.l**2) * params.dt
        faster = jnp.clip(faster, -params.max_speed, params.max_speed)
        return (1 + 2 * cost / LOWEST_REWARD) / steps + read(values, angle + faster * params.dt, faster)

    grid = jnp.meshgrid(angles, speeds, indexing="ij")

    @jax.jit
    def solve():
        """Values with 1, 2, ..., `steps` steps to go, the last first."""
        return jax.lax.scan(
            lambda values, _: (outcomes(values, *grid).max(0),) * 2, jnp.zeros((ANGLES, SPEEDS)), length=steps
        )[1][::-1]

    @jax.jit
    def play(to_go, key):
        """The return of one trial in the environment itself, and what the values promised at its start."""
        key, first = jax.random.split(key)
        _, state = base_env.env.reset_env(first, params)

        def step(carry, values):
            state, key = carry
            key, now = jax.random.split(key)
            best = torques[jnp.argmax(outcomes(values, state.theta, state.theta_dot))]
            _, state, reward, _, _ = base_env.env.step_env(now, state, best, params)
            return (state, key), reward

        # the values after the step that is being chosen; none after the last
        later = jnp.concatenate([to_go[1:], jnp.zeros_like(to_go[:1])])
        rewards = jax.lax.scan(step, (state, key), later)[1]
        return rewards.sum(), read(to_go[0], state.theta, state.theta_dot)

    returns, promised = jax.vmap(play, (None, 0))(solve(), jax.random.split(jax.random.key(0), 512))
    error = np.std(returns - promised) / np.sqrt(len(returns))
    print(f"optimum {promised.mean():.4f}, played {returns.mean():.4f}, error of the difference {error:.4f}")
    assert 0.825 < promised.mean() < 0.835
    assert returns.mean() > 0.825
    assert abs(returns - promised).mean() < 0.01
