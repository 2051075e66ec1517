"""Multiply-accumulates of a model, counted by fvcore and checked against torch.utils.flop_counter."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import psutil
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import models
from datasets import DatasetConfig, load_splits
from datasets.config import SplitSizes
from datasets.transforms import Transform
from models import TrainConfig
from models.out_of_memory import is_of_main_memory
from models.valueless import without_values
from profiling import ProfilingError

if TYPE_CHECKING:
    import pandas as pd
    from fvcore.nn import FlopCountAnalysis
    from sklearn.svm import SVC

CLASSES = 10
"""Of every count in a table, as the digits and FashionMNIST have."""
SVM_IMAGES = 200
"""Digits that an svm is fitted on before its kernel evaluations are counted."""

_counted: dict[tuple[object, ...], int] = {}


@dataclass(frozen=True)
class Count:
    """What one image costs one model, forwards.  Of an svm only the kernel is counted."""

    model: str
    channels: int
    image_size: int
    macs: int
    """Multiply-accumulates of the convolutions and linear layers; of an svm, support vectors × features."""
    macs_fvcore: int | None
    """All that fvcore counts: with batch norm at two an element, and average pooling at one an input element."""
    macs_thop: int | None
    """As thop counts, and published tables with it: batch norm at four an element, which is twice fvcore's."""
    macs_torch: int | None
    """Half of torch.utils.flop_counter's operations (it counts a multiply-accumulate as two): a check on `macs`."""
    params: int | None
    """Trainable; None for an svm."""
    activations: int | None
    """Elements that the convolutions and linear layers put out."""
    by_operator: dict[str, int]
    """fvcore's figures; their sum is `macs_fvcore`."""
    not_counted: dict[str, int]
    """Operators that fvcore passed over, with the number of calls.  It passes over ReLU and dropout without a word."""
    counted_on: str
    """What was fed to the model to count it."""

    def flat(self) -> dict[str, Any]:
        """Column -> value; each operator and the operators not counted stand as columns of their own."""
        record = asdict(self)
        operators = {f"fvcore_{name}": value for name, value in record.pop("by_operator").items()}
        skipped = ", ".join(f"{name} ×{calls}" for name, calls in record.pop("not_counted").items())
        counted_on = record.pop("counted_on")
        return record | operators | {"not_counted": skipped, "counted_on": counted_on}


def macs(config: TrainConfig, channels: int, classes: int, image_size: int) -> int | None:
    """Multiply-accumulates of the convolutions and linear layers for one image; None for a model that is no network.

    fvcore counts one multiply-accumulate as one "flop"; what it counts for other operators (batch norm, pooling) is
    left out here.  Counted once a shape in a process.
    """
    if not models.is_network(config.model):
        return None
    key = (models.shape_key(config), channels, classes, image_size)
    if key not in _counted:
        network, images = _network(config, channels, classes, image_size)
        _counted[key] = _weighed(_by_operator(_analysis(network, images)))
    return _counted[key]


def training_flops(config: TrainConfig, channels: int, classes: int, image_size: int) -> int:
    """Floating-point operations of the convolutions and linear layers for one image of a training step.

    Forwards and backwards, a multiply-accumulate being two, as torch.utils.flop_counter sees them: the gradient of the
    images themselves, which nobody needs, is not among them.  Work on padding is counted, as everywhere; a training
    leaves out what it can of it (`models.taps`) and executes less.  Nothing is computed: shapes suffice.
    """
    from torch.utils.flop_counter import FlopCounterMode  # imports a compiler

    with without_values("meta"):
        network = models.build(config, channels, classes, image_size)
        assert isinstance(network, nn.Module)
        images = torch.empty(2, channels, image_size, image_size)  # batch norm needs two to train
        labels = torch.empty(2, dtype=torch.int64)
        with FlopCounterMode(display=False) as counter:
            F.cross_entropy(network(images), labels).backward()
    return int(counter.get_total_flops()) // 2


def count(config: TrainConfig, channels: int, image_size: int) -> Count:
    """All that is known of a model's cost.

    Raises ModelError where it cannot take such images, ProfilingError where memory does not hold what is counted.
    """
    try:
        if not models.is_network(config.model):
            return _count_svm(config, channels, image_size)
        models.check(config, channels, CLASSES, image_size)
        _check_room(4 * (models.parameters(config, channels, CLASSES, image_size) + channels * image_size**2))
        return _count_network(config, channels, image_size)
    except (RuntimeError, MemoryError) as error:
        if not is_of_main_memory(error):
            raise
        images = f"{channels}×{image_size}×{image_size} images"
        raise ProfilingError(f"{config.model} on {images}: counting needs more memory than there is") from error


def _check_room(needed_bytes: int) -> None:
    """Raise MemoryError where it is not there: Linux would grant it, and end the process once it is used."""
    if needed_bytes > psutil.virtual_memory().available:
        raise MemoryError(f"{needed_bytes:,} bytes")


