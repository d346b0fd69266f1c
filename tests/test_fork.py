"""Processes that are forked off one that has told a story: they tell it too, and do not wait."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
# Two threads, and work enough for both, before the fork.
SCRIPT = """
import multiprocessing, sys
from pathlib import Path
import torch
from small_models import PHOTO, generate, tell, write_models

torch.set_num_threads(2)
paths = write_models(Path(sys.argv[1]))
z = generate.load_all(paths)
torch.ones(10_000_000).exp_()
expected = tell(z, [PHOTO] * 4)

def child(answers):
    if sys.argv[2] == 'loads':
        z.update(generate.load_all(paths))
    answers.put(tell(z, [PHOTO] * 4) == expected)

context = multiprocessing.get_context('fork')
answers = context.Queue()
children = [context.Process(target=child, args=(answers,), daemon=True) for _ in range(2)]
for each in children:
    each.start()
assert all(answers.get(timeout=60) for _ in children)
assert torch.get_num_threads() == 2 and tell(z, [PHOTO] * 4) == expected
"""


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='no fork on this system')
@pytest.mark.parametrize('job', ['tells', 'loads'])
def test_children_tell_what_their_parent_told(job, tmp_path):
    environment = os.environ | {
        'STORYTELLER_CACHE': str(tmp_path / 'cache'),
        'PYTHONPATH': os.pathsep.join([str(TESTS), str(TESTS.parent)]),
    }
    done = subprocess.run(
        [sys.executable, '-c', SCRIPT, str(tmp_path), job],
        env=environment, capture_output=True, encoding='utf-8', timeout=180,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
