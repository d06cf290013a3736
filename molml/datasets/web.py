"""Fetching one file over https."""

import http.client
import os
import queue
import threading
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from molml.datasets.files import DownloadError, chunks_of, store

# an unreachable network must be reported within ten seconds
ANSWER_SECONDS = 8.0


def fetch(url: str, target: Path, *, size: int, sha256: str) -> None:
    """Download one file to its place; nothing is left there unless it is right.

    Parameters
    ----------
    url : str
        An https address.
    target : Path
    size : int, bytes
    sha256 : str, hexadecimal

    Raises
    ------
    DownloadError
        If the file is not the one declared, if there is no answer within eight seconds, or with ``MOLML_OFFLINE`` set.
    OSError
        If the connection fails.
    """
    if os.environ.get("MOLML_OFFLINE", "0") not in ("", "0"):
        raise DownloadError("MOLML_OFFLINE is set")
    with _answer(url) as response:
        declared = response.headers.get("Content-Length")
        if declared is not None and declared.isdigit() and int(declared) > size:
            raise DownloadError(f"longer than declared: the server offers {declared} bytes, expected {size}")
        with tqdm(total=size, unit="B", unit_scale=True, desc=target.name, disable=None) as bar:
            try:
                store(_counted(chunks_of(response), bar), target, size=size, sha256=sha256)
            except http.client.HTTPException as error:
                raise DownloadError(f"broken answer: {error!r}") from error


def open_https(url: str) -> Any:
    """Answer to a request, over https only, also after redirections."""
    _require_https(url)
    return urllib.request.build_opener(_HttpsRedirects).open(url, timeout=ANSWER_SECONDS)


class _HttpsRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        _require_https(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _require_https(url: str) -> None:
    if not url.startswith("https://"):
        raise DownloadError(f"only https addresses are followed, got {url}")


def _answer(url: str) -> Any:
    """The server's answer, or an error in time: a socket's own limit covers neither the name look-up nor the number
    of addresses that are tried one after the other, so the request runs in a thread that can be left behind."""
    box: queue.SimpleQueue[tuple[Any, Exception | None]] = queue.SimpleQueue()

    def ask() -> None:
        try:
            box.put((open_https(url), None))
        except urllib.error.HTTPError as error:
            error.close()
            box.put((None, DownloadError(f"the server answers {error.code} {error.reason}")))
        except OSError as error:
            box.put((None, error))
        except http.client.HTTPException as error:
            box.put((None, DownloadError(f"broken answer: {error!r}")))

    threading.Thread(target=ask, daemon=True).start()
    try:
        response, error = box.get(timeout=ANSWER_SECONDS)
    except queue.Empty:
        raise DownloadError(f"no answer within {ANSWER_SECONDS:g} s") from None
    if error is not None:
        raise error
    return response


def _counted(chunks: Iterable[bytes], bar: Any) -> Iterator[bytes]:
    for chunk in chunks:
        bar.update(len(chunk))
        yield chunk
