"""Downloads that go on where they were cut off, and that show up only when they are whole."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import time
from contextlib import suppress
from email.message import Message
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from tqdm import tqdm

from .user_errors import UserValueError

__all__ = ["check_named_digest", "download", "has_named_digest"]

logger = logging.getLogger(__name__)

UNCHECKED_VARIABLE = "DETECTRON2_UNCHECKED_DOWNLOADS"
"""Environment variable; any value but "" and "0" accepts files that do not match the digest in their name."""

LIMIT_VARIABLE = "DETECTRON2_MAX_DOWNLOAD_GB"
"""Environment variable; the largest file that is downloaded, in 10^9 bytes. 20 when it is not set."""

_DEFAULT_LIMIT_GB = 20.0
_RETRY_DELAYS = (1.0, 2.0, 4.0)  # seconds to wait after failures in a row that brought nothing
_TIMEOUT = 60.0  # seconds without a byte
_CHUNK = 1 << 20
# What a server says when a later try may do better.
_BUSY = {408, 425, 429, 500, 502, 503, 504}
_NETWORK_ERRORS = (URLError, HTTPException, ConnectionError, TimeoutError)
_NAMED_DIGEST = re.compile(r"_([0-9a-f]{6,64})\.\w+$")


class _SameSchemeRedirects(HTTPRedirectHandler):
    """Follow redirects, but not from https to http, nor to any other kind of address."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        if urlsplit(newurl).scheme != req.type:
            raise UserValueError(
                f"Cannot download {req.full_url}: the server sends on to {newurl!r}. Only redirects to"
                f" another {req.type} address are followed; if you trust that one, use it as the address."
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _TooLargeError(UserValueError):
    """The file is larger than the user allows."""


class _Part:
    """The file that a download grows in, and the server's name for the version that it is a part of."""

    def __init__(self, target: str) -> None:
        self.path = Path(target + ".part")
        self._version_path = Path(target + ".part.etag")

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def version(self) -> str:
        return self._version_path.read_text() if self._version_path.exists() else ""

    def start_over(self, version: str = "") -> None:
        self.discard()
        if version:
            self._version_path.write_text(version)

    def discard(self) -> None:
        for path in (self.path, self._version_path):
            path.unlink(missing_ok=True)

    def move_to(self, target: str) -> None:
        os.replace(self.path, target)
        self.discard()


def download(url: str, target: str, *, check_name: bool = False, hint: str = "") -> None:
    """Download a file, going on from what an interrupted download of it left.

    The data grows in `<target>.part`. Cut connections are tried again, for as long as each of them brings
    something; the part stays when that fails, for the next call.

    Args:
        url: an http, https or ftp address.
        target: where the file goes once it is complete; its folder must exist.
        check_name: compare the content with the digest in the name of `target`, as `check_named_digest` does.
        hint: what else the user can do, for the errors.

    Raises:
        FileNotFoundError: the server does not have the file.
        ConnectionError: the connection failed again and again.
        ValueError: the content does not match the name or is larger than allowed; nothing is kept of it. Or
            the server redirects to another kind of address.
    """
    part = _Part(target)
    is_resumed = part.size > 0
    logger.info("Downloading %s to %s", url, target)
    try:
        _fetch(url, part, hint)
    except _TooLargeError:
        part.discard()
        raise
    if check_name:
        try:
            check_named_digest(part.path, os.path.basename(target))
        except ValueError as error:
            part.discard()
            if not is_resumed:
                raise UserValueError(f"{error} {hint}".rstrip()) from None
            # The old part may have been of another version of the file.
            logger.warning("%s Starting over.", error)
            download(url, target, check_name=True, hint=hint)
            return
    part.move_to(target)


def _fetch(url: str, part: _Part, hint: str) -> None:
    failures = 0
    while True:
        size_before = part.size
        try:
            if _append(url, part):
                return
            problem = f"the connection ended after {part.size} bytes"
        except HTTPError as error:
            error.close()
            if error.code not in _BUSY:
                raise _refusal(url, error, hint) from None
            problem = str(error)
        except _NETWORK_ERRORS as error:
            problem = str(error)
        failures = 0 if part.size > size_before else failures + 1
        if failures > len(_RETRY_DELAYS):
            raise ConnectionError(
                f"Cannot download {url}: {problem}. What has come is kept, and the next call goes on from"
                f" there. {hint}".rstrip()
            )
        if failures:
            time.sleep(_RETRY_DELAYS[failures - 1])
        logger.warning("Downloading %s: %s; trying again from byte %d", url, problem, part.size)


def _append(url: str, part: _Part) -> bool:
    """Ask for what is missing and append it; return whether the file is complete now."""
    start = part.size
    request = Request(url, headers={"User-Agent": "detectron2", "Accept-Encoding": "identity"})
    if start:
        request.add_header("Range", f"bytes={start}-")
        if part.version:
            request.add_header("If-Range", part.version)
    try:
        response = build_opener(_SameSchemeRedirects()).open(request, timeout=_TIMEOUT)
    except HTTPError as error:
        if error.code != 416 or not start:
            raise
        # There is nothing behind the part: it is the whole file, or none of it is.
        error.close()
        if _content_range(error.headers) == (None, start):
            return True
        part.start_over()
        return False
    with response:
        first, total = _content_range(response.headers)
        if first is None or response.status != 206:
            first = 0
            part.start_over(_strong_version(response.headers))
            total = _content_length(response.headers)
        elif first != start:
            part.start_over()
            return False
        limit = _size_limit()
        if total is not None and total > limit:
            raise _too_large(url, limit)
        with (
            open(part.path, "ab") as file,
            tqdm(
                desc=os.path.basename(url),
                initial=first,
                total=total,
                unit="B",
                unit_scale=True,
                disable=None,
            ) as bar,
        ):
            try:
                while chunk := response.read(_CHUNK):
                    if file.tell() + len(chunk) > limit:
                        raise _too_large(url, limit)
                    file.write(chunk)
                    bar.update(len(chunk))
            finally:
                file.flush()
                os.fsync(file.fileno())
    return total is None or part.size == total


def _size_limit() -> float:
    """Bytes of the largest file that is downloaded."""
    text = os.environ.get(LIMIT_VARIABLE, "")
    try:
        gigabytes = float(text) if text else _DEFAULT_LIMIT_GB
    except ValueError:
        gigabytes = -1.0
    if not gigabytes >= 0:
        raise UserValueError(f"{LIMIT_VARIABLE} must be a number of gigabytes, got {text!r}")
    return gigabytes * 1e9


def _too_large(url: str, limit: float) -> ValueError:
    return _TooLargeError(
        f"Cannot download {url}: the file is larger than {limit / 1e9:g} GB. If it should be,"
        f" raise {LIMIT_VARIABLE}."
    )


def _content_range(headers: Message) -> tuple[int | None, int | None]:
    """First byte and total size, as far as the header says; `bytes 5-9/10` gives (5, 10)."""
    found = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", headers.get("Content-Range", "").strip())
    if found is None:
        return None, None
    first, total = found.groups()
    return (int(first) if first else None), (int(total) if total != "*" else None)


def _content_length(headers: Message) -> int | None:
    with suppress(ValueError):
        return int(headers.get("Content-Length", ""))
    return None


def _strong_version(headers: Message) -> str:
    """The ETag, unless it is a weak one, which promises no equal bytes."""
    tag = headers.get("ETag", "").strip()
    return tag if tag.startswith('"') else ""


def _refusal(url: str, error: HTTPError, hint: str) -> OSError:
    kind = (
        FileNotFoundError
        if error.code in (404, 410)
        else PermissionError
        if error.code in (401, 403)
        else OSError
    )
    return kind(f"Cannot download {url}: the server says {error.code} {error.reason}. {hint}".rstrip())


def has_named_digest(name: str) -> bool:
    """Whether a file name or address ends in the digits of a digest, as `model_final_280758.pkl` does."""
    return _NAMED_DIGEST.search(name) is not None


def check_named_digest(path: str | os.PathLike[str], name: str) -> None:
    """Compare a file with the digest that its name carries, as in `model_final_280758.pkl`.

    Names of published files end in the first digits of a digest and do not say which: MD5 and SHA-256 are
    both accepted. Names without one are accepted too.

    Raises:
        ValueError: neither digest of the content starts with the digits of the name.
    """
    found = _NAMED_DIGEST.search(name)
    if found is None:
        return
    digests = {"MD5": hashlib.md5(usedforsecurity=False), "SHA-256": hashlib.sha256()}
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            for digest in digests.values():
                digest.update(chunk)
    if any(digest.hexdigest().startswith(found[1]) for digest in digests.values()):
        return
    got = " and ".join(f"{kind} {digest.hexdigest()}" for kind, digest in digests.items())
    problem = f"{name} is not what its name says: neither digest starts with {found[1]}, got {got}."
    if os.environ.get(UNCHECKED_VARIABLE, "") in ("", "0"):
        raise UserValueError(
            f"{problem} The download was broken, or the server has another file; the data was deleted."
            f" To use it all the same, set {UNCHECKED_VARIABLE}=1."
        )
    logger.warning("%s Used all the same, as %s is set.", problem, UNCHECKED_VARIABLE)
