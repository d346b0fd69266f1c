"""The main job: ``python -m storyteller PHOTO`` prints captions and a story."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence

from .command_line import (
    add_models,
    add_precision,
    add_search,
    add_threads,
    search_from,
    use_threads,
)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        prog='python -m storyteller', description='Tell a little story about a photograph.'
    )
    result.add_argument('photos', nargs='*', metavar='PHOTO', help='a photo to tell')
    result.add_argument(
        '--check', action='store_true', help='instead: look whether everything works'
    )
    result.add_argument('--lyric', action='store_true', help='a line for each part between commas')
    result.add_argument('--style', help='a style of the models, or a .npy file of your own')
    add_models(result)
    add_precision(result)
    add_threads(result)
    result.add_argument(
        '--seed', type=int, help='sample a story by this number instead of searching the best'
    )
    result.add_argument(
        '--allow-truncated', action='store_true', help='take photos whose files are cut short'
    )
    add_search(result)
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; 0 if every photo was told, else 2 and a line on stderr for each."""
    line = parser()
    options = line.parse_args(arguments)
    if bool(options.photos) == options.check:
        line.error('expected photos, or --check alone')
    try:
        use_threads(options.threads)
    except ValueError as error:
        return _complain(error)
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: _complain(message)
        try:
            return _self_check(options) if options.check else _tell(options)
        except KeyboardInterrupt:
            return 130


def _tell(options: argparse.Namespace) -> int:
    from . import bundle, config, generate  # after the arguments are read: it takes seconds

    names = ('lyric', 'style', 'seed', 'allow_truncated')
    told = {name: getattr(options, name) for name in names}
    try:
        _check(options)
        files = config.resolve(options.models)
        suiting = bundle.search_settings(files['decmodel'])
        told |= vars(search_from(options, suiting))
        _progress('loading the models')
        z = generate.load_all(files, precision=options.precision, threads=options.threads)
        generate.stories(z, [], **told)  # one complaint, not one for each photo
    except (ValueError, OSError) as error:
        return _complain(error)
    status = 0
    for photo in options.photos:
        try:
            _progress(f'telling {photo}')
            generate.story(z, photo, **told)
            _flush()
        except (ValueError, OSError) as error:
            status = _complain(error)
    return status


def _self_check(options: argparse.Namespace) -> int:
    """Print a line for each thing that was looked at; 0 if all is well, else 2."""
    from . import selfcheck

    status = 0
    try:
        for what, fine, detail in selfcheck.check(options.models):
            print('ok   ' if fine else 'WRONG', f'{what}: {detail}')
            status = status if fine else 2
            _flush()
    except (ValueError, OSError) as error:
        return _complain(error)
    return status


def _check(options: argparse.Namespace) -> None:
    """Refuse what can be refused before models are loaded."""
    for name in ('k', 'bw'):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise ValueError(f'{name}: expected 1 or more, found {value}')


def _flush() -> None:
    """Hand a story on as soon as it is told; a closed pipe or a full disk is noticed here."""
    try:
        sys.stdout.flush()
    except OSError:  # what is left would fail once more, with a traceback, when Python ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise


def _progress(what: str) -> None:
    """A line on a terminal's stderr, so that one who waits knows for what."""
    if sys.stderr is not None and sys.stderr.isatty():
        print(f'{what} ...', file=sys.stderr)


def _complain(error: Exception) -> int:
    print('storyteller:', ' '.join(str(error).splitlines()), file=sys.stderr)
    return 2


if __name__ == '__main__':
    sys.exit(main())
