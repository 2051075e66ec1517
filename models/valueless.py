"""Networks whose weights are of no account, for what depends on shapes alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


@contextmanager
def without_values(device: str) -> Iterator[None]:
    """What is built inside is on this device, and its weights are zero in place of drawn.

    To draw would, on the meta device, where there is nothing to draw, import PyTorch's compiler, a second and a half.
    The global generator of the CPU is left as it was.
    """
    with torch.random.fork_rng(devices=[]), torch.device(device), _NoDraws():
        yield


class _NoDraws(TorchFunctionMode):
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in (torch.Tensor.normal_, torch.Tensor.uniform_) or getattr(func, "__module__", "") == "torch.nn.init":
            weights = args[0] if args else kwargs["tensor"]
            weights.detach().zero_()
            return weights
        return func(*args, **kwargs)
