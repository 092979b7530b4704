// Where a pasted mask is sampled: maths shared by the CPU and CUDA kernels.
//
// The mask's outer edges lie on the edges of its box, and an image pixel takes the bilinear sample at its
// centre; what lies outside the mask is 0. Bilinear weights are products of one weight per axis.
#pragma once

#include <cmath>
#include <cstdint>

#include "../common/host_device.h"

namespace detectron2 {

// Whether a box has finite edges in their order along an axis; no other one shows anything.
template <typename T>
D2_HOST_DEVICE bool is_proper(T start, T end) {
  return end > start && end - start - (end - start) == T(0);
}

// A probability as a number from 0 to 255; NaN is 0.
template <typename T>
D2_HOST_DEVICE uint8_t as_level(T value) {
  const T scaled = value * T(255);
  return scaled > T(0) ? static_cast<uint8_t>(scaled < T(255) ? scaled : T(255)) : uint8_t(0);
}

// The two mask cells that an image row or column mixes, along one axis; weights are 0 outside the mask.
template <typename T>
struct MaskTap {
  int64_t low, high;
  T low_weight, high_weight;

  D2_HOST_DEVICE MaskTap() : low(0), high(0), low_weight(0), high_weight(0) {}

  // `pixel` of the image; the box spans [start, end] and the mask has `size` cells.
  D2_HOST_DEVICE MaskTap(int64_t pixel, T start, T end, int64_t size) : MaskTap() {
    // The steps and their order are those of grid_sample, for equal rounding.
    const T normalized = (static_cast<T>(pixel) + T(0.5) - start) / (end - start) * T(2) - T(1);
    const T position = ((normalized + T(1)) * static_cast<T>(size) - T(1)) / T(2);
    if (!(position > T(-1) && position < static_cast<T>(size))) {
      return;  // outside, and NaN
    }
    const T floor = std::floor(position);
    const int64_t cell = static_cast<int64_t>(floor);
    const T share = position - floor;
    low_weight = cell >= 0 ? T(1) - share : T(0);
    high_weight = cell + 1 < size ? share : T(0);
    low = cell >= 0 ? cell : 0;
    high = cell + 1 < size ? cell + 1 : size - 1;
  }

  D2_HOST_DEVICE bool inside() const { return low_weight > T(0) || high_weight > T(0); }
};

}  // namespace detectron2
