"""Training a narrow VGG network on a few photos.

VGG-19 weighs 574 MB; the network made here is small enough to ship. It learns in two stages:

1. *labels*: the convolutions learn to name small photos (a class label each).
2. *distil*: fc6 and fc7 are added, and a linear head on fc7 learns to predict the fc7 vector that
   the real VGG-19 gives for captioned photos (Hinton, Vinyals and Dean, "Distilling the knowledge
   in a neural network", 2015), with the labels as a second task and, if wanted, the photos' places
   in a joint image-sentence space as a third.

Batch normalisation helps training only: it is folded into weights and biases at export, so that
what is exported is a plain VGG network (convolution or product, bias, ReLU).

The network remembers its training photos, and features of those are better than features of new
photos. Whatever is fitted on top of the features must not see that difference: `unseen_features`
gives features of every training photo from networks that did not train on it (folds), in the
coordinates of the final network.

Dimension letters: N photos, B batch, F width of fc7, E joint space, S side of the input in pixels.
"""

from __future__ import annotations

import io
import math
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn.functional import cosine_similarity, cross_entropy, interpolate, max_pool2d, relu
from tqdm import tqdm

from storyteller import formats
from storyteller.convnet import Architecture
from storyteller.images import CROP, MEAN_BGR, SHORT_SIDE

FC7 = 4096  # width of the real network's fc7, which the head predicts
Log = Callable[[dict[str, Any]], None]

NARROW = Architecture(
    blocks=((32,), (64, 64), (128, 128), (256, 256), (320, 320)), fc=(512, 512), input_size=112
)


@dataclass(frozen=True)
class TrainOptions:
    """Settings of the two stages.

    Parameters
    ----------
    label_epochs, distil_epochs, fold_epochs : int
        Passes over the labelled photos (first stage), over the captioned photos (second stage),
        and over the captioned photos in the second stage of each fold.
    label_size : int
        Side in pixels of the first stage's input.
    batch_size : int
    lr, distil_lr : float
        Peak learning rates of the stages; each rises for a sixth of the steps and falls along a
        cosine.
    weight_decay, label_smoothing, dropout : float
    label_weight, target_weight : float
        Weight of the labels' and of the joint space's loss in the second stage.
    margin : float
        Of the ranking loss in the joint space.
    labelled_share : float
        Labelled photos for each captioned photo in the second stage's batches.
    folds : int
        Parts of the training photos for `unseen_features`.
    bf16 : bool
        Compute in bfloat16 where that is safe (autocast).
    seed : int
    """

    label_epochs: int = 14
    distil_epochs: int = 14
    fold_epochs: int = 8
    label_size: int = 64
    batch_size: int = 64
    lr: float = 0.1
    distil_lr: float = 0.05
    weight_decay: float = 5e-4
    label_smoothing: float = 0.1
    dropout: float = 0.2
    label_weight: float = 0.3
    target_weight: float = 1.0
    margin: float = 0.2
    labelled_share: float = 0.5
    folds: int = 3
    bf16: bool = True
    seed: int = 1234

    def __post_init__(self) -> None:
        for name in ('label_epochs', 'distil_epochs', 'fold_epochs', 'batch_size'):
            if getattr(self, name) < 1:
                raise ValueError(f'{name} must be 1 or more, got {getattr(self, name)}')
        if self.folds < 2:
            raise ValueError(f'folds must be 2 or more, got {self.folds}')
        if not 0 <= self.dropout < 1:
            raise ValueError(f'dropout must be at least 0 and below 1, got {self.dropout}')


# --- data ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Labelled:
    """Small photos, (N, 3, 64, 64) uint8 RGB, and their classes, (N,) int64."""

    pixels: torch.Tensor
    labels: torch.Tensor


