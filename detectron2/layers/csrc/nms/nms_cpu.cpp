// Non-maximum suppression on the CPU.
//
// Boxes are put in the order of their scores, one array per coordinate, so that the inner loop, one box
// against all that come after it, runs along memory. With classes, each class is a group of its own: boxes of
// different classes never meet, and no coordinate is changed to keep them apart.
#include <algorithm>
#include <vector>

#include "../common/suppression.h"
#include "../common/tensor.h"
#include "../common/vector_clones.h"

namespace detectron2 {
namespace {

// Marks the boxes of [first, last) that overlap box `i` by more than `threshold`.
D2_VECTOR_CLONES void mark_overlapped(
    const float* __restrict x1, const float* __restrict y1, const float* __restrict x2,
    const float* __restrict y2, const float* __restrict area, uint8_t* __restrict suppressed, int64_t i,
    int64_t first, int64_t last, float threshold) {
  const float left = x1[i], top = y1[i], right = x2[i], bottom = y2[i], own = area[i];
  for (int64_t j = first; j < last; ++j) {
    const float w = std::max(std::min(right, x2[j]) - std::max(left, x1[j]), 0.0f);
    const float h = std::max(std::min(bottom, y2[j]) - std::max(top, y1[j]), 0.0f);
    const float overlap = w * h;
    suppressed[j] |= overlap / (own + area[j] - overlap) > threshold;
  }
}

D2_VECTOR_CLONES void mark_overlapped(
    const double* __restrict x1, const double* __restrict y1, const double* __restrict x2,
    const double* __restrict y2, const double* __restrict area, uint8_t* __restrict suppressed, int64_t i,
    int64_t first, int64_t last, double threshold) {
  const double left = x1[i], top = y1[i], right = x2[i], bottom = y2[i], own = area[i];
  for (int64_t j = first; j < last; ++j) {
    const double w = std::max(std::min(right, x2[j]) - std::max(left, x1[j]), 0.0);
    const double h = std::max(std::min(bottom, y2[j]) - std::max(top, y1[j]), 0.0);
    const double overlap = w * h;
    suppressed[j] |= overlap / (own + area[j] - overlap) > threshold;
  }
}

// Boxes of a group in the order of their scores.
template <typename T>
struct SortedBoxes {
  static constexpr int64_t kBoxesPerBlock = 1024, kBoxesPerThread = 1 << 14, kPairsPerThread = 1 << 20;
  std::vector<T> x1, y1, x2, y2, area;
  T threshold;

  SortedBoxes(const T* boxes, const int64_t* order, int64_t count, T limit)
      : x1(count), y1(count), x2(count), y2(count), area(count), threshold(limit) {
    for (int64_t i = 0; i < count; ++i) {
      const T* box = boxes + 4 * order[i];
      x1[i] = box[0], y1[i] = box[1], x2[i] = box[2], y2[i] = box[3];
      area[i] = (box[2] - box[0]) * (box[3] - box[1]);
    }
  }

  void suppress(int64_t i, int64_t first, int64_t last, uint8_t* suppressed) const {
    mark_overlapped(
        x1.data(), y1.data(), x2.data(), y2.data(), area.data(), suppressed, i, first, last, threshold);
  }
};

// Of all boxes, or where `idxs` is given of every group of them.
Tensor kept_upright(const Tensor& boxes, const Tensor& scores, const Tensor* idxs, double iou_threshold) {
  const Tensor values = as_accumulator(boxes);
  return visit_accumulator(values.scalar_type(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    const T* data = values.const_data_ptr<T>();
    const T threshold = rounded_down<T>(iou_threshold);
    return kept_boxes(boxes, scores, idxs, [&](const int64_t* order, int64_t count) {
      return SortedBoxes<T>(data, order, count, threshold);
    });
  });
}

// boxes: (N, 4) XYXY, scores: (N,) -> (K,) int64 by falling score.
Tensor nms_cpu(const Tensor& boxes, const Tensor& scores, double iou_threshold) {
  check_suppression("nms", boxes, scores, 4);
  return kept_upright(boxes, scores, nullptr, iou_threshold);
}

// The same within each group: idxs (N,) integer.
Tensor batched_nms_cpu(const Tensor& boxes, const Tensor& scores, const Tensor& idxs, double iou_threshold) {
  check_suppression("batched_nms", boxes, scores, 4, &idxs);
  return kept_upright(boxes, scores, &idxs, iou_threshold);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detectron2, CPU, m) {
  m.impl("nms", TORCH_BOX(&nms_cpu));
  m.impl("batched_nms", TORCH_BOX(&batched_nms_cpu));
}

}  // namespace detectron2
