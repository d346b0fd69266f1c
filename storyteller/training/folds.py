"""The stages that make the narrow VGG network, and features of photos it did not train on.

A small network knows its training photos by heart, so their features are better than those of
new photos. Whatever is fitted on top of the features must not see the difference. So the second
stage is also run without each of a few folds of the photos, and `unseen_features` gives every
training photo's features from the network that did not train on it, in the coordinates of the
final network.

Dimension letters: N photos, F width of fc7.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import normalize
from tqdm import tqdm

from ..convnet import Architecture, Net, build_convnet, compute_features
from ..images import CROP, SHORT_SIDE, load_image
from ..layers import pick_device, unit_rows
from . import ranks
from .closed_form import begin
from .closed_form import ridge as ridge
from .convnet import NARROW, train_distil, train_labels
from .matching import Matches
from .measures import measures, retrieval
from .network import TrainableNet, export
from .options import TrainOptions
from .photos import Captioned, read_captioned, read_fc7, read_labelled, read_names, read_photos
from .recipe import Recipe


@dataclass(frozen=True)
class Pool:
    """Captions for photos to choose among.

    ``vectors`` (K, E) are their unit vectors in the joint space; ``photos`` and ``classes`` say how
    well they fit the captioned photos and the classes of the labelled ones.
    """

    vectors: torch.Tensor
    photos: Matches
    classes: Matches


class Stages:
    """The stages in order, each taken up where it stopped: its checkpoint is its memory.

    Parameters
    ----------
    data : path
        Holds ``tinyimagenet/`` and ``flickr8k/`` (see `photos.read_labelled`,
        `photos.read_captioned`).
    run : path
        Folder for the checkpoints and metrics, ``labels.pt``, ``fold0.pt`` ... ``distil.pt``.
    targets, class_targets : path, optional
        ``.npy`` of the training photos' places in a joint space (N, E), and of the classes' (C, E).
    pool : Pool, optional
        Captions in that space to choose among.
    device : str or torch.device, optional
        None takes a GPU if there is one.
    """

    def __init__(
        self,
        data: Path,
        run: Path,
        recipe: Recipe,
        architecture: Architecture = NARROW,
        *,
        targets: Path | None = None,
        class_targets: Path | None = None,
        pool: Pool | None = None,
        device: str | torch.device | None = None,
    ):
        ranks.join()
        self.device = pick_device(device)
        least = 2 ** len(architecture.blocks)
        if recipe.label_size < least:
            raise ValueError(
                f'label_size: {len(architecture.blocks)} poolings need {least} pixels or more, '
                f'found {recipe.label_size}'
            )
        self.data, self.run, self.recipe, self.architecture = data, run, recipe, architecture
        small = sorted((data / 'tinyimagenet').glob('train-*.npz'))
        self.labelled = read_labelled(small, class_targets)
        self.held_out = read_labelled(sorted((data / 'tinyimagenet').glob('val-*.npz')))
        side = round(architecture.input_size * SHORT_SIDE / CROP)
        self.captioned = read_captioned(data / 'flickr8k', 'train', side, targets)
        self.pool = pool
        if pool is not None:
            self.captioned = replace(self.captioned, matches=pool.photos)
            self.labelled = replace(self.labelled, matches=pool.classes)
        order = np.random.default_rng(recipe.distil.seed).permutation(len(self.captioned.fc7))
        self.fold_of = order % recipe.folds  # (N,)

    def labels(self) -> TrainableNet:
        """The first stage."""
        model = self._fresh()
        train_labels(model, self.labelled, self.held_out, self.recipe, self.run / 'labels.pt')
        return model.eval()

    def fold(self, k: int) -> TrainableNet:
        """The second stage without the photos of fold `k`, on which it is measured."""
        model = self.labels()
        seen = self.captioned.subset(np.flatnonzero(self.fold_of != k))
        unseen = self.captioned.subset(np.flatnonzero(self.fold_of == k))
        self._distil(model, seen, self.recipe.fold, f'fold{k}', unseen)
        return model.eval()

    def distil(self) -> TrainableNet:
        """The second stage with all photos: the final network."""
        model = self.labels()
        self._distil(model, self.captioned, self.recipe.distil, 'distil', None)
        return model.eval()

    def features(self) -> dict[str, np.ndarray]:
        """Features (N, F) by the finished networks.

        ``train`` and ``dev`` by the final network, in the order of ``train.txt`` and ``dev.txt``;
        ``train_unseen`` by the folds' networks, see `unseen_features`.
        """
        folder = self.data / 'flickr8k'
        photos, names = read_photos(folder), read_names(folder, 'train')

        def by(network: str, names: Sequence[str]) -> np.ndarray:
            return photo_features(build_convnet(self.run / f'{network}.safetensors'), photos, names)

        train = by('distil', names)
        folds = [by(f'fold{k}', names) for k in range(self.recipe.folds)]
        return {
            'train': train,
            'train_unseen': unseen_features(train, folds, self.fold_of),
            'dev': by('distil', read_names(folder, 'dev')),
        }

    def probe(self, features: Mapping[str, np.ndarray]) -> dict[str, dict[str, float]]:
        """How well a linear map predicts the real fc7 of the dev photos from their features.

        Fitted on the training photos' features of the final network (``train``), and on those
        of the networks that did not train on them (``train_unseen``).
        """
        real = read_fc7(self.data / 'flickr8k' / 'fc7_dev.npz')
        mean, dev = self.captioned.fc7.mean(0), unit_rows(features['dev'])
        found = {}
        for name in ('train', 'train_unseen'):
            A = ridge(unit_rows(features[name]), self.captioned.fc7.numpy(), 0.1)
            guess = normalize(torch.from_numpy((dev @ A).astype(np.float32)))
            cosine = (guess * real).sum(1).mean().item()
            found[name] = {'cosine': cosine, **retrieval(guess - mean, real - mean)}
        return found

    def _distil(
        self,
        model: TrainableNet,
        seen: Captioned,
        options: TrainOptions,
        name: str,
        unseen: Captioned | None,
    ) -> None:
        checkpoint = self.run / f'{name}.pt'
        if self.recipe.closed_form and not checkpoint.exists():
            begin(model, seen, self.labelled, self.recipe.start, options.seed)

        measured = replace(seen if unseen is None else unseen, matches=None).to(self.device)
        labelled, mean = self.held_out.to(self.device), seen.fc7.mean(0).to(self.device)

        def report() -> dict[str, float]:
            return measures(model, measured, labelled, mean, self.recipe)

        train_distil(
            model,
            seen,
            self.labelled,
            self.recipe,
            options,
            checkpoint,
            pool=self.pool and self.pool.vectors,
            report=report,
            save=lambda: export(model, self.run / f'{name}.safetensors'),
        )

    def _fresh(self) -> TrainableNet:
        targets = self.captioned.targets
        with torch.random.fork_rng():
            torch.manual_seed(self.recipe.labels.seed)
            model = TrainableNet(
                self.architecture,
                int(self.labelled.labels.max()) + 1,
                0 if targets is None else targets.shape[1],
                self.recipe.dropout,
            )
        model.share_norms(self.recipe.share_norm)
        return model.to(self.device, memory_format=torch.channels_last)


def photo_features(net: Net, photos: Mapping[str, bytes], names: Sequence[str]) -> np.ndarray:
    """fc7 of encoded photos, (N, F) float32, by the road that any new photo takes."""
    features = []
    for start in tqdm(range(0, len(names), 50), desc='features', unit='x50'):
        part = [load_image(io.BytesIO(photos[name]))[1] for name in names[start : start + 50]]
        features.append(compute_features(net, np.concatenate(part)))
    return np.concatenate(features)


def unseen_features(
    final: np.ndarray, by_fold: Sequence[np.ndarray], fold_of: np.ndarray
) -> np.ndarray:
    """Features of each training photo from the network that did not train on it.

    Parameters
    ----------
    final : (N, F) array
        The final network's features of all training photos.
    by_fold : sequence of (N, F) arrays
        The same by the network of each fold.
    fold_of : (N,) array of int
        The fold that each photo was left out of.

    Returns
    -------
    (N, F) array of float32
        Each photo's row comes from ``by_fold[fold_of[i]]``, turned into the final network's
        coordinates by the linear map that does so best (ridge regression) for the photos that
        both networks trained on.
    """
    features = np.empty_like(final, dtype=np.float32)
    for k, theirs in enumerate(by_fold):
        seen, unseen = fold_of != k, fold_of == k
        features[unseen] = theirs[unseen] @ ridge(theirs[seen], final[seen], 1e-3)
    return features
