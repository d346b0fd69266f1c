from __future__ import annotations

import ast
import importlib
import os
import pathlib
import re
import runpy
import shutil
import site
import subprocess
import sys
import venv

import pytest

from storyteller import __version__
from storyteller.cli.subcommands import SUBCOMMANDS
from storyteller.nn import efficientnet

CHECKOUT = pathlib.Path(__file__).parent.parent
# Names under which a distribution is imported, where they differ.
IMPORTED = {
    'efficientnet-lite-pytorch': 'efficientnet_lite_pytorch',
    'faiss-cpu': 'faiss',
    'pillow': 'PIL',
    'pillow-heif': 'pillow_heif',
    'protobuf': 'google',
    'scikit-learn': 'sklearn',
    'scikit-image': 'skimage',
}
TEXTS_OF_EVALUATE = (
    'photo_preferences.txt',
    'scene_passages.txt',
    'scene_preferences.txt',
    'scene_songs.txt',
    'words_to_leave_out.txt',
)
DATA = efficientnet.PACKAGE  # weights, and no module that a source imports by name


@pytest.fixture
def arguments(monkeypatch):
    """What setup.py hands to setuptools."""
    setuptools = pytest.importorskip('setuptools')
    caught = {}
    monkeypatch.setattr(setuptools, 'setup', caught.update)
    monkeypatch.chdir(CHECKOUT)
    runpy.run_path('setup.py')
    return caught


