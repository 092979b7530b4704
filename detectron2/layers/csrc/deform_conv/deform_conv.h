// Deformable convolution: where it samples, shared by the CPU and CUDA kernels, and the two kernels of each
// device.
//
// Shapes: C input channels of H x W, O output channels of HO x WO, K = KH * KW kernel positions, L = HO * WO,
// G deformable groups of C / G channels that share offsets. Of one image:
//   input (C, H, W); offset (G, K, 2, HO, WO), y before x; mask (G, K, HO, WO); columns (C, K, L).
#pragma once

#include <cmath>
#include <cstdint>

#include "../common/host_device.h"

namespace detectron2 {

struct DeformGeometry {
  int64_t channels, height, width;
  int64_t kernel_height, kernel_width;
  int64_t stride_height, stride_width, padding_height, padding_width, dilation_height, dilation_width;
  int64_t deformable_groups;
  int64_t output_height, output_width;

  D2_HOST_DEVICE int64_t kernel_size() const { return kernel_height * kernel_width; }
  D2_HOST_DEVICE int64_t output_size() const { return output_height * output_width; }
  D2_HOST_DEVICE int64_t plane_size() const { return height * width; }
  D2_HOST_DEVICE int64_t channels_per_group() const { return channels / deformable_groups; }
};

// The four feature cells around a sample; a cell outside the map has weight 0 and index 0.
template <typename T>
struct DeformTap {
  int64_t cells[4];  // top left, top right, bottom left, bottom right
  T weights[4];
  T y_slopes[4], x_slopes[4];  // derivatives of the weights

  // Kernel position k at output position l, moved by the offset (dy, dx).
  D2_HOST_DEVICE DeformTap(const DeformGeometry& g, int64_t k, int64_t l, T dy, T dx) {
    const int64_t row = l / g.output_width, column = l % g.output_width;
    const int64_t i = k / g.kernel_width, j = k % g.kernel_width;
    const T y = static_cast<T>(row * g.stride_height - g.padding_height + i * g.dilation_height) + dy;
    const T x = static_cast<T>(column * g.stride_width - g.padding_width + j * g.dilation_width) + dx;
    const bool inside = y > T(-1) && x > T(-1) && y < static_cast<T>(g.height) && x < static_cast<T>(g.width);
    const T top = inside ? std::floor(y) : T(0), left = inside ? std::floor(x) : T(0);
    const T down = y - top, right = x - left;
    for (int corner = 0; corner < 4; ++corner) {
      const int64_t cy = static_cast<int64_t>(top) + corner / 2, cx = static_cast<int64_t>(left) + corner % 2;
      const bool counts = inside && cy >= 0 && cx >= 0 && cy < g.height && cx < g.width;
      const T wy = corner / 2 ? down : T(1) - down, wx = corner % 2 ? right : T(1) - right;
      cells[corner] = counts ? cy * g.width + cx : 0;
      weights[corner] = counts ? wy * wx : T(0);
      y_slopes[corner] = counts ? (corner / 2 ? wx : -wx) : T(0);
      x_slopes[corner] = counts ? (corner % 2 ? wy : -wy) : T(0);
    }
  }

  D2_HOST_DEVICE static T dot(const T* plane, const int64_t* cells, const T* weights) {
    return plane[cells[0]] * weights[0] + plane[cells[1]] * weights[1] + plane[cells[2]] * weights[2] +
           plane[cells[3]] * weights[3];
  }
};

}  // namespace detectron2