@dataclass(frozen=True)
class Captioned:
    """Photos with the real network's fc7.

    ``pixels`` (N, 3, side, side) uint8 RGB; ``fc7`` (N, 4096) unit rows; ``flipped`` the same for
    the mirrored photos; ``targets`` (N, E) unit rows in a joint space, or None.
    """

    pixels: torch.Tensor
    fc7: torch.Tensor
    flipped: torch.Tensor
    targets: torch.Tensor | None = None

    def subset(self, index: np.ndarray) -> Captioned:
        """The photos at `index`."""
        targets = None if self.targets is None else self.targets[index]
        return Captioned(self.pixels[index], self.fc7[index], self.flipped[index], targets)


def read_labelled(paths: Sequence[Path]) -> Labelled:
    """Read ``.npz`` files that hold JPEG photos end to end (`jpeg`, `offsets`, `labels`)."""
    pixels, labels = [], []
    for path in paths:
        with np.load(formats.existing(path, 'labelled photos'), allow_pickle=False) as file:
            jpeg, offsets = file['jpeg'], file['offsets']
            labels.append(file['labels'].astype(np.int64))
        spans = zip(offsets[:-1], offsets[1:], strict=True)
        pixels += [np.array(Image.open(io.BytesIO(jpeg[a:b].tobytes()))) for a, b in spans]
    return Labelled(
        torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous(),
        torch.from_numpy(np.concatenate(labels)),
    )


def read_photos(folder: Path) -> dict[str, bytes]:
    """The photos of a folder by name: its ``.jpg`` files and those in its ``.tar`` files."""
    photos = {path.name: path.read_bytes() for path in sorted(folder.glob('*.jpg'))}
    for path in sorted(folder.glob('*.tar')):
        with tarfile.open(path) as tar:
            for member in tar:
                if member.isfile() and (file := tar.extractfile(member)):
                    photos[Path(member.name).name] = file.read()
    if not photos:
        raise formats.MissingFileError(f'{folder}: no .jpg and no .tar file (expected photos)')
    return photos


def read_captioned(
    folder: Path, split: str = 'train', side: int = 128, targets: Path | None = None
) -> Captioned:
    """Read the photos of a split, reduced to `side` pixels, and the real network's fc7.

    Parameters
    ----------
    folder : path
        Holds the photos, ``{split}.txt`` (one file name a line), ``fc7_{split}.npz`` and, if
        there is one, ``fc7_{split}_flipped.npz`` for the first photos mirrored.
    targets : path, optional
        ``.npy`` of one (E,) vector for each photo in a joint space.
    """
    names, photos = read_names(folder, split), read_photos(folder)
    fc7 = _read_fc7(folder / f'fc7_{split}.npz')
    if len(fc7) != len(names):
        raise formats.MismatchError(f'{folder}: {len(names)} names in {split}.txt, {len(fc7)} fc7')
    flipped = fc7.clone()
    if (path := folder / f'fc7_{split}_flipped.npz').exists():
        part = _read_fc7(path)
        flipped[: len(part)] = part
    matrix = None if targets is None else torch.from_numpy(formats.read_array(targets))
    if matrix is not None and len(matrix) != len(names):
        raise formats.MismatchError(f'{targets}: {len(matrix)} rows for {len(names)} photos')
    pixels = torch.stack([_square(photos[name], side) for name in names])
    return Captioned(pixels, fc7, flipped, matrix)


def read_names(folder: Path, split: str) -> list[str]:
    """The file names of a split."""
    return formats.read_lines(folder / f'{split}.txt')


def _read_fc7(path: Path) -> torch.Tensor:
    with np.load(formats.existing(path, 'fc7 vectors'), allow_pickle=False) as file:
        return nn.functional.normalize(torch.from_numpy(file['fc7'].astype(np.float32)))


def _square(jpeg: bytes, side: int) -> torch.Tensor:
    """A photo's central square as (3, side, side) uint8, by the road that new photos take."""
    image = Image.open(io.BytesIO(jpeg)).convert('RGB')
    x = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()
    short = min(x.shape[2:])
    top, left = (x.shape[2] - short) // 2, (x.shape[3] - short) // 2
    x = x[:, :, top : top + short, left : left + short]
    x = interpolate(x, size=(SHORT_SIDE, SHORT_SIDE), mode='bilinear', align_corners=False)
    return interpolate(x, size=(side, side), mode='area')[0].round().to(torch.uint8)


