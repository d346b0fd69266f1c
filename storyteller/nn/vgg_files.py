"""The published file formats of VGG-19, recognised by content.

===========================  =====================================================  ==========
file                         made by                                                reader
===========================  =====================================================  ==========
``vgg19.pkl``                Lasagne; what the code of 2015 reads on a GPU          here
``VGG_..._19_layers``        Caffe, its authors' own ``.caffemodel``; what that     `vgg_caffe`
                             code reads on a CPU
``vgg19_weights_tf_...``     Keras, the same weights in HDF5                        `vgg_keras`
``vgg19-d01eb7cb.pth``       PyTorch, the same weights (jcjohnson/pytorch-vgg)      `vgg_torch`
``vgg19-dcbb9e9d.pth``       torchvision, weights of its own training               `vgg_torch`
===========================  =====================================================  ==========

Each reader gives the arrays under their names in :class:`storyteller.nn.architecture.Architecture`,
in its layout. The widths may be any, the layers are those of VGG-19.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import MissingFileError, ModelFileError, PathLike, why
from ..io.unpickle import existing, load_pickles
from . import vgg_caffe, vgg_keras, vgg_torch
from .architecture import MEAN_BGR, VGG19, Architecture, infer

Params = dict[str, np.ndarray]

CLASSIFIER = 2  # arrays of the last layer, fc8, in a Lasagne file: read, never used

# How the files begin, what they are, and their readers. The rest are pickles, or damaged.
_READERS = {
    vgg_keras.BEGINS: ('HDF5 file', vgg_keras.read),
    **dict.fromkeys(vgg_torch.BEGINS, ('state dict', vgg_torch.read)),
    **dict.fromkeys(vgg_caffe.BEGINS, ('Caffe model', vgg_caffe.read)),
}


def read(path: PathLike) -> tuple[Architecture, Params]:
    """The layer sizes and the parameters in a file of VGG-19, under any name.

    The arrays are all that `Architecture.shapes` names; of these shapes, unless the file lies.

    Raises
    ------
    MissingFileError
        If there is no such file, or a package that reads its kind is not installed.
    ModelFileError
        If it is no such network.
    """
    path = existing(path, 'a VGG network')
    with open(path, 'rb') as file:
        head = file.read(64)
    known = (found for begins, found in _READERS.items() if head.startswith(begins))
    kind, reader = next(known, ('pickle', _read_lasagne))
    try:
        with np.errstate(over='ignore', invalid='ignore'):  # what is not finite is refused later
            params, mean = reader(path)
    except (ModelFileError, MissingFileError):
        raise
    except Exception as error:  # broken files make readers raise whatever they stumble over
        raise ModelFileError(f'{path}: not a readable {kind} of VGG-19: {why(error)}') from None
    return infer(params, path, mean), params


def _read_lasagne(path: Path) -> tuple[Params, tuple[float, ...]]:
    """Lasagne's pickle: a dict whose 'param values' are the arrays W, b, W, b, ... bottom up."""
    record = load_pickles(path)[0]
    values = record.get('param values') if isinstance(record, dict) else None
    n_expected = len(VGG19.shapes()) + CLASSIFIER
    if not isinstance(values, (list, tuple)) or len(values) != n_expected:
        found = f'{len(values)} values' if isinstance(values, (list, tuple)) else 'none'
        raise ModelFileError(
            f"{path}: expected a dict whose 'param values' are {n_expected} arrays, found {found}"
        )
    params = dict(zip(VGG19.shapes(), values, strict=False))
    for name, value in params.items():
        if not isinstance(value, np.ndarray):
            raise ModelFileError(f'{path}: {name} should be an array, found {type(value).__name__}')
    return params, MEAN_BGR
