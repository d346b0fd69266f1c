"""Run the notebook of the tour and keep what it shows, so that a code host shows it too."""

from __future__ import annotations

from pathlib import Path

import nbclient
import nbformat

from storyteller.formats import write_text

TOUR = Path(__file__).with_name('tour.ipynb')


def run_tour() -> nbformat.NotebookNode:
    """The notebook with new outputs; times and versions of what ran it are left out."""
    notebook = nbformat.read(TOUR, as_version=4)
    about = dict(notebook.metadata)
    where = {'metadata': {'path': str(TOUR.parent)}}
    client = nbclient.NotebookClient(
        notebook, timeout=600, resources=where, record_timing=False, coalesce_streams=True
    )
    client.execute()
    notebook.metadata = nbformat.from_dict(about)
    return notebook


if __name__ == '__main__':
    write_text(TOUR, nbformat.writes(run_tour()) + '\n')
