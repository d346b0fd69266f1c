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
from dataclasses import dataclass

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
from .loop import train
from .matching import choice_cost
from .measures import accuracy
from .network import TrainableNet
from .options import TrainOptions
from .photos import Captioned, Labelled, augment, erased, pasted, sent
from .recipe import Recipe

NARROW = Architecture(
    blocks=((32,), (64,) * 2, (128,) * 3, (216,) * 3, (288,) * 3, (288,) * 2),
    fc=(512, 512),
    input_size=128,
)
SETTLING = 20  # batches that settle the statistics of normalisations for averaged weights

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
