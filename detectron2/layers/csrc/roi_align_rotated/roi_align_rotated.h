// Where ROIAlign of rotated boxes samples a feature map: maths shared by the CPU and CUDA kernels.
#pragma once

#include <cmath>
#include <cstdint>

#include "../roi_align/roi_align.h"

namespace detectron2 {

// Of an output cell along an axis; a larger box is sampled more coarsely.
constexpr int64_t kMaxRotatedSamples = 1024;

// A grid of samples in a box (centre x, centre y, width, height, degrees counter-clockwise), in feature
// cells.
template <typename T>
struct RotatedGrid {
  T centre_y, centre_x, cos, sin;
  T cell_height, cell_width, start_y, start_x;  // of output cells, in the frame of the box
  int64_t samples_y, samples_x;                 // per output cell; 0 for a box that pools nothing

  // box: the five numbers, without the image index.
  D2_HOST_DEVICE RotatedGrid(
      const T* box, T scale, int64_t num_rows, int64_t num_columns, int64_t sampling_ratio) {
    centre_x = box[0] * scale - T(0.5);
    centre_y = box[1] * scale - T(0.5);
    const T width = box[2] * scale, height = box[3] * scale;
    const T angle = box[4] * T(0.017453292519943295);
    cos = std::cos(angle), sin = std::sin(angle);
    cell_height = height / static_cast<T>(num_rows), cell_width = width / static_cast<T>(num_columns);
    start_y = -height / T(2), start_x = -width / T(2);
    const T sum = centre_x + centre_y + width + height + angle;
    const bool finite = sum - sum == T(0);
    const T wanted_y = sampling_ratio > 0 ? static_cast<T>(sampling_ratio) : std::ceil(cell_height);
    const T wanted_x = sampling_ratio > 0 ? static_cast<T>(sampling_ratio) : std::ceil(cell_width);
    const T most = sampling_ratio > 0 ? static_cast<T>(sampling_ratio) : static_cast<T>(kMaxRotatedSamples);
    samples_y = finite && wanted_y > T(0) ? static_cast<int64_t>(wanted_y < most ? wanted_y : most) : 0;
    samples_x = finite && wanted_x > T(0) ? static_cast<int64_t>(wanted_x < most ? wanted_x : most) : 0;
  }

  D2_HOST_DEVICE int64_t num_samples() const { return samples_y * samples_x; }

  // Position of sample (i, j) of output cell (row, column).
  D2_HOST_DEVICE void position(int64_t row, int64_t column, int64_t i, int64_t j, T& y, T& x) const {
    const T up = start_y + static_cast<T>(row) * cell_height +
                 (static_cast<T>(i) + T(0.5)) * cell_height / static_cast<T>(samples_y);
    const T across = start_x + static_cast<T>(column) * cell_width +
                     (static_cast<T>(j) + T(0.5)) * cell_width / static_cast<T>(samples_x);
    y = up * cos - across * sin + centre_y;
    x = up * sin + across * cos + centre_x;
  }
};

}  // namespace detectron2
