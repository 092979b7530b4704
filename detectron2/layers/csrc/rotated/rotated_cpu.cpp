// IoU and non-maximum suppression of rotated boxes on the CPU.
#include <algorithm>
#include <iterator>
#include <vector>

#include "../common/suppression.h"
#include "../common/tensor.h"
#include "rotated_iou.h"

namespace detectron2 {
namespace {

// boxes: (N, 5).
std::vector<RotatedBox> prepare(const Tensor& boxes) {
  const Tensor values = as_accumulator(boxes);
  std::vector<RotatedBox> prepared;
  prepared.reserve(values.size(0));
  visit_accumulator(values.scalar_type(), [&](auto tag) {
    const auto* data = values.const_data_ptr<typename decltype(tag)::type>();
    for (int64_t i = 0; i < values.size(0); ++i) {
      prepared.emplace_back(data + 5 * i);
    }
  });
  return prepared;
}

// boxes1: (N, 5), boxes2: (M, 5) -> (N, M), float64 for float64 boxes and float32 otherwise.
Tensor box_iou_rotated_cpu(const Tensor& boxes1, const Tensor& boxes2) {
  check_shape("box_iou_rotated", "boxes1", boxes1, {-1, 5});
  check_shape("box_iou_rotated", "boxes2", boxes2, {-1, 5});
  visit_floating(boxes1.scalar_type(), "box_iou_rotated", [](auto) {});
  visit_floating(boxes2.scalar_type(), "box_iou_rotated", [](auto) {});
  const auto rows = prepare(boxes1), columns = prepare(boxes2);
  const int64_t num_rows = boxes1.size(0), num_columns = boxes2.size(0);
  const ScalarType dtype = accumulator_dtype(boxes1.scalar_type());
  Tensor ious = torch::stable::new_empty(boxes1, {num_rows, num_columns}, dtype);
  visit_accumulator(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    T* out = ious.mutable_data_ptr<T>();
    torch::stable::parallel_for(0, num_rows, 16, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        for (int64_t j = 0; j < num_columns; ++j) {
          out[i * num_columns + j] = static_cast<T>(rotated_iou(rows[i], columns[j]));
        }
      }
    });
  });
  return ious;
}

// Boxes of a group in the order of their scores.
struct SortedRotatedBoxes {
  static constexpr int64_t kBoxesPerBlock = 64, kBoxesPerThread = 1024, kPairsPerThread = 1 << 14;
  std::vector<RotatedBox> boxes;
  double threshold;

  SortedRotatedBoxes(const std::vector<RotatedBox>& all, const int64_t* order, int64_t count, double limit)
      : threshold(limit) {
    boxes.reserve(count);
    std::transform(order, order + count, std::back_inserter(boxes), [&](int64_t i) { return all[i]; });
  }

  void suppress(int64_t i, int64_t first, int64_t last, uint8_t* suppressed) const {
    for (int64_t j = first; j < last; ++j) {
      suppressed[j] = suppressed[j] || rotated_iou(boxes[i], boxes[j]) > threshold;
    }
  }
};

// Of all boxes, or where `idxs` is given of every group of them.
Tensor kept_rotated(const Tensor& boxes, const Tensor& scores, const Tensor* idxs, double iou_threshold) {
  const auto prepared = prepare(boxes);
  return kept_boxes(boxes, scores, idxs, [&](const int64_t* order, int64_t count) {
    return SortedRotatedBoxes(prepared, order, count, iou_threshold);
  });
}

// boxes: (N, 5), scores: (N,) -> (K,) int64 by falling score.
Tensor nms_rotated_cpu(const Tensor& boxes, const Tensor& scores, double iou_threshold) {
  check_suppression("nms_rotated", boxes, scores, 5);
  return kept_rotated(boxes, scores, nullptr, iou_threshold);
}

// The same within each group: idxs (N,) integer.
Tensor batched_nms_rotated_cpu(
    const Tensor& boxes, const Tensor& scores, const Tensor& idxs, double iou_threshold) {
  check_suppression("batched_nms_rotated", boxes, scores, 5, &idxs);
  return kept_rotated(boxes, scores, &idxs, iou_threshold);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detectron2, CPU, m) {
  m.impl("box_iou_rotated", TORCH_BOX(&box_iou_rotated_cpu));
  m.impl("batched_nms_rotated", TORCH_BOX(&batched_nms_rotated_cpu));
  m.impl("nms_rotated", TORCH_BOX(&nms_rotated_cpu));
}

}  // namespace detectron2
