"""Paths of the model files.

`paths` is what :func:`storyteller.generate.load_all` reads when it is called. It starts as the
bundle that comes with the package, or as the folder that the environment variable
``STORYTELLER_MODELS`` names, and may be changed entry by entry; what is not changed follows that
variable, also if it is set later. Each entry may be a file of 2015 or one of ours. Where a folder
is expected, the address of a bundle will do (`storyteller.io.hub`); it is fetched when needed. A
``~`` at the beginning of a path is the home folder.

The code of 2015 had a mode for computers without a GPU, which asked Caffe for the network. What
turned it on, `FLAG_CPU_MODE`, asks for the CPU here, and the network may stand under its key of
that mode, ``paths['vgg_model_caffe']``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

from .formats import MissingFileError, PathLike
from .io import hub
from .io.files import at_home

# For each key of 2015, the names a file may have in a folder: ours first. None is the folder.
_NAMES: dict[str, tuple[str, ...] | None] = {
    'skmodels': None,
    'sktables': None,
    'decmodel': ('decoder.safetensors', 'romance.npz'),
    'dictionary': ('decoder_dictionary.txt', 'romance_dictionary.pkl'),
    'vsemodel': ('embedding.safetensors', 'coco_embedding.npz'),
    'vgg': ('convnet.json', 'convnet.safetensors', 'vgg19.pkl'),
    'captions': ('captions.txt', 'coco_train_caps.txt'),
    'negbias': ('caption_style.npy',),
    'posbias': ('romance_style.npy',),
}
# Entries that were made for each other, and are taken from one folder.
_TOGETHER = (
    *(('skmodels', 'sktables'), ('decmodel', 'dictionary')),
    *(('vsemodel',), ('vgg',), ('captions',), ('negbias',), ('posbias',)),
)
_ENCODERS = 'uni_skip.safetensors', 'uni_skip.npz'
# Other files that a folder may hold in place of one of these, the nearest to 2015 first.
_ALSO = {
    'vgg': (
        'VGG_ILSVRC_19_layers.caffemodel',
        'vgg19_weights_tf_dim_ordering_tf_kernels.h5',
        'vgg19-d01eb7cb.pth',
        'vgg19-dcbb9e9d.pth',
    )
}
# Keys of the CPU mode: the network, what it looks like, and where Caffe lies, which nobody asks.
CAFFE = 'vgg_model_caffe'
_CPU_MODE = (CAFFE, 'vgg_proto_caffe', 'pycaffe')

FLAG_CPU_MODE = False
"""Whether models are loaded on the CPU where no device is named."""


def default_folder() -> Path:
    """The default folder of models: ``STORYTELLER_MODELS``, else the bundle of the package."""
    chosen = os.environ.get('STORYTELLER_MODELS')
    if chosen:
        return Path(at_home(chosen))
    installed = Path(str(resources.files('storyteller'))) / 'models'
    # In a checkout, and in an editable install, the bundle lies beside the package.
    return installed if installed.is_dir() else Path(__file__).parent.parent / 'models'


def folder_paths(folder: PathLike) -> dict[str, str]:
    """The entries for a folder that holds all models.

    Parameters
    ----------
    folder : path-like
        Each file may have our name or that of 2015, or of another form in which it was published;
        a ``.caffemodel`` of another name is taken where it is the only one.
        A file that is not there is named as ours, unless all that are there have names of 2015.

    Returns
    -------
    dict of str to str
        With the keys of 2015.
    """
    folder = Path(folder)
    several = [names for names in _NAMES.values() if names is not None and len(names) > 1]
    ours, theirs = (any((folder / names[i]).is_file() for names in several) for i in (0, -1))
    entries: dict[str, str] = {}
    for key, names in _NAMES.items():
        if names is None:
            entries[key] = str(folder)
        else:
            known = (*names, *_ALSO.get(key, ()))
            found = [name for name in known if (folder / name).is_file()]
            if key == 'vgg' and not found:  # Caffe's may have any name
                named = sorted(path.name for path in folder.glob('*.caffemodel'))
                found = named if len(named) == 1 else []
            missing = names[-1] if theirs and not ours else names[0]
            entries[key] = str(folder / (found[0] if found else missing))
    return entries


def style_files(folder: PathLike) -> dict[str, str]:
    """The style vectors in a folder: ``NAME_style.npy`` -> name and path, sorted by name."""
    files = sorted(Path(folder).glob('*_style.npy'))
    return {file.name.removesuffix('_style.npy'): str(file) for file in files}


def folders(entries: dict[str, str]) -> list[str]:
    """The distinct folders of the files of these entries, sorted."""
    paths = map(Path, entries.values())
    return sorted({str(path if path.is_dir() else path.parent) for path in paths})


def local(folder: PathLike | None) -> Path:
    """A local folder of models; the bundle at an address is downloaded.

    Parameters
    ----------
    folder : path-like or None
        A folder, which need not be there; an address; or the default folder.
    """
    folder = default_folder() if folder is None else folder
    return hub.fetch(folder) if hub.is_address(folder) else Path(at_home(folder))


def resolve(
    chosen: PathLike | Sequence[PathLike] | Mapping[str, PathLike] | None,
) -> dict[str, str]:
    """The entries to load.

    Parameters
    ----------
    chosen : path-like, sequence of path-like, mapping or None
        A folder, or the address of a bundle; or several, of which each part is taken from the
        first that has it; or entries that take the place of single ones in `paths`; or nothing.

    Returns
    -------
    dict of str to str
        The network stands under ``vgg``: it is the one of the CPU mode of 2015 if there is one, and
        either `FLAG_CPU_MODE` is set or no other has been chosen.

    Raises
    ------
    MissingFileError
        If `chosen` is a folder that is not there, or a bundle that is not to be had.
    ValueError
        If an entry has a key that is not known.
    """
    if chosen is None:
        return _with_default(_as_chosen())
    if not isinstance(chosen, Mapping):
        several = [chosen] if isinstance(chosen, (str, os.PathLike)) else list(chosen)
        return _from_several([_existing(folder) for folder in several])
    unknown = sorted(set(chosen) - set(_NAMES) - set(_CPU_MODE))
    if unknown:
        raise ValueError(f'paths: {unknown[0]!r} is none of {", ".join((*_NAMES, CAFFE))}')
    entries = {key: at_home(value) for key, value in chosen.items()}
    return _with_default({**_as_chosen(), **_with_one_network(entries, 'vgg' in entries)})


def _as_chosen() -> dict[str, str]:
    """`paths`, with one network; entries that nobody changed are of the default folder of now."""
    now = folder_paths(default_folder())
    entries = {
        key: now[key] if value == _AT_FIRST.get(key) else at_home(value)
        for key, value in paths.items()
    }
    return _with_one_network(entries, paths.get('vgg') != _AT_FIRST['vgg'])


def _with_one_network(entries: dict[str, str], chosen: bool) -> dict[str, str]:
    """The entries with one network; `chosen` says whether ``vgg`` stands there on purpose."""
    found = {key: value for key, value in entries.items() if key not in _CPU_MODE}
    if CAFFE in entries and (FLAG_CPU_MODE or not chosen):
        found['vgg'] = entries[CAFFE]
    return found


def _existing(folder: PathLike) -> Path:
    if not (there := local(folder)).is_dir():
        raise MissingFileError(f'{folder}: no such folder of models')
    return there


def _from_several(folders: Sequence[Path]) -> dict[str, str]:
    """The entries for folders of which each holds some of the parts."""
    if not folders:
        raise ValueError('paths: expected at least one folder of models, found none')
    entries: dict[str, str] = {}
    for keys in _TOGETHER:
        found = [folder for folder in folders if _holds(folder, keys[0])]
        known = folder_paths(found[0] if found else folders[-1])
        entries |= {key: known[key] for key in keys}
    return entries


def _holds(folder: Path, key: str) -> bool:
    """Whether a folder has the file of a part."""
    if key == 'skmodels':
        return any((folder / name).is_file() for name in _ENCODERS)
    return Path(folder_paths(folder)[key]).is_file()


def _with_default(entries: dict[str, str]) -> dict[str, str]:
    """The entries, those of a default folder that is an address as they are once it is fetched."""
    default = default_folder()
    if not hub.is_address(default):
        return dict(entries)
    awaited = folder_paths(default)
    if not any(entries.get(key) == value for key, value in awaited.items()):
        return dict(entries)
    there = folder_paths(local(default))
    return {k: there[k] if value == awaited.get(k) else value for k, value in entries.items()}


paths: dict[str, str] = folder_paths(default_folder())
_AT_FIRST = dict(paths)