def augment(
    pixels: torch.Tensor, size: int, min_crop: float, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Crop, mirror and tint a batch at random.

    Parameters
    ----------
    pixels : (B, 3, side, side) uint8 tensor, RGB
    size : int
        Side of the result.
    min_crop : float
        Smallest crop, as a share of the side. One batch shares the size of its crops.

    Returns
    -------
    x : (B, 3, size, size) float32 tensor
        BGR less the mean.
    mirrored : (B,) bool tensor
    """
    n, _, side, _ = pixels.shape
    crop = int(rng.integers(math.ceil(min_crop * side), side + 1))
    tops, lefts = rng.integers(0, side - crop + 1, (2, n))
    x = torch.stack(
        [pixels[i, :, t : t + crop, s : s + crop] for i, (t, s) in enumerate(zip(tops, lefts))]  # noqa: B905
    ).float()
    if crop != size:
        x = interpolate(x, size=(size, size), mode='bilinear', align_corners=False)
    mirrored = torch.from_numpy(rng.random(n) < 0.5)
    x[mirrored] = x[mirrored].flip(3)
    return _tint(x, rng).flip(1).contiguous(memory_format=torch.channels_last), mirrored


def _tint(x: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Random saturation, contrast and colour cast; takes and gives RGB, the mean subtracted."""
    n = len(x)
    mean = torch.tensor(MEAN_BGR[::-1]).view(1, 3, 1, 1)
    saturation = torch.from_numpy(rng.uniform(0.6, 1.4, (n, 1, 1, 1)).astype(np.float32))
    contrast = torch.from_numpy(rng.uniform(0.8, 1.2, (n, 1, 1, 1)).astype(np.float32))
    cast = torch.from_numpy(
        (rng.normal(0, 10, (n, 1, 1, 1)) + rng.normal(0, 4, (n, 3, 1, 1))).astype(np.float32)
    )
    grey = x.mean(1, keepdim=True)
    return (grey + saturation * (x - grey) - mean) * contrast + cast


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

    def forward(self, x: torch.Tensor) -> torch.Tensor:
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
        widths = [(w, j == len(block) - 1) for block in architecture.blocks for j, w in enumerate(block)]
        n_in = [3] + [w for w, _ in widths]
        self.convs = nn.ModuleList(_Conv(n, w, pool) for n, (w, pool) in zip(n_in, widths))  # noqa: B905
        top = n_in[-1]
        sizes = [top * architecture.pooled**2, *architecture.fc]
        self.fcs = nn.ModuleList(nn.Linear(a, b, bias=False) for a, b in zip(sizes, sizes[1:]))  # noqa: B905
        self.norms = nn.ModuleList(nn.BatchNorm1d(n) for n in architecture.fc)
        self.dropout = nn.Dropout(dropout)
        self.early_head = nn.Linear(top, n_classes)
        self.label_head = nn.Linear(architecture.dim, n_classes)
        # No bias: a head that is a product alone can be merged into an image matrix.
        self.fc7_head = nn.Linear(architecture.dim, FC7, bias=False)
        self.target_head = nn.Linear(architecture.dim, n_targets, bias=False) if n_targets else None

    def pooled(self, x: torch.Tensor) -> torch.Tensor:
        """The last pooling layer, (B, C, P, P)."""
        for conv in self.convs:
            x = conv(x)
        return x

    def early_logits(self, x: torch.Tensor) -> torch.Tensor:
        """Class scores from the convolutions alone, for inputs of any size."""
        return self.early_head(self.dropout(self.pooled(x).mean((2, 3))))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """fc7, (B, F)."""
        x = self.pooled(x).flatten(1)
        for i, (fc, norm) in enumerate(zip(self.fcs, self.norms)):  # noqa: B905
            x = relu(norm(fc(self.dropout(x) if i else x)))
        return x


def export_params(model: TrainableNet) -> dict[str, np.ndarray]:
    """The plain network's parameters, batch normalisation folded in, under their 2015 names."""
    layers = [(conv.conv, conv.norm) for conv in model.convs]
    layers += list(zip(model.fcs, model.norms))  # noqa: B905
    names = [n.removesuffix('_W') for n in model.architecture.shapes() if n.endswith('_W')]
    params = {}
    for name, (layer, norm) in zip(names, layers, strict=True):
        scale = norm.weight.detach() / torch.sqrt(norm.running_var + norm.eps)
        weight = layer.weight.detach() * scale.view(-1, *[1] * (layer.weight.ndim - 1))
        bias = norm.bias.detach() - norm.running_mean * scale
        params[f'{name}_W'] = (weight if weight.ndim == 4 else weight.T).cpu().numpy()
        params[f'{name}_b'] = bias.cpu().numpy()
    return params


def export(model: TrainableNet, path: Path, dtype: str = 'float16') -> None:
    """Write the plain network as a file that `build_convnet` reads."""
    formats.write_model(path, export_params(model), model.architecture.options(), dtype=dtype)


# --- objectives ----------------------------------------------------------------------------------


def distillation_loss(
    predicted: torch.Tensor, fc7: torch.Tensor, mean: torch.Tensor
) -> torch.Tensor:
    """1 - cosine, plus 1 - cosine of what remains without the photos' mean vector.

    All fc7 vectors share a large mean; what tells photos apart is the rest. Takes (B, 4096)
    predictions, (B, 4096) unit rows and the (4096,) mean of all unit rows.
    """
    predicted = nn.functional.normalize(predicted)
    plain = 1 - (predicted * fc7).sum(1)
    centred = 1 - cosine_similarity(predicted - mean, fc7 - mean)
    return (plain + centred).mean()


def ranking_loss(images: torch.Tensor, targets: torch.Tensor, margin: float) -> torch.Tensor:
    """Hinge loss over a batch: each photo nearest to its own target, and the reverse, (B, E) each."""
    scores = nn.functional.normalize(images) @ nn.functional.normalize(targets).T
    own = scores.diagonal()
    cost = relu(margin + scores - own[:, None]) + relu(margin + scores - own[None, :])
    return (cost.sum() - cost.diagonal().sum()) / len(scores)


# --- stages --------------------------------------------------------------------------------------


@dataclass
class Stage:
    """One run of the optimiser: its name, its length, and a function epoch -> losses."""

    name: str
    epochs: int
    steps: int
    lr: float
    losses: Callable[[np.random.Generator], Iterator[torch.Tensor]]
    measure: Callable[[], dict[str, float]]


class OutOfTime(Exception):
    """The time given is over; everything is saved."""


def run_stage(
    model: TrainableNet,
    stage: Stage,
    options: TrainOptions,
    path: Path,
    log: Log,
    deadline: float = math.inf,
) -> None:
    """Train `model` through a stage, saving to `path` after each epoch and going on from there.

    Raises
    ------
    OutOfTime
        When `deadline` (of `time.monotonic`) has passed at the end of an epoch and more remain.
    """
    optimiser = _optimiser(model, options)
    first = _restore(model, optimiser, stage, path)
    for epoch in range(first, stage.epochs):
        rng = np.random.default_rng([options.seed, *stage.name.encode(), epoch])
        start, total = time.monotonic(), 0.0
        bar = tqdm(total=stage.steps, desc=f'{stage.name} {epoch + 1}/{stage.epochs}', leave=False)
        with torch.random.fork_rng(), bar:
            torch.manual_seed(int(rng.integers(2**31)))
            model.train()
            for step, loss in enumerate(stage.losses(rng)):
                progress = (epoch + step / stage.steps) / stage.epochs
                for group in optimiser.param_groups:
                    group['lr'] = stage.lr * learning_rate(progress)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                total += loss.item()
                bar.update()
        if not math.isfinite(total):
            raise FloatingPointError(f'{stage.name}: the loss of epoch {epoch + 1} is {total}')
        model.eval()
        record = {'stage': stage.name, 'epoch': epoch + 1, 'loss': total / stage.steps}
        record['seconds'] = round(time.monotonic() - start, 1)
        log({**record, **stage.measure()})
        _save(model, optimiser, stage, epoch + 1, path)
        if time.monotonic() > deadline and epoch + 1 < stage.epochs:
            raise OutOfTime(f'{stage.name}: saved after epoch {epoch + 1} of {stage.epochs}')


def learning_rate(progress: float, warmup: float = 1 / 6) -> float:
    """Share of the peak rate at `progress` in 0..1: up in a line, down along a cosine.

    Examples
    --------
    >>> [round(learning_rate(p), 2) for p in (0, 1 / 12, 1 / 6, 1)]
    [0.02, 0.51, 1.0, 0.0]
    """
    if progress < warmup:
        return 0.02 + 0.98 * progress / warmup
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


def _optimiser(model: TrainableNet, options: TrainOptions) -> torch.optim.Optimizer:
    """SGD with momentum; weights decay, biases and normalisation do not."""
    params = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {'params': [p for p in params if p.ndim > 1], 'weight_decay': options.weight_decay},
        {'params': [p for p in params if p.ndim == 1], 'weight_decay': 0.0},
    ]
    return torch.optim.SGD(groups, lr=options.lr, momentum=0.9, nesterov=True)


