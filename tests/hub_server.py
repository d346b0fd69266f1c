"""A hub of models, as far as a client asks for files and uploads them."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import re
from urllib.parse import unquote, urlsplit

Files = dict[str, bytes]


class Server(http.server.ThreadingHTTPServer):
    """Keeps repositories: the files of each commit, and the commits that names stand for.

    Files of at least `large` bytes are uploaded apart, as large ones are.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(('127.0.0.1', 0), Handler)
        self.commits: dict[str, dict[str, Files]] = {}
        self.branches: dict[str, dict[str, str]] = {}
        self.stored: dict[str, bytes] = {}
        self.large = 1 << 62
        self.asked: list[str] = []
        self.refuses = False

    @property
    def url(self) -> str:
        return f'http://127.0.0.1:{self.server_port}'

    def push(self, name: str, files: Files, branch: str = 'main') -> str:
        """A commit with these files beside those of before; its hash."""
        commits, branches = self.commits.setdefault(name, {}), self.branches.setdefault(name, {})
        whole = commits.get(branches.get(branch, ''), {}) | files
        facts = [(file, hashlib.sha256(data).hexdigest()) for file, data in sorted(whole.items())]
        commit = hashlib.sha1(repr((len(commits), facts)).encode()).hexdigest()
        commits[commit], branches[branch] = whole, commit
        return commit


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def do_HEAD(self):
        self.give(body=False)

    def do_GET(self):
        self.give(body=True)

    def give(self, body: bool) -> None:
        """A file, at ``/OWNER/NAME/resolve/REVISION/FILE``."""
        path = unquote(urlsplit(self.path).path)
        self.server.asked.append(f'{self.command} {path}')
        asked = re.fullmatch(r'/(\w+/[\w.-]+)/resolve/([^/]+)/(.+)', path)
        name, revision, file = asked.groups() if asked else ('', '', '')
        if name not in self.server.commits:
            return self.answer(401, error='RepoNotFound')
        commits = self.server.commits[name]
        commit = self.server.branches[name].get(revision, revision)
        if commit not in commits:
            return self.answer(404, error='RevisionNotFound')
        if file not in commits[commit]:
            return self.answer(404, error='EntryNotFound', commit=commit)
        data = commits[commit][file]
        return self.answer(200, data, commit=commit, body=body)

    def do_POST(self):
        path = unquote(urlsplit(self.path).path)
        self.server.asked.append(f'{self.command} {path}')
        sent = self.rfile.read(int(self.headers.get('Content-Length') or 0))
        if self.server.refuses:
            return self.answer(403, b'{"error": "not allowed"}')
        if path == '/api/validate-yaml':
            return self.tell({'errors': [], 'warnings': []})
        if path == '/api/repos/create':
            wanted = json.loads(sent)
            name = f'{wanted["organization"]}/{wanted["name"]}'
            if name in self.server.commits:
                return self.tell({'url': f'{self.server.url}/{name}'}, 409)
            self.server.push(name, {})
            return self.tell({'url': f'{self.server.url}/{name}'})
        if found := re.fullmatch(r'/api/models/(\w+/[\w.-]+)/branch/(.+)', path):
            branches = self.server.branches[found[1]]
            branches.setdefault(found[2], branches['main'])
            return self.tell({})
        if found := re.fullmatch(r'/api/models/(\w+/[\w.-]+)/preupload/(.+)', path):
            return self.tell({'files': [self.mode(file) for file in json.loads(sent)['files']]})
        if path.endswith('.git/info/lfs/objects/batch'):
            return self.tell(
                {'transfer': 'basic', 'objects': list(map(self.place, json.loads(sent)['objects']))}
            )
        if found := re.fullmatch(r'/api/models/(\w+/[\w.-]+)/commit/(.+)', path):
            files = dict(filter(None, (self.added(line) for line in sent.splitlines())))
            commit = self.server.push(found[1], files, found[2])
            url = f'{self.server.url}/{found[1]}/commit/{commit}'
            return self.tell({'success': True, 'commitUrl': url, 'commitOid': commit})
        return self.answer(404)

    def mode(self, file: dict) -> dict:
        mode = 'lfs' if file['size'] >= self.server.large else 'regular'
        return {'path': file['path'], 'uploadMode': mode, 'shouldIgnore': False, 'oid': None}

    def place(self, thing: dict) -> dict:
        where = {'href': f'{self.server.url}/store/{thing["oid"]}', 'header': {}}
        return {'oid': thing['oid'], 'size': thing['size'], 'actions': {'upload': where}}

    def added(self, line: bytes) -> tuple[str, bytes] | None:
        """A file that a line of a commit holds, or names by its sum."""
        entry = json.loads(line)
        value = entry['value']
        if entry['key'] == 'file':
            return value['path'], base64.b64decode(value['content'])
        return (value['path'], self.server.stored[value['oid']]) if 'oid' in value else None

    def do_PUT(self):
        data = self.rfile.read(int(self.headers['Content-Length']))
        digest = self.path.removeprefix('/store/')
        if hashlib.sha256(data).hexdigest() != digest:
            return self.answer(400)
        self.server.stored[digest] = data
        return self.answer(200)

    def tell(self, value: dict, code: int = 200) -> None:
        self.answer(code, json.dumps(value).encode())

    def answer(self, code, data=b'', *, error=None, commit=None, body=True) -> None:
        self.send_response(code)
        self.send_header('Content-Length', str(len(data)))
        self.send_header('Content-Type', 'application/json')
        for name, value in (('X-Error-Code', error), ('X-Repo-Commit', commit)):
            if value:
                self.send_header(name, value)
        if commit and code == 200:
            self.send_header('ETag', f'"{hashlib.sha256(data).hexdigest()}"')
        self.end_headers()
        if body and self.command != 'HEAD':
            self.wfile.write(data)

    def log_message(self, *_):
        pass
