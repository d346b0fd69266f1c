"""The notebook runs from top to bottom, and shows what it shows to those who do not run it too."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

nbformat = pytest.importorskip('nbformat')
pytest.importorskip('nbclient')
pytestmark = pytest.mark.usefixtures('scripts')


def outputs_of(notebook):
    """The outputs of each cell of code."""
    return [cell.outputs for cell in notebook.cells if cell.cell_type == 'code']


def kinds(outputs):
    """What a cell shows, whatever it says: stories may differ from machine to machine."""
    return [(o.output_type, o.get('name'), sorted(o.get('data', {}))) for o in outputs]


def test_its_outputs_are_kept():
    notebook = nbformat.read(ROOT / 'scripts' / 'tour.ipynb', as_version=4)
    nbformat.validate(notebook)
    outputs = outputs_of(notebook)
    assert all(outputs)
    assert [c.execution_count for c in notebook.cells if c.cell_type == 'code'] == [
        number + 1 for number in range(len(outputs))
    ]
    flat = [output for cell in outputs for output in cell]
    assert not any(o.output_type == 'error' or o.get('name') == 'stderr' for o in flat)
    assert sum('image/png' in o.get('data', {}) for o in flat) == 2
    assert str(Path.home()) not in str(flat) and 'site-packages' not in str(flat)  # or of whom


@pytest.mark.slow
def test_the_tour_runs(tmp_path, monkeypatch):
    pytest.importorskip('ipykernel')
    monkeypatch.setenv('STORYTELLER_CACHE', str(tmp_path / 'cache'))
    tour = importlib.import_module('run_tour')
    kept = outputs_of(nbformat.read(tour.TOUR, as_version=4))
    outputs = outputs_of(tour.run_tour())
    assert [kinds(cell) for cell in outputs] == [kinds(cell) for cell in kept]
    printed = ''.join(o.get('text', '') for cell in outputs for o in cell)
    for heading in ('--- romance', '--- lyric', '--- 1.5', "--- {'no_repeat': 3}", 'OUTPUT:'):
        assert printed.count(heading) == 1
