"""Downloads from a server on this machine that misbehaves in every way we know."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from detectron2.checkpoint import ModelCatalog
from detectron2.utils import download as module
from detectron2.utils import file_io
from detectron2.utils.download import check_named_digest, download
from detectron2.utils.file_io import PathManager, atomic_write
from detectron2.utils.paths import flat_name, path_within

DATA = bytes(range(256)) * 40
DIGITS = hashlib.md5(DATA).hexdigest()[:6]
NAME = f"model_final_{DIGITS}.pkl"


@dataclass
class Server:
    """What the server has, how it behaves, and what it was asked."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    cut_after: list[int] = field(default_factory=list)  # bytes sent to each of the next requests
    statuses: list[int] = field(default_factory=list)  # answers to the next requests, in place of a file
    honours_range: bool = True
    etag: str = '"one"'
    redirects: dict[str, str] = field(default_factory=dict)
    says_length: bool = True
    asked: list[tuple[str, str | None]] = field(default_factory=list)  # (path, Range header)


def answer(server: Server, request: BaseHTTPRequestHandler) -> None:
    range_header = request.headers.get("Range")
    server.asked.append((request.path, range_header))
    if request.path in server.redirects:
        request.send_response(302)
        request.send_header("Location", server.redirects[request.path])
        request.end_headers()
        return
    data = server.files.get(request.path)
    if server.statuses or data is None:
        request.send_error(server.statuses.pop(0) if server.statuses else 404)
        return
    is_same_version = request.headers.get("If-Range", server.etag) == server.etag
    start = 0
    if range_header and server.honours_range and is_same_version:
        start = int(range_header.removeprefix("bytes=").removesuffix("-"))
    if start and start >= len(data):
        request.send_response(416)
        request.send_header("Content-Range", f"bytes */{len(data)}")
        request.send_header("Content-Length", "0")
        request.end_headers()
        return
    request.send_response(206 if start else 200)
    if start:
        request.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
    request.send_header("ETag", server.etag)
    if server.says_length:
        request.send_header("Content-Length", str(len(data) - start))
    request.end_headers()
    limit = server.cut_after.pop(0) if server.cut_after else len(data)
    request.wfile.write(data[start : start + limit])
    request.close_connection = True


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    state = Server(files={f"/{NAME}": DATA})

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(state, self)

        def log_message(self, *args: object) -> None:
            pass

    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(module, "_RETRY_DELAYS", (0.0, 0.0))
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{httpd.server_address[1]}"
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    httpd.shutdown()
    httpd.server_close()
    thread.join()


