from __future__ import annotations

import importlib
import pathlib
import sys

import pytest

from storyteller.cli.arguments import use_threads

use_threads()  # the tests are not alone on the machine

REFERENCE = pathlib.Path(__file__).parent / 'reference'
collect_ignore = ['forms/write_forms.py']  # for Python 2


@pytest.fixture(scope='module')
def scripts():
    """The scripts can be imported, as they import each other."""
    folder = str(pathlib.Path(__file__).parent.parent / 'scripts')
    sys.path.insert(0, folder)
    yield
    sys.path.remove(folder)


@pytest.fixture(scope='module')
def small_paths(tmp_path_factory):
    """Paths of small models, and a cache beside them."""
    from small_models import write_models  # which takes REFERENCE from here

    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp('models')
        patch.setenv('STORYTELLER_CACHE', str(folder / 'cache'))
        yield write_models(folder)


@pytest.fixture(scope='module')
def forms(scripts):
    """What writes VGG-19 in each form in which it was published."""
    return importlib.import_module('vgg_forms')
