"""``storyteller NAME`` does what the scripts of a checkout do."""

from __future__ import annotations

import os
import pathlib
import re
import runpy
import shlex
import subprocess
import sys

import pytest

from storyteller.__main__ import main
from storyteller.cli import subcommands
from storyteller.cli.subcommands import SUBCOMMANDS

CHECKOUT = pathlib.Path(__file__).parent.parent
SCRIPTS = {name: script for name, (script, _) in SUBCOMMANDS.items() if script}
PAGES = [CHECKOUT / 'README.md', *sorted((CHECKOUT / 'docs').glob('*.md'))]


def run(*arguments: str, folder: pathlib.Path, **environment: str) -> subprocess.CompletedProcess:
    """Run ``python -m storyteller`` in a folder."""
    return subprocess.run(
        [sys.executable, '-m', 'storyteller', *arguments],
        cwd=folder, env=os.environ | {'PYTHONPATH': str(CHECKOUT)} | environment,
        capture_output=True, encoding='utf-8', timeout=300,
    )  # fmt: skip


def helped(monkeypatch, capsys, *arguments: str) -> str:
    """What a command prints that ends well."""
    monkeypatch.setenv('COLUMNS', '200')
    monkeypatch.setattr(sys, 'argv', ['/usr/bin/storyteller', *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 0
    return capsys.readouterr().out


@pytest.fixture
def told(monkeypatch):
    """The photos that the main job is asked to tell, which it does not."""
    asked: list[list[str]] = []
    monkeypatch.setattr('storyteller.__main__._tell', lambda options: asked.append(options.photos))
    return asked


# --- the scripts ---------------------------------------------------------------------------------


@pytest.mark.parametrize('name', SUBCOMMANDS)
def test_help_shows_the_name_of_the_subcommand(monkeypatch, capsys, name):
    shown = helped(monkeypatch, capsys, name, '--help')
    assert re.match(rf'usage: storyteller {name}\s', shown)
    assert 'subcommands' not in shown


@pytest.mark.parametrize('name', SCRIPTS)
def test_options_are_those_of_the_script(monkeypatch, capsys, name):
    shown = helped(monkeypatch, capsys, name, '--help')
    script = CHECKOUT / 'scripts' / SCRIPTS[name]
    monkeypatch.setattr(sys, 'argv', [str(script), '--help'])
    with pytest.raises(SystemExit):
        runpy.run_path(str(script), run_name='__main__')
    alone = capsys.readouterr().out
    assert ' '.join(shown.split()) == ' '.join(
        alone.replace(script.name, f'storyteller {name}').split()
    )


def test_scripts_need_no_others_beside_them():
    beside = {path.stem for path in (CHECKOUT / 'scripts').glob('*.py')}
    for script in SCRIPTS.values():
        content = (CHECKOUT / 'scripts' / script).read_text(encoding='utf-8')
        assert not beside & set(re.findall(r'^\s*(?:import|from) (\w+)', content, re.MULTILINE))


def test_scripts_and_the_files_they_read_are_installed(monkeypatch):
    setuptools = pytest.importorskip('setuptools')
    caught: dict = {}
    monkeypatch.setattr(setuptools, 'setup', caught.update)
    monkeypatch.chdir(CHECKOUT)
    runpy.run_path('setup.py')
    names = 'packages', 'package_dir', 'package_data', 'cmdclass'
    distribution = setuptools.Distribution({name: caught[name] for name in names})
    distribution.script_name = 'setup.py'
    build = distribution.get_command_obj('build_py')
    build.ensure_finalized()
    found = {file for package, _, file in build.find_all_modules() if package.endswith('.scripts')}
    assert {pathlib.Path(file).name for file in found} == set(SCRIPTS.values())
    (data,) = (files for package, *_, files in build.data_files if package.endswith('.scripts'))
    for script in SCRIPTS.values():
        content = (CHECKOUT / 'scripts' / script).read_text(encoding='utf-8')
        for name in re.findall(r"__file__\).*'(\w+\.txt)'", content):
            assert name in data, (script, name)


def test_what_is_wrong_ends_with_2_and_one_line(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, 'argv', ['storyteller'])
    with pytest.raises(SystemExit) as stopped:
        main(['expand-vocabulary', '--models', str(tmp_path), '--vectors', 'x', '--out', 'y'])
    assert stopped.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == '' and printed.err.count('\n') == 1
    assert printed.err.startswith('storyteller expand-vocabulary: ')


def test_arguments_and_the_main_module_are_as_before(monkeypatch, capsys):
    before = sys.modules['__main__']
    helped(monkeypatch, capsys, 'gallery', '--help')
    assert sys.modules['__main__'] is before
    assert sys.argv == ['/usr/bin/storyteller', 'gallery', '--help']


def test_an_interrupt_while_it_imports_ends_with_130(monkeypatch, capsys):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(subcommands.SourceFileLoader, 'exec_module', stop)
    with pytest.raises(SystemExit) as stopped:
        main(['gallery', '--help'])
    assert stopped.value.code == 130 and capsys.readouterr().err == ''


def test_scripts_set_threads_before_torch_is_loaded(monkeypatch, tmp_path):
    (tmp_path / 'torch.py').write_text('import os\nexit(os.environ["OMP_WAIT_POLICY"])\n')
    monkeypatch.delenv('OMP_WAIT_POLICY', raising=False)
    path = os.pathsep.join([str(tmp_path), str(CHECKOUT)])
    done = run('train-decoder', folder=tmp_path, PYTHONPATH=path)
    assert (done.returncode, done.stderr) == (1, 'PASSIVE\n')


def test_as_a_program(tmp_path):
    done = run('download', '--only', 'nothing', '--list', folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, '')
    assert done.stderr.startswith('python -m storyteller download: ')
    done = run('download', '--list', folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, '')
    assert 'uni_skip.npz' in done.stdout


def test_a_closed_pipe_ends_a_subcommand_quietly(tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, '-m', 'storyteller', 'download', '--list']
    environment = os.environ | {'PYTHONPATH': str(CHECKOUT)}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, stdout=writing, stderr=subprocess.PIPE, timeout=300
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b'')


# --- the main job --------------------------------------------------------------------------------


def test_help_lists_them(monkeypatch, capsys):
    shown = helped(monkeypatch, capsys, '--help')
    for name, (_, purpose) in SUBCOMMANDS.items():
        assert re.search(rf'^  {name} +{re.escape(purpose)}$', shown, re.MULTILINE)
    assert '\nexamples:\n  storyteller photo.jpg ' in shown
    assert max(map(len, subcommands.listing('python -m storyteller').splitlines())) <= 80


def test_the_main_job_may_be_named(told):
    main(['a.jpg', '--bw', '3', 'b.jpg'])
    main(['tell', 'a.jpg', '--bw', '3', 'b.jpg'])
    main(['--bw', '3', 'a.jpg', 'tell'])
    assert told == [['a.jpg', 'b.jpg'], ['a.jpg', 'b.jpg'], ['a.jpg', 'tell']]


@pytest.mark.parametrize('named', [['./folder'], ['tell', 'folder'], ['--', 'folder']])
def test_a_photo_that_is_called_like_a_subcommand(told, monkeypatch, tmp_path, capsys, named):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'folder').touch()
    main(named)
    assert told == [[named[-1]]] and capsys.readouterr().err == ''


