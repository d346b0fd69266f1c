from __future__ import annotations

import ast
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

from storyteller import config

CHECKOUT = pathlib.Path(__file__).parent.parent
README = (CHECKOUT / 'README.md').read_text(encoding='utf-8')
BLOCKS = re.findall(r'(<!-- not run.*-->\n)?```(\w*)\n(.*?)```', README, re.DOTALL)
PYTHON = [code for skipped, language, code in BLOCKS if language == 'python' and not skipped]
SHELL = [code for _, language, code in BLOCKS if language == 'sh']

bundle = pytest.mark.skipif(
    not (config.default_folder() / 'bundle.json').is_file(),
    reason='the default bundle is not there: models/bundle.json is missing',
)


def test_the_two_commands_stand_there_as_the_checks_run_them():
    lines = [line for code in SHELL for line in code.splitlines()]
    commands = [line for line in lines if line.startswith('python -m pip install ')]
    assert commands == [
        'python -m pip install . && python -m storyteller images/ex1.jpg',
        "python -m pip install -e '.[test]' && python -m pytest",
    ]
    # .ci/run greps for them: they must stand nowhere else.
    assert [line for line in README.splitlines() if line.startswith('python -m pip')] == commands


def test_extras_are_those_of_the_checkout():
    """There is no package to be had by name."""
    assert 'storyteller[' not in README and "pip install '.[demo]'" in ' '.join(README.split())


def test_the_lines_of_2015_are_there():
    lines = '\n'.join(PYTHON).splitlines()
    for line in (
        'from storyteller import generate',
        'z = generate.load_all()',
        "generate.story(z, './images/ex1.jpg')",
    ):
        assert line in lines


@pytest.mark.parametrize('code', [code for _, language, code in BLOCKS if language == 'python'])
def test_python_blocks_can_be_read(code):
    ast.parse(code)


@bundle
@pytest.mark.slow
def test_python_blocks_run_in_order(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(CHECKOUT)
    monkeypatch.setenv('STORYTELLER_CACHE', str(tmp_path))
    names: dict = {}
    for code in PYTHON:
        exec(compile(code, 'README.md', 'exec'), names)
    printed = capsys.readouterr().out
    assert printed.count('NEAREST-CAPTIONS: ') == printed.count('OUTPUT: ') == 10
    assert names['told'].passage


def test_files_that_it_links_to_are_there():
    links = re.findall(r'\]\(([^)#:]+)\)', README)
    assert {'images/ex1.jpg', 'images/README.md', 'LICENSE'} <= set(links)
    for link in links:
        assert (CHECKOUT / link).is_file(), link


def test_anchors_lead_to_headings():
    headings = re.findall(r'^#+ (.+)$', README, re.MULTILINE)
    known = {heading.lower().replace(' ', '-') for heading in headings}
    anchors = re.findall(r'\]\(#([^)]+)\)', README)
    assert anchors and set(anchors) <= known


def test_table_of_files_is_that_of_the_configuration():
    rows = re.findall(r"^\| `'(\w+)'`[^|]* \| ([^|]+) \| ([^|]+) \|$", README, re.MULTILINE)
    assert [key for key, _, _ in rows] == list(config._NAMES)
    for key, theirs, ours in rows:
        if names := config._NAMES[key]:
            assert f'`{names[0]}`' in ours and f'`{names[-1]}`' in theirs


def commands() -> list[list[str]]:
    lines = '\n'.join(SHELL).replace('\\\n', ' ').splitlines()
    return [shlex.split(line) for line in lines if line.startswith('python scripts/')]


def test_scripts_are_there():
    assert len(commands()) >= 7
    for _, script, *_ in commands():
        assert (CHECKOUT / script).is_file(), script


@pytest.mark.slow
@pytest.mark.parametrize('script', sorted({command[1] for command in commands()}))
def test_options_of_scripts_are_there(script):
    done = subprocess.run(
        [sys.executable, script, '--help'],
        cwd=CHECKOUT,
        env={'PYTHONPATH': str(CHECKOUT), 'COLUMNS': '200'},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for command in commands():
        if command[1] == script:
            for option in command[2:]:
                if option.startswith('-'):
                    assert re.search(rf'(?<![\w-]){option}\b', done.stdout), (script, option)


def test_nothing_is_left_to_be_filled_in():
    card = (CHECKOUT / 'models' / 'README.md').read_text(encoding='utf-8')
    assert '<!-- STORY' not in README
    assert not re.search(r'@[A-Z]+@', card)
