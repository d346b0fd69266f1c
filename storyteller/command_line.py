"""The command line: a flag for each field of an option dataclass; clear errors."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import os
import re
import sys
import typing
from collections.abc import Callable
from typing import Any, TypeVar

from .extras import EXTRAS, MissingExtraError
from .options import PRECISIONS, SearchSettings, Telling, check_count

T = TypeVar('T')

# What a user may have said on how the threads of OpenMP wait, and how many they are.
WAITING = 'OMP_WAIT_POLICY', 'GOMP_SPINCOUNT', 'KMP_BLOCKTIME'
THREADS = 'OMP_NUM_THREADS', 'MKL_NUM_THREADS'


def add_options(parser: argparse.ArgumentParser, kind: type, **defaults: Any) -> None:
    """Add a flag for each field of an option dataclass.

    Parameters
    ----------
    parser : argparse.ArgumentParser
    kind : dataclass
        Its docstring describes the fields in a section ``Attributes``. A tuple takes several
        values.
    defaults
        What takes the place of the class' own defaults; None, of a field that is not said, is not
        shown.

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
            action = argparse.BooleanOptionalAction
            group.add_argument(flag, action=action, default=default, help=text)
        else:
            plain = [
                t for t in typing.get_args(types[field.name]) if t not in (type(None), Ellipsis)
            ]
            many = {'nargs': '+'} if typing.get_origin(types[field.name]) is tuple else {}
            read = plain[0] if plain else types[field.name]
            group.add_argument(flag, type=read, default=default, help=text, **many)


def add_search(parser: argparse.ArgumentParser, strength: bool = True) -> None:
    """Add the flags of how stories are told; what is not said is what suits the models.

    Parameters
    ----------
    parser : argparse.ArgumentParser
    strength : bool
        Also ``--strength``.
    """
    usual, suiting = SearchSettings(), 'default: what suits the models, else'
    parser.add_argument('-k', '--k', type=int, help=f'captions to average ({suiting} {usual.k})')
    parser.add_argument('--bw', type=int, help=f'beam width ({suiting} {usual.bw})')
    if strength:
        parser.add_argument(
            '--strength',
            type=float,
            help=f'how far to shift the style ({suiting} {usual.strength})',
        )
    parser.add_argument(
        '--search-2015',
        action='store_true',
        help='the search of 2015, whatever suits the models; other options then change that one',
    )
    add_options(parser, Telling, **dict.fromkeys(each.name for each in dataclasses.fields(Telling)))


def search_from(arguments: argparse.Namespace, suiting: SearchSettings) -> SearchSettings:
    """How stories are to be told: what the flags of :func:`add_search` say, else what suits.

    Raises
    ------
    ValueError
        If a field is out of range.
    """
    said = {name: getattr(arguments, name, None) for name in ('k', 'bw', 'strength')}
    said['telling'] = Telling.of_2015() if arguments.search_2015 else None
    chosen = suiting.chosen(getattr(arguments, 'seed', None) is not None, **said)
    changes = {
        each.name: value
        for each in dataclasses.fields(Telling)
        if (value := getattr(arguments, each.name)) is not None
    }
    return dataclasses.replace(chosen, telling=dataclasses.replace(chosen.telling, **changes))


def add_models(parser: argparse.ArgumentParser, several: bool = True) -> None:
    """Add ``--models``, which `storyteller.generate.load_all` takes.

    Parameters
    ----------
    parser : argparse.ArgumentParser
    several : bool
        Whether it may be said more than once.
    """
    more = '; if said again, for the parts that the first has not' if several else ''
    parser.add_argument(
        '--models',
        metavar='DIR',
        action=_OneOrMore if several else 'store',
        help=f'a folder of models to use instead, or hf://OWNER/NAME[@REVISION]{more}',
    )


def add_encoder(parser: argparse.ArgumentParser) -> None:
    """Add ``--encoder``, also called ``--models``: a folder whose skip-thoughts are used."""
    parser.add_argument(
        '--encoder',
        '--models',
        metavar='DIR',
        help='folder of skip-thoughts, ours or of 2015, or hf://OWNER/NAME; default: the bundle',
    )


class _OneOrMore(argparse.Action):
    """Keeps one value as it is, and several as a list."""

    def __call__(self, parser, namespace, value, option_string=None):
        before = getattr(namespace, self.dest)
        if before is not None:
            value = [*([before] if isinstance(before, str) else before), value]
        setattr(namespace, self.dest, value)


def add_precision(parser: argparse.ArgumentParser) -> None:
    """Add ``--precision``, in which the models compute."""
    parser.add_argument(
        '--precision',
        choices=PRECISIONS,
        default='float32',
        help='on a CPU, faster than %(default)s and not quite its numbers: bfloat16 for reading '
        'captions, int8 for most of the words that a search looks at',
    )


def add_threads(parser: argparse.ArgumentParser) -> None:
    """Add ``--threads``, for :func:`use_threads`."""
    parser.add_argument('--threads', type=int, metavar='N', help='to compute on (all cores)')


def use_threads(count: int | None = None) -> None:
    """Say how threads are to wait, and how many they are to be. torch must not be loaded yet.

    By itself OpenMP lets a thread that has nothing to do keep its core busy. Beside another program
    that has work to do, each step then waits for a thread that waits for a core.

    Raises
    ------
    ValueError
        If the count is not 1 or more.
    """
    if not any(name in os.environ for name in WAITING):
        os.environ['OMP_WAIT_POLICY'] = 'PASSIVE'
    if count is not None:
        check_count('threads', count)
        os.environ.update(dict.fromkeys(THREADS, str(count)))


def options_from(kind: type[T], arguments: argparse.Namespace) -> T:
    """The option dataclass that parsed arguments describe; it checks itself."""
    given = vars(arguments)
    names = [field.name for field in dataclasses.fields(kind) if field.name in given]
    return kind(**{name: given[name] for name in names})


def _descriptions(kind: type) -> dict[str, str]:
    """Field -> description, from a numpydoc section; several fields may share one."""
    _, _, section = (inspect.getdoc(kind) or '').partition('Attributes\n----------\n')
    found: dict[str, str] = {}
    for names, body in re.findall(r'^(\w[\w, ]*) :.*\n((?:    .*\n?|\n)*)', section, re.MULTILINE):
        for name in names.split(', '):
            found[name] = ' '.join(body.replace('``', '').split())
    return found


def run(main: Callable[[], None]) -> None:
    """Run a script's `main`; what is wrong with its input ends it with one line and code 2."""
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    except ModuleNotFoundError as error:
        package = (error.name or '').partition('.')[0]
        if package not in EXTRAS:
            raise
        print(f'{sys.argv[0]}: {MissingExtraError(package)}', file=sys.stderr)
        sys.exit(2)
    except (ValueError, OSError, FloatingPointError) as error:
        print(f'{sys.argv[0]}: {error}', file=sys.stderr)
        sys.exit(2)
