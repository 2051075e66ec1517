"""scikit-learn's support vector machine on the flattened, normalised image."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sklearn.svm import SVC


def svm(
    channels: int,  # noqa: ARG001 - takes every shape
    classes: int,  # noqa: ARG001
    image_size: int,  # noqa: ARG001
    *,
    kernel: str,
    C: float,
    gamma: float | str,
    degree: int,
    max_iter: int,
) -> SVC:
    """sklearn.svm.SVC (libsvm, one against one).  It has no random part and takes no seed."""
    from sklearn.svm import SVC

    return SVC(kernel=kernel, C=C, gamma=gamma, degree=degree, max_iter=max_iter)
