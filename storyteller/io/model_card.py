"""Preparing a bundle for publication: its completed card, and a page about it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import config
from ..formats import ModelFileError, PathLike
from . import bundle, hub

PAGE = 'README.md'
# What a bundle may consist of beside styles; others in a folder are nobody else's business.
WHAT = {
    'uni_skip.safetensors': 'uni-skip encoder',
    'bi_skip.safetensors': 'bi-skip encoder',
    'utable.npy': 'word vectors of the uni-skip encoder',
    'btable.npy': 'word vectors of the bi-skip encoder',
    'dictionary.txt': 'words of both tables',
    'decoder.safetensors': 'story decoder',
    'decoder_dictionary.txt': 'words of the decoder',
    'embedding.safetensors': 'joint space of images and sentences',
    'embedding_dictionary.txt': 'words of the joint space',
    'convnet.json': 'how the network that sees the photos is read',
    'convnet.safetensors': 'the network that sees the photos',
    'captions.txt': 'the pool of captions',
    'caption_vectors.safetensors': 'the pool in the joint space',
}
USE = """\
```python
from storyteller import generate

z = generate.load_all('hf://{name}')
generate.story(z, 'photo.jpg')
```

or, on the command line, `python -m storyteller --models hf://{name} photo.jpg`. This needs
`pip install 'storyteller[hub]'`. Everything here is safetensors, plain arrays and text; the sums in
`bundle.json` are checked.
"""


def completed(folder: PathLike) -> dict[str, Any]:
    """The card of a folder (see `storyteller.io.bundle.read_card`) with all its models in it.

    Files that were trained anew are struck off a card, and a folder that was trained from nothing
    has none. What a card lists and is not there is left out. A ModelFileError says that a file is
    not the one that the card describes, or none that can be given away.
    """
    folder = Path(folder)
    card = bundle.read_card(folder) or {'format': 1, 'files': {}}
    _refuse_2015(folder)
    card['files'] = {
        name: facts for name, facts in card['files'].items() if (folder / name).exists()
    }
    for name, facts in card['files'].items():
        if wrong := bundle.problem(folder, name, facts):
            raise ModelFileError(f'{folder / name}: {wrong}')
    styles = {
        Path(file).name: f'the style {name}' for name, file in config.style_files(folder).items()
    }
    models = {name: what for name, what in (WHAT | styles).items() if (folder / name).is_file()}
    added = {name: what for name, what in models.items() if name not in card['files']}
    if 'decoder.safetensors' in added:  # the settings suited another one
        card.pop('search', None)
    if added:  # and so may the widths
        card.pop('widths', None)
    for name, what in added.items():
        size, digest = (folder / name).stat().st_size, bundle.sha256(folder / name)
        card['files'][name] = {'what': what, 'bytes': size, 'sha256': digest}
    for name in card['files']:
        suffix = Path(name).suffix
        other = None if suffix in hub.ALLOWED else f'{suffix} files are not given away'
        if wrong := other or hub.array_problem(folder / name):
            raise ModelFileError(f'{folder / name}: {wrong}; {_convert(folder)}')
    return card


def contents(
    folder: PathLike, card: Mapping[str, Any], name: str, licence: str | None = None
) -> dict[str, Path | bytes]:
    """What `storyteller.io.hub.share` uploads: the files of a completed card, it, and the page.

    A ValueError says that neither the card nor `licence` tells the terms.
    """
    folder = Path(folder)
    own = folder / PAGE
    text = page(card, name, licence, own.read_text(encoding='utf-8') if own.is_file() else '')
    files: dict[str, Path | bytes] = {file: folder / file for file in card['files'] if file != PAGE}
    files[bundle.CARD] = (json.dumps(card, indent=1) + '\n').encode()
    files[PAGE] = text.encode()
    return files


def page(card: Mapping[str, Any], name: str, licence: str | None = None, more: str = '') -> str:
    """The page of a bundle ``OWNER/NAME`` as Markdown, with the metadata that a hub reads.

    `licence` is its short name on the hub, such as ``mit`` or ``other``, else what the card says;
    `more` is what follows, such as an account that the folder has already.
    """
    licence = licence or card.get('licence')
    if not isinstance(licence, str) or not re.fullmatch(r'[\w.+-]+', licence):
        raise ValueError(
            f"licence: expected a short name such as 'mit' or 'other', found {licence!r}"
        )
    title = name.partition('/')[2]
    head = f'---\nlicense: {licence}\nlibrary_name: storyteller\npipeline_tag: image-to-text\n---\n'
    parts = [
        f'# {title}\n\nModels that tell a little story about a photo, for *storyteller*.\n',
        USE.format(name=name),
        '## What it holds\n\n' + _table(card['files']),
        _figures(card),
        f'## Licence\n\n{licence}\n',
        re.sub(r'\A---\n.*?\n---\n', '', more, flags=re.DOTALL),
    ]
    return head + '\n' + '\n'.join(part for part in parts if part)


def _table(files: Mapping[str, Any]) -> str:
    rows = ['| file | what | learned from | MB |', '|---|---|---|---|']
    for name, facts in files.items():
        said = [_cell(facts.get(key)) for key in ('what', 'learned from')]
        rows.append(f'| `{name}` | {" | ".join(said)} | {facts["bytes"] / 1e6:.2f} |')
    return '\n'.join(rows) + '\n'


def _figures(card: Mapping[str, Any]) -> str:
    """What the card says of widths, of the search that suits, of figures, and how it was made."""
    lines = [
        f'- {title}: {_values(card[key])}'
        for key, title in (('widths', 'widths'), ('search', 'search that suits'))
        if isinstance(card.get(key), dict) and card[key]
    ]
    measured = card.get('figures')
    if isinstance(measured, dict):
        lines += [f'- {_cell(key)}: {_values(value)}' for key, value in measured.items()]
    made = {name: facts.get('made') for name, facts in card['files'].items()}
    lines += [
        f'- `{name}` was made with {_values(options)}'
        for name, options in made.items()
        if isinstance(options, dict) and options
    ]
    return '## Figures\n\n' + '\n'.join(lines) + '\n' if lines else ''


def _values(value: Any) -> str:
    if isinstance(value, Mapping):
        return ', '.join(f'{_cell(key)} {_cell(inner)}' for key, inner in value.items())
    return _cell(value)


def _cell(value: Any) -> str:
    """A value in one line that does not end a cell of a table."""
    return '' if value is None else ' '.join(str(value).replace('|', '\\|').split())


def _refuse_2015(folder: Path) -> None:
    """Part of a folder in the form of 2015 would be missing from what is uploaded."""
    for path in config.folder_paths(folder).values():
        if Path(path).is_file() and Path(path).name not in WHAT and not path.endswith('_style.npy'):
            raise ModelFileError(f'{path}: a file of another form; {_convert(folder)}')


def _convert(folder: Path) -> str:
    return f'python scripts/convert_models.py {folder} --out OTHER --to ours makes what can be'
