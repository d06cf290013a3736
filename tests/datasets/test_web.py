import hashlib
import os
import signal
import subprocess
import sys
import time

import pytest

from molml.datasets import DownloadError, web
from molml.datasets.web import fetch, open_https

# a process that downloads from a server without a certificate
CHILD = """
import sys, urllib.request
from pathlib import Path
from molml.datasets import web
web.open_https = lambda url: urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=8)
web.fetch(sys.argv[1], Path(sys.argv[2]), size=int(sys.argv[3]), sha256=sys.argv[4])
"""


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def child(url, target, content):
    arguments = [url, str(target), str(len(content)), sha256(content)]
    environment = {**os.environ, "MOLML_OFFLINE": "0"}
    return subprocess.Popen([sys.executable, "-c", CHILD, *arguments], env=environment, stderr=subprocess.DEVNULL)


def test_right_file_arrives(server, plain_http, content, tmp_path):
    target = tmp_path / "deep" / "toy.bin"
    fetch(f"{server}/right", target, size=len(content), sha256=sha256(content))
    assert target.read_bytes() == content
    assert [path.name for path in target.parent.iterdir()] == ["toy.bin"]
    assert target.stat().st_mode & 0o044 == 0o044


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("truncated", r"truncated: got 1047576 of 1048576 bytes"),
        ("interrupted", r"truncated: got 1000 of 1048576 bytes"),
        ("chunked", r"broken answer: IncompleteRead"),
        ("longer", r"longer than declared: stopped after 1048576 bytes"),
        ("announced", r"longer than declared: the server offers 1048580 bytes, expected 1048576"),
        ("wrong", r"wrong content: got SHA-256 [0-9a-f]{64}, expected [0-9a-f]{64}"),
        ("nonsense", r"broken answer: BadStatusLine"),
    ],
)
def test_faulty_file_never_stays(fault, message, server, plain_http, content, tmp_path):
    with pytest.raises(DownloadError, match=message):
        fetch(f"{server}/{fault}", tmp_path / "toy.bin", size=len(content), sha256=sha256(content))
    assert list(tmp_path.iterdir()) == []


def test_faulty_file_does_not_replace_a_right_one(server, plain_http, content, tmp_path):
    target = tmp_path / "toy.bin"
    target.write_bytes(content)
    with pytest.raises(DownloadError):
        fetch(f"{server}/wrong", target, size=len(content), sha256=sha256(content))
    assert target.read_bytes() == content


def test_unanswered_request_ends_in_time(server, plain_http, content, tmp_path, monkeypatch):
    assert web.ANSWER_SECONDS < 10.0
    monkeypatch.setattr(web, "ANSWER_SECONDS", 0.3)
    monkeypatch.setattr(web, "open_https", lambda url: time.sleep(2.0))
    start = time.monotonic()
    with pytest.raises(DownloadError, match=r"no answer within 0\.3 s"):
        fetch(f"{server}/silent", tmp_path / "toy.bin", size=len(content), sha256=sha256(content))
    assert time.monotonic() - start < 1.5


def test_offline_asks_nobody(plain_http, monkeypatch, tmp_path):
    monkeypatch.setenv("MOLML_OFFLINE", "1")
    monkeypatch.setattr(web, "open_https", lambda url: pytest.fail("a connection was opened"))
    with pytest.raises(DownloadError, match="MOLML_OFFLINE is set"):
        fetch("https://localhost/x", tmp_path / "x", size=1, sha256="0" * 64)


@pytest.mark.parametrize("url", ["http://127.0.0.1/x", "ftp://127.0.0.1/x", "file:///etc/passwd"])
def test_only_https_is_opened(url):
    with pytest.raises(DownloadError, match="only https addresses are followed"):
        open_https(url)


def test_redirection_away_from_https_is_refused():
    with pytest.raises(DownloadError, match="only https addresses are followed, got http://127.0.0.1:9/elsewhere"):
        web._HttpsRedirects().redirect_request(None, None, 302, "", {}, "http://127.0.0.1:9/elsewhere")


def test_two_processes_at_once(server, content, tmp_path):
    target = tmp_path / "toy.bin"
    children = [child(f"{server}/slow", target, content) for _ in range(2)]
    assert [process.wait(30) for process in children] == [0, 0]
    assert target.read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["toy.bin"]


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_killed_process_leaves_no_wrong_file(server, plain_http, content, tmp_path):
    target = tmp_path / "toy.bin"
    process = child(f"{server}/slow", target, content)
    while not list(tmp_path.glob(".toy.bin.*.part")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    assert not target.exists()
    (left,) = tmp_path.iterdir()
    # a day later the next download takes the remains away
    os.utime(left, (0, 0))
    fetch(f"{server}/right", target, size=len(content), sha256=sha256(content))
    assert [path.name for path in tmp_path.iterdir()] == ["toy.bin"]
