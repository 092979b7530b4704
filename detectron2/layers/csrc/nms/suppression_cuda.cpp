// Binding of suppression's CUDA kernels.
#include "suppression_cuda.h"

#include <array>

#include "../common/cuda_binding.h"
#include "../common/score_order.h"

namespace detectron2 {
namespace {

// Calls an aten operator with one result.
template <typename... Args>
Tensor call_aten(const char* name, const char* overload, Args&&... args) {
  std::array<StableIValue, sizeof...(Args)> stack{torch::stable::detail::from(args)...};
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher(name, overload, stack.data(), TORCH_ABI_VERSION));
  return torch::stable::detail::to<Tensor>(stack[0]);
}

// (N,) int64 indices by falling score, equal scores in their order.
Tensor falling_order(const Tensor& scores) {
  return call_aten("aten::argsort", "stable", scores, true, int64_t(0), true);
}

Tensor rows_at(const Tensor& t, const Tensor& indices) {
  return call_aten("aten::index_select", "", t, int64_t(0), indices);
}

template <bool rotated>
Tensor suppress(
    const char* op, const Tensor& boxes, const Tensor& scores, const Tensor* groups, double iou_threshold) {
  check_suppression(op, boxes, scores, rotated ? 5 : 4, groups);
  const CudaScope scope(op, {&boxes, &scores, groups ? groups : &boxes});
  const int64_t count = boxes.size(0), words = num_words(count);
  const Tensor order = falling_order(scores);
  const Tensor sorted = torch::stable::contiguous(rows_at(as_accumulator(boxes), order));
  Tensor sorted_groups;
  if (groups) {
    sorted_groups = torch::stable::contiguous(rows_at(cast_to(*groups, ScalarType::Long), order));
  }
  const int64_t* group_data = groups ? sorted_groups.const_data_ptr<int64_t>() : nullptr;
  Tensor conflicts =
      torch::stable::new_empty(boxes, {count + 1, words}, ScalarType::Long);  // the last row: scratch
  Tensor keep = torch::stable::new_empty(boxes, {count}, ScalarType::Bool);
  uint64_t* bits = static_cast<uint64_t*>(conflicts.mutable_data_ptr());
  visit_accumulator(sorted.scalar_type(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    const T* data = sorted.const_data_ptr<T>();
    const T threshold = rounded_down<T>(iou_threshold);
    const auto launch = rotated ? launch_conflicts_rotated<T> : launch_conflicts<T>;
    scope.run(launch, data, group_data, bits, count, threshold);
  });
  scope.run(launch_sweep, bits, bits + count * words, static_cast<bool*>(keep.mutable_data_ptr()), count);
  return call_aten("aten::masked_select", "", order, keep);
}

// boxes: (N, 4) XYXY, scores: (N,) -> (K,) int64 by falling score.
Tensor nms_cuda(const Tensor& boxes, const Tensor& scores, double iou_threshold) {
  return suppress<false>("nms", boxes, scores, nullptr, iou_threshold);
}

Tensor batched_nms_cuda(const Tensor& boxes, const Tensor& scores, const Tensor& idxs, double iou_threshold) {
  return suppress<false>("batched_nms", boxes, scores, &idxs, iou_threshold);
}

// boxes: (N, 5), scores: (N,) -> (K,) int64 by falling score.
Tensor nms_rotated_cuda(const Tensor& boxes, const Tensor& scores, double iou_threshold) {
  return suppress<true>("nms_rotated", boxes, scores, nullptr, iou_threshold);
}

Tensor batched_nms_rotated_cuda(
    const Tensor& boxes, const Tensor& scores, const Tensor& idxs, double iou_threshold) {
  return suppress<true>("batched_nms_rotated", boxes, scores, &idxs, iou_threshold);
}

// boxes1: (N, 5), boxes2: (M, 5) -> (N, M), float64 for float64 boxes and float32 otherwise.
Tensor box_iou_rotated_cuda(const Tensor& boxes1, const Tensor& boxes2) {
  check_shape("box_iou_rotated", "boxes1", boxes1, {-1, 5});
  check_shape("box_iou_rotated", "boxes2", boxes2, {-1, 5});
  visit_floating(boxes1.scalar_type(), "box_iou_rotated", [](auto) {});
  const CudaScope scope("box_iou_rotated", {&boxes1, &boxes2});
  const Tensor rows = as_accumulator(boxes1);
  const Tensor columns = contiguous_as(boxes2, rows.scalar_type());
  Tensor ious = torch::stable::new_empty(rows, {boxes1.size(0), boxes2.size(0)});
  visit_accumulator(rows.scalar_type(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    scope.run(
        launch_iou_rotated<T>, rows.const_data_ptr<T>(), columns.const_data_ptr<T>(),
        ious.mutable_data_ptr<T>(), boxes1.size(0), boxes2.size(0));
  });
  return ious;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detectron2, CUDA, m) {
  m.impl("nms", TORCH_BOX(&nms_cuda));
  m.impl("batched_nms", TORCH_BOX(&batched_nms_cuda));
  m.impl("nms_rotated", TORCH_BOX(&nms_rotated_cuda));
  m.impl("batched_nms_rotated", TORCH_BOX(&batched_nms_rotated_cuda));
  m.impl("box_iou_rotated", TORCH_BOX(&box_iou_rotated_cuda));
}

}  // namespace detectron2
