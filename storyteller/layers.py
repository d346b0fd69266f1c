"""The GRU and affine layers, and their parameter names of 2015.

The code of 2015 kept a GRU with inputs of width W and states of width H in six arrays: ``_W``
(W, 2H), ``_U`` (H, 2H) and ``_b`` (2H,) for the reset gate r and the update gate u side by side,
``_Wx`` (W, H), ``_Ux`` (H, H) and ``_bx`` (H,) for the candidate. One step is

    r, u = sigmoid(x W + h U + b)
    c    = tanh(x Wx + r * (h Ux) + bx)
    h'   = u * h + (1 - u) * c

which is the form of cuDNN, so :class:`torch.nn.GRU` computes it once the arrays are stacked and
its second bias is held at zero. The affine layer is ``x W + b``.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from textwrap import shorten
from typing import Any

import numpy as np
import torch
from torch import nn

from . import config
from .formats import PathLike, require, require_finite

_process = os.getpid()


def settle_after_fork() -> None:
    """In a process that was forked off, let torch compute on one thread from now on.

    A fork has none of its parent's threads, and OpenMP would wait for them for ever.
    """
    global _process
    if os.getpid() != _process:
        torch.set_num_threads(1)
        _process = os.getpid()


def pick_device(device: str | torch.device | None) -> torch.device:
    """`device`, or a GPU if there is one and ``config.FLAG_CPU_MODE`` allows it, else the CPU.

    Raises
    ------
    ValueError
        If there is no such device here.
    """
    settle_after_fork()
    if device is None:
        has_gpu = torch.cuda.is_available() and not config.FLAG_CPU_MODE
        return torch.device('cuda' if has_gpu else 'cpu')
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        why = shorten(str(error).partition('. ')[0], 200)
        raise ValueError(
            f"device: {str(device)!r} cannot be used here ({why}); 'cpu' always can"
        ) from None
    return torch.device(device)


@contextlib.contextmanager
def inference() -> Iterator[None]:
    """Compute without gradients, and in the types of the numbers, whatever autocast is around."""
    settle_after_fork()
    around = torch.autocast('cpu', enabled=False), torch.autocast('cuda', enabled=False)
    with torch.inference_mode(), around[0], around[1]:
        yield


def unit_rows(x: np.ndarray) -> np.ndarray:
    """Scale rows to length 1; rows of length 0 stay as they are.

    Examples
    --------
    >>> unit_rows(np.array([[3.0, 4.0], [0.0, 0.0]]))
    array([[0.6, 0.8],
           [0. , 0. ]])
    """
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-30)


def require_gru(
    params: Mapping[str, np.ndarray], prefix: str, path: PathLike, width: int | None = None
) -> int:
    """Check the six arrays of a GRU with inputs of `width`; give H, the width of its states."""
    require(params, {f'{prefix}_Ux': (None, None), f'{prefix}_Wx': (width, None)}, path)
    hidden, width = len(params[f'{prefix}_Ux']), len(params[f'{prefix}_Wx'])
    shapes = {
        'W': (width, 2 * hidden), 'U': (hidden, 2 * hidden), 'b': (2 * hidden,),
        'Wx': (width, hidden), 'Ux': (hidden, hidden), 'bx': (hidden,),
    }  # fmt: skip
    expected = {f'{prefix}_{name}': shape for name, shape in shapes.items()}
    require(params, expected, path)
    require_finite(params, expected, path)
    return hidden


def gru(params: Mapping[str, np.ndarray], prefix: str) -> nn.GRU:
    """Build a GRU from six arrays: ``{prefix}_W``, ``_U``, ``_b``, ``_Wx``, ``_Ux`` and ``_bx``.

    It takes (T, B, W) and gives (T, B, H). Its hidden bias is zero and not trained.
    """
    width, hidden = params[f'{prefix}_Wx'].shape
    module = _empty(nn.GRU, width, hidden)
    module.bias_hh_l0.requires_grad_(False)
    with torch.no_grad():
        for target, name in (('weight_ih', 'W'), ('weight_hh', 'U'), ('bias_ih', 'b')):
            gates, candidate = params[f'{prefix}_{name}'], params[f'{prefix}_{name}x']
            packed = np.concatenate([gates, candidate], axis=-1).T
            getattr(module, f'{target}_l0').copy_(torch.tensor(packed, device='cpu'))
        module.bias_hh_l0.zero_()
    return module


def _empty(kind: type[nn.Module], *sizes: int) -> Any:
    """A layer to be filled: the usual way to make one draws from torch's random numbers.

    Its own `to_empty` would import half a second of torch that nothing else needs.
    """
    module = kind(*sizes, device='meta', dtype=torch.float32)
    for name, parameter in list(module.named_parameters()):
        memory = torch.empty(parameter.shape, device='cpu', dtype=torch.float32)
        setattr(module, name, nn.Parameter(memory))
    return module


def gru_params(module: nn.GRU, prefix: str) -> dict[str, np.ndarray]:
    """The six arrays of 2015, float32, of a module that :func:`gru` built."""
    params = {}
    for source, name in (('weight_ih', 'W'), ('weight_hh', 'U'), ('bias_ih', 'b')):
        packed = getattr(module, f'{source}_l0').detach().cpu().numpy().T
        gates, candidate = np.split(packed, [2 * module.hidden_size], axis=-1)
        params[f'{prefix}_{name}'] = gates.copy()
        params[f'{prefix}_{name}x'] = candidate.copy()
    return params


def affine(params: Mapping[str, np.ndarray], prefix: str) -> nn.Linear:
    """Build ``x W + b`` from ``{prefix}_W`` (in, out) and ``{prefix}_b`` (out,)."""
    weight = params[f'{prefix}_W']
    module = _empty(nn.Linear, *weight.shape)
    with torch.no_grad():
        module.weight.copy_(torch.tensor(weight, device='cpu').T)
        module.bias.copy_(torch.tensor(params[f'{prefix}_b'], device='cpu'))
    return module


def affine_params(module: nn.Linear, prefix: str) -> dict[str, np.ndarray]:
    """The two arrays of 2015, float32, of an affine layer."""
    return {
        f'{prefix}_W': module.weight.detach().cpu().numpy().T.copy(),
        f'{prefix}_b': module.bias.detach().cpu().numpy().copy(),
    }


# --- how the trainers of 2015 began --------------------------------------------------------------


def ortho_weight(rng: np.random.RandomState, n: int) -> np.ndarray:
    """A random orthogonal matrix (n, n), float32: the left singular vectors of Gaussian noise.

    Their signs depend on the LAPACK at hand.
    """
    return np.linalg.svd(rng.randn(n, n))[0].astype(np.float32)


def norm_weight(rng: np.random.RandomState, n_in: int, n_out: int | None = None) -> np.ndarray:
    """A random matrix (n_in, n_out), float32: uniform in [-0.1, 0.1], orthogonal if square."""
    n_out = n_in if n_out is None else n_out
    if n_in == n_out:
        return ortho_weight(rng, n_in)
    return rng.uniform(low=-0.1, high=0.1, size=(n_in, n_out)).astype(np.float32)


def init_gru(
    rng: np.random.RandomState, prefix: str, width: int, hidden: int
) -> dict[str, np.ndarray]:
    """Initial arrays of a GRU: uniform input weights, orthogonal recurrent ones, zero biases."""
    return {
        f'{prefix}_W': np.concatenate([norm_weight(rng, width, hidden) for _ in 'ru'], axis=1),
        f'{prefix}_b': np.zeros(2 * hidden, np.float32),
        f'{prefix}_U': np.concatenate([ortho_weight(rng, hidden) for _ in 'ru'], axis=1),
        f'{prefix}_Wx': norm_weight(rng, width, hidden),
        f'{prefix}_Ux': ortho_weight(rng, hidden),
        f'{prefix}_bx': np.zeros(hidden, np.float32),
    }


def init_affine(
    rng: np.random.RandomState, prefix: str, n_in: int, n_out: int
) -> dict[str, np.ndarray]:
    """Initial arrays of an affine layer: :func:`norm_weight` and a zero bias."""
    return {
        f'{prefix}_W': norm_weight(rng, n_in, n_out),
        f'{prefix}_b': np.zeros(n_out, np.float32),
    }
