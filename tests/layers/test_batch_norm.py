"""Normalisation layers against their formulas, and against torch's where that has the same."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.engine.hooks import PreciseBN
from detectron2.layers.batch_norm import (
    CycleBatchNormList,
    FrozenBatchNorm2d,
    LayerNorm,
    NaiveSyncBatchNorm,
    get_norm,
)
from detectron2.layers.wrappers import BatchNorm2d


def randomize(norm: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    for tensor in norm.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return norm


def test_frozen_norm_is_a_constant_affine_map(device: str) -> None:
    norm = randomize(FrozenBatchNorm2d(3)).to(device)
    x = torch.randn(2, 3, 4, 5, device=device)
    scale = norm.weight / (norm.running_var + 1e-5).sqrt()
    expected = (x - norm.running_mean[:, None, None]) * scale[:, None, None] + norm.bias[:, None, None]
    torch.testing.assert_close(norm(x), expected)
    torch.testing.assert_close(norm(x.requires_grad_()), expected)
    (grad,) = torch.autograd.grad(norm(x).sum(), x)
    torch.testing.assert_close(grad, scale[:, None, None].expand_as(x).contiguous())
    assert not list(norm.parameters()) and norm.train()(x).shape == x.shape


def test_fresh_frozen_norm_is_the_identity() -> None:
    x = torch.randn(1, 4, 3, 3)
    torch.testing.assert_close(FrozenBatchNorm2d(4)(x), x)
    assert FrozenBatchNorm2d(4)(x[:0]).shape == (0, 4, 3, 3)


def test_frozen_norm_keeps_half_precision() -> None:
    norm = FrozenBatchNorm2d(4)
    for dtype in (torch.bfloat16, torch.float16):
        assert norm(torch.randn(1, 4, 3, 3, dtype=dtype, requires_grad=True)).dtype == dtype


def test_frozen_norm_loads_old_and_trained_checkpoints() -> None:
    first_version = {"weight": torch.full((2,), 2.0), "bias": torch.full((2,), 3.0)}
    norm = FrozenBatchNorm2d(2)
    norm.load_state_dict(first_version)
    assert norm.running_mean.eq(0).all() and norm.running_var.eq(1).all() and norm.weight.eq(2).all()
    trained = randomize(nn.BatchNorm2d(2))
    norm.load_state_dict(trained.state_dict())
    x = torch.randn(1, 2, 3, 3)
    torch.testing.assert_close(norm(x), trained.eval()(x))
    assert set(norm.state_dict()) == {"weight", "bias", "running_mean", "running_var"}


def test_a_converted_norm_keeps_its_names_and_its_count() -> None:
    trained = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4))
    trained(torch.randn(2, 3, 5, 5))
    names, plain = list(trained.state_dict()), FrozenBatchNorm2d(4).state_dict()
    frozen = FrozenBatchNorm2d.convert_frozen_batchnorm(trained)
    assert list(frozen.state_dict()) == names and frozen[1].num_batches_tracked == 1
    frozen[1].load_state_dict(plain)  # a file without the count
    assert frozen[1].num_batches_tracked == 1
    frozen[1].load_state_dict({**plain, "num_batches_tracked": torch.tensor(7)})
    assert frozen[1].num_batches_tracked == 7
    thawed = FrozenBatchNorm2d.convert_frozenbatchnorm2d_to_batchnorm2d(frozen)
    assert list(thawed.state_dict()) == names and thawed[1].num_batches_tracked == 7
    uncounted = FrozenBatchNorm2d.convert_frozen_batchnorm(nn.BatchNorm2d(4, track_running_stats=False))
    assert "num_batches_tracked" not in uncounted.state_dict()


@pytest.mark.parametrize("has_count", [True, False])
def test_the_checkpointer_says_nothing_about_the_count_of_a_frozen_norm(
    has_count: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with_count, without = FrozenBatchNorm2d.convert_frozen_batchnorm(nn.BatchNorm2d(4)), FrozenBatchNorm2d(4)
    saved, model = (with_count, without) if has_count else (without, with_count)
    torch.save({"model": nn.ModuleDict({"norm": saved}).state_dict()}, tmp_path / "norm.pth")
    checkpointer = DetectionCheckpointer(nn.ModuleDict({"norm": model}), str(tmp_path))
    with caplog.at_level(logging.INFO):
        checkpointer.load(str(tmp_path / "norm.pth"))
    assert "num_batches_tracked" not in caplog.text
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_conversion_replaces_every_batch_norm_and_back() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Sequential(nn.SyncBatchNorm(4, eps=1e-3)))
    randomize(net[1]), randomize(net[2][0])
    x = torch.randn(2, 3, 5, 5)
    expected = net.eval()(x)
    frozen = FrozenBatchNorm2d.convert_frozen_batchnorm(net)
    assert frozen is net and frozen[2][0].eps == 1e-3
    assert sum(isinstance(module, FrozenBatchNorm2d) for module in net.modules()) == 2
    torch.testing.assert_close(net(x), expected)
    thawed = FrozenBatchNorm2d.convert_frozenbatchnorm2d_to_batchnorm2d(net)
    assert sum(isinstance(module, nn.BatchNorm2d) for module in thawed.modules()) == 2
    assert thawed[1].weight.requires_grad
    torch.testing.assert_close(thawed.eval()(x), expected)
    single = FrozenBatchNorm2d.convert_frozen_batchnorm(nn.BatchNorm2d(4, affine=False))
    assert isinstance(single, FrozenBatchNorm2d) and single.weight.eq(1).all()


def test_batch_norm_trains_on_no_image() -> None:
    norm = BatchNorm2d(3)
    before = norm.running_var.clone()
    x = torch.zeros(0, 3, 4, 4, requires_grad=True)
    norm(x).sum().backward()
    assert norm.weight.grad is not None and norm.weight.grad.eq(0).all()
    assert torch.equal(norm.running_var, before) and norm.num_batches_tracked == 0
    assert BatchNorm2d(3, affine=False)(x).shape == x.shape
    x = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(norm(x), nn.BatchNorm2d(3)(x))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("BN", nn.BatchNorm2d),
        ("SyncBN", nn.SyncBatchNorm),
        ("nnSyncBN", nn.SyncBatchNorm),
        ("FrozenBN", FrozenBatchNorm2d),
        ("GN", nn.GroupNorm),
        ("LN", LayerNorm),
        ("naiveSyncBN", NaiveSyncBatchNorm),
        ("naiveSyncBN_N", NaiveSyncBatchNorm),
    ],
)
def test_get_norm_knows_every_name(name: str, kind: type) -> None:
    norm = get_norm(name, 64)
    assert isinstance(norm, kind)
    assert norm.eval()(torch.randn(2, 64, 3, 3)).shape == (2, 64, 3, 3)


def test_get_norm_takes_functions_and_nothing() -> None:
    assert get_norm("", 8) is None and get_norm(None, 8) is None
    norm = get_norm(lambda channels: nn.GroupNorm(2, channels), 8)
    assert isinstance(norm, nn.GroupNorm) and norm.num_groups == 2
    with pytest.raises(ValueError, match="unknown norm 'FrozenBn'.*Did you mean FrozenBN"):
        get_norm("FrozenBn", 8)


def test_layer_norm_normalises_channels() -> None:
    norm, x = LayerNorm(6), torch.randn(2, 6, 3, 4)
    nn.init.uniform_(norm.weight), nn.init.uniform_(norm.bias)
    last = nn.functional.layer_norm(x.permute(0, 2, 3, 1), (6,), norm.weight, norm.bias, 1e-6)
    torch.testing.assert_close(norm(x), last.permute(0, 3, 1, 2).contiguous())
    assert norm.normalized_shape == (6,)


def test_cycle_norms_take_turns_and_share_the_affine_map() -> None:
    norms = CycleBatchNormList(2, num_features=3)
    assert set(norms.state_dict()) == {"weight", "bias"} | {
        f"{i}.{name}" for i in range(2) for name in ("running_mean", "running_var", "num_batches_tracked")
    }
    nn.init.constant_(norms.weight, 2.0)
    for level in (10.0, 20.0, 10.0, 20.0):
        x = torch.randn(2, 3, 4, 4) + level
        torch.testing.assert_close(norms(x), 2 * nn.BatchNorm2d(3)(x))
    assert norms[0].running_mean.mean() < norms[1].running_mean.mean() - 1
    assert norms.extra_repr() == "affine=True"
    plain = CycleBatchNormList(1, BatchNorm2d, num_features=3, affine=False)
    assert not list(plain.parameters()) and plain(torch.randn(1, 3, 2, 2)).shape == (1, 3, 2, 2)


def test_naive_sync_norm_alone_is_a_batch_norm() -> None:
    x = torch.randn(3, 4, 5, 5)
    torch.testing.assert_close(NaiveSyncBatchNorm(4)(x), nn.BatchNorm2d(4)(x))
    with pytest.raises(ValueError, match="stats_mode"):
        NaiveSyncBatchNorm(4, stats_mode="n")
    with pytest.raises(ValueError, match="momentum"):
        NaiveSyncBatchNorm(4, momentum=None)


def make_batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(4, 3, 5, 5, generator=generator) * 2 + 1, torch.randn(4, 3, 5, 5, generator=generator)


# stats_mode, and how many of the four images each worker has.
WORK = [("", [2, 2]), ("N", [3, 1]), ("N", [4, 0])]


def make_shifted_batch(rank: int) -> Tensor:
    """Values of mean 5 and variance 4, as one of two processes sees them."""
    values = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(rank))
    return 2 * values + 5


def measure_precisely(rank: int) -> tuple[Tensor, Tensor]:
    """Mean and variance that PreciseBN finds, in one of two processes."""
    norm = NaiveSyncBatchNorm(3)
    PreciseBN(1, norm, [make_shifted_batch(rank)] * 4, num_iter=4).update_stats()
    assert norm.momentum == 0.1
    return norm.running_mean, norm.running_var


def run_worker(rank: int, folder: str) -> None:
    """One of two processes: normalise its share of the batch and save the result, for each entry of WORK."""
    store = dist.FileStore(f"{folder}/store", 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    for index, (stats_mode, sizes) in enumerate(WORK):
        norm = NaiveSyncBatchNorm(3, stats_mode=stats_mode)
        batch, grad = (tensor.split(sizes)[rank] for tensor in make_batch())
        x = batch.clone().requires_grad_()
        y = norm(x)
        y.backward(grad)
        assert x.grad is not None and norm.weight.grad is not None
        result = [y.detach(), x.grad, norm.weight.grad, norm.running_mean, norm.running_var]
        torch.save(result, f"{folder}/{index}-{rank}.pt")
    torch.save(measure_precisely(rank), f"{folder}/precise-{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def worker_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two processes left the results of WORK."""
    folder = tmp_path_factory.mktemp("workers")
    mp.spawn(run_worker, (str(folder),), nprocs=2)
    return folder


