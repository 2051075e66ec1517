"""A step of training as one CUDA graph.

In batches of 16 or 32 a GPU is done with a kernel before the next one is launched.  A graph launches all kernels of a
step at once (PyTorch's notes on CUDA graphs, "whole-network capture").
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from datasets.reasons import in_a_line
from datasets.splits import Split
from datasets.transforms import Augmentation, Transform
from models.config import TrainConfig
from models.out_of_memory import is_out_of_memory
from models.precision import Precision

WARM_UP_STEPS = 3
"""Eager steps before a capture, so that libraries have chosen their kernels and the optimizer has its state."""


def can_be_recorded(config: TrainConfig, precision: Precision, device: torch.device, images: int) -> bool:
    """Whether a step asks nothing of the host: data on a GPU, no gradient scaler, at least one full batch.

    Deterministic algorithms are left to the eager step, where PyTorch checks each operation as it is called.
    """
    full = images >= config.batch_size
    resident = config.input == "resident"
    return device.type == "cuda" and resident and precision != "fp16" and not config.deterministic and full


class Optimizer(Protocol):
    """What is asked of a step's optimizer here."""

    @property
    def param_groups(self) -> list[dict[str, Any]]: ...

    @property
    def state(self) -> Mapping[Tensor, dict[str, Any]]: ...

    def zero_grad(self) -> None: ...


class Recordable(Protocol):
    """A step that can be recorded: one network's (`models.step`) or a stack's (`models.stacked`)."""

    @property
    def network(self) -> nn.Module: ...

    @property
    def optimizer(self) -> Optimizer: ...

    @property
    def device(self) -> torch.device: ...

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor: ...

    def move(self, images: Tensor, labels: Tensor) -> Tensor:
        """The part on the device, which is recorded."""

    def turn(self) -> None:
        """The part on the host."""


class RecordedStep:
    """A step on the images of given indices, replayed from a graph where the batch is full, else eager.

    Without augmentation the graph starts with the gathering of the images.  An augmentation draws on the host, so that
    with one the images are gathered and augmented before it.
    """

    def __init__(
        self,
        step: Recordable,
        train: Split,
        transform: Transform,
        augment: Augmentation | None,
        randomness: Sequence[torch.Generator],
        batch_size: int,
    ) -> None:
        self.step, self.train, self.transform = step, train, transform
        self.augment, self.randomness = augment, randomness
        self.batch_size = batch_size
        # Of a stack whose batches are more images than there are, some twice.
        self.indices = torch.arange(batch_size, device=train.labels.device) % len(train)
        self.labels = train.labels[self.indices]
        self.pixels = transform(train.images[self.indices])
        self.replay: Callable[[], None] | None = None
        self.loss: Tensor | None = None
        self.step.network.train()
        with undone(step):
            for _ in range(WARM_UP_STEPS):
                self._body()
            step.optimizer.zero_grad()  # the graph has gradients of its own
            try:
                self.replay = record(self._body, step.optimizer.param_groups)
            except RuntimeError as error:
                if is_out_of_memory(error):
                    raise  # a larger share of the card is what helps
                cause = in_a_line(error)
                warnings.warn(f"training goes on without a CUDA graph, which failed: {cause}", stacklevel=2)

    def __call__(self, indices: Tensor) -> Tensor:
        """The batch's mean loss, on the device, until the next call."""
        if self.replay is None or len(indices) != self.batch_size:
            pixels = self.transform(self.train.images[indices], self.augment, *self.randomness)
            return self.step(pixels, self.train.labels[indices])
        if self.augment is None:
            self.indices.copy_(indices)
        else:
            self.pixels.copy_(self.transform(self.train.images[indices], self.augment, *self.randomness))
            self.labels.copy_(self.train.labels[indices])
        self.replay()
        self.step.turn()
        assert self.loss is not None
        return self.loss

    def _body(self) -> None:
        """Reads and writes the tensors that were there when it was captured."""
        if self.augment is None:
            pixels = self.transform(self.train.images[self.indices])
            self.loss = self.step.move(pixels, self.train.labels[self.indices])
        else:
            self.loss = self.step.move(self.pixels, self.labels)


def record(body: Callable[[], None], param_groups: list[dict[str, Any]]) -> Callable[[], None]:
    """Capture what the body launches -> a function that launches it again."""
    graph = torch.cuda.CUDAGraph()
    groups = [group for group in param_groups if "capturable" in group]
    torch.cuda.synchronize()
    try:
        for group in groups:
            group["capturable"] = True  # only here: an eager step would warn of it
        # On the warm-up's stream, which has its library handles; spoilt by unsafe calls of this thread alone.
        with torch.cuda.graph(graph, stream=torch.cuda.current_stream(), capture_error_mode="thread_local"):
            body()
    finally:
        for group in groups:
            group["capturable"] = False
    replay: Callable[[], None] = graph.replay
    return replay


@functools.cache
def _side_stream(card: int) -> torch.cuda.Stream:
    """One a card for all captures of this process: cuBLAS keeps 32 MiB for each that a product ran on.

    What is launched inside a stream of another card's is not on it, and a capture there would be of nothing.
    """
    return torch.cuda.Stream(card)


@contextmanager
def undone(step: Recordable) -> Iterator[None]:
    """What steps are made inside leave no trace in the numbers: on a side stream, as captures ask for.

    The optimizer's state stays where it is in memory, so that a graph finds it there; what was not there before is
    zeroed, which is how each optimizer here starts.
    """
    device = step.device
    network = {name: value.clone() for name, value in step.network.state_dict().items()}
    kept = {
        (parameter, name): value.clone()
        for parameter, values in step.optimizer.state.items()
        for name, value in values.items()
        if isinstance(value, Tensor)
    }
    on_cuda = device.type == "cuda"
    before = torch.cuda.get_rng_state(device) if on_cuda else torch.get_rng_state()
    stream = None
    if on_cuda:
        stream = _side_stream(torch.cuda.current_device() if device.index is None else device.index)
    if stream is not None:
        stream.wait_stream(torch.cuda.current_stream(device))
    try:
        with nullcontext() if stream is None else torch.cuda.stream(stream):
            yield
    finally:
        if stream is not None:
            torch.cuda.current_stream(device).wait_stream(stream)
        with torch.no_grad():
            step.network.load_state_dict(network)
            for parameter, values in step.optimizer.state.items():
                for name, value in values.items():
                    if isinstance(value, Tensor):
                        value.copy_(kept[parameter, name]) if (parameter, name) in kept else value.zero_()
        if on_cuda:
            torch.cuda.set_rng_state(before, device)
        else:
            torch.set_rng_state(before)