def _save(
    model: TrainableNet, optimiser: torch.optim.Optimizer, stage: Stage, epoch: int, path: Path
) -> None:
    state = {'name': stage.name, 'epoch': epoch, 'epochs': stage.epochs, 'lr': stage.lr}
    state |= {'model': model.state_dict(), 'optimiser': optimiser.state_dict()}
    with formats.atomic_path(path) as temporary:
        torch.save(state, temporary)


def _restore(
    model: TrainableNet, optimiser: torch.optim.Optimizer, stage: Stage, path: Path
) -> int:
    """Take up a saved stage; returns the number of epochs behind it."""
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    for key in ('name', 'epochs', 'lr'):
        if state[key] != getattr(stage, key):
            raise formats.MismatchError(
                f'{path}: saved with {key} {state[key]!r}, not {getattr(stage, key)!r}'
            )
    model.load_state_dict(state['model'])
    optimiser.load_state_dict(state['optimiser'])
    return state['epoch']


def label_stage(
    model: TrainableNet, train: Labelled, held_out: Labelled, options: TrainOptions
) -> Stage:
    """The first stage: name small photos from the convolutions alone."""

    def losses(rng: np.random.Generator) -> Iterator[torch.Tensor]:
        for index in _batches(len(train.labels), options.batch_size * 2, rng):
            x, _ = augment(train.pixels[index], options.label_size, 0.6, rng)
            with _autocast(options):
                logits = model.early_logits(x)
            yield cross_entropy(
                logits.float(), train.labels[index], label_smoothing=options.label_smoothing
            )

    def measure() -> dict[str, float]:
        return _accuracy(
            lambda x: model.early_logits(x), held_out, options.label_size, options
        )

    steps = len(train.labels) // (options.batch_size * 2)
    return Stage('labels', options.label_epochs, steps, options.lr, losses, measure)


