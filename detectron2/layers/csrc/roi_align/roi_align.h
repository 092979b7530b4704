// Where ROIAlign samples a feature map: maths shared by the CPU and CUDA kernels.
//
// Positions are in feature cells; cell i has its centre at position i (aligned boxes are shifted by half a
// cell first).
#pragma once

#include <cmath>
#include <cstdint>

#include "../common/host_device.h"

namespace detectron2 {

// Of an adaptive output cell along an axis: float cannot count further.
constexpr int64_t kMaxSamples = int64_t(1) << 24;

// Whether the first number of a box is the index of one of `batch_size` images; NaN is not.
template <typename T>
D2_HOST_DEVICE bool names_image(T index, int64_t batch_size) {
  return index >= T(0) && index < static_cast<T>(batch_size);
}

// One box along one axis.
template <typename T>
struct SampledAxis {
  T start;              // first edge of the box
  T cell_size;          // extent of an output cell
  int64_t num_samples;  // per output cell; 0 for a box that pools nothing

  D2_HOST_DEVICE SampledAxis(
      T low, T high, T scale, int64_t num_cells, int64_t sampling_ratio, bool aligned) {
    start = low * scale - (aligned ? T(0.5) : T(0));
    T extent = high * scale - (aligned ? T(0.5) : T(0)) - start;
    if (!aligned && !(extent >= T(1))) {
      extent = extent == extent ? T(1) : extent;  // NaN stays
    }
    cell_size = extent / static_cast<T>(num_cells);
    const bool finite = start - start == T(0) && extent - extent == T(0);
    const T wanted = sampling_ratio > 0 ? static_cast<T>(sampling_ratio) : std::ceil(cell_size);
    const T limited = wanted < static_cast<T>(kMaxSamples) ? wanted : static_cast<T>(kMaxSamples);
    num_samples = finite && wanted > T(0) ? static_cast<int64_t>(limited) : 0;
  }

  // Samples [first, last) of output cell `cell` hold all that lie on a map of `size` cells: of a huge box,
  // few do.
  D2_HOST_DEVICE void samples_on_map(int64_t cell, int64_t size, int64_t& first, int64_t& last) const {
    first = 0, last = num_samples;
    if (num_samples > size && cell_size > T(0)) {
      const T per_sample = static_cast<T>(num_samples) / cell_size, most = static_cast<T>(num_samples);
      const T cell_start = start + static_cast<T>(cell) * cell_size;
      const T before = (T(-1) - cell_start) * per_sample - T(2);
      const T after = (static_cast<T>(size) - cell_start) * per_sample + T(2);
      first = before > T(0) ? static_cast<int64_t>(before < most ? before : most) : 0;
      last = after < most ? (after > T(0) ? static_cast<int64_t>(after) : 0) : num_samples;
    }
  }

  // Position of sample `i` of output cell `cell`.
  D2_HOST_DEVICE T position(int64_t cell, int64_t i) const {
    const T step = cell_size / static_cast<T>(num_samples);
    return start + static_cast<T>(cell) * cell_size + (static_cast<T>(i) + T(0.5)) * step;
  }
};

// The two cells around a position and the share of the second; a position that counts as outside has `inside`
// false.
template <typename T>
struct LinearSample {
  int64_t low, high;
  T high_share;
  bool inside;

  D2_HOST_DEVICE LinearSample(T position, int64_t size) {
    inside = size > 0 && position >= T(-1) && position <= static_cast<T>(size);
    const T last = static_cast<T>(size - 1);
    const T clamped = position < T(0) ? T(0) : (position > last ? last : position);
    low = inside ? static_cast<int64_t>(clamped) : 0;
    high = low + 1 < size ? low + 1 : low;
    high_share = inside ? clamped - static_cast<T>(low) : T(0);
  }
};

}  // namespace detectron2