@pytest.mark.parametrize("index", range(len(WORK)))
def test_two_workers_normalise_like_one(index: int, worker_folder: Path) -> None:
    results = [torch.load(worker_folder / f"{index}-{rank}.pt") for rank in range(2)]
    batch, grad = make_batch()
    norm = nn.BatchNorm2d(3)
    x = batch.clone().requires_grad_()
    y = norm(x)
    y.backward(grad)
    torch.testing.assert_close(torch.cat([results[0][0], results[1][0]]), y.detach(), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(torch.cat([results[0][1], results[1][1]]), x.grad, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(results[0][2] + results[1][2], norm.weight.grad, atol=1e-4, rtol=1e-4)
    biased = 0.9 + 0.1 * batch.var(dim=(0, 2, 3), correction=0)
    for _, _, _, mean, var in results:
        torch.testing.assert_close(mean, norm.running_mean, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(var, biased, atol=1e-5, rtol=1e-5)


def test_precise_statistics_of_two_workers_are_those_of_the_data(worker_folder: Path) -> None:
    batches = torch.cat([make_shifted_batch(rank) for rank in range(2)])
    for rank in range(2):
        mean, var = torch.load(worker_folder / f"precise-{rank}.pt")
        torch.testing.assert_close(mean, batches.mean(dim=(0, 2, 3)), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(var, batches.var(dim=(0, 2, 3), correction=0), atol=1e-3, rtol=1e-3)
