"""Reading pickled arrays of Python objects, each a row of numbers.

The word tables of 2015 were saved as arrays of objects: behind the header of a ``.npy`` file stands
one pickle of a list of arrays, (W,) or (1, W), one a word. Of a million words no such list fits
into memory twice, so it is read as a stream, and each row leaves for a plain file as it comes.

The reader knows the steps that Python 2's two pickle modules take for such an array, in protocols 0
to 2, and refuses all others; no step makes anything but numbers, tuples and the rows themselves.
Rows in a pattern that was seen before, nearly all of them, are matched as a whole.
"""

from __future__ import annotations

import itertools
import pickle
import re
import reprlib
from collections.abc import Callable
from typing import Any

import numpy as np

from .pickle_2015_rows import Form, Stream, float32, row_pattern
from .unpickle import PythonUnpickler

MOST_KEPT = 256  # memo entries; a table needs about ten
MOST_PATTERNS = 16  # after which rows are read a step at a time

NDARRAY = object()  # what is named and never called
_FLOATS, _OBJECTS = (b'f2', b'f4', b'f8'), (b'O4', b'O8')
_STEPS = (
    'MARK STOP NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 STRING BINSTRING '
    'SHORT_BINSTRING TUPLE EMPTY_TUPLE TUPLE1 TUPLE2 TUPLE3 LIST EMPTY_LIST APPEND APPENDS '
    'GET BINGET LONG_BINGET PUT BINPUT LONG_BINPUT GLOBAL REDUCE BUILD PROTO'
)


class _Memo(dict):
    """The memo of a pickle; entries cannot be replaced."""

    def __setitem__(self, key: int, value: Any) -> None:
        if _name(self.get(key)) is not None:
            raise pickle.UnpicklingError(f'it puts a second thing into place {key}')
        super().__setitem__(key, value)


class _Type:
    """The type of an array, as its pickle makes it: a name, and then an order of bytes."""

    def __init__(self, name: Any, align: Any, copy: Any):
        if not isinstance(name, bytes) or name not in _FLOATS + _OBJECTS:
            raise pickle.UnpicklingError(
                f'expected the type of floats or of objects: {reprlib.repr(name)}'
            )
        if (align, copy) != (0, 1):
            raise pickle.UnpicklingError(
                f'it makes {name.decode()} of {reprlib.repr((align, copy))}'
            )
        self.name, self.floats = name.decode(), np.dtype(name.decode())
        self.known = False

    def set(self, state: Any) -> None:
        """Set the order of bytes, and nothing else."""
        order, flags = (state[1], state[7]) if _is_tuple(state, 8) else (None, None)
        objects = self.name.startswith('O')
        orders = (b'|',) if objects else (b'<', b'>')
        if (
            order is None
            or order not in orders
            or state[2:7] != (None, None, None, -1, -1)
            or state[0] != 3
        ):
            raise pickle.UnpicklingError(f'it changes what an array of {self.name} holds')
        if not isinstance(flags, int) or bool(flags) != objects:
            raise pickle.UnpicklingError(f'it changes what an array of {self.name} is')
        self.floats, self.known = self.floats.newbyteorder(order.decode()), True


class _Array:
    """An array, as its pickle makes it: empty at first."""

    data: bytes | None = None


class _Rows:
    """The list of rows, of which each goes on as it comes."""

    def __init__(self, take: Callable[[Any], None]):
        self.append = take

    def extend(self, items: list[Any]) -> None:
        if items:  # the rows between a mark and this step have gone already
            raise pickle.UnpicklingError(f'expected rows of numbers, found {_kind(items[0])}')


def _refuse(reader: ObjectRows) -> None:
    code = reader.stream.buffer[reader.stream.place - 1]
    raise pickle.UnpicklingError(f'the step {bytes([code])!r} stands in no table of rows')