def test_check_is_the_option(capsys):
    assert main(['check', '--models', 'nowhere']) == main(['--check', '--models', 'nowhere']) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first == second == 'storyteller: nowhere: no such folder of models'
    with pytest.raises(SystemExit):
        main(['check', 'a.jpg'])


def test_a_word_that_is_nearly_one_is_named(told, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['storyteller'])
    main(['galery'])
    line = "storyteller: galery: no such file; did you mean 'storyteller gallery'?\n"
    assert capsys.readouterr().err == line
    with pytest.raises(SystemExit):
        main(['foldr', 'photos', '--out', 'told'])
    first, *rest = capsys.readouterr().err.splitlines()
    assert first == "storyteller: foldr: no such file; did you mean 'storyteller folder'?"
    assert rest[-1] == 'storyteller: error: unrecognized arguments: --out told'


def test_other_words_are_photos_as_before(told, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'foldr').touch()
    for word in ('foldr', 'nothing', 'demo.jpg', ''):
        main([word])
    assert told == [['foldr'], ['nothing'], ['demo.jpg'], ['']]
    assert capsys.readouterr().err == ''


LIGHT = """
import sys
from storyteller.__main__ import parser
print(*sys.modules)
"""


def test_nothing_more_is_imported_for_the_main_job(tmp_path):
    done = subprocess.run(
        [sys.executable, '-c', LIGHT], cwd=tmp_path, env=os.environ | {'PYTHONPATH': str(CHECKOUT)},
        capture_output=True, encoding='utf-8', timeout=300, check=True,
    )  # fmt: skip
    assert not {'torch', 'runpy', 'difflib', 'tqdm', 'PIL'} & set(done.stdout.split())


# --- the pages -----------------------------------------------------------------------------------


def shown_commands() -> list[list[str]]:
    """The lines of the pages that call a subcommand, as words."""
    blocks = [
        code
        for page in PAGES
        for code in re.findall(r'```sh\n(.*?)```', page.read_text(encoding='utf-8'), re.DOTALL)
    ]
    lines = '\n'.join(blocks).replace('\\\n', ' ').splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith('storyteller ')]


@pytest.mark.parametrize('command', shown_commands(), ids=' '.join)
def test_options_of_subcommands_on_pages_are_there(monkeypatch, capsys, command):
    name, *words = command
    assert name in SUBCOMMANDS
    shown = helped(monkeypatch, capsys, name, '--help')
    for word in words:
        if word.startswith('-'):
            assert re.search(rf'(?<![\w-]){word}\b', shown), (name, word)
