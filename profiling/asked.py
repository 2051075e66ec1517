"""What a person wrote on the command line, by commas, as values."""

from __future__ import annotations

import models
from models import TrainConfig
from profiling import ProfilingError


def comma_words(option: str, text: str) -> list[str]:
    """The words, each once, in their order."""
    words = [word.strip() for word in text.split(",")]
    if not all(words):
        raise ProfilingError(f"{option} {text!r}: is not a list by commas")
    return list(dict.fromkeys(words))


def comma_choices(option: str, text: str, allowed: tuple[str, ...]) -> list[str]:
    """Words, each one of those allowed."""
    words = comma_words(option, text)
    for word in words:
        if word not in allowed:
            raise ProfilingError(f"{option} {word!r}: there are {', '.join(allowed)}")
    return words


def comma_ints(option: str, text: str, least: int = 1, most: int = 2**31 - 1) -> list[int]:
    """Whole numbers from `least` to `most`."""
    values = []
    for word in comma_words(option, text):
        if not (word.isascii() and word.isdigit() and least <= int(word) <= most):
            raise ProfilingError(f"{option} {word!r}: is not a whole number from {least} to {most:,}")
        values.append(int(word))
    return values


def comma_models(text: str) -> list[TrainConfig]:
    """A config with all defaults for each model; all that are registered where none is named."""
    names = comma_choices("--models", text, tuple(models.names())) if text else models.names()
    return [TrainConfig(model=name) for name in names]
