// Non-maximum suppression on the CPU.
//
// Boxes are put in the order of their scores, one array per coordinate, so that the inner loop, one box against all
// that come after it, runs along memory. With classes, each class is a group of its own: boxes of different classes
// never meet, and no coordinate is changed to keep them apart.
#include <algorithm>
#include <vector>

#include "../common/score_order.h"
#include "../common/tensor.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define D2_VECTOR_CLONES __attribute__((target_clones("default", "avx2", "arch=x86-64-v4")))
#else
#define D2_VECTOR_CLONES
#endif

namespace detectron2 {
namespace {

// Boxes of a group in the order of their scores.
template <typename T>
struct SortedBoxes {
  std::vector<T> x1, y1, x2, y2, area;

  SortedBoxes(const T* boxes, const int64_t* order, int64_t count) : x1(count), y1(count), x2(count), y2(count), area(count) {
    for (int64_t i = 0; i < count; ++i) {
      const T* box = boxes + 4 * order[i];
      x1[i] = box[0], y1[i] = box[1], x2[i] = box[2], y2[i] = box[3];
      area[i] = (box[2] - box[0]) * (box[3] - box[1]);
    }
  }
};

// Marks the boxes of [first, last) that overlap box `i` by more than `threshold`.
D2_VECTOR_CLONES void suppress(
    const float* __restrict x1, const float* __restrict y1, const float* __restrict x2, const float* __restrict y2,
    const float* __restrict area, uint8_t* __restrict suppressed, int64_t i, int64_t last, float threshold) {
  const float left = x1[i], top = y1[i], right = x2[i], bottom = y2[i], own = area[i];
  for (int64_t j = i + 1; j < last; ++j) {
    const float w = std::max(std::min(right, x2[j]) - std::max(left, x1[j]), 0.0f);
    const float h = std::max(std::min(bottom, y2[j]) - std::max(top, y1[j]), 0.0f);
    const float overlap = w * h;
    suppressed[j] |= overlap / (own + area[j] - overlap) > threshold;
  }
}

D2_VECTOR_CLONES void suppress(
    const double* __restrict x1, const double* __restrict y1, const double* __restrict x2, const double* __restrict y2,
    const double* __restrict area, uint8_t* __restrict suppressed, int64_t i, int64_t last, double threshold) {
  const double left = x1[i], top = y1[i], right = x2[i], bottom = y2[i], own = area[i];
  for (int64_t j = i + 1; j < last; ++j) {
    const double w = std::max(std::min(right, x2[j]) - std::max(left, x1[j]), 0.0);
    const double h = std::max(std::min(bottom, y2[j]) - std::max(top, y1[j]), 0.0);
    const double overlap = w * h;
    suppressed[j] |= overlap / (own + area[j] - overlap) > threshold;
  }
}

// Writes 1 to keep[order[i]] for every box of a group that no better kept box overlaps.
template <typename T>
void sweep(const T* boxes, const int64_t* order, int64_t count, double threshold, uint8_t* keep) {
  const SortedBoxes<T> b(boxes, order, count);
  std::vector<uint8_t> suppressed(count, 0);
  for (int64_t i = 0; i < count; ++i) {
    if (!suppressed[i]) {
      keep[order[i]] = 1;
      suppress(
          b.x1.data(), b.y1.data(), b.x2.data(), b.y2.data(), b.area.data(), suppressed.data(), i, count,
          static_cast<T>(threshold));
    }
  }
}

// boxes: (N, 4) XYXY, scores: (N,) -> (K,) int64 by falling score.
Tensor nms_cpu(const Tensor& boxes, const Tensor& scores, double iou_threshold) {
  check_suppression("nms", boxes, scores, 4);
  const Tensor box_values = as_accumulator(boxes);
  const int64_t count = boxes.size(0);
  std::vector<uint8_t> keep(count, 0);
  const auto order = order_by_score(scores);
  visit_accumulator(box_values.scalar_type(), [&](auto tag) {
    sweep(box_values.const_data_ptr<typename decltype(tag)::type>(), order.data(), count, iou_threshold, keep.data());
  });
  return kept_indices(boxes, order, keep);
}

// The same within each class: idxs (N,) integer.
Tensor batched_nms_cpu(const Tensor& boxes, const Tensor& scores, const Tensor& idxs, double iou_threshold) {
  check_suppression("batched_nms", boxes, scores, 4);
  check_shape("batched_nms", "idxs", idxs, {boxes.size(0)});
  const Tensor box_values = as_accumulator(boxes);
  const Tensor class_values = torch::stable::contiguous(torch::stable::to(idxs, ScalarType::Long));
  const int64_t count = boxes.size(0);
  const int64_t* classes = class_values.const_data_ptr<int64_t>();
  const auto order = order_by_score(scores);
  std::vector<int64_t> grouped = order;
  std::stable_sort(grouped.begin(), grouped.end(), [classes](int64_t a, int64_t b) { return classes[a] < classes[b]; });
  std::vector<int64_t> group_starts;
  for (int64_t i = 0; i < count; ++i) {
    if (i == 0 || classes[grouped[i]] != classes[grouped[i - 1]]) {
      group_starts.push_back(i);
    }
  }
  const int64_t num_groups = static_cast<int64_t>(group_starts.size());
  group_starts.push_back(count);
  std::vector<uint8_t> keep(count, 0);
  visit_accumulator(box_values.scalar_type(), [&](auto tag) {
    const auto* data = box_values.const_data_ptr<typename decltype(tag)::type>();
    torch::stable::parallel_for(0, num_groups, 8, [&](int64_t begin, int64_t end) {
      for (int64_t g = begin; g < end; ++g) {
        const int64_t first = group_starts[g];
        sweep(data, grouped.data() + first, group_starts[g + 1] - first, iou_threshold, keep.data());
      }
    });
  });
  return kept_indices(boxes, order, keep);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detectron2, CPU, m) {
  m.impl("nms", TORCH_BOX(&nms_cpu));
  m.impl("batched_nms", TORCH_BOX(&batched_nms_cpu));
}

}  // namespace detectron2
