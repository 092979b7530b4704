// Multi-scale deformable attention: where it samples, shared by the CPU and CUDA kernels.
//
// Shapes: N images, S cells of all feature levels together, M heads of D channels, Q queries, L levels,
// P points per query, head and level.
//   value (N, S, M, D); spatial_shapes (L, 2) rows and columns; level_start_index (L,), all in memory order;
//   sampling_locations (N, Q, M, L, P, 2), x before y, in [0, 1] over a level; attention_weights
//   (N, Q, M, L, P); output (N, Q, M, D).
// A level's cell (i, j) has its centre at ((j + 0.5) / columns, (i + 0.5) / rows); around a level values are
// 0.
#pragma once

#include <cstdint>

#include "../common/host_device.h"

namespace detectron2 {

struct MsDeformShape {
  int64_t num_images, num_cells, num_heads, channels, num_queries, num_levels, num_points;

  D2_HOST_DEVICE int64_t samples_per_head() const { return num_levels * num_points; }
  // Numbers from a cell of a head to the next cell, and of an image.
  D2_HOST_DEVICE int64_t cell_stride() const { return num_heads * channels; }
  D2_HOST_DEVICE int64_t image_stride() const { return num_cells * cell_stride(); }
};

// What the kernels read.
template <typename T>
struct MsDeformInputs {
  const T* value;
  const int64_t* spatial_shapes;
  const int64_t* level_start_index;
  const T* sampling_locations;
  const T* attention_weights;
};

struct FeatureLevel {
  int64_t height, width, start;

  D2_HOST_DEVICE FeatureLevel(const int64_t* spatial_shapes, const int64_t* level_start_index, int64_t level)
      : height(spatial_shapes[2 * level]),
        width(spatial_shapes[2 * level + 1]),
        start(level_start_index[level]) {}

  // Whether its cells are among `num_cells`; nothing overflows, whatever the numbers.
  D2_HOST_DEVICE bool fits(int64_t num_cells) const {
    return height >= 0 && width >= 0 && start >= 0 && start <= num_cells &&
           (width == 0 || height <= (num_cells - start) / width);
  }
};

// Four cells around a sample; one that is outside of the level has index -1 and weight 0.
template <typename T>
struct MsDeformSample {
  int64_t cells[4];  // among all S: top left, top right, bottom left, bottom right
  T weights[4];
  T x_slopes[4], y_slopes[4];  // derivatives of the weights by the location
  bool inside;                 // else no cell is near, or the location is no number

  D2_HOST_DEVICE MsDeformSample(const FeatureLevel& level, T location_x, T location_y) {
    const T rows = static_cast<T>(level.height), columns = static_cast<T>(level.width);
    const T y = location_y * rows - T(0.5), x = location_x * columns - T(0.5);
    inside = y > T(-1) && x > T(-1) && y < rows && x < columns;
    const int64_t top = inside ? lower_integer(y) : 0, left = inside ? lower_integer(x) : 0;
    const T down = y - static_cast<T>(top), right = x - static_cast<T>(left);
    const bool has_row[2] = {inside && top >= 0, inside && top + 1 < level.height};
    const bool has_column[2] = {left >= 0, left + 1 < level.width};
    const T by_row[2] = {T(1) - down, down}, by_column[2] = {T(1) - right, right};
    for (int corner = 0; corner < 4; ++corner) {
      const int i = corner / 2, j = corner % 2;
      const bool counts = has_row[i] && has_column[j];
      cells[corner] = counts ? level.start + (top + i) * level.width + left + j : -1;
      weights[corner] = counts ? by_row[i] * by_column[j] : T(0);
      x_slopes[corner] = counts ? (j ? by_row[i] : -by_row[i]) * columns : T(0);
      y_slopes[corner] = counts ? (i ? by_column[j] : -by_column[j]) * rows : T(0);
    }
  }

 private:
  // The largest integer that is not above a number between -1 and 2**62.
  D2_HOST_DEVICE static int64_t lower_integer(T number) {
    const int64_t towards_zero = static_cast<int64_t>(number);
    return towards_zero - (number < static_cast<T>(towards_zero) ? 1 : 0);
  }
};

}  // namespace detectron2
