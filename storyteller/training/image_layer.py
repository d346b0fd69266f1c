"""Training an image layer against fixed sentence vectors.

A joint space whose sentence encoder has been trained takes the features of any network, once a
linear layer leads them there. That layer alone is learned here, by the cost of
:func:`~.embedding.contrastive_cost`, which takes seconds: sentences are encoded once.

Dimension letters: P photos, N captions, F features, E joint space, B batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ..formats import MismatchError, PathLike
from ..layers import unit_rows
from . import distributed
from .embedding import contrastive_cost
from .loop import train
from .options import TrainOptions, check


@dataclass(frozen=True)
class ImageLayerOptions:
    """Options of the image layer."""

    temperature: float = 0.08  # of the softmax over cosines
    dropout: float = 0.5  # of the features
    batch_size: int = 512  # photos

    def __post_init__(self) -> None:
        check(self, 'more than 0', 'temperature')
        check(self, '0 to below 1', 'dropout')
        if self.batch_size < 2:
            raise ValueError(f'batch_size: expected at least 2, found {self.batch_size!r}')


def fit_image_layer(
    views: Sequence[np.ndarray],
    sentences: np.ndarray,
    photos: np.ndarray,
    training: TrainOptions,
    checkpoint: PathLike,
    options: ImageLayerOptions | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Train a layer from scratch.

    Parameters
    ----------
    views : sequence of (P, F) arrays
        Unit rows: features of the photos, and of the same photos mirrored. Later ones may hold
        fewer photos, the first of all.
    sentences : (N, E) array
        Unit rows.
    photos : (N,) int array
        The photo of each caption, a row of the views.
    training, checkpoint
        As for :func:`storyteller.training.loop.train`.
    options : ImageLayerOptions, optional

    Returns
    -------
    weight, bias : (F, E) and (E,) float32 arrays
        A photo is at ``unit_rows(features @ weight + bias)``.

    Raises
    ------
    MismatchError
        If there are not as many photos as sentences, or a photo is not in the first view.
    """
    options, photos = options or ImageLayerOptions(), np.asarray(photos)
    if len(photos) != len(sentences) or not len(photos):
        raise MismatchError(f'{len(sentences)} sentences, but {len(photos)} numbers of photos')
    if not 0 <= photos.min() <= photos.max() < len(views[0]):
        raise MismatchError(
            f'captions of photos {photos.min()} to {photos.max()}, but {len(views[0])} photos'
        )
    known = [torch.from_numpy(np.asarray(view, np.float32)) for view in views]
    vectors = torch.from_numpy(unit_rows(np.asarray(sentences, np.float32)))
    torch.manual_seed(training.seed)
    layer = nn.Linear(known[0].shape[1], vectors.shape[1])
    nn.init.normal_(layer.weight, std=0.02)
    nn.init.zeros_(layer.bias)

    def batches(epoch: int) -> list[tuple[int, np.ndarray]]:
        """View and captions, of each photo at most one, whichever comes first when shuffled."""
        rng, found = np.random.default_rng([training.seed, epoch]), []
        for number, view in enumerate(known):
            order = rng.permutation(np.flatnonzero(photos < len(view)))
            order = rng.permutation(order[np.unique(photos[order], return_index=True)[1]])
            cuts = range(0, len(order), options.batch_size)
            found += [(number, order[i : i + options.batch_size]) for i in cuts]
        found = [found[i] for i in rng.permutation(len(found))]
        return [job for job in found if len(job[1]) > 1 and distributed.enough(job[1])]

    def cost(job: tuple[int, np.ndarray]) -> tuple[Tensor, int]:
        number, own = job[0], distributed.part(job[1])
        features = nn.functional.dropout(known[number][photos[own]], options.dropout)
        images = nn.functional.normalize(layer(features), dim=1)
        whole = distributed.gather(images), distributed.gather(vectors[own])
        return distributed.once(contrastive_cost(*whole, options.temperature)), len(own)

    train(layer, batches, cost, training, checkpoint)
    weight, bias = (value.detach().numpy() for value in (layer.weight, layer.bias))
    return np.ascontiguousarray(weight.T), bias.copy()
