"""Where the upper layers of the narrow network begin: a linear map of the convolutions.

After the first stage the convolutions see well, and what comes above them knows nothing. Gradients
from there would first undo what the convolutions have learned. So fc6, fc7 and the heads begin as
the best linear map (ridge regression of a given rank) from the last pooling layer to all that the
second stage is to learn; no gradient is needed for that.

A linear map passes through a ReLU as two halves: x = relu(x) - relu(-x).

Dimension letters: N photos, L width of the last pooling layer, R rank, Q all that is predicted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from . import ranks
from .network import TrainableNet
from .photos import Captioned, Labelled, plain_batch

AT_ONCE = 200  # photos in a batch
WARM_UP = 30  # batches that settle the statistics of the normalisation at the larger size
LOGITS = 12.0  # what stands between a class and the others where the map is sure


@dataclass(frozen=True)
class Start:
    """How the upper layers begin.

    Attributes
    ----------
    labelled : int
        Photos with labels that the map is fitted on, beside all captioned ones and their mirrors.
    ridge, head_ridge : float
        Strength of the regression on the pooling layer, and of the heads' on fc7.
    label_weight : float
        Weight of the labels where the rank forces a choice; what the real fc7 and the joint space
        ask for weigh 1 each.
    """

    labelled: int = 9000
    ridge: float = 0.3
    head_ridge: float = 0.05
    label_weight: float = 0.7

    def __post_init__(self) -> None:
        if self.labelled < 1:
            raise ValueError(f'labelled: expected 1 or more, found {self.labelled!r}')
        for name in ('ridge', 'head_ridge', 'label_weight'):
            if not getattr(self, name) > 0:
                raise ValueError(f'{name}: expected more than 0, found {getattr(self, name)!r}')


def begin(
    model: TrainableNet, captioned: Captioned, labelled: Labelled, start: Start, seed: int = 0
) -> None:
    """Set fc6, fc7 and the heads, and the statistics of all normalisations.

    Parameters
    ----------
    model : TrainableNet
        Whose convolutions have been trained; fc6 and fc7 must be equally wide.
    captioned, labelled : Captioned, Labelled
        The training photos of the second stage.
    """
    width, other = model.architecture.fc
    if width != other or width % 2:
        raise ValueError(f'fc: expected two equal, even widths, found {model.architecture.fc}')
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(labelled.labels))[: start.labelled]
    settle(model, captioned, labelled, rng)
    photos, mirrored, small = (
        pooled(model, pixels, flip)
        for pixels, flip in (
            (captioned.pixels, False),
            (captioned.pixels, True),
            (labelled.pixels[chosen], False),
        )
    )
    wanted = Wanted.of(captioned, labelled, labelled.labels[chosen], model.label_head.out_features)
    H, n = np.concatenate([photos, mirrored, small]), 2 * len(photos)
    device = model.device
    model.cpu()  # regressions in float64 are none of a GPU's strengths
    set_layers(model, H, projection(H, n, wanted, start, width // 2))
    set_heads(model, through(model, H), n, wanted, start)
    model.to(device)
    ranks.spread(model)


@dataclass(frozen=True)
class Wanted:
    """What is to be predicted: fc7 of the captioned photos, places of both, classes of labelled."""

    fc7: np.ndarray
    places: np.ndarray | None
    classes: np.ndarray

    @classmethod
    def of(cls, captioned: Captioned, labelled: Labelled, labels: Tensor, count: int) -> Wanted:
        fc7 = torch.cat([captioned.fc7, captioned.flipped]).numpy()
        places = None
        if captioned.targets is not None:
            own = [captioned.targets, captioned.targets]
            own += [] if labelled.targets is None else [labelled.targets[labels]]
            places = torch.cat(own).numpy()
        return cls(fc7, places, np.eye(count, dtype=np.float32)[labels.numpy()])


def settle(
    model: TrainableNet, captioned: Captioned, labelled: Labelled, rng: np.random.Generator
) -> None:
    """Let the normalisations see photos as the second stage shows them."""
    size, kinds = model.architecture.input_size, (captioned.pixels, labelled.pixels)

    def shown() -> Tensor:
        parts = [pixels[rng.integers(0, len(pixels), 56)].to(model.device) for pixels in kinds]
        return torch.cat([plain_batch(part, size) for part in parts])

    model.settle((shown() for _ in range(WARM_UP)), whole=False)


def pooled(model: TrainableNet, pixels: Tensor, flip: bool) -> np.ndarray:
    """The last pooling layer of photos as the finished network sees them, (N, L)."""
    found, size, mode = [], model.architecture.input_size, model.training
    model.eval()
    with torch.no_grad():
        for part in pixels.split(AT_ONCE):
            x = plain_batch(part.to(model.device), size)
            found.append(model.pooled(x.flip(3) if flip else x).flatten(1).cpu().numpy())
    model.train(mode)
    return np.concatenate(found)


def projection(H: np.ndarray, n: int, wanted: Wanted, start: Start, rank: int) -> np.ndarray:
    """The directions (L, R) of the pooling layer that matter most for what is wanted.

    They are the leading directions of the best linear prediction of everything (a reduced-rank
    regression), each scaled to variance 1. The first `n` rows of `H` are captioned photos.
    """
    centred = H - H.mean(0)
    pairs = [(centred[:n], wanted.fc7), (centred[n:], wanted.classes)]
    if wanted.places is not None:
        pairs.insert(1, (centred[: len(wanted.places)], wanted.places))
    maps = [ridge(X - X.mean(0), Y - Y.mean(0), start.ridge) for X, Y in pairs]
    gram = centred.T.astype(np.float64) @ centred / len(centred)
    weights = [1 / np.sqrt(max(1e-30, np.trace(A.T @ gram @ A))) for A in maps]
    weights[-1] *= start.label_weight
    together = np.concatenate([w * A for w, A in zip(weights, maps, strict=True)], axis=1)
    values, vectors = np.linalg.eigh(gram)
    roots = np.sqrt(np.maximum(values, values.max() * 1e-7))
    left = np.linalg.svd((vectors * roots) @ (vectors.T @ together), full_matrices=False)[0]
    return (vectors / roots) @ (vectors.T @ left[:, :rank])


def ridge(X: np.ndarray, Y: np.ndarray, strength: float) -> np.ndarray:
    """The matrix A (L, Q) that minimises ||X A - Y||² + strength · mean(diag(X'X)) · ||A||²."""
    gram = X.T.astype(np.float64) @ X
    gram[np.diag_indices_from(gram)] += strength * np.trace(gram) / len(gram)
    return np.linalg.solve(gram, X.T.astype(np.float64) @ Y)


def set_layers(model: TrainableNet, H: np.ndarray, directions: np.ndarray) -> None:
    """fc6 becomes both halves of the directions, fc7 hands them on."""
    weight = torch.from_numpy(np.concatenate([directions, -directions], 1).T.astype(np.float32))
    x = torch.from_numpy(H)
    missing = len(model.fcs[0].weight) - len(weight)  # where there are fewer directions than units
    with torch.no_grad():
        model.fcs[0].weight.copy_(nn.functional.pad(weight, (0, 0, 0, missing)))
        model.fcs[1].weight.copy_(torch.eye(len(model.fcs[1].weight)))
        for i, (fc, norm) in enumerate(zip(model.fcs, model.norms, strict=True)):
            sums = fc(x)
            mean, var = sums.mean(0), sums.var(0)
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(var)
            norm.weight.fill_(1)
            # fc7 keeps what is positive positive.
            norm.bias.copy_(mean / var.sqrt().clamp(min=1e-3) if i else torch.zeros_like(mean))
            x = _layer(fc, norm, x)


def _layer(fc: nn.Linear, norm: nn.BatchNorm1d, x: Tensor) -> Tensor:
    known = norm.running_mean, norm.running_var, norm.weight, norm.bias
    return torch.relu(nn.functional.batch_norm(fc(x), *known, eps=norm.eps))


def through(model: TrainableNet, H: np.ndarray) -> np.ndarray:
    """fc7 (N, F) from the pooling layer (N, L)."""
    x = torch.from_numpy(H)
    with torch.no_grad():
        for fc, norm in zip(model.fcs, model.norms, strict=True):
            x = _layer(fc, norm, x)
    return x.numpy()


def set_heads(model: TrainableNet, F: np.ndarray, n: int, wanted: Wanted, start: Start) -> None:
    """The heads become the best linear maps from fc7; they have no constant, but fc7 has."""

    def fitted(X: np.ndarray, Y: np.ndarray) -> Tensor:
        return torch.from_numpy(ridge(X, Y, start.head_ridge).T.astype(np.float32))

    with torch.no_grad():
        model.fc7_head.weight.copy_(fitted(F[:n], wanted.fc7))
        if wanted.places is not None:
            model.target_head.weight.copy_(fitted(F[: len(wanted.places)], wanted.places))
        shares = wanted.classes - wanted.classes.mean(0)
        model.label_head.weight.copy_(fitted(F[n:], LOGITS * shares))
        model.label_head.bias.zero_()
