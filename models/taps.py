"""Kernel taps that can never touch a pixel: left out of a training, and put back behind it.

On small maps a padded kernel reaches beyond the image with most of its taps.  ResNet-18's last stage sees one pixel
at 28×28: eight of nine taps of its 3×3 kernels multiply padding alone, in every image, for ever.  Their gradient is
zero, yet they would be cast, moved and updated at every step: 62 % of that network's parameters.

What is left of a convolution is calculated in whichever way is quickest for its map, its channels and the batch size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models import fast_convolutions
from models.config import TrainConfig
from models.fast_convolutions import AxisShape, BilinearAlgorithm, Pair
from models.precision import Precision

CPU_PRODUCT_PIXELS = 4
"""Up to so many output pixels a convolution is faster on a CPU as a matrix product over its patches.

Measured forward and backward in bf16 on a Zen 4, one thread: ResNet-18's at 2×2 pixels by a fifth to a quarter, those
with a 1×1 kernel and a stride by a tenth to two fifths; at 4×4 pixels it is slower.
"""


@dataclass(frozen=True)
class Axis:
    """What one axis of a convolution comes down to without its dead taps."""

    first: int
    """The first live tap."""
    taps: int
    """How many there are from the first live one to the last."""
    padding: int
    """On each side, for the live taps."""


def live_axis(pixels: int, kernel: int, stride: int, padding: int, dilation: int) -> Axis:
    """The live taps along one axis, where a convolution of them alone gives the same outputs; else all taps."""
    every = Axis(0, kernel, padding)
    outputs = _outputs(pixels, kernel, stride, padding, dilation)
    live = [
        tap
        for tap in range(kernel)
        if any(0 <= output * stride - padding + tap * dilation < pixels for output in range(outputs))
    ]
    if not live:
        return every
    first, taps = live[0], live[-1] + 1 - live[0]
    less = padding - first * dilation
    if less < 0 or _outputs(pixels, taps, stride, less, dilation) != outputs:
        return every
    return Axis(first, taps, less)


def _outputs(pixels: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    return (pixels + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


class LiveConvolution(nn.Module):
    """A convolution's live taps: float images N×C×H×W of one size -> what the whole convolution makes of them.

    As one matrix product over patches where it makes at most `product_pixels`, or reads single pixels with a stride.
    Where that spares enough with `batch_size` images at once, by one of `models.fast_convolutions`: tap by tap in place
    of patches that reach beyond the map, and, where it `may_round`, Winograd's in place of the convolution.
    """

    def __init__(
        self,
        whole: nn.Conv2d,
        height: int,
        width: int,
        *,
        product_pixels: int,
        batch_size: int,
        may_round: bool,
    ) -> None:
        super().__init__()
        axes = [
            live_axis(pixels, whole.kernel_size[i], whole.stride[i], int(whole.padding[i]), whole.dilation[i])
            for i, pixels in enumerate((height, width))
        ]
        self.rows, self.columns = (slice(axis.first, axis.first + axis.taps) for axis in axes)
        self.padding = (axes[0].padding, axes[1].padding)
        self.stride, self.dilation, self.groups = _pair(whole.stride), _pair(whole.dilation), whole.groups
        self.taps = (axes[0].taps, axes[1].taps)
        self.outputs = (
            _outputs(height, self.taps[0], self.stride[0], self.padding[0], self.dilation[0]),
            _outputs(width, self.taps[1], self.stride[1], self.padding[1], self.dilation[1]),
        )
        live = whole.weight.detach()[:, :, self.rows, self.columns]
        self.live_shape = live.shape
        pixel_by_pixel = self.taps == (1, 1) and self.padding == (0, 0) and self.stride != (1, 1)
        small = self.outputs[0] * self.outputs[1] <= product_pixels
        self.is_product = (pixel_by_pixel or small) and self.dilation == (1, 1) and self.groups == 1
        self.fast = self._in_fewer_products((height, width), live, batch_size, may_round)
        self.differs = self.is_product or self.fast is not None or live.shape != whole.weight.shape
        kept = self._arranged(live)
        self.weight = nn.Parameter(torch.empty_like(kept, memory_format=torch.contiguous_format).copy_(kept))
        self.bias = whole.bias
        self.read: Tensor
        self.register_buffer("read", self._pixels_read(height, width), persistent=False)

    def _in_fewer_products(
        self, pixels: Pair, live: Tensor, batch_size: int, may_round: bool
    ) -> BilinearAlgorithm | None:
        if self.dilation != (1, 1) or self.groups != 1:
            return None
        rows, columns = (
            AxisShape(pixels[i], self.outputs[i], self.taps[i], self.stride[i], self.padding[i]) for i in (0, 1)
        )
        return fast_convolutions.chosen(rows, columns, live, batch_size, self.is_product, may_round)

    def forward(self, images: Tensor) -> Tensor:
        if self.fast is not None:
            quickly: Tensor = self.fast(images, self.weight)
            return quickly if self.bias is None else quickly + self.bias.to(quickly.dtype)[:, None, None]
        if not self.is_product:
            return F.conv2d(images, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)
        made = F.linear(self._patches(images.permute(0, 2, 3, 1)), self.weight, self.bias)
        if self.outputs == (1, 1):  # strides that say nothing else: batch norm's quick way back wants both maps' equal
            return made.view(len(images), -1, 1, 1)
        return made.view(len(images), *self.outputs, -1).permute(0, 3, 1, 2)

    def _patches(self, images: Tensor) -> Tensor:
        """Images N×H×W×C -> what each output pixel reads, in rows of taps × C: N·outputs × taps·C."""
        if self.taps == (1, 1) and self.padding == (0, 0):
            return images[:, :: self.stride[0], :: self.stride[1]].flatten(0, 2)
        if self.outputs == (1, 1) and self.taps == images.shape[1:3] and self.padding == (0, 0):
            return images.flatten(1)
        pixels = F.pad(images.flatten(1, 2), (0, 0, 0, 1))  # a last one, black, stands for all outside
        return pixels.index_select(1, self.read).view(len(images) * self.outputs[0] * self.outputs[1], -1)

    def _pixels_read(self, height: int, width: int) -> Tensor:
        """Which pixel, counted row by row, each tap of each output pixel reads: int64, outputs · taps.

        height · width stands for all beyond the map.
        """
        rows, columns = (
            torch.arange(self.outputs[axis])[:, None] * self.stride[axis]
            + torch.arange(self.taps[axis])
            - self.padding[axis]
            for axis in (0, 1)
        )
        row, column = rows[:, None, :, None], columns[None, :, None, :]
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        return torch.where(inside, row * width + column, height * width).flatten()

    def _arranged(self, live: Tensor) -> Tensor:
        """A kernel O×I×rows×columns of live taps as this module's weight."""
        if self.fast is not None:
            return self.fast.arranged(live)
        return live.permute(0, 2, 3, 1).flatten(1) if self.is_product else live  # as the patches have them

    def as_kernel(self, values: Tensor) -> Tensor:
        """Values of the weight's shape as O×I×rows×columns, as the whole kernel has its live taps."""
        if self.fast is not None:
            return self.fast.as_kernel(values)
        if not self.is_product:
            return values
        outputs, channels, rows, columns = self.live_shape
        return values.reshape(outputs, rows, columns, channels).permute(0, 3, 1, 2)


