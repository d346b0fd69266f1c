from __future__ import annotations

import pathlib

from storyteller.command_line import use_threads

use_threads()  # the tests are not alone on the machine

REFERENCE = pathlib.Path(__file__).parent / 'reference'
collect_ignore = ['forms/write_forms.py']  # for Python 2
