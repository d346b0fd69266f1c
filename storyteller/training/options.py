"""Training options that all models share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

RANGES: dict[str, Callable[[Any], bool]] = {
    'at least 1': lambda value: value >= 1,
    'more than 0': lambda value: value > 0,
    '0 or more': lambda value: value >= 0,
    '0 to 1': lambda value: 0 <= value <= 1,
    '0 to below 1': lambda value: 0 <= value < 1,
}


def check(options: object, expected: str, *names: str) -> None:
    """Raise a ValueError unless these options are in a range, one of :data:`RANGES`."""
    for name in names:
        if not RANGES[expected](value := getattr(options, name)):
            raise ValueError(f'{name}: expected {expected}, found {value!r}')


@dataclass(frozen=True)
class TrainOptions:
    """Training options that all models share.

    Attributes
    ----------
    epochs : int
        Maximum number of passes over the data.
    minutes : float or None
        Wall-clock budget over all resumed runs, including the last save. None: no limit.
    optimizer : {'adam', 'adam2015'}
        torch's Adam, or that of the code of 2015 (:class:`Adam2015`).
    lr : float
        Learning rate.
    decay : bool
        Cosine decay of the learning rate to a twentieth, over the budget.
    warmup : int
        Number of steps of linear learning-rate warm-up.
    weight_decay : float
        Decoupled weight decay (AdamW); not for 'adam2015'.
    l2 : float
        L2 regularisation: weight of the sum of all squared parameters in the loss of a step.
    average : float
        Decay of an exponential moving average of the weights, which is then evaluated and exported
        (0.999: about the last thousand steps); 0: no average.
    clip : float
        Maximum global norm of the gradient; 0: no clipping.
    seed : int
        Random seed of initial weights, batches and dropout.
    save_minutes : float
        Interval between checkpoints, each with an evaluation on held-out data.
    accumulate : int
        Number of batches whose gradients are accumulated for a step.
    patience : int
        Early stopping: number of evaluations without improvement after which training ends and the
        best model is exported; 0: no early stopping.
    tf32 : bool
        Allow TF32 matmuls on GPUs (about three decimal digits less precision).
    curves : bool
        Plot the metrics at each checkpoint; needs the extra `train`.
    tensorboard : bool
        Log the metrics for TensorBoard as well; needs the extra `train`.
    """

    epochs: int = 5
    minutes: float | None = None
    optimizer: str = 'adam'
    lr: float = 2e-4
    decay: bool = False
    warmup: int = 0
    weight_decay: float = 0.0
    l2: float = 0.0
    average: float = 0.0
    clip: float = 5.0
    seed: int = 0
    save_minutes: float = 5.0
    accumulate: int = 1
    patience: int = 0
    tf32: bool = False
    curves: bool = False
    tensorboard: bool = False

    def __post_init__(self):
        if self.optimizer not in ('adam', 'adam2015'):
            raise ValueError(f"optimizer: expected 'adam' or 'adam2015', found {self.optimizer!r}")
        check(self, 'more than 0', 'epochs', 'lr', 'save_minutes', 'accumulate')
        check(self, '0 or more', 'clip', 'warmup', 'weight_decay', 'l2', 'patience')
        check(self, '0 to below 1', 'average')
        if self.minutes is not None:
            check(self, 'more than 0', 'minutes')
