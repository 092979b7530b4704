"""The compiled operators on a GPU: against the CPU, deterministic, on the current stream."""

from __future__ import annotations

import pytest
import torch

from detectron2.layers import extension

from .operator_cases import (
    DIFFERENTIABLE,
    DTYPES,
    KINDS,
    NAN,
    OPERATORS,
    TOLERANCE,
    assert_agree,
    gradients,
    make_inputs,
    needs_operators,
    operator_arguments,
    packet,
    roi_align,
)


@pytest.mark.gpu
@needs_operators
@pytest.mark.parametrize("name", extension.OPERATORS)
def test_there_is_a_kernel_for_the_gpu(name: str) -> None:
    found = extension.find_operator(name, torch.device("cuda"))
    assert found is not None or name == "paste_masks_rle"


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", OPERATORS)
def test_gpu_agrees_with_the_cpu(name: str, kind: str, dtype: torch.dtype) -> None:
    operator, inputs = OPERATORS[name], make_inputs(name, kind, dtype)
    on_gpu = operator.call(*(tensor.cuda() for tensor in inputs))
    assert on_gpu.is_cuda
    assert_agree(on_gpu, operator.call(*inputs), TOLERANCE[dtype])


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gpu_gradients_agree_with_the_cpu(name: str, kind: str, dtype: torch.dtype) -> None:
    operator = OPERATORS[name]
    inputs, count = make_inputs(name, kind, dtype), operator.num_differentiable
    on_gpu = gradients(operator.call, [tensor.cuda() for tensor in inputs], count)
    for one, other in zip(on_gpu, gradients(operator.call, inputs, count)):
        scale = max(float(other.abs().nan_to_num().amax()), 1.0) if other.numel() else 1.0
        assert_agree(one / scale, other / scale, TOLERANCE[dtype])


@pytest.mark.gpu
@pytest.mark.parametrize("name", [name for name in extension.OPERATORS if name != "paste_masks_rle"])
def test_gpu_passes_the_checks_of_torch(name: str) -> None:
    torch.library.opcheck(packet(name), operator_arguments(name, "cuda"))


@pytest.mark.gpu
@pytest.mark.parametrize("warn_only", [False, True])
@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gpu_gradients_repeat_where_determinism_is_asked_for(
    name: str, warn_only: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    operator, inputs = OPERATORS[name], make_inputs(name, "large", torch.float32, "cuda")
    torch.use_deterministic_algorithms(True, warn_only=warn_only)
    try:
        first, *others = (gradients(operator.call, inputs, operator.num_differentiable) for _ in range(4))
    finally:
        torch.use_deterministic_algorithms(False)
    for other in others:
        assert all(torch.equal(one, two) for one, two in zip(first, other))


@pytest.mark.gpu
def test_gpu_kernels_run_on_the_current_stream_and_device() -> None:
    x, rois = make_inputs("roi_align", "large", torch.float32, f"cuda:{torch.cuda.device_count() - 1}")
    expected = roi_align.roi_align(x, rois, 7, 0.25, 0, True)
    stream = torch.cuda.Stream(x.device)
    with torch.cuda.stream(stream):
        doubled = x
        for _ in range(50):
            doubled = doubled * 2 / 2
        pooled = roi_align.roi_align(doubled, rois, 7, 0.25, 0, True)
    stream.synchronize()
    torch.testing.assert_close(pooled, expected)


@pytest.mark.gpu
@needs_operators
def test_gpu_boxes_of_an_image_that_is_not_there_pool_nan() -> None:
    x = torch.ones(2, 1, 8, 8, device="cuda", requires_grad=True)
    for name, sizes in (("roi_align", [4.0] * 4), ("roi_align_rotated", [4.0] * 4 + [0.0])):
        rois = torch.tensor([[image, *sizes] for image in (2.0, -1.0, NAN, 1.0)], device="cuda")
        pooled = packet(name)(x, rois, 1.0, 2, 2, 2, *([True] if name == "roi_align" else []))
        assert pooled[:3].isnan().all() and pooled[3].isfinite().all()
        (grad,) = torch.autograd.grad(pooled.sum(), x)
        assert grad[0].eq(0).all() and grad.isfinite().all()


@pytest.mark.gpu
def test_tensors_on_two_devices_are_refused() -> None:
    x, rois = make_inputs("roi_align", "random", torch.float32)
    with pytest.raises(RuntimeError, match="same CUDA device"):
        roi_align.roi_align(x.cuda(), rois, 7)
