"""Training a narrow VGG network on few photos.

VGG-19 weighs 574 MB; the network made here is small enough to ship. It learns in two stages:

1. *labels*: the convolutions learn to name small photos, of one class each.
2. *distil*: fc6 and fc7 are added, and a linear head on fc7 learns to predict the fc7 vector that
   the real VGG-19 gives for captioned photos (Hinton, Vinyals and Dean, "Distilling the knowledge
   in a neural network", 2015), with the labels as a second task and, if wanted, the photos' places
   in a joint image-sentence space as a third.

Batch normalisation helps training only: it is folded into weights and biases at export, so that
what is exported is a plain VGG network (convolution or product, bias, ReLU).

Dimension letters: N photos, B batch, F width of fc7, E joint space.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import (
    cosine_similarity,
    cross_entropy,
    max_pool2d,
    normalize,
    one_hot,
    relu,
)

from .. import formats
from ..convnet import Architecture
from . import ranks
from .loop import TrainOptions, train
from .matching import choice_cost
from .measures import accuracy
from .photos import Captioned, Labelled, augment, erased, pasted

FC7 = 4096  # width of the real network's fc7, which the head predicts

NARROW = Architecture(
    blocks=((32,), (64, 64), (128, 128), (256, 256), (320, 320)), fc=(512, 512), input_size=128
)


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
    label_batch, captioned_batch, labelled_batch : int
        Photos in a batch of the first stage; photos of both kinds in a batch of the second.
    label_weight, target_weight, choice_weight : float
        Weight in the second stage of the labels' loss, of the joint space's, and of the choice
        among the captions of a pool.
    label_smoothing, dropout, margin, temperature : float
        Margin: of the ranking loss in the joint space. Temperature: of the choice.
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
    bf16 : bool
        Compute in bfloat16 where that is safe (autocast).
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
    paste: float = 0.0
    distil_paste: float = 0.0
    erase: float = 0.0
    folds: int = 3
    bf16: bool = True

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

    def autocast(self) -> torch.autocast:
        return torch.autocast('cpu', dtype=torch.bfloat16, enabled=self.bf16)


# --- the network in training ---------------------------------------------------------------------


class _Conv(nn.Module):
    """Convolution, [max-pooling,] batch normalisation, ReLU.

    Pooling goes before the normalisation, which then has a quarter of the work. That is the same
    function as pooling last because the normalisation's gain is fixed at 1, so its scale is
    positive; the next layer's weights make up for the gain.
    """

    def __init__(self, n_in: int, n_out: int, pool: bool):
        super().__init__()
        self.conv = nn.Conv2d(n_in, n_out, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(n_out)
        self.norm.weight.requires_grad_(False)
        self.pool = pool
        nn.init.kaiming_normal_(self.conv.weight, mode='fan_out', nonlinearity='relu')

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return relu(self.norm(max_pool2d(x, 2) if self.pool else x))


class TrainableNet(nn.Module):
    """A VGG network with batch normalisation and the heads that training needs.

    Parameters
    ----------
    architecture : Architecture
    n_classes : int
    n_targets : int
        E, or 0 without a joint space.
    dropout : float
    """

    def __init__(self, architecture: Architecture, n_classes: int, n_targets: int, dropout: float):
        super().__init__()
        self.architecture = architecture
        self.convs, top = nn.ModuleList(), 3
        for block in architecture.blocks:
            for j, width in enumerate(block, 1):
                self.convs.append(_Conv(top, width, pool=j == len(block)))
                top = width
        sizes = [top * architecture.pooled**2, *architecture.fc]
        self.fcs = nn.ModuleList(nn.Linear(*pair, bias=False) for pair in pairwise(sizes))
        self.norms = nn.ModuleList(nn.BatchNorm1d(n) for n in architecture.fc)
        self.dropout = nn.Dropout(dropout)
        self.early_head = nn.Linear(top, n_classes)
        self.label_head = nn.Linear(architecture.dim, n_classes)
        # No bias: a head that is a product alone can be merged into an image matrix.
        self.fc7_head = nn.Linear(architecture.dim, FC7, bias=False)
        self.target_head = nn.Linear(architecture.dim, n_targets, bias=False) if n_targets else None

    def pooled(self, x: Tensor) -> Tensor:
        """The last pooling layer, (B, C, P, P)."""
        for conv in self.convs:
            x = conv(x)
        return x

    def early_logits(self, x: Tensor) -> Tensor:
        """Class scores from the convolutions alone, for inputs of any size."""
        return self.early_head(self.dropout(self.pooled(x).mean((2, 3))))

    def forward(self, x: Tensor) -> Tensor:
        """fc7, (B, F)."""
        x = self.pooled(x).flatten(1)
        for i, (fc, norm) in enumerate(zip(self.fcs, self.norms, strict=True)):
            x = relu(norm(fc(self.dropout(x) if i else x)))
        return x


def export_params(model: TrainableNet) -> dict[str, np.ndarray]:
    """The plain network's parameters, batch normalisation folded in, under their 2015 names."""
    layers = [(conv.conv, conv.norm) for conv in model.convs]
    layers += list(zip(model.fcs, model.norms, strict=True))
    names = [n.removesuffix('_W') for n in model.architecture.shapes() if n.endswith('_W')]
    params = {}
    for name, (layer, norm) in zip(names, layers, strict=True):
        scale = norm.weight.detach() / torch.sqrt(norm.running_var + norm.eps)
        weight = layer.weight.detach() * scale.view(-1, *[1] * (layer.weight.ndim - 1))
        bias = norm.bias.detach() - norm.running_mean * scale
        params[f'{name}_W'] = (weight if weight.ndim == 4 else weight.T).cpu().numpy()
        params[f'{name}_b'] = bias.cpu().numpy()
    return params


