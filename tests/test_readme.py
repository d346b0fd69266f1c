"""What the README and the pages of docs/ promise."""

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
DOCS = sorted((CHECKOUT / 'docs').glob('*.md'))
# Each page with its text; the README comes first.
PAGES = {page: page.read_text(encoding='utf-8') for page in (CHECKOUT / 'README.md', *DOCS)}
README, *_ = PAGES.values()
BLOCKS = [
    (page, *block)
    for page, content in PAGES.items()
    for block in re.findall(r'(<!-- not run.*-->\n)?```(\w*)\n(.*?)```', content, re.DOTALL)
]
PYTHON: dict[pathlib.Path, list[str]] = {}
for page, skipped, language, code in BLOCKS:
    if language == 'python' and not skipped:
        PYTHON.setdefault(page, []).append(code)
TOLD = {'README': 6, 'many-photos': 3, 'search': 1}  # stories that each page prints
SHELL = [code for *_, language, code in BLOCKS if language == 'sh']

bundle = pytest.mark.skipif(
    not (config.default_folder() / 'bundle.json').is_file(),
    reason='the default bundle is not there: models/bundle.json is missing',
)


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 220


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
    assert not any('storyteller[' in content for content in PAGES.values())
    assert "pip install '.[demo]'" in ' '.join(README.split())


def test_the_lines_of_2015_are_there():
    lines = '\n'.join(PYTHON[CHECKOUT / 'README.md']).splitlines()
    for line in (
        'from storyteller import generate',
        'z = generate.load_all()',
        "generate.story(z, './images/ex1.jpg')",
    ):
        assert line in lines


@pytest.mark.parametrize('code', [code for *_, language, code in BLOCKS if language == 'python'])
def test_python_blocks_can_be_read(code):
    ast.parse(code)


@bundle
@pytest.mark.slow
@pytest.mark.parametrize('page', PYTHON, ids=lambda page: page.stem)
def test_python_blocks_run_in_order(page, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(CHECKOUT)
    monkeypatch.setenv('STORYTELLER_CACHE', str(tmp_path))
    names: dict = {}
    for code in PYTHON[page]:
        exec(compile(code, page.name, 'exec'), names)
    printed = capsys.readouterr().out
    assert printed.count('NEAREST-CAPTIONS: ') == printed.count('OUTPUT: ') == TOLD[page.stem]
    assert names['told'].passage


def test_pages_with_python_are_run():
    assert set(TOLD) == {page.stem for page in PYTHON}


def anchor(heading: str) -> str:
    """The anchor of a heading, as GitHub and MkDocs make it."""
    return re.sub(r'[^\w -]', '', heading.lower()).replace(' ', '-')


ANCHORS = {
    page: {anchor(heading) for heading in re.findall(r'^#+ (.+)$', content, re.MULTILINE)}
    for page, content in PAGES.items()
}


def test_files_that_it_links_to_are_there():
    assert {'images/ex1.jpg', 'images/README.md', 'LICENSE', 'docs/training.md'} <= set(
        re.findall(r'\]\(([^)#:]+)\)', README)
    )
    for page, content in PAGES.items():
        for link in re.findall(r'\]\(([^)#:]+)[#)]', content):
            assert (page.parent / link).is_file(), (page.name, link)


def test_anchors_lead_to_headings():
    for page, content in PAGES.items():
        for link, name in re.findall(r'\]\(([^)#:]*)#([^)]+)\)', content):
            assert name in ANCHORS[page.parent / link if link else page], (page.name, name)


def test_every_module_stands_on_the_page_of_the_architecture():
    content = PAGES[CHECKOUT / 'docs' / 'architecture.md']
    for path in (CHECKOUT / 'storyteller').rglob('*.py'):
        if not path.stem.startswith('__'):
            assert f'`{path.stem}`' in content, path


def test_table_of_files_is_that_of_the_configuration():
    content = PAGES[CHECKOUT / 'docs' / 'files-of-2015.md']
    rows = re.findall(r"^\| `'(\w+)'`[^|]* \| ([^|]+) \| ([^|]+) \|$", content, re.MULTILINE)
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
    assert not any('<!-- STORY' in content for content in PAGES.values())
    assert not re.search(r'@[A-Z]+@', card)
