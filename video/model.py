"""What every video model does: it learns from clips, remembers a context, and goes on frame by frame."""

from typing import Any, Protocol

from jaxtyping import Array, Float, Shaped

from .clip import ActionSpace, Clip

Variables = dict[str, Any]  # {"params": what is trained, "frozen": what is not, such as an autoencoder}
Memory = Any  # a pytree whose structure, shapes and dtypes never change


class FrameModel(Protocol):
    """A frame-autoregressive model; its methods are pure functions of `variables`.

    `streams` says whether training can carry the memory from one chunk of a long clip to the next.
    """

    size: int
    channels: int
    actions: ActionSpace
    streams: bool

    def init(self, key: Array) -> Any:
        """Fresh `variables["params"]`."""
        ...

    def initial_memory(self, batch: int) -> Memory:
        """The memory that training begins a stream with."""
        ...

    def loss(
        self, variables: Variables, memory: Memory, clip: Clip, key: Array
    ) -> tuple[Float[Array, ""], Memory]:
        """The mean loss over the frames of a clip that can be predicted, and the memory after it.

        In a clip of T frames the first T - 1 are consumed, and the last T - 1 predicted: chunks of a stream
        overlap by one frame. No loss where a frame begins another clip.
        """
        ...

    def condition(self, variables: Variables, clip: Clip) -> Memory:
        """The memory after a context `[C, B]`, in parallel over time; its last action is not used."""
        ...

    def step(
        self, variables: Variables, memory: Memory, action: Shaped[Array, "B ..."] | None, key: Array
    ) -> tuple[Memory, Float[Array, "B H W C"]]:
        """The next frame in [-1, 1], at a constant cost; `action` leads to it from the frame before."""
        ...
