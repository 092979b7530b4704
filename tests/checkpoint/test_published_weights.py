"""Weights of others by a name of the catalog: found, downloaded, compared; what is said if not."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import detectron2.checkpoint.published_weights as module
from detectron2.checkpoint import (
    DetectionCheckpointer,
    ModelCatalog,
    PublishedWeights,
    register_published_weights,
)
from detectron2.config import get_cfg
from detectron2.modeling import build_backbone
from detectron2.modeling.backbone.res2net import RES2NET_WEIGHTS
from detectron2.utils.file_io import PathManager

from .foreign import backbone_cfg, torchvision_name

DATA = b"weights of others" * 100
DIGEST = hashlib.sha256(DATA).hexdigest()[:8]


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DETECTRON2_MODELS", raising=False)
    before = dict(module._PUBLISHED)
    yield
    module._PUBLISHED.clear()
    module._PUBLISHED.update(before)


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """What servers have, by address; the real function fetches it from there."""
    served: dict[str, bytes] = {}

    def fetch(url: str, part: object, hint: str) -> None:
        if url not in served:
            raise ConnectionError(f"Cannot download {url}. {hint}")
        part.path.write_bytes(served[url])

    monkeypatch.setattr("detectron2.utils.download._fetch", fetch)
    return served


def entry(**changed: object) -> PublishedWeights:
    values = {
        "file_name": f"net-{DIGEST}.pth",
        "addresses": ("https://one.example/net.pth", "https://two.example/net.pth"),
        "digest": DIGEST,
        "licence": "none",
        "page": "https://page.example",
        "converted_name": "net.pkl",
    }
    return PublishedWeights(**{**values, **changed})


def test_the_second_address_and_the_cache(downloads: dict[str, bytes]) -> None:
    register_published_weights({"Own/net": entry()})
    downloads["https://two.example/net.pth"] = DATA
    path = PathManager.get_local_path("catalog://Own/net")
    assert Path(path).read_bytes() == DATA
    downloads.clear()
    assert PathManager.get_local_path("catalog://Own/net") == path
    assert ModelCatalog.get("Own/net") == "https://one.example/net.pth"


def test_another_content_is_refused(downloads: dict[str, bytes], tmp_path: Path) -> None:
    register_published_weights({"Own/net": entry()})
    downloads["https://one.example/net.pth"] = DATA + b"!"
    with pytest.raises(ValueError, match=f"neither digest starts with {DIGEST}"):
        PathManager.get_local_path("catalog://Own/net")
    assert not list((tmp_path / "cache").glob("*.pth"))


def test_no_server_answers(downloads: dict[str, bytes]) -> None:
    register_published_weights({"Own/net": entry()})
    with pytest.raises(ConnectionError, match=r"two\.example.*DETECTRON2_MODELS"):
        PathManager.get_local_path("catalog://Own/net")


def test_a_file_in_the_folder_of_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register_published_weights({"Own/net": entry(addresses=())})
    with pytest.raises(
        FileNotFoundError, match=r"address of Own/net is not known here; https://page\.example"
    ):
        PathManager.get_local_path("catalog://Own/net")
    with pytest.raises(KeyError, match="address of Own/net"):
        ModelCatalog.get("Own/net")
    monkeypatch.setenv("DETECTRON2_MODELS", str(tmp_path))
    (tmp_path / f"net-{DIGEST}.pth").write_bytes(DATA)
    assert PathManager.get_local_path("catalog://Own/net") == str(tmp_path / f"net-{DIGEST}.pth")


def test_a_name_has_one_file_and_digits_are_digits() -> None:
    register_published_weights({"Own/net": entry()})
    register_published_weights({"Own/net": entry()})
    with pytest.raises(ValueError, match="another 'Own/net'"):
        register_published_weights({"Own/net": entry(file_name="other.pth")})
    with pytest.raises(ValueError, match="digest"):
        entry(digest="not hex")


@pytest.mark.parametrize("name", sorted(RES2NET_WEIGHTS))
def test_res2net_is_complete(name: str) -> None:
    weights = RES2NET_WEIGHTS[name]
    assert weights.licence and weights.page.startswith("https://github.com/")
    if weights.addresses:
        # The digits are those of the file's own name, so nobody made them up.
        assert re.search(rf"-{weights.digest}\.pth$", weights.file_name)
        assert len(weights.digest) == 8
        assert all(a.startswith("https://") and a.endswith(weights.file_name) for a in weights.addresses)


def test_an_official_file_loads_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    cfg = backbone_cfg("build_res2net_backbone", SCALE=4)
    source, target = build_backbone(cfg), build_backbone(cfg)
    theirs = {torchvision_name(name): value for name, value in source.state_dict().items()}
    torch.save(theirs | {"fc.weight": torch.zeros(2, 2)}, tmp_path / "res2net50_v1b_26w_4s-3cf99910.pth")
    monkeypatch.setenv("DETECTRON2_MODELS", str(tmp_path))
    DetectionCheckpointer(target).load("catalog://Res2Net/res2net50_v1b_26w_4s")
    for name, value in source.state_dict().items():
        assert torch.equal(target.state_dict()[name], value), name


@pytest.mark.parametrize(
    ("weights", "name"),
    [
        ("r2_50.pkl", "res2net50_v1b_26w_4s-3cf99910.pth"),
        ("models/r2_101.pkl", "res2net101_v1b_26w_4s-0812c246.pth"),
        ("r2x_50.pkl", "res2next50_4s-6ef7e7bf.pth"),
    ],
)
def test_a_missing_converted_file_says_where_it_comes_from(weights: str, name: str) -> None:
    model = build_backbone(backbone_cfg("build_res2net_backbone"))
    with pytest.raises(FileNotFoundError) as error:
        DetectionCheckpointer(model).load(weights)
    said = str(error.value)
    assert said.startswith(f"there is no checkpoint {weights}. It is {name} of https://")
    assert f"tools/convert-torchvision-to-d2.py {name} {weights}" in said
    assert "MODEL.WEIGHTS catalog://Res2Net/" in said


def test_a_missing_original_and_a_missing_stranger() -> None:
    model = build_backbone(backbone_cfg("build_res2net_backbone"))
    with pytest.raises(FileNotFoundError, match="catalog://Res2Net/res2net50_26w_4s downloads and loads it"):
        DetectionCheckpointer(model).load("res2net50_26w_4s-06e79181.pth")
    with pytest.raises(FileNotFoundError, match=r"no checkpoint stranger\.pkl$"):
        DetectionCheckpointer(model).load("stranger.pkl")


def test_every_name_that_configs_start_from_is_known(repo_root: Path) -> None:
    made = {weights.converted_name for weights in RES2NET_WEIGHTS.values()} - {""}
    wanted = set()
    for path in (repo_root / "configs").rglob("*.yaml"):
        wanted |= set(re.findall(r"WEIGHTS: (r2\w+\.pkl)", path.read_text()))
    assert wanted == made
    assert get_cfg().MODEL.WEIGHTS == ""


def test_the_page_of_the_zoo_lists_them(repo_root: Path) -> None:
    rows = re.findall(r"^\| `catalog://(\S+)` \| `(\S+)` \|", (repo_root / "MODEL_ZOO.md").read_text(), re.M)
    assert dict(rows) == {name: weights.file_name for name, weights in RES2NET_WEIGHTS.items()}
