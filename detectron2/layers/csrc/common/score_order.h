// The order in which suppression visits boxes, and what it returns.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
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

// Boxes in groups, each group in the order of its scores.
struct GroupedOrder {
  std::vector<int64_t> indices;  // one group after the other
  std::vector<int64_t> starts;   // of every group in `indices`, and the end of the last

  // `order` by falling score; idxs: (N,) the group of each box.
  GroupedOrder(const std::vector<int64_t>& order, const Tensor& idxs) : indices(order) {
    const Tensor values = torch::stable::contiguous(torch::stable::to(idxs, ScalarType::Long));
    const int64_t* groups = values.const_data_ptr<int64_t>();
    std::stable_sort(
        indices.begin(), indices.end(), [groups](int64_t a, int64_t b) { return groups[a] < groups[b]; });
    for (size_t i = 0; i < indices.size(); ++i) {
      if (i == 0 || groups[indices[i]] != groups[indices[i - 1]]) {
        starts.push_back(static_cast<int64_t>(i));
      }
    }
    starts.push_back(static_cast<int64_t>(indices.size()));
  }

  // Calls sweep(first index, number of indices) for every group. Groups are shared among threads where each
  // gets about `pairs_per_thread` pairs of boxes to compare: waiting for a thread costs more than a few.
  template <typename Sweep>
  void for_each(int64_t pairs_per_thread, const Sweep& sweep) const {
    const int64_t num_groups = static_cast<int64_t>(starts.size()) - 1;
    const int64_t size = static_cast<int64_t>(indices.size()) / std::max<int64_t>(num_groups, 1) + 1;
    const int64_t grain = pairs_per_thread / (size * size) + 1;
    torch::stable::parallel_for(0, num_groups, grain, [&](int64_t begin, int64_t end) {
      for (int64_t g = begin; g < end; ++g) {
        sweep(indices.data() + starts[g], starts[g + 1] - starts[g]);
      }
    });
  }
};

// The kept ones of `order`, as an int64 tensor on the device of `like`.
inline Tensor kept_indices(
    const Tensor& like, const std::vector<int64_t>& order, const std::vector<uint8_t>& keep) {
  const int64_t count = std::count(keep.begin(), keep.end(), 1);
  Tensor indices = torch::stable::new_empty(like, {count}, ScalarType::Long);
  int64_t* out = indices.mutable_data_ptr<int64_t>();
  std::copy_if(order.begin(), order.end(), out, [&keep](int64_t i) { return keep[i] != 0; });
  return indices;
}

// The largest T that is not above `threshold`: to exceed the one is to exceed the other.
template <typename T>
T rounded_down(double threshold) {
  const T rounded = static_cast<T>(threshold);
  return static_cast<double>(rounded) > threshold
             ? std::nextafter(rounded, -std::numeric_limits<T>::infinity())
             : rounded;
}

// Checks the arguments that every kind of suppression has.
inline void check_suppression(
    const char* op, const Tensor& boxes, const Tensor& scores, int64_t box_dim,
    const Tensor* idxs = nullptr) {
  check_shape(op, "boxes", boxes, {-1, box_dim});
  check_shape(op, "scores", scores, {boxes.size(0)});
  if (idxs) {
    check_shape(op, "idxs", *idxs, {boxes.size(0)});
  }
  visit_floating(boxes.scalar_type(), op, [](auto) {});
  visit_floating(scores.scalar_type(), op, [](auto) {});
}

}  // namespace detectron2
