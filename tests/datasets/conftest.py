import hashlib
import http.server
import threading
import time
import urllib.request

import pytest

from molml.datasets import catalogue, web

CONTENT = bytes(range(256)) * 4096


class Handler(http.server.BaseHTTPRequestHandler):
    """A server with faults: the address says which."""

    def do_GET(self):
        # the fault may come before a file name
        getattr(self, self.path.split("/")[1])()

    def answer(self, content, length):
        self.send_response(200)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(content)

    def right(self):
        self.answer(CONTENT, len(CONTENT))

    def slow(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        for start in range(0, len(CONTENT), len(CONTENT) // 8):
            self.wfile.write(CONTENT[start : start + len(CONTENT) // 8])
            self.wfile.flush()
            time.sleep(0.1)

    def truncated(self):
        self.answer(CONTENT[:-1000], len(CONTENT) - 1000)

    def interrupted(self):
        self.answer(CONTENT[:1000], len(CONTENT))

    def chunked(self):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"ffff\r\nabc")

    def longer(self):
        self.answer(CONTENT + b"more", None)

    def announced(self):
        self.answer(CONTENT + b"more", len(CONTENT) + 4)

    def wrong(self):
        self.answer(CONTENT[:-1] + b"x", len(CONTENT))

    def missing(self):
        self.send_error(404)

    def nonsense(self):
        self.wfile.write(b"nonsense\r\n\r\n")

    def silent(self):
        self.server.released.wait(10.0)

    def moved(self):
        self.send_response(302)
        self.send_header("Location", "http://127.0.0.1:9/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format, *args):
        pass


@pytest.fixture(scope="session")
def server():
    """Address of a server on this machine, without the final slash."""
    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.daemon_threads = True
    made.released = threading.Event()
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{made.server_port}"
    made.released.set()
    made.shutdown()
    made.server_close()


@pytest.fixture
def plain_http(monkeypatch):
    """Let this machine's own server be asked although it has no certificate."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    monkeypatch.setattr(web, "open_https", lambda url: opener.open(url, timeout=web.ANSWER_SECONDS))


@pytest.fixture
def public_set(server, plain_http, monkeypatch, tmp_path):
    """A register with one public set, `toy`, of one file, served well; returns the entry."""
    entry = {
        "title": "t",
        "kind": "structures",
        "verified": True,
        "licence": "none",
        "citation": "none",
        "files": [
            {
                "name": "toy.bin",
                "bytes": len(CONTENT),
                "sha256": hashlib.sha256(CONTENT).hexdigest(),
                "url": f"{server}/right/toy.bin",
            }
        ],
    }
    described = {
        "title": "d",
        "kind": "molecules",
        "verified": False,
        "where": "a library",
        "licence": "",
        "citation": "",
    }
    monkeypatch.setattr(catalogue, "_registry", lambda: {"toy": entry, "described": described})
    monkeypatch.setenv("MOLML_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MOLML_OFFLINE", raising=False)
    return entry


@pytest.fixture
def content():
    """What the server's files hold."""
    return CONTENT
