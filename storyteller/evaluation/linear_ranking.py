"""Image-sentence ranking with fixed vectors: only linear maps are learned.

Kiros et al. (2015), "Skip-Thought Vectors", section 3.4: images and sentences go through a linear
map each into a common space, learned with the pairwise ranking loss, and are ranked by cosine
there.

Dimension letters: P images, N sentences, F and D widths of their vectors, E joint space.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn.functional import normalize
from tqdm import tqdm

from ..captions.ranking import Ranking, i2t, t2i
from ..training.embedding import ranking_cost


@dataclass(frozen=True)
class Described:
    """Images (P, F), sentences (N, D), and each sentence's image, (N,), rising from 0."""

    images: np.ndarray
    sentences: np.ndarray
    owner: np.ndarray


def linear_ranking(
    train: Described,
    dev: Described,
    test: Described,
    *,
    dim: int = 1000,
    margin: float = 0.2,
    lr: float = 1e-3,
    epochs: int = 15,
    batch_size: int = 100,
    seed: int = 1234,
    verbose: bool = True,
) -> dict[str, Ranking]:
    """Learn both maps on `train`, keep those of the best epoch on `dev`; i2t and t2i of `test`.

    `dim` is E. A batch holds an image once; the best epoch has the largest sum of recalls.
    """
    widths = [x.shape[1] for x in (train.images, train.sentences)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        maps = nn.ModuleList(nn.Linear(width, dim, dtype=torch.float32) for width in widths)
    optimizer = torch.optim.Adam(maps.parameters(), lr)
    rng, best = np.random.default_rng(seed), -1.0
    kept: dict[str, Ranking] = {}
    for _ in tqdm(range(epochs), disable=not verbose, unit='epoch'):
        for rows in _batches(train.owner, batch_size, rng):
            optimizer.zero_grad()
            pair = train.images[train.owner[rows]], train.sentences[rows]
            images, sentences = _joined(maps, *pair)
            ranking_cost(images, sentences, margin).backward()
            optimizer.step()
        found = _ranked(maps, dev)
        if (total := sum(sum(ranking[:3]) for ranking in found.values())) > best:
            best, kept = total, _ranked(maps, test)
    return kept


def _batches(owner: np.ndarray, size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Batches of sentences in random order, with at most one sentence per image."""
    order = rng.permutation(len(owner))
    parts = [order[i : i + size] for i in range(0, len(order), size)]
    parts = [part[np.unique(owner[part], return_index=True)[1]] for part in parts]
    return [part for part in parts if len(part) > 1]


def _joined(maps: nn.ModuleList, *pair: np.ndarray) -> list[torch.Tensor]:
    rows = (torch.from_numpy(np.ascontiguousarray(x, np.float32)) for x in pair)
    return [normalize(linear(x)) for linear, x in zip(maps, rows, strict=True)]


def _ranked(maps: nn.ModuleList, part: Described) -> dict[str, Ranking]:
    with torch.no_grad():
        images, sentences = (x.numpy() for x in _joined(maps, part.images, part.sentences))
    counts = np.bincount(part.owner, minlength=len(part.images))
    return {
        name: measure(images, sentences, captions_per_image=counts)
        for name, measure in (('i2t', i2t), ('t2i', t2i))
    }