def export(model: TrainableNet, path: formats.PathLike, dtype: str = 'float16') -> None:
    """Write the plain network as a file that `build_convnet` reads."""
    formats.write_model(path, export_params(model), model.architecture.options(), dtype=dtype)


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


def joint_loss(places: Tensor, targets: Tensor, margin: float) -> Tensor:
    """1 - cosine of (B, E) places to their targets, plus the ranking loss."""
    return (1 - cosine_similarity(places, targets)).mean() + ranking_loss(places, targets, margin)


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


def _batches(n: int, size: int, *seed: int) -> list[Batch]:
    """An epoch in random order, the same for the same seed; an incomplete batch is left out."""
    order = torch.from_numpy(np.random.default_rng(seed).permutation(n))
    return [([*seed, i], order[i : i + size]) for i in range(0, n - size + 1, size)]


def train_labels(
    model: TrainableNet,
    photos: Labelled,
    held_out: Labelled,
    recipe: Recipe,
    checkpoint: formats.PathLike,
) -> None:
    """The first stage: name small photos from the convolutions alone."""

    def cost(batch: Batch) -> tuple[Tensor, int]:
        seed, index = batch[0], ranks.part(batch[1])
        rng = np.random.default_rng([*seed, ranks.number()])
        x, _ = augment(photos.pixels[index], recipe.label_size, 0.6, rng)
        x, mix = pasted(x, recipe.paste, rng)
        with recipe.autocast():
            logits = model.early_logits(x)
        classes = one_hot(photos.labels[index], logits.shape[1]).float()
        return _label_loss(logits, mix(classes), recipe) * len(x), len(x)

    def report() -> dict[str, float]:
        return accuracy(model.early_logits, held_out, recipe.label_size, recipe)

    n, seed = len(photos.labels), recipe.labels.seed
    train(
        model,
        lambda epoch: _batches(n, recipe.label_batch, seed, epoch),
        cost,
        recipe.labels,
        checkpoint,
        report=report,
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

    def cost(batch: Batch) -> tuple[Tensor, int]:
        seed, index = batch[0], ranks.part(batch[1])
        rng = np.random.default_rng([*seed, ranks.number()])
        other = rng.integers(0, len(labelled.labels), recipe.labelled_batch // ranks.count())
        small, _ = augment(labelled.pixels[other], size, 0.7, rng)
        x, mirrored = augment(captioned.pixels[index], size, 0.75, rng)
        (x, mix), (small, mix_small) = (pasted(p, recipe.distil_paste, rng) for p in (x, small))
        seen = erased(torch.cat([x, small]), recipe.erase, rng)
        with recipe.autocast():
            fc7 = model.dropout(model(seen))
            predicted = model.fc7_head(fc7[: len(x)]).float()
            logits = model.label_head(fc7[len(x) :])
        real = torch.where(mirrored[:, None], captioned.flipped[index], captioned.fc7[index])
        loss = distillation_loss(predicted, normalize(mix(real)), mean)
        classes = labelled.labels[other]
        named = mix_small(one_hot(classes, logits.shape[1]).float())
        loss = loss + recipe.label_weight * _label_loss(logits, named, recipe)
        if captioned.targets is None:
            return loss * len(x), len(x)
        places = model.target_head(fc7.float())
        targets, many = mix(captioned.targets[index]), len(x)
        if labelled.targets is None:
            places = places[:many]
        else:
            targets = torch.cat([targets, mix_small(labelled.targets[classes])])
        loss = loss + recipe.target_weight * joint_loss(places, targets, recipe.margin)
        if pool is not None:
            shares = mix(captioned.matches.shares(index.numpy()))
            if labelled.matches is not None:
                shares = torch.cat([shares, mix_small(labelled.matches.shares(classes.numpy()))])
            with recipe.autocast():
                scores = normalize(places[: len(shares)]) @ pool.T
            chosen = choice_cost(scores.float() / recipe.temperature, shares) / len(shares)
            loss = loss + recipe.choice_weight * chosen
        return loss * len(x), len(x)

    n, seed = len(captioned.fc7), options.seed
    train(
        model,
        lambda epoch: _batches(n, recipe.captioned_batch, seed, epoch),
        cost,
        options,
        checkpoint,
        report=report,
        save=save,
    )


def _label_loss(logits: Tensor, labels: Tensor, recipe: Recipe) -> Tensor:
    return cross_entropy(logits.float(), labels, label_smoothing=recipe.label_smoothing)
