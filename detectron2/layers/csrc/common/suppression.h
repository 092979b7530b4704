// Non-maximum suppression of any kind of box on the CPU: the loop, and the groups it runs over.
//
// `Boxes` holds the boxes of a group in the order of their scores and decides one pair or a range of pairs:
//   Boxes(data, order, count)
//   void suppress(i, first, last, suppressed)  marks those of [first, last) that box i overlaps too much
//   kBoxesPerBlock                             how many are decided together
//   kBoxesPerThread, kPairsPerThread           what a thread must get before waiting for it pays
#pragma once

#include <algorithm>
#include <vector>

#include "score_order.h"
#include "tensor.h"

namespace detectron2 {

// Writes 1 to keep[order[i]] for every box of a group that no better kept box overlaps.
template <typename Boxes>
void sweep(const Boxes& boxes, const int64_t* order, int64_t count, uint8_t* keep) {
  std::vector<uint8_t> suppressed(count, 0);
  std::vector<int64_t> survivors;
  // A block of the best boxes is decided in order; what its survivors suppress behind it needs no order.
  for (int64_t first = 0; first < count; first += Boxes::kBoxesPerBlock) {
    const int64_t last = std::min(first + Boxes::kBoxesPerBlock, count);
    survivors.clear();
    for (int64_t i = first; i < last; ++i) {
      if (!suppressed[i]) {
        keep[order[i]] = 1;
        survivors.push_back(i);
        boxes.suppress(i, i + 1, last, suppressed.data());
      }
    }
    torch::stable::parallel_for(last, count, Boxes::kBoxesPerThread, [&](int64_t begin, int64_t end) {
      for (int64_t i : survivors) {
        boxes.suppress(i, begin, end, suppressed.data());
      }
    });
  }
}

// The kept ones of all boxes, or where `idxs` is given of every group of them: (K,) int64 by falling score.
// make_boxes(order, count) makes the Boxes of a group.
template <typename MakeBoxes>
Tensor kept_boxes(
    const Tensor& boxes, const Tensor& scores, const Tensor* idxs, const MakeBoxes& make_boxes) {
  using Boxes = decltype(make_boxes(nullptr, 0));
  std::vector<uint8_t> keep(boxes.size(0), 0);
  const auto order = order_by_score(scores);
  const auto sweep_group = [&](const int64_t* indices, int64_t count) {
    const Boxes group = make_boxes(indices, count);
    sweep(group, indices, count, keep.data());
  };
  if (idxs) {
    GroupedOrder(order, *idxs).for_each(Boxes::kPairsPerThread, sweep_group);
  } else {
    sweep_group(order.data(), boxes.size(0));
  }
  return kept_indices(boxes, order, keep);
}

}  // namespace detectron2
