"""Multi-layer perceptrons on the flattened image."""

from __future__ import annotations

from torch import nn

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}


def mlp(
    channels: int, classes: int, image_size: int, *, hidden_layers: int, hidden_units: int, activation: str
) -> nn.Module:
    """`hidden_layers` equal layers of `hidden_units`, each with its activation, then one output a class."""
    layers: list[nn.Module] = [nn.Flatten()]
    width = channels * image_size**2
    for _ in range(hidden_layers):
        layers += [nn.Linear(width, hidden_units), ACTIVATIONS[activation]()]
        width = hidden_units
    return nn.Sequential(*layers, nn.Linear(width, classes))
