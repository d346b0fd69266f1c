from __future__ import annotations

import pathlib

REFERENCE = pathlib.Path(__file__).parent / 'reference'
collect_ignore = ['forms/write_forms.py']  # for Python 2
