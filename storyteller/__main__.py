"""Command line: ``python -m storyteller PHOTO`` prints the nearest captions and a story.

Once installed, ``storyteller PHOTO`` does the same. Several photos have their names above
their stories, and a blank line between them. Subcommands do the other jobs: ``storyteller --help``
lists them, and a photo that is called like one is reached by ``./NAME``.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from . import __version__
from .cli import subcommands
from .cli.arguments import (
    CLOSED_PIPE,
    add_models,
    add_story,
    add_threads,
    check_counts,
    drop_output,
    prepare_streams,
    story_from,
    use_threads,
    with_home,
)


def parser(command: str | None = None) -> argparse.ArgumentParser:
    """The argument parser of a subcommand, with the name under which this was called."""
    program, listing = _program(), '' if command else '\n\n' + subcommands.listing(_program())
    result = argparse.ArgumentParser(
        prog=f'{program} {command}' if command else program,
        description=f'Tell a little story about a photograph.{listing}',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if command == 'check':
        result.description = 'Verify the model files and their outputs.'
        result.set_defaults(photos=[], check=True, json=False)
        add_models(result)
        add_threads(result)
        return result
    result.add_argument('--version', action='version', version=f'storyteller {__version__}')
    result.add_argument('photos', nargs='*', metavar='PHOTO', help='an image file')
    result.add_argument(
        '--check', action='store_true', help='verify the model files and their outputs'
    )
    result.add_argument('--json', action='store_true', help='print one line of JSON per photo')
    add_story(result)
    return result


def _program() -> str:
    installed = Path(*sys.argv[:1]).stem == 'storyteller'  # else it is __main__, or a program's own
    return 'storyteller' if installed else 'python -m storyteller'


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; 0 on success, else 2, with a line on stderr for each failed photo."""
    arguments, command = list(sys.argv[1:] if arguments is None else arguments), None
    if arguments and arguments[0] in subcommands.SUBCOMMANDS:
        command = arguments.pop(0)
        if subcommands.SUBCOMMANDS[command][0]:
            subcommands.run(command, _program(), arguments)  # which exits if that fails
            return 0
    prepare_streams()
    if command is None and (near := subcommands.meant(arguments)):
        _complain(f"{arguments[0]}: no such file; did you mean '{_program()} {near}'?")
    line = parser(command)
    options = line.parse_intermixed_args(with_home(arguments))  # photos may stand between options
    if bool(options.photos) == options.check or (options.check and options.json):
        line.error('expected photos, or --check alone')
    try:
        use_threads(options.threads)
    except ValueError as error:
        return _complain(error)
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            status = _self_check(options) if options.check else _tell(options)
            sys.stdout.flush()
            return status
        except KeyboardInterrupt:
            return 130
        except OSError as error:  # the output is lost, or the self-check has to do without a file
            drop_output()
            return CLOSED_PIPE if isinstance(error, BrokenPipeError) else _complain(error)
        finally:
            gc.unfreeze()


def _tell(options: argparse.Namespace) -> int:
    with _no_search_for_garbage():
        # Here, after the arguments are read: it takes a while.
        from . import config, generate
        from .io import bundle, picture_files

        picture_files.register_plugins()
        try:
            check_counts(options)
            files = config.resolve(options.models)
            suiting = bundle.search_settings(files['decmodel'])
            told = vars(story_from(options, suiting)) | {'style': options.style}
            _progress('loading the models')
            z = generate.load_all(files, precision=options.precision, threads=options.threads)
            generate.stories(z, [], **told)  # one complaint, not one for each photo
        except (ValueError, OSError) as error:
            return _complain(error)
    status, several = 0, len(options.photos) > 1 and not options.json
    for number, photo in enumerate(options.photos):
        _progress(f'telling {photo}')
        if several:
            print(*([''] if number else []), photo, sep='\n', flush=True)
        try:
            (_print_row if options.json else generate.story)(z, photo, **told)
        except ValueError as error:  # an OSError is of stdout: other photos would fare no better
            status = _complain(error)
            if several:
                print('NOT TOLD:', getattr(error, 'reason', error))
        sys.stdout.flush()  # a story is handed on as soon as it is told
    return status


@contextlib.contextmanager
def _no_search_for_garbage() -> Iterator[None]:
    """While modules and models are loaded, nor later among these: they are many, and stay."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if before:
            gc.enable()


def _print_row(z: Mapping[str, Any], photo: str, **told: Any) -> None:
    """Print a line of JSON for a photo, also for one that cannot be told, before it is raised."""
    from . import generate
    from .errors import ImageError

    (found,) = generate.stories(z, [photo], on_error='return', **told)
    print(json.dumps(found.to_dict()))
    if isinstance(found, generate.StoryError):
        raise ImageError(found.path, found.reason)


def _self_check(options: argparse.Namespace) -> int:
    """Print a line for each thing that was looked at; 0 if all is well, else 2."""
    from .cli import check

    status = 0
    try:
        for what, fine, detail in check.check(options.models):
            print('ok   ' if fine else 'WRONG', f'{what}: {detail}')
            status = status if fine else 2
            sys.stdout.flush()
    except ValueError as error:
        return _complain(error)
    return status


def _progress(what: str) -> None:
    """A line on a terminal's stderr, so that one who waits knows for what."""
    if sys.stderr is not None and sys.stderr.isatty():
        print(f'{what} ...', file=sys.stderr)


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    _complain(message)


def _complain(error: Exception | str) -> int:
    print('storyteller:', ' '.join(str(error).splitlines()), file=sys.stderr)
    return 2


if __name__ == '__main__':
    sys.exit(main())
