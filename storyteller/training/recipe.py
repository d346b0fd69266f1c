"""Settings of the stages in which the narrow VGG network is trained (:mod:`.convnet`)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch

from .closed_form import Start
from .options import TrainOptions


def stage_options(epochs: int, minutes: float | None) -> TrainOptions:
    """What the stages' options have in common: a rate that falls over the time there is."""
    return TrainOptions(
        epochs=epochs, minutes=minutes, lr=1e-3, decay=True, warmup=100, clip=0, save_minutes=2
    )


@dataclass(frozen=True)
class Recipe:
    """Settings of the stages.

    Attributes
    ----------
    labels, distil, fold : TrainOptions
        Length and learning rate of the first stage, of the second, and of the second in a fold.
        The rate falls over the minutes or the epochs, whichever are used up sooner.
    label_size : int
        Side in pixels of the first stage's input: small photos need not be blown up.
    label_batch : int
        Photos in a batch of the first stage.
    captioned_batch, labelled_batch : int
        Photos of this kind in a batch of the second stage.
    label_weight, target_weight, choice_weight : float
        Weight in the second stage of the labels' loss; of the joint space's; of the choice among
        the captions of a pool.
    label_smoothing, dropout : float
        What of a label goes to all classes alike; the share of the heads' inputs dropped.
    margin : float
        Of the ranking loss in the joint space.
    temperature : float
        Of the choice.
    label_crop : float
        Smallest crop of a labelled photo, as a share of the side.
    crop : float
        The same of a captioned photo, which loses more by it: its captions are of the whole.
    paste : float
        Largest side of the piece of another photo laid over each photo in the first stage, as a
        share of the photo's; what is to be learned mixes by area. 0 lays none.
    distil_paste : float
        The same in the second stage.
    erase : float
        Largest side of the grey patch laid over each photo in the second stage, as a share of the
        photo's; 0 lays none.
    folds : int
        Into how many parts `unseen_features` divides the captioned photos.
    share_norm : bool
        Whether processes that train together normalise over the whole batch: what a single one
        would do, but it takes longer than to normalise over each one's part.
    bf16 : bool
        Compute in bfloat16 where that is safe (autocast).
    closed_form : bool
        Begin the second stage with fc6, fc7 and the heads as a linear map of the convolutions, not
        at random.
    start : closed_form.Start
        Settings of that.
    """

    labels: TrainOptions = field(default_factory=lambda: stage_options(14, 20))
    distil: TrainOptions = field(default_factory=lambda: stage_options(24, 30))
    fold: TrainOptions = field(default_factory=lambda: stage_options(24, 20))
    label_size: int = 64
    label_batch: int = 128
    captioned_batch: int = 64
    labelled_batch: int = 32
    label_weight: float = 0.3
    target_weight: float = 1.0
    choice_weight: float = 1.0
    label_smoothing: float = 0.1
    dropout: float = 0.2
    margin: float = 0.2
    temperature: float = 0.08
    label_crop: float = 0.6
    crop: float = 0.75
    paste: float = 0.0
    distil_paste: float = 0.0
    erase: float = 0.0
    folds: int = 3
    share_norm: bool = True
    bf16: bool = True
    closed_form: bool = False
    start: Start = field(default_factory=Start)

    def __post_init__(self) -> None:
        for name in ('label_size', 'label_batch', 'captioned_batch', 'labelled_batch'):
            if not getattr(self, name) >= 2:
                raise ValueError(f'{name}: expected 2 or more, found {getattr(self, name)!r}')
        for name in ('label_weight', 'target_weight', 'choice_weight', 'margin'):
            if not getattr(self, name) >= 0:
                raise ValueError(f'{name}: expected 0 or more, found {getattr(self, name)!r}')
        for name in ('label_smoothing', 'dropout', 'paste', 'distil_paste', 'erase'):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f'{name}: expected 0 to below 1, found {getattr(self, name)!r}')
        for name in ('label_crop', 'crop'):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f'{name}: expected 0 to 1, found {getattr(self, name)!r}')
        if self.folds < 2:
            raise ValueError(f'folds: expected 2 or more, found {self.folds!r}')

    def within(self, minutes: float) -> Recipe:
        """The same recipe with all its stages in so many minutes together."""
        whole = self.labels.minutes + self.distil.minutes + self.folds * self.fold.minutes
        return replace(
            self,
            **{
                name: replace(options, minutes=options.minutes * minutes / whole)
                for name, options in vars(self).items()
                if isinstance(options, TrainOptions)
            },
        )

    def autocast(self, device: torch.device) -> torch.autocast:
        return torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.bf16)
