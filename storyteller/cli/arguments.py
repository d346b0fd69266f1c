"""Command-line helpers: a flag for each field of an option dataclass; clear errors."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import inspect
import os
import re
import sys
import typing
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from ..io.extras import EXTRAS, MissingExtraError
from ..io.files import at_home
from ..options import PRECISIONS, SearchOptions, SearchSettings, StoryOptions, check_count

T = TypeVar('T')

CLOSED_PIPE = 141  # the code of a program whose reader has gone, as shells know it
# What a user may have said on how the threads of OpenMP wait, and how many they are.
WAITING = 'OMP_WAIT_POLICY', 'GOMP_SPINCOUNT', 'KMP_BLOCKTIME'
THREADS = 'OMP_NUM_THREADS', 'MKL_NUM_THREADS'
OF_STORY = 'lyric', 'seed', 'allow_truncated', 'max_pixels'  # the search apart


def add_options(parser: argparse.ArgumentParser, kind: type, **defaults: Any) -> None:
    """Add a flag for each field of an option dataclass, described by its section ``Attributes``.

    The flag of a tuple takes one value and may be said again: one that took several would take
    photos for words. `defaults` take the place of the class' own; None, of a field that is not
    said, is not shown.

    Examples
    --------
    >>> @dataclasses.dataclass(frozen=True)
    ... class Walk:
    ...     steps: int = 3
    >>> parser = argparse.ArgumentParser()
    >>> add_options(parser, Walk)
    >>> options_from(Walk, parser.parse_args(['--steps', '5']))
    Walk(steps=5)
    """
    group = parser.add_argument_group(kind.__name__)
    described = _descriptions(kind)
    types = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        flag, default = '--' + field.name.replace('_', '-'), defaults.get(field.name, field.default)
        shown = '' if field.name in defaults and default is None else f' ({default})'
        text = f'{described.get(field.name, "")}{shown}'.replace('%', '%%')
        if types[field.name] is bool:
            switch = argparse.BooleanOptionalAction
            group.add_argument(flag, action=switch, default=default, help=text)
        else:
            plain = [
                t for t in typing.get_args(types[field.name]) if t not in (type(None), Ellipsis)
            ]
            read = plain[0] if plain else types[field.name]
            several = typing.get_origin(types[field.name]) is tuple
            action: Any = _Several if several else 'store'
            text += ' May be repeated.' * several
            group.add_argument(flag, type=read, action=action, default=default, help=text)


class _Several(argparse.Action):
    """Collects what is said in a tuple, which takes the place of the default."""

    def __call__(self, parser, namespace, value, option_string=None):
        before = getattr(namespace, self.dest)
        known = () if before is self.default else before
        setattr(namespace, self.dest, (*known, value))


def add_search(parser: argparse.ArgumentParser, strength: bool = True) -> None:
    """Add the flags of the search and, with `strength`, its own; by default those of the models."""
    usual, suiting = SearchSettings(), 'default: that of the models, else'
    parser.add_argument(
        '-k', '--k', type=int, help=f'number of captions to average ({suiting} {usual.k})'
    )
    parser.add_argument('--bw', type=int, help=f'beam width ({suiting} {usual.bw})')
    if strength:
        shift = f'strength of the style shift ({suiting} {usual.strength})'
        parser.add_argument('--strength', type=float, help=shift)
    start = 'start from the search settings of 2015 instead of those of the models'
    parser.add_argument('--search-2015', action='store_true', help=start)
    names = [each.name for each in dataclasses.fields(SearchOptions)]
    add_options(parser, SearchOptions, **dict.fromkeys(names))


def search_from(
    arguments: argparse.Namespace, suiting: SearchSettings, seed: int | None = None
) -> SearchSettings:
    """The search settings: those given by flags, else those of the models.

    With the `seed` of a sample, theirs that only concern a search are left out. A ValueError says
    which field is out of range.
    """
    said = {name: getattr(arguments, name, None) for name in ('k', 'bw', 'strength')}
    said['telling'] = SearchOptions.of_2015() if arguments.search_2015 else None
    chosen = suiting.chosen(seed is not None, **said)
    changes = {
        each.name: value
        for each in dataclasses.fields(SearchOptions)
        if (value := getattr(arguments, each.name)) is not None
    }
    return dataclasses.replace(chosen, telling=dataclasses.replace(chosen.telling, **changes))


def story_from(arguments: argparse.Namespace, suiting: SearchSettings) -> StoryOptions:
    """What the flags of :func:`add_story` ask for, style apart; else what suits the models."""
    own = {name: getattr(arguments, name) for name in OF_STORY}
    return StoryOptions(**own | vars(search_from(arguments, suiting, arguments.seed)))


def add_models(parser: argparse.ArgumentParser, several: bool = True) -> None:
    """Add ``--models``, which `storyteller.generate.load_all` takes, once or `several` times."""
    more = '; may be repeated, for parts that the first lacks' if several else ''
    parser.add_argument(
        '--models',
        metavar='DIR',
        action=_OneOrMore if several else 'store',
        help=f'folder of models, or hf://OWNER/NAME[@REVISION]{more}',
    )


def add_story(parser: argparse.ArgumentParser, several_styles: bool = False) -> None:
    """The options of every command that tells stories: style, models, threads, photos, search."""
    style = 'name of a style, or a .npy file' + '; may be repeated' * several_styles
    parser.add_argument('--lyric', action='store_true', help='break lines at commas')
    parser.add_argument('--style', action='append' if several_styles else 'store', help=style)
    add_models(parser)
    parser.add_argument(
        '--precision',
        choices=PRECISIONS,
        default='float32',
        help='of computations on a CPU: bfloat16 encodes captions faster, with small deviations '
        '(%(default)s)',
    )
    add_threads(parser)
    parser.add_argument('--seed', type=int, help='sample with this seed instead of searching')
    parser.add_argument(
        '--allow-truncated', action='store_true', help='accept truncated image files'
    )
    add_max_pixels(parser)
    add_search(parser)


def check_counts(arguments: argparse.Namespace, *more: str) -> None:
    """Refuse numbers below 1 before anything is loaded: of :func:`add_story`, and `more`."""
    for name in ('k', 'bw', 'max_pixels', *more):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise ValueError(f'{name}: expected 1 or more, found {value}')


def add_encoder(parser: argparse.ArgumentParser) -> None:
    """Add ``--encoder``, also called ``--models``: a folder whose skip-thoughts are used."""
    parser.add_argument(
        '--encoder',
        '--models',
        metavar='DIR',
        help='skip-thoughts models: a folder, ours or of 2015, or hf://OWNER/NAME (the bundle)',
    )


class _OneOrMore(argparse.Action):
    """Keeps one value as it is, and several as a list."""

    def __call__(self, parser, namespace, value, option_string=None):
        before = getattr(namespace, self.dest)
        if before is not None:
            value = [*([before] if isinstance(before, str) else before), value]
        setattr(namespace, self.dest, value)


def add_max_pixels(parser: argparse.ArgumentParser) -> None:
    """Add ``--max-pixels``."""
    parser.add_argument(
        '--max-pixels',
        type=int,
        metavar='N',
        default=StoryOptions.max_pixels,
        help='maximum number of pixels of a photo; each takes at least four bytes (%(default)s)',
    )


def add_threads(parser: argparse.ArgumentParser) -> None:
    """Add ``--threads``, for :func:`use_threads`."""
    parser.add_argument(
        '--threads', type=int, metavar='N', help='number of CPU threads (all cores)'
    )


def use_threads(count: int | None = None) -> None:
    """Set how threads wait, and their number, 1 or more. torch must not be loaded yet.

    By itself OpenMP lets a thread that has nothing to do keep its core busy. Beside another program
    that has work to do, each step then waits for a thread that waits for a core.
    """
    if not any(name in os.environ for name in WAITING):
        os.environ['OMP_WAIT_POLICY'] = 'PASSIVE'
    if count is not None:
        check_count('threads', count)
        os.environ.update(dict.fromkeys(THREADS, str(count)))


def options_from(kind: type[T], arguments: argparse.Namespace) -> T:
    """The option dataclass that parsed arguments describe; it checks itself."""
    given, described = vars(arguments), typing.cast(Any, kind)
    names = [field.name for field in dataclasses.fields(described) if field.name in given]
    return kind(**{name: given[name] for name in names})


def _descriptions(kind: type) -> dict[str, str]:
    """Field -> description, from a numpydoc section; several fields may share one."""
    _, _, section = (inspect.getdoc(kind) or '').partition('Attributes\n----------\n')
    found: dict[str, str] = {}
    for names, body in re.findall(r'^(\w[\w, ]*) :.*\n((?:    .*\n?|\n)*)', section, re.MULTILINE):
        for name in names.split(', '):
            found[name] = ' '.join(body.replace('``', '').split())
    return found


def prepare_streams() -> None:
    """Make stdout and stderr take any text, also where they are closed or of a small encoding.

    What cannot be encoded is shown as a replacement. Files are no matter of this: they are UTF-8.
    What comes on stdin are names of files, which are bytes of any kind where there is POSIX.
    """
    if sys.stdin is None:
        os.open(os.devnull, os.O_RDONLY)  # lest a file that is opened next takes its number
    elif os.name == 'posix':
        stdin: Any = sys.stdin
        with contextlib.suppress(AttributeError, ValueError):  # a stream that somebody put there
            encoding, errors = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()
            stdin.reconfigure(encoding=encoding, errors=errors)
    for name in ('stdout', 'stderr'):
        stream = getattr(sys, name)
        if stream is None:
            nothing = os.open(os.devnull, os.O_WRONLY)
            setattr(sys, name, os.fdopen(nothing, 'w', encoding='utf-8'))
        elif getattr(stream, 'errors', None) in ('strict', 'surrogateescape'):
            with contextlib.suppress(AttributeError):  # a stream that somebody put there
                stream.reconfigure(errors='replace')


def with_home(arguments: Iterable[str]) -> list[str]:
    """Arguments with the home folder for ``~``, also where shells leave it, as in ``--out=~/told``.

    Examples
    --------
    >>> with_home(['a~b', '--bw=3', '~nobody-is-called-so/a'])
    ['a~b', '--bw=3', '~nobody-is-called-so/a']
    """
    found = []
    for argument in arguments:
        flag = found_flag[0] if (found_flag := re.match(r'--[\w-]+=', argument)) else ''
        found.append(flag + at_home(argument.removeprefix(flag)))
    return found


def drop_output() -> None:
    """Turn stdout to nothing if it cannot be written, as a closed pipe or a file on a full disk.

    Python would else try once more, with a traceback, when it ends.
    """
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run(main: Callable[[], int | None]) -> None:
    """Run a script's `main`, which may return a code to exit with.

    What is wrong with its input ends it with one line and code 2, a closed pipe quietly.
    """
    prepare_streams()
    sys.argv[1:] = with_home(sys.argv[1:])
    try:
        status = main()
        sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        drop_output()
        sys.exit(CLOSED_PIPE)
    except ModuleNotFoundError as error:
        package = (error.name or '').partition('.')[0]
        if package not in EXTRAS:
            raise
        print(f'{sys.argv[0]}: {MissingExtraError(package)}', file=sys.stderr)
        sys.exit(2)
    except (ValueError, OSError, FloatingPointError) as error:
        drop_output()
        print(f'{sys.argv[0]}: {error}', file=sys.stderr)
        sys.exit(2)
    if status:
        sys.exit(status)