def _count_network(config: TrainConfig, channels: int, image_size: int) -> Count:
    from torch.utils.flop_counter import FlopCounterMode

    network, images = _network(config, channels, CLASSES, image_size)
    analysis = _analysis(network, images)
    by_operator = _by_operator(analysis)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(images)
    return Count(
        model=config.model,
        channels=channels,
        image_size=image_size,
        macs=_weighed(by_operator),
        macs_fvcore=sum(by_operator.values()),
        macs_thop=_weighed(by_operator) + _thop_extras(network, images),
        macs_torch=int(counter.get_total_flops()) // 2,
        params=sum(p.numel() for p in network.parameters() if p.requires_grad),
        activations=_activations(network, images),
        by_operator=by_operator,
        not_counted={name.removeprefix("aten::"): calls for name, calls in sorted(analysis.unsupported_ops().items())},
        counted_on="one image",
    )


def frame(counts: Iterable[Count]) -> pd.DataFrame:
    """A row a count.  An operator that a model has not is 0 there; what an svm has not is missing."""
    import pandas as pd

    table = pd.DataFrame([one.flat() for one in counts])
    words = ["model", "not_counted", "counted_on"]
    operators = [name for name in table.columns if name.startswith("fvcore_")]
    figures = [name for name in table.columns if name not in (*words, *operators)]
    table[operators] = table[operators].fillna(0)
    return table.astype(dict.fromkeys([*figures, *operators], "Int64"))[["model", *figures, *operators, *words[1:]]]


# --- networks -----------------------------------------------------------------------------------------------------


def _network(config: TrainConfig, channels: int, classes: int, image_size: int) -> tuple[nn.Module, Tensor]:
    with without_values("cpu"):
        network = models.build(config, channels, classes, image_size)
        assert isinstance(network, nn.Module)
        return network.eval(), torch.zeros(1, channels, image_size, image_size)


def _analysis(network: nn.Module, images: Tensor) -> FlopCountAnalysis:
    with _tracing():
        from fvcore.nn import FlopCountAnalysis

        analysis = FlopCountAnalysis(network, images)
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
        analysis.total()  # traced here, and kept in it
    return analysis


@contextlib.contextmanager
def _tracing() -> Iterator[None]:
    """fvcore is imported and traces by torch.jit, which says that it is deprecated."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        yield


def _by_operator(analysis: FlopCountAnalysis) -> dict[str, int]:
    return {name: int(count) for name, count in sorted(analysis.by_operator().items())}


def _weighed(by_operator: dict[str, int]) -> int:
    return by_operator.get("conv", 0) + by_operator.get("linear", 0)


def _activations(network: nn.Module, images: Tensor) -> int:
    with _tracing():
        from fvcore.nn import ActivationCountAnalysis

        analysis = ActivationCountAnalysis(network, images)
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
        return int(analysis.total())


@torch.no_grad()
def _thop_extras(network: nn.Module, images: Tensor) -> int:
    """What thop 0.1.1 counts besides convolutions and linear layers in the networks here.

    An affine batch norm is 4 an element; adaptive average pooling is, an element put out, as many additions as it
    averages and one division.
    """
    total = 0

    def norm(_: nn.Module, inputs: tuple[Tensor, ...], __: Tensor) -> None:
        nonlocal total
        total += 4 * inputs[0].numel()

    def pool(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        total += inputs[0].numel() + output.numel()

    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(norm)
        elif isinstance(module, nn.AdaptiveAvgPool2d):
            module.register_forward_hook(pool)
    network(images)
    return total


# --- the svm ------------------------------------------------------------------------------------------------------


def _count_svm(config: TrainConfig, channels: int, image_size: int) -> Count:
    """Its cost is known once it is fitted: one kernel evaluation a support vector, each over all features."""
    sizes = SplitSizes(train=SVM_IMAGES, val=1, test=1)
    _check_room((4 + 8 + 8) * SVM_IMAGES * channels * image_size**2)  # float32, the same as float64, and libsvm's copy
    splits = load_splits(DatasetConfig(name="digits", image_size=image_size, split=sizes))
    grey = Transform.of(splits, torch.device("cpu"))(splits.train.images)
    features = grey.expand(-1, channels, -1, -1).flatten(1).numpy()
    svc: SVC = models.build(config, channels, CLASSES, image_size)
    svc.fit(features, splits.train.labels.numpy())
    vectors = int(svc.n_support_.sum())
    return Count(
        model=config.model,
        channels=channels,
        image_size=image_size,
        macs=vectors * features.shape[1],
        macs_fvcore=None,
        macs_thop=None,
        macs_torch=None,
        params=None,
        activations=None,
        by_operator={},
        not_counted={},
        counted_on=f"{vectors} support vectors of {SVM_IMAGES} digits",
    )
