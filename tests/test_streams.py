"""Commands whose output has nowhere to go, or no letters for what is said."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.name != 'posix', reason='closes streams as a POSIX shell does')
CHECKOUT = Path(__file__).parent.parent
# The main job with a teller that needs no models, and notes on stderr whom it is asked for.
TELLER = """
import sys, types
import storyteller
def story(z, photo, **_):
    print('asked', photo, file=sys.stderr)
    print('NEAREST-CAPTIONS:', 'a dog ' * 20_000, flush=True)
    print('OUTPUT: a \\U0001f436 of', photo)
storyteller.generate = types.SimpleNamespace(
    load_all=lambda *_, **__: {}, stories=lambda *_, **__: [], story=story
)
from storyteller import __main__
sys.exit(__main__.main(sys.argv[1:]))
"""
SCRIPT = """
import sys
from storyteller.cli.arguments import run
def main():
    for i in range(100_000):
        print('\\U0001f436', i)
    print('done', file=sys.stderr)
run(main)
"""


def shell(tmp_path, redirections, program=TELLER, encoding='utf-8', options='a.jpg b.jpg'):
    """Run a program by a POSIX shell, which closes streams and makes pipes."""
    (tmp_path / 'program.py').write_text(program, encoding='utf-8')
    return subprocess.run(
        ['bash', '-c', f'{sys.executable} program.py {options} {redirections}'],
        cwd=tmp_path,
        env={**os.environ, 'PYTHONPATH': str(CHECKOUT), 'PYTHONIOENCODING': encoding},
        capture_output=True,
        timeout=300,
    )


@pytest.mark.parametrize('closed', ['>&-', '>&- 2>&-', '<&- >&-', '<&- >&- 2>&-'])
def test_a_program_without_streams_does_its_work(tmp_path, closed):
    done = shell(tmp_path, closed)
    assert done.returncode == 0 and done.stdout == b''
    assert done.stderr.splitlines() == ([] if '2>' in closed else [b'asked a.jpg', b'asked b.jpg'])


def test_the_self_check_needs_no_stdout(tmp_path):
    program = 'from storyteller.__main__ import main; raise SystemExit(main())'
    done = shell(tmp_path, '>&-', program, options='--check --models nowhere')
    assert done.returncode == 2
    assert done.stderr == b'storyteller: nowhere: no such folder of models\n'


def test_a_closed_pipe_ends_the_main_job_at_once(tmp_path):
    done = shell(tmp_path, '| head -c 20; exit ${PIPESTATUS[0]}', options='a.jpg b.jpg c.jpg')
    assert done.returncode == 141
    assert done.stdout == b'a.jpg\nNEAREST-CAPTIO'
    assert done.stderr == b'asked a.jpg\n'


def test_a_closed_pipe_ends_a_script_at_once(tmp_path):
    done = shell(tmp_path, '| head -n 1; exit ${PIPESTATUS[0]}', SCRIPT)
    assert (done.returncode, done.stdout, done.stderr) == (141, '\U0001f436 0\n'.encode(), b'')


@pytest.mark.skipif(not Path('/dev/full').exists(), reason='needs a disk that is always full')
@pytest.mark.parametrize('program', [TELLER, SCRIPT])
def test_a_full_disk_is_one_complaint(tmp_path, program):
    done = shell(tmp_path, '> /dev/full', program)
    assert done.returncode == 2
    told = [line for line in done.stderr.splitlines() if not line.startswith(b'asked')]
    assert len(told) == 1 and b'No space left' in told[0]
    assert b'b.jpg' not in done.stderr


@pytest.mark.parametrize('encoding', ['cp1252', 'ascii', 'ascii:surrogateescape'])
def test_what_cannot_be_encoded_is_replaced(tmp_path, encoding):
    done = shell(tmp_path, '', encoding=encoding)
    assert done.returncode == 0
    assert b'OUTPUT: a ? of a.jpg\n' in done.stdout and b'a ? of b.jpg\n' in done.stdout
    assert shell(tmp_path, '| tail -n 1', SCRIPT, encoding).stdout == b'? 99999\n'


def test_whoever_chose_another_replacement_has_it(tmp_path):
    done = shell(tmp_path, '', encoding='ascii:backslashreplace')
    assert b'OUTPUT: a \\U0001f436 of a.jpg\n' in done.stdout


@pytest.mark.parametrize('encoding', ['utf-8', 'ascii'])
def test_listed_photos_may_be_called_anything(tmp_path, encoding):
    program = """
import os, sys
from storyteller.cli.arguments import run
from storyteller.batch.results import find_photos
def main():
    for photo in find_photos(['-'], sys.stdin).photos:
        print(os.fsencode(photo.path).hex())
run(main)
"""
    names = [b'caf\xe9.jpg', 'caf\u00e9.jpg'.encode()]
    (tmp_path / 'list.txt').write_bytes(b'\n'.join(names))
    done = shell(tmp_path, '< list.txt', program, encoding)
    assert [bytes.fromhex(line.decode()) for line in done.stdout.split()] == names, done.stderr


def test_a_list_on_a_closed_stdin_is_no_photo(tmp_path):
    program = (CHECKOUT / 'scripts' / 'story_folder.py').read_text(encoding='utf-8')
    done = shell(tmp_path, '<&-', program, options='- --out out')
    assert done.returncode == 2 and b'stdin is closed' in done.stderr
    assert not (tmp_path / 'out').exists()
