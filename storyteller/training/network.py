"""The narrow VGG network as it is trained, and its export as a plain one.

Batch normalisation helps training only: it is folded into weights and biases at export, so that
what is exported is a plain VGG network (convolution or product, bias, ReLU).

Dimension letters: B batch, C channels, P side of the last pooling layer, F width of fc7.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, max_pool2d, pad, relu

from .. import formats
from ..convnet import Architecture
from . import ranks

FC7 = 4096  # width of the real network's fc7, which the head predicts


class _SharedNorm:
    """Batch normalisation over the whole batch, where several processes have parts of it.

    torch has this for GPUs alone (`SyncBatchNorm`). `shared` False leaves each process to its part.
    """

    shared = True

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.shared or ranks.count() == 1:
            return super().forward(x)
        axes = [axis for axis in range(x.ndim) if axis != 1]
        values, n = x.float(), torch.full_like(self.running_mean, x[:, 0].numel())
        sums = torch.stack([values.sum(axes), values.square().sum(axes), n])
        one, two, n = ranks.total(sums)
        mean, var = one / n, two / n - (one / n) ** 2
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * n / (n - 1), self.momentum)
            self.num_batches_tracked += 1
        scale = self.weight * (var + self.eps).rsqrt()
        shape = [1, -1, *[1] * (x.ndim - 2)]
        scale, offset = scale.view(shape), (self.bias - mean * scale).view(shape)
        return (values * scale + offset).to(x.dtype)


class BatchNorm1d(_SharedNorm, nn.BatchNorm1d):
    """Of vectors (B, C)."""


class BatchNorm2d(_SharedNorm, nn.BatchNorm2d):
    """Of maps (B, C, height, width)."""


class _Conv(nn.Module):
    """Convolution, [max-pooling,] batch normalisation, ReLU.

    Pooling goes before the normalisation, which then has a quarter of the work. That is the same
    function as pooling last because the normalisation's gain is fixed at 1, so its scale is
    positive; the next layer's weights make up for the gain.

    A convolution that keeps the number of channels learns what it adds to its input, as in a
    residual network: the identity is part of its weights, times a factor for each channel, and
    so it is a plain convolution when exported (Zagoruyko and Komodakis, "DiracNets", 2017).
    """

    def __init__(self, n_in: int, n_out: int, pool: bool):
        super().__init__()
        self.conv = nn.Conv2d(n_in, n_out, 3, padding=1, bias=False)
        self.norm = BatchNorm2d(n_out)
        self.norm.weight.requires_grad_(False)
        self.pool = pool
        self.keep = nn.Parameter(torch.ones(n_out)) if n_in == n_out else None
        nn.init.kaiming_normal_(self.conv.weight, mode='fan_out', nonlinearity='relu')

    def weight(self) -> Tensor:
        """The whole convolution, (out, in, 3, 3)."""
        if self.keep is None:
            return self.conv.weight
        return self.conv.weight + pad(torch.diag(self.keep)[..., None, None], (1, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = conv2d(x, self.weight(), padding=1)
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
        self.norms = nn.ModuleList(BatchNorm1d(n) for n in architecture.fc)
        self.dropout = nn.Dropout(dropout)
        self.early_head = nn.Linear(top, n_classes)
        self.label_head = nn.Linear(architecture.dim, n_classes)
        # No bias: a head that is a product alone can be merged into an image matrix.
        self.fc7_head = nn.Linear(architecture.dim, FC7, bias=False)
        self.target_head = nn.Linear(architecture.dim, n_targets, bias=False) if n_targets else None

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.early_head.weight.device

    def share_norms(self, shared: bool) -> None:
        """Whether processes that train together normalise over the whole batch, or their parts."""
        for module in self.modules():
            if isinstance(module, _SharedNorm):
                module.shared = shared

    @torch.no_grad()
    def settle(self, batches: Iterable[Tensor], whole: bool = True) -> None:
        """Take the statistics of the normalisations anew, from inputs (B, 3, size, size).

        `whole` False leaves out those of fc6 and fc7, for inputs of another size.
        """
        norms = [conv.norm for conv in self.convs] + (list(self.norms) if whole else [])
        before, mode = [(norm.momentum, norm.shared) for norm in norms], self.training
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum, norm.shared = None, False  # the plain mean, of this process
        self.train()
        for x in batches:
            self(x) if whole else self.pooled(x)
        self.train(mode)
        for norm, (momentum, shared) in zip(norms, before, strict=True):
            norm.momentum, norm.shared = momentum, shared

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
    layers = [(conv.weight(), conv.norm) for conv in model.convs]
    layers += [(fc.weight, norm) for fc, norm in zip(model.fcs, model.norms, strict=True)]
    names = [n.removesuffix('_W') for n in model.architecture.shapes() if n.endswith('_W')]
    params = {}
    for name, (weight, norm) in zip(names, layers, strict=True):
        scale = norm.weight.detach() / torch.sqrt(norm.running_var + norm.eps)
        weight = weight.detach() * scale.view(-1, *[1] * (weight.ndim - 1))
        bias = norm.bias.detach() - norm.running_mean * scale
        params[f'{name}_W'] = (weight if weight.ndim == 4 else weight.T).cpu().numpy()
        params[f'{name}_b'] = bias.cpu().numpy()
    return params


def export(model: TrainableNet, path: formats.PathLike, dtype: str = 'float16') -> None:
    """Write the plain network as a file that `build_convnet` reads."""
    formats.write_model(path, export_params(model), model.architecture.options(), dtype=dtype)
