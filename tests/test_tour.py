"""The notebook runs from top to bottom."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TOUR = ROOT / 'scripts' / 'tour.ipynb'

nbformat = pytest.importorskip('nbformat')
nbclient = pytest.importorskip('nbclient')


@pytest.mark.slow
def test_the_tour_runs(tmp_path, monkeypatch):
    pytest.importorskip('ipykernel')
    monkeypatch.setenv('STORYTELLER_CACHE', str(tmp_path / 'cache'))
    notebook = nbformat.read(TOUR, as_version=4)
    where = {'metadata': {'path': str(ROOT / 'scripts')}}
    nbclient.NotebookClient(notebook, timeout=600, resources=where).execute()
    outputs = [o for cell in notebook.cells for o in cell.get('outputs', [])]
    printed = ''.join(o.get('text', '') for o in outputs)
    assert not any(o.output_type == 'error' for o in outputs)
    assert sum('image/png' in o.get('data', {}) for o in outputs) == 2
    for heading in ('--- romance', '--- lyric', '--- 1.5', "--- {'no_repeat': 3}", 'OUTPUT:'):
        assert heading in printed
