"""Training a narrow VGG network on few photos.

VGG-19 weighs 574 MB; the network made here is small enough to ship. It learns in two stages:

1. *labels*: the convolutions learn to name small photos, of one class each.
2. *distil*: fc6 and fc7 are added, and a linear head on fc7 learns to predict the fc7 vector that
   the real VGG-19 gives for captioned photos (Hinton, Vinyals and Dean, "Distilling the knowledge
   in a neural network", 2015), with the labels as a second task and, if wanted, the photos' places
   in a joint image-sentence space as a third.

Dimension letters: N photos, B captioned photos in a batch and S labelled ones, b and s those of
this process, C classes, E joint space.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import (
    cosine_similarity,
    cross_entropy,
    normalize,
    one_hot,
    relu,
)

from .. import formats
from ..convnet import Architecture
from . import ranks
from .closed_form import Start
from .loop import train
from .matching import choice_cost
from .measures import accuracy
from .network import TrainableNet
from .options import TrainOptions
from .photos import Captioned, Labelled, augment, erased, pasted, sent

NARROW = Architecture(
    blocks=((32,), (64,) * 2, (128,) * 3, (216,) * 3, (288,) * 3, (288,) * 2),
    fc=(512, 512),
    input_size=128,
)
SETTLING = 20  # batches that settle the statistics of normalisations for averaged weights


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
    label_crop, crop : float
        Smallest crop of a labelled photo and of a captioned one, as a share of the side.
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


# --- objectives ----------------------------------------------------------------------------------


def distillation_loss(predicted: Tensor, fc7: Tensor, mean: Tensor) -> Tensor:
    """1 - cosine, plus 1 - cosine of what remains without the photos' mean vector.

    All fc7 vectors share a large mean; what tells photos apart is the rest. Takes (B, 4096)
    predictions, (B, 4096) unit rows and the (4096,) mean of all unit rows.
    """
    predicted = normalize(predicted)
    plain = 1 - (predicted * fc7).sum(1)
    centred = 1 - cosine_similarity(predicted - mean, fc7 - mean)
    return (plain + centred).mean()


def ranking_loss(images: Tensor, targets: Tensor, margin: float) -> Tensor:
    """Hinge loss over a batch of (B, E) photos and targets: each is nearest to its own.

    Photos that share a target, such as those of one class, do not stand against each other.
    """
    targets = normalize(targets)
    scores = normalize(images) @ targets.T
    own = scores.diagonal()
    cost = relu(margin + scores - own[:, None]) + relu(margin + scores - own[None, :])
    return cost.masked_fill(targets @ targets.T > 0.9999, 0).sum() / len(scores)


# --- stages --------------------------------------------------------------------------------------

Batch = tuple[list[int], Tensor]  # a seed for what is random in it, and the photos


def _batches(n: int, size: int, device: torch.device, *seed: int) -> list[Batch]:
    """An epoch in random order, the same for the same seed; an incomplete batch is left out."""
    order = sent(np.random.default_rng(seed).permutation(n), device)
    return [([*seed, i], order[i : i + size]) for i in range(0, n - size + 1, size)]


def _some(n: int, size: int, seed: int, device: torch.device) -> list[Batch]:
    """The batches that settle the statistics of normalisations."""
    return _batches(n, min(n, size), device, seed, SETTLING)[:SETTLING]


def train_labels(
    model: TrainableNet,
    photos: Labelled,
    held_out: Labelled,
    recipe: Recipe,
    checkpoint: formats.PathLike,
) -> None:
    """The first stage: name small photos from the convolutions alone."""

    device = model.device
    photos, held_out = photos.to(device), held_out.to(device)

    def shown(batch: Batch) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        seed, index = batch
        rng = np.random.default_rng(seed)
        x, _ = augment(photos.pixels[index], recipe.label_size, recipe.label_crop, rng)
        return pasted(x, recipe.paste, rng)

    def cost(batch: Batch) -> tuple[Tensor, int]:
        x, mix = shown(batch)
        with recipe.autocast(device):
            logits = model.early_logits(ranks.part(x))
        classes = one_hot(photos.labels[batch[1]], logits.shape[1]).float()
        return _label_loss(logits, ranks.part(mix(classes)), recipe) * len(logits), len(logits)

    def report() -> dict[str, float]:
        return accuracy(model.early_logits, held_out, recipe.label_size, recipe)

    def settle() -> None:
        with recipe.autocast(device):
            batches = _some(n, recipe.label_batch, seed, device)
            model.settle((shown(batch)[0] for batch in batches), whole=False)

    n, seed = len(photos.labels), recipe.labels.seed
    train(
        model,
        lambda epoch: _batches(n, recipe.label_batch, device, seed, epoch),
        cost,
        recipe.labels,
        checkpoint,
        report=report,
        settle=settle,
    )


def train_distil(
    model: TrainableNet,
    captioned: Captioned,
    labelled: Labelled,
    recipe: Recipe,
    options: TrainOptions,
    checkpoint: formats.PathLike,
    *,
    pool: Tensor | None = None,
    report: Callable[[], dict[str, float]] | None = None,
    save: Callable[[], None] | None = None,
) -> None:
    """The second stage: predict the real network's fc7, with the labels beside it.

    If the photos have places in a joint space, those are learned too; and with the (N, E) unit
    vectors of a `pool` of captions, which of them fit the photos (`captioned.matches`).
    """
    size, mean = model.architecture.input_size, captioned.fc7.mean(0)
    device, n_classes = model.device, model.label_head.out_features
    captioned, labelled, mean = captioned.to(device), labelled.to(device), mean.to(device)
    pool = None if pool is None else pool.to(device)

    def cost(batch: Batch) -> tuple[Tensor, int]:
        lesson = Lesson.of(batch, captioned, labelled, recipe, size, n_classes, pool is not None)
        x, small = ranks.part(lesson.x), ranks.part(lesson.small)
        with recipe.autocast(device):
            fc7 = model.dropout(model(torch.cat([x, small])))
            predicted = model.fc7_head(fc7[: len(x)]).float()
            logits = model.label_head(fc7[len(x) :])
        total = len(x) * distillation_loss(predicted, ranks.part(lesson.fc7), mean)
        named = _label_loss(logits, ranks.part(lesson.classes), recipe)
        # The parts of the loss are means over photos of both kinds; the cost is a sum over `x`.
        total = total + len(small) * len(lesson.x) / len(lesson.small) * recipe.label_weight * named
        if model.target_head is not None:
            total = total + joint_cost(model.target_head(fc7.float()), lesson, recipe, pool)
        return total, len(x)

    def shown(batch: Batch) -> Tensor:
        lesson = Lesson.of(batch, captioned, labelled, recipe, size, n_classes, choose=False)
        return torch.cat([lesson.x, lesson.small])

    def settle() -> None:
        with recipe.autocast(device):
            model.settle(map(shown, _some(n, recipe.captioned_batch, seed, device)))

    n, seed = len(captioned.fc7), options.seed
    train(
        model,
        lambda epoch: _batches(n, recipe.captioned_batch, device, seed, epoch),
        cost,
        options,
        checkpoint,
        report=report,
        save=save,
        settle=settle,
    )


@dataclass(frozen=True)
class Lesson:
    """A batch of the second stage: photos of both kinds, changed at random, and what they are.

    Attributes
    ----------
    x, small : (B, 3, size, size), (S, 3, size, size) tensors
        Captioned photos and labelled ones.
    fc7, classes : (B, 4096), (S, C) tensors
        Unit rows of the real network, and rows that sum to one.
    targets, shares : lists of (B, n) and (S, n) tensors
        Places in the joint space, and shares of the pool's captions: of the captioned photos, and
        of the labelled ones if those have any; empty if neither has.
    """

    x: Tensor
    small: Tensor
    fc7: Tensor
    classes: Tensor
    targets: list[Tensor]
    shares: list[Tensor]

    @classmethod
    def of(
        cls,
        batch: Batch,
        captioned: Captioned,
        labelled: Labelled,
        recipe: Recipe,
        size: int,
        n_classes: int,
        choose: bool,
    ) -> Lesson:
        """Draw the labelled photos, and change all; the same for the same seed."""
        seed, index = batch
        rng = np.random.default_rng(seed)
        device = captioned.pixels.device
        other = sent(rng.integers(0, len(labelled.labels), recipe.labelled_batch), device)
        small, _ = augment(labelled.pixels[other], size, recipe.label_crop, rng)
        x, mirrored = augment(captioned.pixels[index], size, recipe.crop, rng)
        (x, mix), (small, mix_small) = (pasted(p, recipe.distil_paste, rng) for p in (x, small))
        x, small = (erased(p, recipe.erase, rng) for p in (x, small))
        real = torch.where(mirrored[:, None], captioned.flipped[index], captioned.fc7[index])
        labels = labelled.labels[other]
        classes = one_hot(labels, n_classes).float()
        targets, shares = [], []
        if captioned.targets is not None:
            targets.append(mix(captioned.targets[index]))
        if captioned.targets is not None and labelled.targets is not None:
            targets.append(mix_small(labelled.targets[labels]))
        if choose:
            shares.append(mix(captioned.matches.shares(index)))
        if choose and labelled.matches is not None:
            shares.append(mix_small(labelled.matches.shares(labels)))
        return cls(x, small, normalize(mix(real)), mix_small(classes), targets, shares)


def joint_cost(places: Tensor, lesson: Lesson, recipe: Recipe, pool: Tensor | None) -> Tensor:
    """What the photos' places (b + s, E) cost this process: their targets, and their choice."""
    ends = len(ranks.part(lesson.x)), len(places)
    own = [places[: ends[0]], places[ends[0] :]]

    def mean(values: Callable[[Tensor, Tensor], Tensor], wanted: list[Tensor]) -> Tensor:
        pairs = zip(own, map(ranks.part, wanted), strict=False)
        return sum(values(*pair) for pair in pairs) / sum(map(len, wanted))

    loss = mean(lambda at, to: (1 - cosine_similarity(at, to)).sum(), lesson.targets)
    together = [ranks.gather(at) for at in own[: len(lesson.targets)]]
    ranking = ranking_loss(torch.cat(together), torch.cat(lesson.targets), recipe.margin)
    loss = loss + ranks.once(ranking)
    loss = recipe.target_weight * loss
    if pool is not None:

        def choice(at: Tensor, shares: Tensor) -> Tensor:
            with recipe.autocast(at.device):
                scores = normalize(at) @ pool.T
            return choice_cost(scores.float() / recipe.temperature, shares)

        loss = loss + recipe.choice_weight * mean(choice, lesson.shares)
    return len(lesson.x) * loss


def _label_loss(logits: Tensor, labels: Tensor, recipe: Recipe) -> Tensor:
    return cross_entropy(logits.float(), labels, label_smoothing=recipe.label_smoothing)
