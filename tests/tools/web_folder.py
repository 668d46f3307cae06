"""A web server of this machine that gives a folder away, with or without ranges of bytes."""

from __future__ import annotations

import contextlib
import functools
import re
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class _Handler(SimpleHTTPRequestHandler):
    """Lists folders, gives files, and parts of them."""

    gives_ranges = True
    sent: list[int]

    def do_GET(self):
        path = Path(self.translate_path(self.path))
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if not (asked and self.gives_ranges and path.is_file()):
            if path.is_file():
                self.sent.append(path.stat().st_size)
            super().do_GET()
            return
        content = path.read_bytes()
        first, last = int(asked[1]), min(int(asked[2]), len(content) - 1)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        self.send_header("Content-Length", str(last + 1 - first))
        self.end_headers()
        self.sent.append(last + 1 - first)
        self.wfile.write(content[first : last + 1])

    def end_headers(self):
        if self.gives_ranges:
            self.send_header("Accept-Ranges", "bytes")
        super().end_headers()

    def list_directory(self, path):
        if "unlisted" in path:
            self.send_error(403)
            return None
        return super().list_directory(path)

    def log_message(self, *arguments: object):
        """Say nothing."""


@contextlib.contextmanager
def served(folder, *, gives_ranges=True):
    """Give the address of a server of this folder, and how many bytes each answer had."""
    sent = []
    kind = type("Handler", (_Handler,), {"gives_ranges": gives_ranges, "sent": sent})
    handler = functools.partial(kind, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", sent
        finally:
            server.shutdown()
            thread.join()
