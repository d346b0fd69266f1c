"""Optional packages, and the extras that install them."""

from __future__ import annotations

import importlib
from types import ModuleType

EXTRAS = {
    'datasets': 'benchmark',
    'faiss': 'scale',
    'gensim': 'expand',
    'gradio': 'demo',
    'huggingface_hub': 'hub',
    'jinja2': 'gallery',
    'joblib': 'eval',
    'matplotlib': 'train',
    'ray': 'scale',
    'scipy': 'eval',
    'sklearn': 'eval',
    'tensorboard': 'train',
}


def way_to(extra: str) -> str:
    """How to install an extra, of a package and of a checkout."""
    return f"python -m pip install 'storyteller[{extra}]', in a checkout '.[{extra}]'"


class MissingExtraError(ModuleNotFoundError, ValueError):
    """A required package is not installed; the message says how to install it."""

    def __init__(self, package: str):
        super().__init__(f'{package} is not installed: {way_to(EXTRAS[package])}', name=package)


def needed(module: str) -> ModuleType:
    """A module, imported now, of a package in :data:`EXTRAS`, or a MissingExtraError."""
    package = module.partition('.')[0]
    try:
        importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:  # it is there, and lacks something itself
            raise
        raise MissingExtraError(package) from None
    return importlib.import_module(module)
