"""One optimiser step of a video model: gradients, an average of the parameters, and what to do about NaN."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Float, Int

from ..cores.sharded import over_rows
from .clip import Clip
from .model import FrameModel, Memory, Variables


@struct.dataclass
class LearnerState:
    """Everything that training changes.

    `memory` is the stream's, `()` where every step begins its clips anew. `bad_in_a_row` counts the steps
    just skipped because their loss or gradient was not finite.
    """

    step: Int[Array, ""]
    params: Any
    ema: Any
    optimizer: Any
    memory: Memory
    bad_in_a_row: Int[Array, ""]


@dataclasses.dataclass(frozen=True)
class Learner:
    """AdamW with a linear warm-up and a cosine down to `lr_final` (None: constant), clipped gradients.

    `ema` is the decay of the average of the parameters that evaluation uses (it grows from (1 + n)/(10 + n),
    so that a short run isn't judged by its beginning); 0 means the parameters themselves. `accumulate` parts
    of the batch are worked on one after the other, for models that don't fit otherwise. `stream` carries the
    memory from step to step, with no gradient across.
    """

    model: FrameModel
    batch: int
    total_steps: int
    seed: int = 0
    lr: float = 1e-3
    lr_final: float | None = 0.0
    warmup: int = 0
    weight_decay: float = 1e-5
    max_grad_norm: float = 1.0
    ema: float = 0.99
    accumulate: int = 1
    stream: bool = False

    def __post_init__(self) -> None:
        if self.batch % self.accumulate:
            low = self.batch // self.accumulate * self.accumulate
            raise ValueError(
                f"batch={self.batch} is not divisible by accumulate={self.accumulate}; "
                f"use {low or self.accumulate} or {low + self.accumulate}"
            )
        if self.stream and not self.model.streams:
            raise ValueError(
                f"chunk= carries a memory from step to step, which {type(self.model).__name__} does not; "
                "leave chunk=null, or use a recurrent model such as conv_s5, conv_lstm or recurrent_flow"
            )

    def init(self) -> LearnerState:
        """The state before the first step; the same for the same seed."""
        params = self.model.init(jax.random.key(self.seed))
        return LearnerState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            ema=jax.tree.map(jnp.copy, params) if self.ema else (),
            optimizer=self.optimizer.init(params),
            memory=self.model.initial_memory(self.batch) if self.stream else (),
            bad_in_a_row=jnp.zeros((), jnp.int32),
        )

    @functools.cached_property
    def optimizer(self) -> optax.GradientTransformation:
        """The optimiser; its state begins with the gradients' clipping."""
        adam = optax.adamw(self.schedule, b1=0.9, b2=0.95, weight_decay=self.weight_decay)
        return optax.chain(optax.clip_by_global_norm(self.max_grad_norm), adam)

    @property
    def schedule(self) -> optax.Schedule:
        """The learning rate against the step."""
        after = max(self.total_steps - self.warmup, 1)
        if self.lr_final is None:
            then = optax.constant_schedule(self.lr)
        else:
            then = optax.cosine_decay_schedule(self.lr, after, self.lr_final / self.lr)
        if not self.warmup:
            return then
        return optax.join_schedules([optax.linear_schedule(0.0, self.lr, self.warmup), then], [self.warmup])

    def update(
        self, state: LearnerState, frozen: Any, clip: Clip
    ) -> tuple[LearnerState, dict[str, Float[Array, ""]]]:
        """One step on a clip `[T, B]`; a step whose loss or gradient is not finite changes no parameter.

        After such a step a stream's memory begins anew: whatever made it not finite may be in there.
        """
        key = jax.random.fold_in(jax.random.key(self.seed), state.step + 1)
        memory = state.memory if self.stream else self.model.initial_memory(self.batch)
        loss, memory, gradient = self._gradient(state.params, frozen, memory, clip, key)
        norm = optax.global_norm(gradient)
        good = jnp.isfinite(loss) & jnp.isfinite(norm)
        updates, optimizer = self.optimizer.update(gradient, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        decay = jnp.minimum(self.ema, (1.0 + state.step) / (10.0 + state.step))
        ema = optax.incremental_update(params, state.ema, 1.0 - decay) if self.ema else ()

        def kept(new: Any, old: Any) -> Any:
            return jax.tree.map(lambda n, o: jnp.where(good, n, o), new, old)

        next_state = LearnerState(
            step=state.step + 1,
            params=kept(params, state.params),
            ema=kept(ema, state.ema),
            optimizer=kept(optimizer, state.optimizer),
            memory=kept(memory, self.model.initial_memory(self.batch)) if self.stream else (),
            bad_in_a_row=jnp.where(good, 0, state.bad_in_a_row + 1),
        )
        return next_state, {"loss": loss, "gradient_norm": norm, "lr": jnp.asarray(self.schedule(state.step))}

    def _gradient(
        self, params: Any, frozen: Any, memory: Memory, clip: Clip, key: Array
    ) -> tuple[Array, Memory, Any]:
        """Loss, memory after, gradient; the mean of `accumulate` parts of the batch."""

        def loss(params: Any, memory: Memory, clip: Clip, key: Array) -> tuple[Array, Memory]:
            variables: Variables = {"params": params, "frozen": frozen}
            return self.model.loss(variables, memory, clip, key)

        gradient_of = jax.value_and_grad(loss, has_aux=True)
        if self.accumulate == 1:
            (value, memory), gradient = gradient_of(params, memory, clip, key)
            return value, jax.lax.stop_gradient(memory), gradient
        n = self.accumulate

        def split(leaf: Array, axis: int) -> Array:
            parts = leaf.reshape(*leaf.shape[:axis], n, leaf.shape[axis] // n, *leaf.shape[axis + 1 :])
            return over_rows(jnp.moveaxis(parts, axis, 0), axis + 1)  # on a mesh, each part over all devices

        def part(total: Any, one: Any) -> tuple[Any, Memory]:
            memory, clip, key = one
            (value, memory), gradient = gradient_of(params, memory, clip, key)
            return jax.tree.map(jnp.add, total, (value, gradient)), memory

        parts = (
            jax.tree.map(lambda leaf: split(leaf, 0), memory),
            jax.tree.map(lambda leaf: split(leaf, 1), clip),
            jax.random.split(key, n),
        )
        zero = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, params))
        (value, gradient), memory = jax.lax.scan(part, zero, parts)
        memory = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), memory)
        return value / n, jax.lax.stop_gradient(memory), jax.tree.map(lambda leaf: leaf / n, gradient)


def trained(state: LearnerState) -> Any:
    """The parameters that evaluation uses: the average, where one is kept."""
    return state.ema if state.ema != () else state.params
