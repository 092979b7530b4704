// IoU and non-maximum suppression of rotated boxes on the CPU.
#include <algorithm>
#include <iterator>
#include <vector>

#include "../common/score_order.h"
#include "../common/tensor.h"
#include "rotated_iou.h"

namespace detectron2 {
namespace {

constexpr int64_t kBlock = 64;  // boxes of suppression that are decided together
// What a thread must get before waiting for it pays.
constexpr int64_t kPairsPerThread = 1 << 14;
constexpr int64_t kBoxesPerThread = 1024;

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

// Writes 1 to keep[order[i]] for every box of a group that no better kept box overlaps.
void sweep(
    const std::vector<RotatedBox>& boxes, const int64_t* order, int64_t count, double threshold,
    uint8_t* keep) {
  std::vector<RotatedBox> sorted;
  sorted.reserve(count);
  std::transform(order, order + count, std::back_inserter(sorted), [&](int64_t i) { return boxes[i]; });
  std::vector<uint8_t> suppressed(count, 0);
  std::vector<int64_t> survivors;
  // A block of the best boxes is decided in order; what its survivors suppress behind it needs no order.
  for (int64_t first = 0; first < count; first += kBlock) {
    const int64_t last = std::min(first + kBlock, count);
    survivors.clear();
    for (int64_t i = first; i < last; ++i) {
      if (suppressed[i]) {
        continue;
      }
      keep[order[i]] = 1;
      survivors.push_back(i);
      for (int64_t j = i + 1; j < last; ++j) {
        suppressed[j] |= rotated_iou(sorted[i], sorted[j]) > threshold;
      }
    }
    torch::stable::parallel_for(last, count, kBoxesPerThread, [&](int64_t begin, int64_t end) {
      for (int64_t j = begin; j < end; ++j) {
        suppressed[j] = suppressed[j] || std::any_of(survivors.begin(), survivors.end(), [&](int64_t i) {
                          return rotated_iou(sorted[i], sorted[j]) > threshold;
                        });
      }
    });
  }
}

// boxes: (N, 5), scores: (N,) -> (K,) int64 by falling score.
Tensor nms_rotated_cpu(const Tensor& boxes, const Tensor& scores, double iou_threshold) {
  check_suppression("nms_rotated", boxes, scores, 5);
  const auto order = order_by_score(scores);
  std::vector<uint8_t> keep(boxes.size(0), 0);
  sweep(prepare(boxes), order.data(), boxes.size(0), iou_threshold, keep.data());
  return kept_indices(boxes, order, keep);
}

// The same within each group: idxs (N,) integer.
Tensor batched_nms_rotated_cpu(
    const Tensor& boxes, const Tensor& scores, const Tensor& idxs, double iou_threshold) {
  check_suppression("batched_nms_rotated", boxes, scores, 5, &idxs);
  const auto order = order_by_score(scores);
  const auto prepared = prepare(boxes);
  std::vector<uint8_t> keep(boxes.size(0), 0);
  GroupedOrder(order, idxs).for_each(kPairsPerThread, [&](const int64_t* indices, int64_t count) {
    sweep(prepared, indices, count, iou_threshold, keep.data());
  });
  return kept_indices(boxes, order, keep);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detectron2, CPU, m) {
  m.impl("box_iou_rotated", TORCH_BOX(&box_iou_rotated_cpu));
  m.impl("batched_nms_rotated", TORCH_BOX(&batched_nms_rotated_cpu));
  m.impl("nms_rotated", TORCH_BOX(&nms_rotated_cpu));
}

}  // namespace detectron2