def distil_stage(
    model: TrainableNet,
    captioned: Captioned,
    labelled: Labelled,
    options: TrainOptions,
    name: str = 'distil',
    epochs: int | None = None,
    measure: Callable[[], dict[str, float]] = dict,
) -> Stage:
    """The second stage: predict the real network's fc7, with the labels beside it."""
    size, mean = model.architecture.input_size, captioned.fc7.mean(0)
    n_labelled = round(options.batch_size * options.labelled_share)

    def losses(rng: np.random.Generator) -> Iterator[torch.Tensor]:
        named = _forever(len(labelled.labels), n_labelled, rng)
        for index in _batches(len(captioned.fc7), options.batch_size, rng):
            x, mirrored = augment(captioned.pixels[index], size, 0.75, rng)
            other = next(named)
            small, _ = augment(labelled.pixels[other], size, 0.7, rng)
            with _autocast(options):
                fc7 = model.dropout(model(torch.cat([x, small])))
                ours, theirs = fc7[: len(x)], fc7[len(x) :]
                predicted, logits = model.fc7_head(ours), model.label_head(theirs)
            real = torch.where(mirrored[:, None], captioned.flipped[index], captioned.fc7[index])
            loss = distillation_loss(predicted.float(), real, mean)
            loss = loss + options.label_weight * cross_entropy(
                logits.float(), labelled.labels[other], label_smoothing=options.label_smoothing
            )
            if captioned.targets is not None:
                place, target = model.target_head(ours).float(), captioned.targets[index]
                joint = (1 - cosine_similarity(place, target)).mean()
                joint = joint + ranking_loss(place, target, options.margin)
                loss = loss + options.target_weight * joint
            yield loss

    steps = len(captioned.fc7) // options.batch_size
    return Stage(name, epochs or options.distil_epochs, steps, options.distil_lr, losses, measure)


