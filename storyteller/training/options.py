"""How to train, whatever the model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TrainOptions:
    """How to train, whatever the model.

    Attributes
    ----------
    epochs : int
        How many times to go through the data at most.
    minutes : float or None
        A budget of wall-clock time, counted over all resumed runs, and kept to within a step; the
        last save is part of it, if one before has shown how long it takes. None: no limit.
    optimizer : {'adam', 'adam2015'}
        torch's Adam, or the updates of the code of 2015 (:class:`Adam2015`).
    lr : float
        Learning rate.
    decay : bool
        Whether the rate falls, by a cosine, to a twentieth over the budget.
    warmup : int
        Over how many steps the rate rises from zero.
    weight_decay : float
        How much of each weight is taken away at a step, times the rate; not for 'adam2015'.
    l2 : float
        Weight of the sum of all squared weights in the cost of a step.
    average : float
        What the past counts at a step in a running mean of the weights, which is then what is
        measured, shown and exported (0.999: about the last thousand steps); 0: the weights
        themselves.
    clip : float
        Largest global norm of a gradient; 0 leaves gradients as they are.
    seed : int
        Of initial weights, batches and dropout.
    save_minutes : float
        How often a checkpoint is written, and figures on held-out data are taken.
    accumulate : int
        Batches whose gradients are added up before a step.
    patience : int
        Training ends after so many saves in which the figure on held-out data has not become
        better, and the best model is exported; 0: never.
    tf32 : bool
        Allow products of 19 bits on GPUs that have them: faster, three digits fewer.
    curves : bool
        Draw the metrics as a picture at each save; needs the extra `train`.
    tensorboard : bool
        Keep the metrics for TensorBoard as well; needs the extra `train`.
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
        for name in ('epochs', 'lr', 'save_minutes', 'accumulate'):
            if not getattr(self, name) > 0:
                raise ValueError(f'{name}: expected more than 0, found {getattr(self, name)!r}')
        for name in ('clip', 'warmup', 'weight_decay', 'l2', 'patience'):
            if not getattr(self, name) >= 0:
                raise ValueError(f'{name}: expected 0 or more, found {getattr(self, name)!r}')
        if not 0 <= self.average < 1:
            raise ValueError(f'average: expected 0 to below 1, found {self.average!r}')
        if self.minutes is not None and not self.minutes > 0:
            raise ValueError(f'minutes: expected more than 0, found {self.minutes!r}')
