"""Subcommands: ``storyteller folder PHOTOS`` is ``python scripts/story_folder.py PHOTOS``.

The scripts lie beside the package in a checkout, and inside it once installed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

# Name -> its script, if it has one, and its purpose. setup.py finds here what is installed.
SUBCOMMANDS = {
    'tell': ('', 'tell the stories of photos; may be left out'),
    'check': ('', 'verify the model files and their outputs'),
    'folder': ('story_folder.py', 'tell the stories of many photos, with results in a folder'),
    'gallery': ('make_gallery.py', 'make an HTML page of photos and their stories'),
    'demo': ('demo.py', 'serve a web page that tells the stories of photos'),
    'style': ('make_style.py', 'compute a style vector from books'),
    'download': ('download_models.py', 'download the models published in 2015'),
    'convert': ('convert_models.py', 'convert models of 2015 to ours, or back'),
    'share': ('share_models.py', 'upload a folder of models to a hub'),
    'train-decoder': ('train_decoder.py', 'train a story decoder on books'),
    'tell-captions': ('tell_captions.py', 'tell stories of captions, for readers to mark'),
    'train-embedding': ('train_embedding.py', 'train an image-sentence embedding'),
    'train-skipthoughts': ('train_skipthoughts.py', 'train a sentence encoder on text'),
    'expand-vocabulary': ('expand_vocabulary.py', 'expand the vocabulary of an encoder'),
    'index': ('build_caption_index.py', 'build an index over a caption pool'),
    'evaluate': ('evaluate.py', 'measure a bundle of models'),
}


def listing(program: str) -> str:
    """What ``--help`` says of them."""
    lines = [f'  {name:<20}{purpose}' for name, (_, purpose) in SUBCOMMANDS.items()]
    examples = 'photo.jpg --style lyric', 'folder PHOTOS --out TOLD', 'folder --help'
    lines += ['', 'examples:', *(f'  {program} {example}' for example in examples)]
    note = '(a photo of the same name is reached by ./NAME)'
    return '\n'.join([f'subcommands {note}:', *lines])


def meant(arguments: Sequence[str]) -> str | None:
    """The subcommand that the first argument is nearly the name of, if it is no file.

    Examples
    --------
    >>> meant(['foldr', 'photos']), meant(['--check']), meant(['photo.jpg'])
    ('folder', None, None)
    """
    word = arguments[0] if arguments else '-'
    if word.startswith('-') or os.path.exists(word):
        return None
    from difflib import get_close_matches  # here: a photo that is there does not wait for it

    return next(iter(get_close_matches(word, SUBCOMMANDS, cutoff=0.75)), None)


def run(name: str, program: str, arguments: Sequence[str]) -> None:
    """Run the script of a subcommand as Python does, but for the name that its help shows."""
    inside, beside = (Path(__file__).parents[up] / 'scripts' for up in (1, 2))
    script = (inside if inside.is_dir() else beside) / SUBCOMMANDS[name][0]
    main = ModuleType('__main__')  # where dataclasses and pickles look for what a script defines
    main.__file__ = str(script)
    before = sys.argv, sys.modules['__main__']
    sys.argv, sys.modules['__main__'] = [f'{program} {name}', *arguments], main
    try:
        SourceFileLoader('__main__', str(script)).exec_module(main)
    except KeyboardInterrupt:  # while it imports; later the script itself sees to it
        sys.exit(130)
    finally:
        sys.argv, sys.modules['__main__'] = before
