from __future__ import annotations

import pathlib

REFERENCE = pathlib.Path(__file__).parent / 'reference'
