"""A trained model as a safetensors file: plain arrays and text, nothing that runs when it is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from models.config import TrainConfig

if TYPE_CHECKING:
    from sklearn.svm import SVC


def save(model: nn.Module | SVC, config: TrainConfig, preparation: dict[str, object], path: Path) -> None:
    """Write the model.

    A network's tensors are its state dict under PyTorch's own names: a ResNet's load into a fresh torchvision ResNet
    of the same channels and classes.  An SVC's are libsvm's support vectors, dual coefficients and intercepts, with
    the gamma that "scale" came to.  The header's text holds the config and `preparation`, JSON values that say how
    images are brought to the model's input (classes, image_size, mean, std).
    """
    header = {"config": config.model_dump_json()} | {key: json.dumps(value) for key, value in preparation.items()}
    save_file(_tensors(model), path, metadata=header)


def _tensors(model: nn.Module | SVC) -> dict[str, Tensor]:
    if isinstance(model, nn.Module):
        return {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    arrays = {
        "support_vectors": model.support_vectors_,
        "dual_coef": model.dual_coef_,
        "intercept": model.intercept_,
        "n_support": model.n_support_,
        "classes": model.classes_,
    }
    return {name: torch.from_numpy(array.copy()) for name, array in arrays.items()} | {
        "gamma": torch.tensor(model._gamma, dtype=torch.float64)
    }
