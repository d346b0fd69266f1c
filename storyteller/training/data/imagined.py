"""Photos of classes that no captioned photo shows, imagined from what the network knows of them.

A network that names 1,000 classes keeps a row of weights w for each. If photos of a class scatter
about its mean as photos do in general, with covariance S, then the best linear classifier is that
of linear discriminant analysis, whose weights are the inverse of S times the mean. Turned round,

    mean of the class = mean of all + S w,  up to a factor.

For classes that captioned photos do show, this direction has a cosine of 0.74 with that of their
own mean. So a photo of a class is imagined as a captioned photo with its activations moved in that
direction; and the class is named beside what was seen before. A caption that speaks of people wants
a photo that shows some, and one that does not wants another: so there are kinds of settings.

Dimension letters: P photos, C classes, S settings, B batch, F features.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ...layers import unit_rows
from ...nn.efficientnet import Eyes

ACTIVATIONS = 0.3, 0.8  # how far photos are moved; those of a class lie 0.6 from the mean
SETTING = 0.4, 0.9  # how much of the photo that is moved is left
SURE = 0.3, 1.0  # probability that the network gives the class


class ImaginedPhotos:
    """Features of classes, imagined anew each time they are asked for.

    Parameters
    ----------
    pooled : (P, 1280) array
        Activations of real photos.
    logits : (P, C) array
        What the network says of the same photos.
    weights : (C, 1280) array
        Of the network's last layer.
    settings : sequence of S int arrays
        Kinds of photos to move, as rows of `pooled`.
    eyes : Eyes
        How the two parts of features are put together.

    Notes
    -----
    Drawn by torch's generator, so that a training that goes on draws the same.
    """

    def __init__(
        self,
        pooled: np.ndarray,
        logits: np.ndarray,
        weights: np.ndarray,
        settings: Sequence[np.ndarray],
        eyes: Eyes,
    ):
        seen = unit_rows(np.asarray(pooled, np.float32))
        self.mean = seen.mean(0)
        self.others = seen - self.mean
        covariance = self.others.T @ self.others / len(seen)
        self.towards = unit_rows((weights - weights.mean(0)) @ covariance)
        scaled = np.asarray(logits, np.float32) / eyes.temperature
        self.named = torch.softmax(torch.from_numpy(scaled), 1).numpy()
        self.settings, self.eyes = settings, eyes

    def __len__(self) -> int:
        return len(self.towards) * len(self.settings)

    def __getitem__(self, wanted: np.ndarray) -> np.ndarray:
        """Features (B, F), unit rows; of `wanted` (B,) i is class ``i % C``, setting ``i // C``."""
        n, (kinds, classes) = len(wanted), np.divmod(wanted, len(self.towards))
        draws = torch.rand(n).tolist()
        rows = [self.settings[kind] for kind in kinds]
        chosen = np.array([r[int(at * len(r))] for r, at in zip(rows, draws, strict=True)])
        far, left, sure = (
            (low + (high - low) * torch.rand(n, 1).numpy())
            for low, high in (ACTIVATIONS, SETTING, SURE)
        )
        pooled = self.mean + far * self.towards[classes] + left * self.others[chosen]
        chances = (1 - sure) * self.named[chosen]
        chances[np.arange(n), classes] += sure[:, 0]
        length = np.sqrt(chances.max(1, keepdims=True)) * self.eyes.class_weight
        return unit_rows(np.concatenate([unit_rows(pooled), unit_rows(chances) * length], axis=1))