def _pair(values: tuple[int, ...]) -> Pair:
    return values[0], values[1]


class LiveNetwork:
    """A network that is trained without its dead taps, each convolution in the way that is quickest for it.

    A weight decay moves dead taps too, without effect on any output.  They can be had at the end all the same: a
    parameter of the network with a gradient of zero, `idle`, is moved by the optimizer as they would have been.  What
    sgd and adamw do to them is linear, so that one number from 1 on says by what all of them are multiplied.  Adam
    divides its L2 penalty by its own size, tap by tap: there `idle` holds all dead taps.
    """

    def __init__(
        self,
        network: nn.Module,
        config: TrainConfig,
        channels: int,
        image_size: int,
        device: torch.device,
        *,
        precision: Precision,
        images: int,
    ) -> None:
        """Changes `network` in place, on the CPU, for a training by so many `images` on `device` in this precision."""
        product_pixels, batch_size = 1, 0
        if device.type == "cpu":
            product_pixels, batch_size = CPU_PRODUCT_PIXELS, min(config.batch_size, images)
        self.network = network
        self.replaced: dict[str, tuple[nn.Conv2d, LiveConvolution]] = {}
        for name, (height, width) in _map_sizes(network, channels, image_size).items():
            whole = network.get_submodule(name)
            assert isinstance(whole, nn.Conv2d)
            convolution = LiveConvolution(
                whole,
                height,
                width,
                product_pixels=product_pixels,
                batch_size=batch_size,
                may_round=precision == "fp32",
            )
            if convolution.differs:
                self.replaced[name] = whole, convolution
                _put(network, name, convolution)
        self.idle: nn.Parameter | None = None
        self.idle_is_a_factor = config.optimizer != "adam"
        if not config.weight_decay:
            return
        dead = [whole.weight.detach()[_dead(whole, live)] for whole, live in self.replaced.values()]
        if sum(len(taps) for taps in dead):
            # A Mac's GPU has no float64; a decay of less than 6e-8 a step is lost there, of taps that no output sees.
            one = torch.ones((), dtype=torch.float32 if device.type == "mps" else torch.float64)
            self.idle = nn.Parameter(one if self.idle_is_a_factor else torch.cat(dead))
            network.register_parameter("idle_taps", self.idle)

    @property
    def fast(self) -> list[str]:
        """The convolutions by one of `models.fast_convolutions`, each with its name."""
        live = {name: convolution.fast for name, (_, convolution) in self.replaced.items()}
        return [f"{name} {algorithm.name}" for name, algorithm in live.items() if algorithm is not None]

    def restore(self) -> nn.Module:
        """The network as it was built, on the CPU, with the weights that it has now."""
        network = self.network.cpu()
        idle = None if self.idle is None else self.idle.detach()
        if idle is not None:
            del network.idle_taps
        position = 0
        for name, (whole, convolution) in self.replaced.items():
            weight = whole.weight.detach()
            if idle is not None:
                dead = _dead(whole, convolution)
                count = int(dead.sum())
                weight[dead] = (
                    (weight[dead] * idle).to(weight.dtype) if self.idle_is_a_factor else idle[position:][:count]
                )
                position += count
            weight[:, :, convolution.rows, convolution.columns] = convolution.as_kernel(convolution.weight.detach())
            whole.train(convolution.training)
            _put(network, name, whole)
        return network


def _dead(whole: nn.Conv2d, convolution: LiveConvolution) -> Tensor:
    dead = torch.ones(whole.weight.shape, dtype=torch.bool)
    dead[:, :, convolution.rows, convolution.columns] = False
    return dead


def _put(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(network.get_submodule(parent), own, module)


def _map_sizes(network: nn.Module, channels: int, image_size: int) -> dict[str, tuple[int, int]]:
    """Height and width of what each zero-padded convolution is given, by its name, where that is always the same."""
    seen: dict[str, set[tuple[int, int]]] = {}

    def noting(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def note(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            height, width = inputs[0].shape[-2:]
            seen.setdefault(name, set()).add((height, width))

        return note

    handles = [
        module.register_forward_pre_hook(noting(name))
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d) and module.padding_mode == "zeros" and not isinstance(module.padding, str)
    ]
    training = network.training
    parameter = next(network.parameters())
    with torch.no_grad():
        network.eval()(torch.zeros(1, channels, image_size, image_size, dtype=parameter.dtype, device=parameter.device))
    network.train(training)
    for handle in handles:
        handle.remove()
    return {name: sizes.pop() for name, sizes in seen.items() if len(sizes) == 1}
