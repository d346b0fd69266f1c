"""A server that cuts connections, errs, lies and dawdles, and what it may serve."""

from __future__ import annotations

import contextlib
import http.server
import io
import threading
import time
import zipfile
from collections.abc import Iterator
from typing import Any


class Server(http.server.ThreadingHTTPServer):
    """Serves `content` by name; `cuts` says after how many bytes each next answer is cut.

    Of the names in `ends` no byte after that place is ever given; those in `codes` are refused.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(('127.0.0.1', 0), Handler)
        self.content: dict[str, bytes] = {}
        self.cuts: list[int] = []
        self.ends: dict[str, int] = {}
        self.codes: dict[str, int] = {}
        self.ranges = True
        self.pause = 0.0
        self.asked: list[str | None] = []
        self.names: list[str] = []

    def url(self, name: str) -> str:
        return f'http://127.0.0.1:{self.server_port}/{name}'


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        name, server = self.path.lstrip('/'), self.server
        wanted = self.headers.get('Range')
        server.asked.append(wanted)
        server.names.append(name)
        if name not in server.content:
            return self.send_error(500 if name == 'broken' else 404)
        body = server.content[name]
        begin = int(wanted.removeprefix('bytes=').rstrip('-')) if wanted and server.ranges else 0
        if begin >= len(body) > 0 and begin:
            self.send_response(416)
            self.send_header('Content-Range', f'bytes */{len(body)}')
            self.send_header('Content-Length', '0')
            return self.end_headers()
        self.send_response(server.codes.get(name, 206 if begin else 200))
        self.send_header('Content-Length', str(len(body) - begin))
        self.end_headers()
        rest = body[begin : server.ends.get(name)]
        if server.cuts:
            rest = rest[: server.cuts.pop(0)]
        self.wfile.write(rest[:1000])
        self.wfile.flush()
        time.sleep(server.pause)
        self.wfile.write(rest[1000:])
        self.close_connection = True
        return None

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def running(kind: type[http.server.ThreadingHTTPServer] | None = None) -> Iterator[Any]:
    """A server of this kind that answers as long as the block runs, or until it is shut down."""
    server = (kind or Server)()
    thread = threading.Thread(target=server.serve_forever, kwargs={'poll_interval': 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def archive(**members: bytes) -> bytes:
    """A zip of these."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, 'w', zipfile.ZIP_DEFLATED) as content:
        for name, text in members.items():
            content.writestr(name, text)
    return data.getvalue()