@pytest.fixture
def zoo(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SimpleNamespace:
    """The server in the place of the model zoo, an empty cache and an empty folder of files."""
    monkeypatch.setenv("DETECTRON2_MIRROR", server.url + "/")
    monkeypatch.setenv("DETECTRON2_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    server.files = {f"/detectron2/A/{NAME}": DATA}
    return SimpleNamespace(
        server=server,
        cache=tmp_path / "cache",
        folder=tmp_path / "models",
        address=f"detectron2://A/{NAME}",
        cached=tmp_path / "cache" / flat_name(f"https://dl.fbaipublicfiles.com/detectron2/A/{NAME}"),
    )


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_whole_file_arrives(server: Server, tmp_path: Path) -> None:
    target = tmp_path / NAME
    download(f"{server.url}/{NAME}", str(target), check_name=True)
    assert target.read_bytes() == DATA
    assert files_in(tmp_path) == [NAME]
    assert server.asked == [(f"/{NAME}", None)]


def test_cut_connections_are_resumed_where_they_ended(server: Server, tmp_path: Path) -> None:
    server.cut_after = [100, 1, 5000]
    download(f"{server.url}/{NAME}", str(tmp_path / NAME), check_name=True)
    assert (tmp_path / NAME).read_bytes() == DATA
    assert [asked for _, asked in server.asked] == [None, "bytes=100-", "bytes=101-", "bytes=5101-"]


def test_next_call_goes_on_from_the_part(server: Server, tmp_path: Path) -> None:
    server.cut_after = [100, 0, 0, 0]
    with pytest.raises(ConnectionError, match="after 100 bytes.*goes on from there. Call home.$"):
        download(f"{server.url}/{NAME}", str(tmp_path / NAME), hint="Call home.")
    assert (tmp_path / f"{NAME}.part").read_bytes() == DATA[:100]
    assert not (tmp_path / NAME).exists()
    download(f"{server.url}/{NAME}", str(tmp_path / NAME))
    assert (tmp_path / NAME).read_bytes() == DATA
    assert server.asked[-1][1] == "bytes=100-"
    assert files_in(tmp_path) == [NAME]


def test_server_without_ranges_sends_everything_again(server: Server, tmp_path: Path) -> None:
    server.honours_range = False
    server.cut_after = [100]
    download(f"{server.url}/{NAME}", str(tmp_path / NAME))
    assert (tmp_path / NAME).read_bytes() == DATA


def test_part_of_another_version_is_not_continued(server: Server, tmp_path: Path) -> None:
    server.files["/weights.pkl"] = b"old" * 100
    server.cut_after = [30, 0, 0, 0]
    with pytest.raises(ConnectionError):
        download(f"{server.url}/weights.pkl", str(tmp_path / "weights.pkl"))
    server.files["/weights.pkl"], server.etag = DATA, '"two"'
    download(f"{server.url}/weights.pkl", str(tmp_path / "weights.pkl"))
    assert (tmp_path / "weights.pkl").read_bytes() == DATA


def test_part_that_is_already_whole_is_taken(server: Server, tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.part").write_bytes(DATA)
    download(f"{server.url}/{NAME}", str(tmp_path / NAME), check_name=True)
    assert files_in(tmp_path) == [NAME]


@pytest.mark.parametrize("part", [b"x" * 50, DATA + b"too long"])
def test_foreign_part_is_found_out_and_replaced(server: Server, tmp_path: Path, part: bytes) -> None:
    (tmp_path / f"{NAME}.part").write_bytes(part)
    download(f"{server.url}/{NAME}", str(tmp_path / NAME), check_name=True)
    assert (tmp_path / NAME).read_bytes() == DATA


@pytest.mark.parametrize("content", [DATA[:-1], b"", b"<html>another file</html>"])
def test_truncated_or_wrong_file_on_the_server_is_refused(
    server: Server, tmp_path: Path, content: bytes
) -> None:
    server.files[f"/{NAME}"] = content
    with pytest.raises(ValueError, match=f"starts with {DIGITS}, got MD5 .* and SHA-256 .*UNCHECKED"):
        download(f"{server.url}/{NAME}", str(tmp_path / NAME), check_name=True)
    assert files_in(tmp_path) == []


def test_user_can_insist_on_a_file_of_another_digest(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files[f"/{NAME}"] = b"retrained"
    monkeypatch.setenv("DETECTRON2_UNCHECKED_DOWNLOADS", "1")
    download(f"{server.url}/{NAME}", str(tmp_path / NAME), check_name=True)
    assert (tmp_path / NAME).read_bytes() == b"retrained"


def test_both_kinds_of_digest_are_known(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(DATA)
    sha = hashlib.sha256(DATA).hexdigest()
    for name in (f"a_{sha[:8]}.pth", f"a_{sha}.pkl", f"a_0039999_{DIGITS}.pkl", "R-50.pkl", "a_12345.pkl"):
        check_named_digest(path, name)
    with pytest.raises(ValueError, match="starts with 0123456"):
        check_named_digest(path, "a_0123456.pkl")


def test_busy_server_is_asked_again(server: Server, tmp_path: Path) -> None:
    server.statuses = [503, 429]
    download(f"{server.url}/{NAME}", str(tmp_path / NAME))
    assert (tmp_path / NAME).read_bytes() == DATA


@pytest.mark.parametrize(
    ("status", "error"), [(404, FileNotFoundError), (403, PermissionError), (400, OSError)]
)
def test_refusal_is_final(server: Server, tmp_path: Path, status: int, error: type[OSError]) -> None:
    server.statuses = [status]
    with pytest.raises(error, match=f"the server says {status}"):
        download(f"{server.url}/{NAME}", str(tmp_path / NAME))
    assert len(server.asked) == 1


def test_no_server_is_an_error_that_says_so(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConnectionError, match="Cannot download http://127.0.0.1:9/x"):
        download("http://127.0.0.1:9/x", str(tmp_path / "x"))


def test_zoo_address_goes_through_mirror_and_cache(zoo: SimpleNamespace) -> None:
    assert PathManager.get_local_path(zoo.address) == str(zoo.cached)
    with PathManager.open(zoo.address, "rb") as file:
        assert file.read() == DATA
    public = f"https://dl.fbaipublicfiles.com/detectron2/A/{NAME}"
    assert PathManager.get_local_path(public) == str(zoo.cached)
    assert len(zoo.server.asked) == 1
    PathManager.get_local_path(zoo.address, force=True)
    assert len(zoo.server.asked) == 2


def test_wrong_zoo_file_never_reaches_the_cache(zoo: SimpleNamespace) -> None:
    zoo.server.files[f"/detectron2/A/{NAME}"] = DATA[:500]
    with pytest.raises(ValueError, match="DETECTRON2_MODELS"):
        PathManager.get_local_path(zoo.address)
    assert not zoo.cached.exists()


def test_catalog_address_goes_through_the_mirror(zoo: SimpleNamespace) -> None:
    zoo.server.files["/detectron/ImageNetPretrained/MSRA/R-50.pkl"] = b"weights"
    path = PathManager.get_local_path("catalog://ImageNetPretrained/MSRA/R-50")
    assert Path(path).read_bytes() == b"weights"
    assert ModelCatalog.get("ImageNetPretrained/MSRA/R-50").startswith("https://dl.fbaipublicfiles.com/")


@pytest.mark.parametrize("place", [f"detectron2/A/{NAME}", f"A/{NAME}", NAME])
def test_folder_of_files_needs_no_server(zoo: SimpleNamespace, place: str) -> None:
    path = zoo.folder / place
    path.parent.mkdir(parents=True)
    path.write_bytes(DATA)
    assert PathManager.get_local_path(zoo.address) == str(path)
    assert zoo.server.asked == []


def test_plain_names_are_not_looked_up_flat(zoo: SimpleNamespace) -> None:
    zoo.folder.mkdir()
    (zoo.folder / "model_final.pkl").write_bytes(b"some model")
    with pytest.raises(
        FileNotFoundError, match="404.*put the file into a folder as detectron2/A/model_final"
    ):
        PathManager.get_local_path("detectron2://A/model_final.pkl")


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "address",
    [
        "/m/model_20200101.pth?v=2",
        "/a/../../../b.pth",
        "/x?/../../../../.bashrc",
        "/x?../../../.bashrc",
        "/..%2f..%2fb.pth",
        "/a\\..\\..\\b.pth",
        "/x#/../../../.bashrc",
        "/",
        "",
        "/" + "long" * 100,
    ],
)
def test_every_address_is_cached_as_one_file_inside_the_cache(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    cache = tmp_path / "home" / "deep" / "cache"
    monkeypatch.setenv("FVCORE_CACHE", str(cache))
    asked = address.partition("#")[0] or "/"
    server.files = {asked if asked.startswith("/") else "/" + asked: b"mine"}
    path = Path(PathManager.get_local_path(server.url + address))
    assert path.read_bytes() == b"mine"
    assert path.parent == cache
    assert files_below(tmp_path) <= {f"home/deep/cache/{path.name}", f"home/deep/cache/{path.name}.lock"}


@pytest.mark.parametrize(
    "url", ["http://../x", "http://../../x/y", "ftp://../.bashrc", "http://a@../.bashrc"]
)
def test_host_of_an_address_makes_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    cache = tmp_path / "home" / "deep" / "cache"
    monkeypatch.setenv("FVCORE_CACHE", str(cache))
    monkeypatch.setattr(module, "_RETRY_DELAYS", ())
    with pytest.raises((OSError, ValueError)):
        PathManager.get_local_path(url)
    assert {Path(name).parent for name in files_below(tmp_path)} <= {Path("home/deep/cache")}


def test_short_onedrive_address_stays_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path))
    asked: list[str] = []

    def fetch(url: str, target: str, **options: object) -> None:
        asked.append(url)
        Path(target).write_bytes(b"x")

    monkeypatch.setattr(file_io, "download", fetch)
    path = Path(PathManager.get_local_path("https://1drv.ms/u/s!/../../../.bashrc"))
    assert path.parent == tmp_path
    assert asked[0].startswith("https://api.onedrive.com/v1.0/shares/u!")


def test_addresses_that_differ_anywhere_have_different_files() -> None:
    addresses = [
        "http://a/x.pth",
        "https://a/x.pth",
        "http://b/x.pth",
        "http://a/x.pth?v=1",
        "http://a/y/x.pth",
    ]
    names = {flat_name(address) for address in addresses}
    assert len(names) == len(addresses)
    assert all(name.endswith("-x.pth") and "/" not in name for name in names)


def test_name_in_the_folder_of_files_cannot_climb_out(zoo: SimpleNamespace, tmp_path: Path) -> None:
    zoo.folder.mkdir()
    (tmp_path / "secret").write_bytes(b"secret")
    with pytest.raises(ValueError, match="leads out of it"):
        PathManager.get_local_path("detectron2://../../secret")
    (zoo.folder / "link").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="leads out of it"):
        path_within(str(zoo.folder), "link/secret")


@pytest.mark.parametrize("target", ["https://{host}/b", "ftp://{host}/b", "file:///etc/passwd"])
def test_redirect_to_another_kind_of_address_is_refused(server: Server, tmp_path: Path, target: str) -> None:
    server.redirects = {"/a": target.format(host=server.url.removeprefix("http://")), "/c": server.url + "/d"}
    server.files = {"/b": b"elsewhere", "/d": b"same kind"}
    with pytest.raises((ValueError, OSError), match="sends on to|not allowed"):
        download(f"{server.url}/a", str(tmp_path / "a"))
    assert not (tmp_path / "a").exists()
    download(f"{server.url}/c", str(tmp_path / "c"))
    assert (tmp_path / "c").read_bytes() == b"same kind"


@pytest.mark.parametrize("says_length", [True, False])
def test_download_stops_at_the_size_that_is_allowed(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says_length: bool
) -> None:
    server.says_length = says_length
    monkeypatch.setenv("DETECTRON2_MAX_DOWNLOAD_GB", str((len(DATA) - 1) / 1e9))
    with pytest.raises(ValueError, match="DETECTRON2_MAX_DOWNLOAD_GB"):
        download(f"{server.url}/{NAME}", str(tmp_path / NAME))
    assert files_in(tmp_path) == []
    monkeypatch.setenv("DETECTRON2_MAX_DOWNLOAD_GB", str(len(DATA) / 1e9))
    download(f"{server.url}/{NAME}", str(tmp_path / NAME))
    assert (tmp_path / NAME).read_bytes() == DATA
    monkeypatch.setenv("DETECTRON2_MAX_DOWNLOAD_GB", "much")
    with pytest.raises(ValueError, match="number of gigabytes"):
        download(f"{server.url}/{NAME}", str(tmp_path / "again"))


def test_addresses_can_only_be_read(server: Server) -> None:
    with pytest.raises(ValueError, match="only be read"):
        PathManager.open(f"{server.url}/m/x", "w")


def test_cache_made_by_another_user_can_be_read_only(zoo: SimpleNamespace) -> None:
    zoo.cached.parent.mkdir(parents=True)
    zoo.cached.write_bytes(DATA)
    assert PathManager.get_local_path(zoo.address) == str(zoo.cached)
    assert files_in(zoo.cached.parent) == [zoo.cached.name]  # not even a lock


def test_file_addresses_are_local_paths(tmp_path: Path) -> None:
    url = (tmp_path / "a folder" / "x.txt").as_uri()
    folder = (tmp_path / "a folder").as_uri()
    PathManager.mkdirs(folder)
    with PathManager.open(url, "w") as file:
        file.write("text")
    assert PathManager.get_local_path(url) == str(tmp_path / "a folder" / "x.txt")
    assert PathManager.exists(url) and PathManager.isfile(url) and PathManager.isdir(folder)
    with atomic_write(url, "w") as file:
        file.write("new")
    assert PathManager.ls(folder) == ["x.txt"]
    assert (tmp_path / "a folder" / "x.txt").read_text() == "new"
    PathManager.rm(url)
    assert not PathManager.exists(url)
    with pytest.raises(ValueError, match="three slashes"):
        PathManager.get_local_path("file://elsewhere/x")
