"""Packages of the extras that are missing: a line that says what to install, for every one."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from storyteller.batch import ray_data
from storyteller.captions import index
from storyteller.io import extras

ROOT = Path(__file__).parent.parent
PHOTO = str(ROOT / 'images' / 'ex1.jpg')


def hide(monkeypatch, package):
    """Make a package one that is not installed."""
    for name in [name for name in sys.modules if name.partition('.')[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)


@pytest.mark.parametrize('package', extras.EXTRAS)
def test_what_is_missing_is_said_with_the_way_to_get_it(package, monkeypatch):
    hide(monkeypatch, package)
    words = rf"{package} is not installed: .*pip install 'storyteller\[{extras.EXTRAS[package]}\]'"
    with pytest.raises(extras.MissingExtraError, match=words) as missing:
        extras.needed(f'{package}.part')
    assert isinstance(missing.value, (ImportError, ValueError)) and missing.value.name == package


def test_what_a_package_itself_lacks_is_not_taken_for_it(monkeypatch):
    monkeypatch.setitem(sys.modules, 'storyteller.nothing', None)
    with pytest.raises(ModuleNotFoundError) as missing:
        extras.needed('storyteller.nothing')
    assert not isinstance(missing.value, extras.MissingExtraError)


def test_every_extra_is_one_of_the_package():
    offered = re.findall(r"^        '(\w+)': \[", (ROOT / 'setup.py').read_text(), re.MULTILINE)
    assert set(extras.EXTRAS.values()) <= set(offered)


def test_the_library_says_it(monkeypatch, tmp_path):
    hide(monkeypatch, 'faiss')
    hide(monkeypatch, 'ray')
    vectors = np.eye(4, dtype=np.float32)
    for job in (
        lambda: index.build(vectors),
        lambda: index.load(tmp_path / 'a.faiss', vectors),
        lambda: ray_data.tell(None, []),
    ):
        with pytest.raises(ValueError, match=r'storyteller\[scale\]'):
            job()


HIDDEN = """
import runpy, sys
for name in {packages!r}:
    sys.modules[name] = None
sys.argv = {argv!r}
runpy.run_path(sys.argv[0], run_name='__main__')
"""


@pytest.mark.parametrize(
    ('script', 'arguments', 'packages', 'extra'),
    [
        ('demo.py', [], ['gradio'], 'demo'),
        ('build_caption_index.py', ['--out', 'a.faiss'], ['faiss'], 'scale'),
        ('evaluate.py', ['sentences', '--data', '.'], ['scipy', 'sklearn'], 'eval'),
        ('story_folder.py', [PHOTO, '--out', 'told', '--ray'], ['ray'], 'scale'),
    ],
)
def test_the_scripts_say_it_in_one_line(script, arguments, packages, extra, tmp_path):
    argv = [str(ROOT / 'scripts' / script), *arguments]
    code = HIDDEN.format(packages=packages, argv=argv)
    done = subprocess.run(
        [sys.executable, '-c', code],
        capture_output=True, encoding='utf-8', timeout=120, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 2 and done.stdout == ''
    assert done.stderr.count('\n') == 1 and f'storyteller[{extra}]' in done.stderr
