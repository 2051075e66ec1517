"""Everything that decides one training run."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


class ModelError(ValueError):
    """A model cannot be built as asked; the message is one line for the person who asked."""


SEED_BELOW = 2**63
"""What a seed is below."""


class TrainConfig(BaseModel):
    """One training run.  Which fields a run reads depends on its model: `models.fields_read`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    model: str
    """What is trained: a registered model."""

    # Every network
    epochs: int = Field(default=5, ge=1, lt=2**31)
    """Passes over the training part."""
    batch_size: int = Field(default=32, ge=1, lt=2**31)
    """Images a step; a last batch of one image alone is left out, since batch norm is undefined on it."""
    optimizer: Literal["sgd", "adam", "adamw"] = "adam"
    """torch.optim's SGD, Adam (L2 penalty) or AdamW (decoupled weight decay)."""
    lr: float = Field(default=1e-3, gt=0)
    """Learning rate; the peak for the schedules that vary it."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """How much of the last step sgd keeps for the next one."""
    nesterov: bool = False
    """Nesterov's form of sgd's momentum."""
    weight_decay: float = Field(default=0.0, ge=0)
    """The optimizer's weight decay.  With 0 for both, adam and adamw are the same."""
    lr_schedule: Literal["constant", "cosine", "onecycle"] = "constant"
    """Step by step over the whole run: flat, cosine to zero, or OneCycleLR's rise and fall (momentum stays)."""
    loss: Literal["cross_entropy", "manual", "mse"] = "cross_entropy"
    """Cross entropy; the same written out as log-sum-exp; or the squared error of softmax against one-hot."""
    augment: Literal["none", "rotate_shift"] = "none"
    """What is done to training images: nothing, or turned by up to 10° and moved by up to 10 %."""
    seed: int | None = Field(default=42, ge=0, lt=SEED_BELOW)
    """Of the weights, the order of images, dropout and augmentation; null draws one, which the row then names.  A CPU
    draws by the lower 32 bits: seeds that differ by 2³² give the same weights and order there."""
    deterministic: bool = False
    """Use PyTorch's deterministic algorithms alone (matters on a GPU; a CPU's are deterministic as they are)."""
    amp: bool = True
    """Automatic mixed precision where the device is good at it; the row says which precision ran."""
    amp_dtype: Literal["auto", "bf16", "fp16"] = "auto"
    """The reduced precision: bf16 where the hardware is fast in it, fp16 on older GPUs; or one of them, asked for."""
    input: Literal["resident", "stream"] = "resident"
    """The whole set on the device from the start, or batches brought by a DataLoader."""
    pin_memory: bool = False
    """Pinned memory for the stream's DataLoader; speeds up copies to a GPU."""

    # mlp
    hidden_layers: int = Field(default=1, ge=1, le=100)
    """Hidden layers of the mlp."""
    hidden_units: int = Field(default=100, ge=1, lt=2**31)
    """Width of each hidden layer."""
    activation: Literal["relu", "tanh", "sigmoid"] = "relu"
    """What stands between the layers of the mlp."""

    # svm
    kernel: Literal["rbf", "poly", "linear"] = "rbf"
    """Kernel of the support vector machine."""
    C: float = Field(default=1.0, gt=0)
    """Inverse strength of the support vector machine's regularisation."""
    gamma: Annotated[float, Field(gt=0)] | Literal["scale", "auto"] = "scale"
    """Kernel coefficient of rbf and poly: a number; scale, 1/(features × variance); or auto, 1/features."""
    degree: int = Field(default=3, ge=1, le=1000)
    """Degree of the polynomial kernel."""
    max_iter: int = Field(default=-1, ge=-1, lt=2**31, json_schema_extra={"not": {"const": 0}})
    """Most iterations of the support vector machine's solver, at least 1; or -1 for no limit."""

    @field_validator(
        "epochs", "batch_size", "lr", "momentum", "weight_decay", "seed", "hidden_layers", "hidden_units", "C",
        "degree", "max_iter", mode="before",
    )  # fmt: skip
    @classmethod
    def _refuse_truth_values(cls, value: object) -> object:
        if isinstance(value, bool):
            raise ValueError("true or false is no value for it")
        return value

    @field_validator("gamma", mode="before")
    @classmethod
    def _check_gamma(cls, value: object) -> object:
        if isinstance(value, str) and value in ("scale", "auto"):
            return value
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e300:
            return float(value)
        raise ValueError("gamma is a positive number, 'scale' or 'auto'")

    @field_validator("max_iter")
    @classmethod
    def _check_max_iter(cls, value: int) -> int:
        if value == 0:
            raise ValueError("max_iter is -1 (no limit) or at least 1")
        return value

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.optimizer == "sgd" and self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0")
        return self


TOGETHER = ("optimizer", "momentum", "nesterov")
"""Fields whose values TrainConfig checks against each other."""

NETWORK_FIELDS = (
    "epochs", "batch_size", "optimizer", "lr", "momentum", "nesterov", "weight_decay", "lr_schedule", "loss",
    "augment", "seed", "deterministic", "amp", "amp_dtype", "input", "pin_memory",
)  # fmt: skip
"""The fields that training any network reads."""

CONDITIONS: dict[str, tuple[str, tuple[object, ...]]] = {
    "momentum": ("optimizer", ("sgd",)),
    "nesterov": ("optimizer", ("sgd",)),
    "pin_memory": ("input", ("stream",)),
    "amp_dtype": ("amp", (True,)),
    "gamma": ("kernel", ("rbf", "poly")),
    "degree": ("kernel", ("poly",)),
}
"""Fields that are read only while another field has one of some values."""
