// The order in which suppression visits boxes, and what it returns.
#pragma once

#include <algorithm>
#include <numeric>
#include <vector>

#include "tensor.h"

namespace detectron2 {

// Indices by falling score; equal scores keep their order, NaN comes first as in torch.sort. scores: (N,).
inline std::vector<int64_t> order_by_score(const Tensor& scores) {
  const Tensor values = as_accumulator(scores);
  std::vector<int64_t> order(values.numel());
  std::iota(order.begin(), order.end(), 0);
  visit_accumulator(values.scalar_type(), [&](auto tag) {
    const auto* data = values.const_data_ptr<typename decltype(tag)::type>();
    std::stable_sort(order.begin(), order.end(), [data](int64_t a, int64_t b) {
      const bool nan_a = data[a] != data[a], nan_b = data[b] != data[b];
      return nan_a || nan_b ? nan_a && !nan_b : data[a] > data[b];
    });
  });
  return order;
}

// The kept ones of `order`, as an int64 tensor on the device of `like`.
inline Tensor kept_indices(const Tensor& like, const std::vector<int64_t>& order, const std::vector<uint8_t>& keep) {
  const int64_t count = std::count(keep.begin(), keep.end(), 1);
  Tensor indices = torch::stable::new_empty(like, {count}, ScalarType::Long);
  int64_t* out = indices.mutable_data_ptr<int64_t>();
  std::copy_if(order.begin(), order.end(), out, [&keep](int64_t i) { return keep[i] != 0; });
  return indices;
}

// Checks the arguments that every kind of suppression has.
inline void check_suppression(const char* op, const Tensor& boxes, const Tensor& scores, int64_t box_dim) {
  check_shape(op, "boxes", boxes, {-1, box_dim});
  check_shape(op, "scores", scores, {boxes.size(0)});
  visit_floating(boxes.scalar_type(), op, [](auto) {});
  visit_floating(scores.scalar_type(), op, [](auto) {});
}

}  // namespace detectron2
