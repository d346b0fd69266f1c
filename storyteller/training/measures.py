"""How good a narrow VGG network is while it is trained: classes, vectors, places."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from .photos import Captioned, Labelled, plain_batch

if TYPE_CHECKING:
    from .network import TrainableNet
    from .recipe import Recipe


def accuracy(
    scores: Callable[[Tensor], Tensor], photos: Labelled, size: int, recipe: Recipe
) -> dict[str, float]:
    """Share of photos whose class is the first, and among the first five, by class scores."""
    logits = _in_batches(scores, photos.pixels, size, recipe)
    rank = (logits > logits.gather(1, photos.labels[:, None])).sum(1)
    return {f'top{k}': (rank < k).float().mean().item() for k in (1, 5)}


def measures(
    model: TrainableNet, photos: Captioned, labelled: Labelled, mean: Tensor, recipe: Recipe
) -> dict[str, float]:
    """How well the head predicts the real fc7 of photos, and the labels of others."""
    size = model.architecture.input_size
    guess = _in_batches(lambda x: model.fc7_head(model(x)), photos.pixels, size, recipe)
    guess = normalize(guess)
    found = {
        'cosine': cosine_similarity(guess, photos.fc7).mean().item(),
        **retrieval(guess - mean, photos.fc7 - mean),
        **accuracy(lambda x: model.label_head(model(x)), labelled, size, recipe),
    }
    if photos.targets is not None:
        places = _in_batches(lambda x: model.target_head(model(x)), photos.pixels, size, recipe)
        joint = retrieval(places, photos.targets)
        found |= {f'joint_{name}': value for name, value in joint.items()}
    return found


def retrieval(guess: Tensor, real: Tensor) -> dict[str, float]:
    """Cosine of (N, F) guesses to real vectors, and the own real vector's rank by cosine.

    Ranks are among the first 1,000: recall at 1, 5 and 10, and the median.
    """
    guess, real = normalize(guess[:1000]), normalize(real[:1000])
    scores = guess @ real.T
    rank = (scores > scores.diagonal()[:, None]).sum(1)
    found = {f'recall{k}': (rank < k).float().mean().item() for k in (1, 5, 10)}
    return {
        'centred_cosine': scores.diagonal().mean().item(),
        **found,
        'median_rank': rank.median().item() + 1,
    }


def _in_batches(
    scores: Callable[[Tensor], Tensor], pixels: Tensor, size: int, recipe: Recipe
) -> Tensor:
    with torch.inference_mode(), recipe.autocast(pixels.device):
        return torch.cat([scores(plain_batch(part, size)).float() for part in pixels.split(200)])
