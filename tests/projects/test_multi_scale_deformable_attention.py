"""The package of that name serves projects that wrap its two functions into an autograd function."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from detectron2.layers import ms_deform_attn

ROOT = Path(__file__).resolve().parents[2]
PROJECT = ROOT / "projects" / "MultiScaleDeformableAttention"
SIZES = [(6, 8), (3, 4), (2, 2)]


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(PROJECT)
    yield importlib.import_module("MultiScaleDeformableAttention")
    for name in [name for name in sys.modules if name.startswith("MultiScaleDeformableAttention")]:
        del sys.modules[name]


class ClientFunction(torch.autograd.Function):
    """What such projects write around the two functions."""

    @staticmethod
    def forward(
        ctx: Any, value: Tensor, sizes: Tensor, starts: Tensor, where: Tensor, weights: Tensor, step: int
    ) -> Tensor:
        import MultiScaleDeformableAttention as MSDA

        ctx.step = step
        ctx.save_for_backward(value, sizes, starts, where, weights)
        return MSDA.ms_deform_attn_forward(value, sizes, starts, where, weights, step)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        import MultiScaleDeformableAttention as MSDA

        value, sizes, starts, where, weights = ctx.saved_tensors
        by_value, by_location, by_weight = MSDA.ms_deform_attn_backward(
            value, sizes, starts, where, weights, grad_output, ctx.step
        )
        return by_value, None, None, by_location, by_weight, None


class ClientAttention(nn.Module):
    """A layer of a deformable transformer: projections around the sampling."""

    def __init__(self, width: int = 16, num_heads: int = 4, num_points: int = 3) -> None:
        super().__init__()
        self.shape = (num_heads, len(SIZES), num_points)
        num_samples = num_heads * len(SIZES) * num_points
        self.value, self.output = nn.Linear(width, width), nn.Linear(width, width)
        self.offsets, self.weights = nn.Linear(width, 2 * num_samples), nn.Linear(width, num_samples)

    def forward(self, queries: Tensor, places: Tensor, features: Tensor, use_client: bool) -> Tensor:
        """(N, Q, C), (N, Q, 2) in [0, 1], (N, S, C) -> (N, Q, C)."""
        sizes = torch.tensor(SIZES)
        starts = sizes.prod(dim=1).cumsum(0) - sizes.prod(dim=1)
        value = self.value(features).unflatten(2, (self.shape[0], -1))
        offsets = self.offsets(queries).unflatten(2, (*self.shape, 2)) / sizes.flip(1)[:, None]
        where = places[:, :, None, None, None] + offsets
        weights = self.weights(queries).unflatten(2, (self.shape[0], -1)).softmax(dim=-1)
        weights = weights.unflatten(3, self.shape[1:])
        if use_client:
            return self.output(ClientFunction.apply(value, sizes, starts, where, weights, 128))
        return self.output(ms_deform_attn(value, sizes, starts, where, weights))


def test_a_project_trains_as_with_the_operator_itself(package: ModuleType, operator_side: str) -> None:
    torch.manual_seed(0)
    layer, num_cells = ClientAttention(), sum(h * w for h, w in SIZES)
    queries, places, features = torch.randn(3, 9, 16), torch.rand(3, 9, 2), torch.randn(3, num_cells, 16)
    results = []
    for use_client in (True, False):
        layer.zero_grad()
        loss = F.mse_loss(layer(queries, places, features, use_client), queries)
        loss.backward()
        results.append([loss, *(parameter.grad.clone() for parameter in layer.parameters())])
    for one, other in zip(*results):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)
    assert all(grad.abs().sum() > 0 for grad in results[0])


def test_gradients_match_finite_differences(package: ModuleType, operator_side: str) -> None:
    generator = torch.Generator().manual_seed(0)
    value, where, weights = (
        torch.rand(*shape, generator=generator, dtype=torch.float64).requires_grad_()
        for shape in ((2, 12, 2, 3), (2, 2, 2, 1, 2, 2), (2, 2, 2, 1, 2))
    )
    levels = (torch.tensor([[3, 4]]), torch.tensor([0]))
    assert torch.autograd.gradcheck(
        lambda v, s, w: ClientFunction.apply(v, *levels, s, w, 64), [value, where, weights]
    )


def test_mistakes_are_errors_in_a_sentence(package: ModuleType) -> None:
    value, where, weights = torch.ones(1, 11, 1, 4), torch.ones(1, 2, 1, 1, 2, 2), torch.ones(1, 2, 1, 1, 2)
    with pytest.raises(ValueError, match="does not fit into a value of 11 cells"):
        package.ms_deform_attn_forward(value, torch.tensor([[3, 4]]), torch.tensor([0]), where, weights, 64)


# --- installed


def run(*command: str | Path, **settings: str) -> subprocess.CompletedProcess[str]:
    text = [str(part) for part in command]
    env = {**os.environ, **settings}
    return subprocess.run(text, env=env, capture_output=True, text=True, timeout=500, check=False)


@pytest.mark.slow
def test_installs_without_a_compiler_and_stands_in_for_c(tmp_path: Path) -> None:
    sources, site = tmp_path / "sources", tmp_path / "site"
    shutil.copytree(PROJECT, sources, ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info"))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "-q"]
    options = ["--no-index", "--no-deps", "--no-build-isolation", "--target", site]
    done = run(*pip, *options, sources, CXX="no compiler", CC="no compiler")
    assert done.returncode == 0, done.stderr[-2000:]
    assert not list(site.rglob("*.so"))

    paths = {"PYTHONPATH": os.pathsep.join([str(site), str(tmp_path), str(ROOT)]), "PYTHONWARNINGS": "error"}
    client = tmp_path / "client"
    client.mkdir()
    (client / "__init__.py").touch()
    stand_in = [sys.executable, "-m", "MultiScaleDeformableAttention"]
    assert run(*stand_in, client, **paths).returncode == 0
    script = (
        "import torch; from client import _C;"
        "print(_C.ms_deform_attn_forward(torch.ones(1, 4, 1, 2), torch.tensor([[2, 2]]), torch.tensor([0]),"
        "torch.full((1, 1, 1, 1, 1, 2), 0.5), torch.ones(1, 1, 1, 1, 1), 64).tolist());"
        "print(_C.ms_deform_attn_backward.__module__)"
    )
    done = run(sys.executable, "-c", script, **paths)
    assert done.stdout.split("\n")[:2] == ["[[[1.0, 1.0]]]", "MultiScaleDeformableAttention"], done.stderr

    assert run(*stand_in, client, **paths).returncode == 0  # once more changes nothing
    (client / "_C.py").write_text("something else")
    done = run(*stand_in, client, **paths)
    assert done.returncode and "is there already" in done.stderr
    done = run(*stand_in, tmp_path, **paths)
    assert done.returncode and "__init__.py" in done.stderr