class ObjectRows(PythonUnpickler):
    """Unpickler of an array of objects, each a row of floats.

    From the beginning of a pickle in `stream` it reads `count` rows, and gives `write` their width
    W, and the bytes of one or more of them (n, W) in little-endian float32.
    """

    def __init__(self, stream: Stream, count: int, write: Callable[[int, bytes], Any]):
        super().__init__(stream, encoding='bytes')
        self.stream, self.count, self._write = stream, count, write
        self.memo = _Memo()
        self.width, self.seen = 0, 0
        self._rows: _Rows | None = None
        self._whole: _Array | None = None
        self._kept = 0  # things put aside that were there after the last row
        self._pattern: re.Pattern[bytes] | None = None
        self._forms: dict[Form, int] = {}  # those seen, and how much was put aside by then
        self._patterns = 0

    def read_rows(self) -> None:
        """Read all rows; if the file holds anything else, an error of whatever kind is raised."""
        found = self.load()
        if self._whole is None or found is not self._whole or self.stack or self.metastack:
            raise pickle.UnpicklingError('it ends without an array of rows')
        if self.stream.fill(1):
            raise pickle.UnpicklingError('something stands behind the array')

    # --- the steps -------------------------------------------------------------------------------

    def find_class(self, module: str, name: str) -> Any:
        known = {
            ('numpy.core.multiarray', '_reconstruct'): _new_array,
            ('numpy', 'ndarray'): NDARRAY,
            ('numpy', 'dtype'): _Type,
        }
        if (module, name) not in known:
            raise pickle.UnpicklingError(
                f'it asks for {module:.60}.{name:.60}, which no table of rows needs'
            )
        return known[module, name]

    def load_proto(self) -> None:
        """The protocol, which Python 3 would number higher."""
        super().load_proto()
        if self.proto > 2:
            raise pickle.UnpicklingError(f'protocol {self.proto}, expected 0 to 2 as of Python 2')

    def load_empty_list(self) -> None:
        """The list of rows; there is one."""
        if self._rows is not None:
            raise pickle.UnpicklingError('expected one list of rows, found a second')
        self._rows = _Rows(self._take)
        self.append(self._rows)

    def load_list(self) -> None:
        """The list of rows as protocol 0 has it: a mark, and nothing up to here."""
        if self.pop_mark():
            raise pickle.UnpicklingError('expected an empty list of rows')
        self.load_empty_list()

    def load_mark(self) -> None:
        """What begins a tuple, or some rows."""
        super().load_mark()
        if self._among_rows():
            self._run()

    def load_build(self) -> None:
        """Set the state of a type, a row, or the array of all rows."""
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, _Type) and not target.known:
            target.set(state)
        elif isinstance(target, _Array) and target.data is None and _is_tuple(state, 5):
            self._set_array(target, *state)
        else:
            raise pickle.UnpicklingError(f'it sets the state of a {_kind(target)}')

    dispatch = {  # noqa: RUF012
        **dict.fromkeys(range(256), _refuse),
        **{
            getattr(pickle, name)[0]: PythonUnpickler.dispatch[getattr(pickle, name)[0]]
            for name in _STEPS.split()
        },
        pickle.PROTO[0]: load_proto,
        pickle.EMPTY_LIST[0]: load_empty_list,
        pickle.LIST[0]: load_list,
        pickle.MARK[0]: load_mark,
        pickle.BUILD[0]: load_build,
    }

    # --- the rows --------------------------------------------------------------------------------

    def _among_rows(self) -> bool:
        """Whether what comes now stands in the list of rows, behind a mark."""
        below = self.metastack[-1] if self.metastack else []
        return self._rows is not None and bool(below) and below[-1] is self._rows

    def _set_array(
        self, target: _Array, version: Any, shape: Any, kind: Any, fortran: Any, data: Any
    ) -> None:
        if version != 1 or not isinstance(kind, _Type) or not kind.known or fortran not in (0, 1):
            raise pickle.UnpicklingError('it makes an array in an unknown way')
        if data is self._rows and self._whole is None:
            if shape != (self.count,) or kind.name[0] != 'O' or self.seen != self.count:
                raise pickle.UnpicklingError(
                    f'the header declares {self.count} rows, found {self.seen}'
                )
            target.data, self._whole = b'', target
            return
        if kind.name[0] != 'f' or not isinstance(data, bytes):
            raise pickle.UnpicklingError(f'expected a row of floats, found {_kind(data)}')
        width = len(data) // kind.floats.itemsize
        self.width = self.width or width
        if not width or shape not in ((self.width,), (1, self.width)):
            found = f'{reprlib.repr(shape)} with {len(data)} bytes of {kind.name}'
            raise pickle.UnpicklingError(f'expected a row of {self.width or 1}, found {found}')
        if len(data) != self.width * kind.floats.itemsize:
            raise pickle.UnpicklingError(f'{len(data)} bytes are no {self.width} of {kind.name}')
        target.data = float32(data, kind.floats)
        if self._among_rows():
            self.stack.pop()
            if self.stack:
                raise pickle.UnpicklingError(f'expected a row, found {_kind(self.stack[0])}')
            self._take(target)
            self._learn(Form(kind.floats, len(shape) == 1))
            self._run()

    def _take(self, row: Any) -> None:
        """Let a row go, and forget all that nobody takes up again."""
        if not isinstance(row, _Array) or not row.data:
            raise pickle.UnpicklingError(f'expected a row of numbers, found {_kind(row)}')
        self._send(row.data, 1)
        row.data = b''
        for key in list(itertools.islice(self.memo, self._kept, None)):
            if _name(self.memo[key]) is None or len(self.memo) > MOST_KEPT:
                del self.memo[key]
        self._kept = len(self.memo)

    def _send(self, data: bytes, rows: int) -> None:
        if not rows:
            return
        self.seen += rows
        if self.seen > self.count:
            raise pickle.UnpicklingError(f'the header declares {self.count} rows, found more')
        self._write(self.width, data)
        self.stream.begin_row()

    # --- many rows at once -----------------------------------------------------------------------

    def _learn(self, form: Form) -> None:
        """Make the pattern of rows like those seen, of which one just was of this form."""
        if self._forms.get(form) == self._kept or self._patterns >= MOST_PATTERNS:
            return
        self._forms[form] = self._kept
        self._patterns += 1
        places: dict[Any, list[int]] = {}
        for key, value in self.memo.items():
            if (name := _name(value)) is not None:
                places.setdefault(name, []).append(key)
        self._pattern = row_pattern(self._forms, self.width, places, self.memo)

    def _run(self) -> None:
        """Take rows that follow as the pattern has them; all others are left where they are."""
        if self._pattern is None:
            return
        stream, match, longest = self.stream, self._pattern.match, 8 * self.width + 200
        numbers = [form.numbers for form in self._forms]
        parts: list[bytes] = []
        while True:
            if len(stream.buffer) - stream.place < longest:
                self._send(b''.join(parts), len(parts))  # before they are a second buffer
                parts.clear()
                stream.fill(longest)
            if (found := match(stream.buffer, stream.place)) is None:
                break
            form = found.lastindex or 1
            parts.append(float32(found[form], numbers[form - 1]))
            stream.place = found.end()
        self._send(b''.join(parts), len(parts))


def _new_array(kind: Any, shape: Any, letter: Any) -> _Array:
    if kind is not NDARRAY or shape != (0,) or letter != b'b':
        raise pickle.UnpicklingError('it makes an array in an unknown way')
    return _Array()


def _name(value: Any) -> Any:
    """What a thing is that one row puts aside for the next; None for all others."""
    if isinstance(value, _Type):
        return value.floats
    if isinstance(value, bytes) and len(value) < 4:  # as the names of types are
        return 'letter' if value == b'b' else value
    names = {id(_new_array): 'array', id(NDARRAY): 'ndarray', id(_Type): 'dtype'}
    return names.get(id(value))


def _is_tuple(value: Any, length: int) -> bool:
    return isinstance(value, tuple) and len(value) == length


def _kind(value: Any) -> str:
    return type(value).__name__.strip('_')