def _autocast(options: TrainOptions) -> torch.autocast:
    return torch.autocast('cpu', dtype=torch.bfloat16, enabled=options.bf16)


def _batches(n: int, size: int, rng: np.random.Generator) -> Iterator[torch.Tensor]:
    """One epoch of index batches in random order; the incomplete last batch is left out."""
    order = torch.from_numpy(rng.permutation(n))
    yield from order[: n // size * size].view(-1, size)


def _forever(n: int, size: int, rng: np.random.Generator) -> Iterator[torch.Tensor]:
    while True:
        yield from _batches(n, size, rng)


# --- measures ------------------------------------------------------------------------------------


def plain_batch(pixels: torch.Tensor, size: int) -> torch.Tensor:
    """Photos as the finished network sees them: the centre, (B, 3, size, size), BGR less mean."""
    side = pixels.shape[-1]
    inner = round(side * CROP / SHORT_SIDE)
    edge = (side - inner) // 2
    x = pixels[:, :, edge : edge + inner, edge : edge + inner].float()
    if inner != size:
        x = interpolate(x, size=(size, size), mode='bilinear', align_corners=False)
    x = x - torch.tensor(MEAN_BGR[::-1]).view(1, 3, 1, 1)
    return x.flip(1).contiguous(memory_format=torch.channels_last)


def _accuracy(
    scores: Callable[[torch.Tensor], torch.Tensor],
    photos: Labelled,
    size: int,
    options: TrainOptions,
) -> dict[str, float]:
    """Share of photos whose class is the first, or among the first five."""
    ranks = []
    for start in range(0, len(photos.labels), 200):
        x = plain_batch(photos.pixels[start : start + 200], size)
        with torch.inference_mode(), _autocast(options):
            logits = scores(x).float()
        own = logits.gather(1, photos.labels[start : start + 200, None])
        ranks.append((logits > own).sum(1))
    rank = torch.cat(ranks)
    return {
        'top1': (rank < 1).float().mean().item(),
        'top5': (rank < 5).float().mean().item(),
    }


def distil_measures(
    model: TrainableNet,
    photos: Captioned,
    labelled: Labelled,
    mean: torch.Tensor,
    options: TrainOptions,
) -> dict[str, float]:
    """Cosine of the predicted to the real fc7, and how often the nearest real one is the own."""
    size, predicted = model.architecture.input_size, []
    for start in range(0, len(photos.fc7), 200):
        with torch.inference_mode(), _autocast(options):
            x = plain_batch(photos.pixels[start : start + 200], size)
            predicted.append(model.fc7_head(model(x)).float())
    guess = nn.functional.normalize(torch.cat(predicted))
    named = _accuracy(lambda x: model.label_head(model(x)), labelled, size, options)
    return {**retrieval(guess - mean, photos.fc7 - mean), 'cosine': _cosine(guess, photos.fc7)} | named


def _cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return cosine_similarity(a, b).mean().item()


def retrieval(guess: torch.Tensor, real: torch.Tensor) -> dict[str, float]:
    """Among the first 1,000 photos: recall at 1, 5, 10 and median rank of the own real vector."""
    guess, real = guess[:1000], real[:1000]
    scores = nn.functional.normalize(guess) @ nn.functional.normalize(real).T
    rank = (scores > scores.diagonal()[:, None]).sum(1)
    measures = {f'r{k}': (rank < k).float().mean().item() for k in (1, 5, 10)}
    measures['median_rank'] = rank.median().item() + 1
    measures['centred_cosine'] = _cosine(guess, real)
    return measures


# --- the whole recipe ----------------------------------------------------------------------------


class Trainer:
    """The recipe from photos to a finished network, in stages that can be interrupted.

    Parameters
    ----------
    data : path
        Holds ``tinyimagenet/`` and ``flickr8k/`` (see `read_labelled`, `read_captioned`).
    run : path
        Folder for what is saved: one file a stage, ``log.jsonl``, networks and features. A
        stage found there goes on from its last epoch.
    options : TrainOptions
    targets : path, optional
        ``.npy`` of the training photos' places in a joint space.
    log : callable
        Takes one dict for each epoch.
    deadline : float
        Of `time.monotonic`; past it, training stops after an epoch with `OutOfTime`.
    """

    def __init__(
        self,
        data: Path,
        run: Path,
        options: TrainOptions,
        architecture: Architecture = NARROW,
        *,
        targets: Path | None = None,
        log: Log,
        deadline: float = math.inf,
    ):
        self.data, self.run, self.options, self.architecture = data, run, options, architecture
        self.log, self.deadline = log, deadline
        tiny = data / 'tinyimagenet'
        self.labelled = read_labelled(sorted(tiny.glob('train-*.npz')))
        self.labelled_val = read_labelled(sorted(tiny.glob('val-*.npz')))
        side = round(architecture.input_size * SHORT_SIDE / CROP)
        self.captioned = read_captioned(data / 'flickr8k', 'train', side, targets)
        rng = np.random.default_rng(options.seed)
        self.fold = rng.permutation(len(self.captioned.fc7)) % options.folds

    def labels(self) -> TrainableNet:
        """Run, or take up, the first stage."""
        model = self._fresh()
        stage = label_stage(model, self.labelled, self.labelled_val, self.options)
        return self._run(model, stage)

    def distil(self, fold: int | None = None) -> TrainableNet:
        """Run, or take up, the second stage, on all photos or on all but a fold."""
        model, options = self.labels(), self.options
        if fold is None:
            stage = distil_stage(model, self.captioned, self.labelled, options)
            return self._run(model, stage)
        train = self.captioned.subset(np.flatnonzero(self.fold != fold))
        unseen = self.captioned.subset(np.flatnonzero(self.fold == fold))

        def measure() -> dict[str, float]:
            mean = train.fc7.mean(0)
            return distil_measures(model, unseen, self.labelled_val, mean, options)

        stage = distil_stage(
            model, train, self.labelled, options, f'fold{fold}', options.fold_epochs, measure
        )
        return self._run(model, stage)

    def _fresh(self) -> TrainableNet:
        n_classes = int(self.labelled.labels.max()) + 1
        targets = self.captioned.targets
        with torch.random.fork_rng():
            torch.manual_seed(self.options.seed)
            model = TrainableNet(
                self.architecture,
                n_classes,
                0 if targets is None else targets.shape[1],
                self.options.dropout,
            )
        return model.to(memory_format=torch.channels_last)

    def _run(self, model: TrainableNet, stage: Stage) -> TrainableNet:
        path = self.run / f'{stage.name}.pt'
        run_stage(model, stage, self.options, path, self.log, self.deadline)
        return model.eval()