def third_party(folder: pathlib.Path) -> set[str]:
    """Top-level modules that the sources of a folder import, less Python's and our own."""
    found = set()
    for path in folder.rglob('*.py'):
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split('.')[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add(node.module.split('.')[0])
    ours = {'storyteller', 'conftest'} | {path.stem for path in folder.rglob('*.py')}
    return found - set(sys.stdlib_module_names) - ours


def named(requirements: list[str]) -> set[str]:
    """Requirements as the names under which they are imported."""
    names = {re.match(r'[\w-]+', requirement)[0] for requirement in requirements}
    return {IMPORTED.get(name, name) for name in names}


def test_requirements_are_what_the_package_imports(arguments):
    imported, required = third_party(CHECKOUT / 'storyteller'), named(arguments['install_requires'])
    extras = arguments['extras_require']
    # The others are of scripts.
    library = ('eval', 'expand', 'train', 'gallery', 'hub', 'scale', 'caffe', 'keras', 'heif')
    optional = named([package for extra in library for package in extras[extra]])
    assert DATA in required
    assert required - {DATA} <= imported <= required | optional


def test_tests_and_scripts_import_nothing_that_is_not_installed_for_them(arguments):
    allowed = named(arguments['install_requires'])
    for extra in arguments['extras_require'].values():
        allowed |= named(extra)
    for folder in ('tests', 'scripts'):
        assert third_party(CHECKOUT / folder) <= allowed


def test_every_package_is_listed(arguments):
    folders = {path.parent for path in (CHECKOUT / 'storyteller').rglob('*.py')}
    packages = {'.'.join(folder.relative_to(CHECKOUT).parts) for folder in folders}
    beside = {'storyteller.models', 'storyteller.scripts'}
    assert set(arguments['packages']) == packages | beside


def test_the_command_is_there(arguments):
    (command,) = arguments['entry_points']['console_scripts']
    name, _, target = command.partition(' = ')
    module, _, function = target.partition(':')
    assert name == 'storyteller'
    assert callable(getattr(importlib.import_module(module), function))


# --- installing, from a copy whose bundle is a stand-in ------------------------------------------

STAND_IN = ('bundle.json', 'captions.txt', 'utable.npy', 'decoder.safetensors', 'README.md')
REPORT = """
import pathlib, storyteller.config as config
folder = config.default_folder()
print(pathlib.Path(config.__file__).resolve().parent)
print(folder.resolve())
print(*sorted(path.name for path in folder.iterdir()))
print(config.paths['captions'] == str(folder / 'captions.txt'))
from storyteller import text
print(len(text.sentences('He came. She went.', punkt='shipped')))
"""


@pytest.fixture(scope='module')
def checkout(tmp_path_factory):
    """A checkout with every source and a bundle of empty files."""
    copy = tmp_path_factory.mktemp('checkout')
    for name in ('setup.py', 'pyproject.toml', 'README.md', 'LICENSE'):
        shutil.copy(CHECKOUT / name, copy)
    ignore = shutil.ignore_patterns('__pycache__')
    for name in ('storyteller', 'scripts'):
        shutil.copytree(CHECKOUT / name, copy / name, ignore=ignore)
    (copy / 'tests').mkdir()
    (copy / 'tests' / 'test_nothing.py').touch()
    (copy / 'models').mkdir()
    for name in STAND_IN:
        (copy / 'models' / name).touch()
    return copy


@pytest.fixture
def interpreter(tmp_path):
    """A Python that sees the libraries of this one, but no storyteller."""
    folder = tmp_path / 'venv'
    venv.create(folder, symlinks=True)
    python = folder / 'bin' / 'python'
    where = subprocess.run(
        [python, '-c', 'import site; print(site.getsitepackages()[0])'],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    libraries = [path for path in site.getsitepackages() if os.path.isdir(path)]
    # A plain .pth entry: .pth files in there, such as those of an editable install, are not read.
    (pathlib.Path(where) / 'libraries.pth').write_text('\n'.join(libraries))
    return python


def run(
    *command: str | pathlib.Path, folder: pathlib.Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder, with nothing around it that names another package or bundle."""
    clean = {k: v for k, v in os.environ.items() if k not in ('PYTHONPATH', 'STORYTELLER_MODELS')}
    return subprocess.run(
        command, cwd=folder, env=clean | environment, capture_output=True, text=True
    )


def report(python: pathlib.Path, folder: pathlib.Path, **environment: str) -> list[str]:
    """What an interpreter says about the package, asked from a folder."""
    done = run(python, '-c', REPORT, folder=folder, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def install(python: pathlib.Path, *what: str) -> None:
    command = [sys.executable, '-m', 'pip', '--python', str(python), 'install', '--quiet']
    clean = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
    subprocess.run(
        [*command, '--no-deps', '--no-index', '--no-build-isolation', *what], check=True, env=clean
    )


def check(lines: list[str], package: pathlib.Path, models: pathlib.Path) -> None:
    assert lines[0] == str(package.resolve())
    assert lines[1] == str(models.resolve())
    assert set(STAND_IN) <= set(lines[2].split())
    assert lines[3:] == ['True', '2']


@pytest.mark.slow
def test_installed_package_holds_the_bundle(checkout, interpreter, tmp_path):
    install(interpreter, str(checkout))
    (packages,) = (tmp_path / 'venv').glob('lib/python*/site-packages')
    check(report(interpreter, tmp_path), packages / 'storyteller', packages / 'storyteller/models')
    assert not (packages / 'tests').exists() and not (packages / 'models').exists()
    assert (packages / 'storyteller' / 'py.typed').is_file()
    (metadata,) = packages.glob('storyteller-*.dist-info')
    assert list(metadata.rglob('LICENSE'))


@pytest.mark.slow
def test_the_installed_command_runs_and_its_status_says_how_it_went(
    checkout, interpreter, tmp_path
):
    install(interpreter, str(checkout))
    commands = {
        'python -m storyteller': [interpreter, '-m', 'storyteller'],
        'storyteller': [interpreter.parent / 'storyteller'],
    }
    for name, command in commands.items():
        done = run(*command, '--version', folder=tmp_path)
        assert (done.returncode, done.stdout) == (0, f'storyteller {__version__}\n'), done.stderr
        done = run(*command, 'a.jpg', '--models', 'nowhere', folder=tmp_path)
        assert (done.returncode, done.stdout) == (2, '')
        assert done.stderr == 'storyteller: nowhere: no such folder of models\n'
        assert run(*command, folder=tmp_path).stderr.startswith(f'usage: {name} [-h]')


@pytest.mark.slow
def test_installed_scripts_are_those_of_subcommands(checkout, interpreter, tmp_path):
    install(interpreter, str(checkout))
    (packages,) = (tmp_path / 'venv').glob('lib/python*/site-packages')
    names = {path.name for path in (packages / 'storyteller' / 'scripts').iterdir()}
    scripts = {script for script, _ in SUBCOMMANDS.values() if script}
    assert names - {'__pycache__'} == scripts | set(TEXTS_OF_EVALUATE)
    assert not (packages / 'scripts').exists()
    for command in ([interpreter, '-m', 'storyteller'], [interpreter.parent / 'storyteller']):
        shown = 'python -m storyteller' if '-m' in command else 'storyteller'
        done = run(*command, 'folder', '--help', folder=tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f'usage: {shown} folder [-h]')
    help = run(*command, 'evaluate', 'stories', '--help', folder=tmp_path, COLUMNS='2000').stdout
    for name in TEXTS_OF_EVALUATE:
        assert str(packages.resolve() / 'storyteller' / 'scripts' / name) in help.replace("'", '')


@pytest.mark.slow
def test_editable_install_uses_the_checkout(checkout, interpreter, tmp_path):
    install(interpreter, '-e', str(checkout))
    check(report(interpreter, tmp_path), checkout / 'storyteller', checkout / 'models')
    (checkout / 'storyteller' / 'later.py').write_text('there = True\n')
    done = subprocess.run([interpreter, '-c', 'import storyteller.later'], cwd=tmp_path)
    assert done.returncode == 0
    assert run(interpreter, '-m', 'storyteller', 'convert', '-h', folder=tmp_path).returncode == 0


@pytest.mark.slow
def test_bare_checkout_needs_no_install(checkout, interpreter, tmp_path):
    check(report(interpreter, checkout), checkout / 'storyteller', checkout / 'models')


@pytest.mark.slow
def test_a_folder_of_ones_own_comes_first(checkout, interpreter, tmp_path):
    own = tmp_path / 'own'
    shutil.copytree(checkout / 'models', own)
    lines = report(interpreter, checkout, STORYTELLER_MODELS=str(own))
    check(lines, checkout / 'storyteller', own)


def test_the_readme_names_the_small_build_of_torch_that_fits(arguments):
    readme = (CHECKOUT / 'README.md').read_text(encoding='utf-8')
    (torch,) = (need for need in arguments['install_requires'] if need.startswith('torch>'))
    newest = torch.partition(',')[2]
    assert f"pip install 'torch{newest}' --index-url https://download.pytorch.org/whl/cpu" in readme
