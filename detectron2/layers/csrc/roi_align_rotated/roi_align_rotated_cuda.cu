// ROIAlign of rotated boxes on CUDA: one thread per output value.
#include "../common/cuda_launch.cuh"
#include "roi_align_rotated.h"
#include "roi_align_rotated_cuda.h"

namespace detectron2 {
namespace {

// Calls use(offset in the plane, weight) for the four cells of every sample of an output cell; weights sum to
// at most 1.
template <typename T, typename Use>
__device__ void for_each_cell(
    const T* box, int64_t row, int64_t column, const RoiAlignShape& s, T scale, int64_t ratio, Use use) {
  const RotatedGrid<T> grid(box, scale, s.pooled_height, s.pooled_width, ratio);
  const T share = grid.num_samples() > 0 ? T(1) / static_cast<T>(grid.num_samples()) : T(0);
  for (int64_t i = 0; i < grid.samples_y; ++i) {
    for (int64_t j = 0; j < grid.samples_x; ++j) {
      T y_position, x_position;
      grid.position(row, column, i, j, y_position, x_position);
      const LinearSample<T> y(y_position, s.height), x(x_position, s.width);
      if (!y.inside || !x.inside) {
        continue;
      }
      use(y.low * s.width + x.low, share * (T(1) - y.high_share) * (T(1) - x.high_share));
      use(y.low * s.width + x.high, share * (T(1) - y.high_share) * x.high_share);
      use(y.high * s.width + x.low, share * y.high_share * (T(1) - x.high_share));
      use(y.high * s.width + x.high, share * y.high_share * x.high_share);
    }
  }
}

__device__ int64_t box_of(int64_t index, const RoiAlignShape& s) {
  return index / (s.pooled_height * s.pooled_width * s.channels);
}

// Offset of the feature plane that an output value is pooled from.
template <typename T>
__device__ int64_t plane_offset(int64_t index, const T* boxes, const RoiAlignShape& s) {
  const int64_t box = box_of(index, s), channel = index / (s.pooled_height * s.pooled_width) % s.channels;
  return (static_cast<int64_t>(boxes[6 * box]) * s.channels + channel) * s.height * s.width;
}

template <typename T>
__global__ void forward_kernel(
    const T* input, const T* boxes, T* output, RoiAlignShape s, T scale, int64_t ratio, int64_t count) {
  D2_CUDA_LOOP(index, count) {
    const int64_t box = box_of(index, s);
    if (!names_image(boxes[6 * box], s.batch_size)) {
      output[index] = static_cast<T>(NAN);
      continue;
    }
    const T* plane = input + plane_offset(index, boxes, s);
    const int64_t row = index / s.pooled_width % s.pooled_height, column = index % s.pooled_width;
    T sum = T(0);
    for_each_cell(boxes + 6 * box + 1, row, column, s, scale, ratio, [&](int64_t cell, T weight) {
      sum += weight * plane[cell];
    });
    output[index] = sum;
  }
}

template <typename T>
__global__ void backward_kernel(
    const T* grad, const T* boxes, T* grad_input, RoiAlignShape s, T scale, int64_t ratio, int64_t count) {
  D2_CUDA_LOOP(index, count) {
    const int64_t box = box_of(index, s);
    if (!names_image(boxes[6 * box], s.batch_size)) {
      continue;
    }
    T* plane = grad_input + plane_offset(index, boxes, s);
    const int64_t row = index / s.pooled_width % s.pooled_height, column = index % s.pooled_width;
    const T value = grad[index];
    for_each_cell(boxes + 6 * box + 1, row, column, s, scale, ratio, [&](int64_t cell, T weight) {
      atomicAdd(plane + cell, weight * value);
    });
  }
}

int64_t num_outputs(const RoiAlignShape& s) {
  return s.num_boxes * s.channels * s.pooled_height * s.pooled_width;
}

}  // namespace

template <typename T>
cudaError_t launch_roi_align_rotated(
    const T* input, const T* boxes, T* output, RoiAlignShape shape, T spatial_scale, int64_t sampling_ratio,
    cudaStream_t stream) {
  const int64_t count = num_outputs(shape);
  if (count > 0) {
    forward_kernel<<<grid_size(count), kThreads, 0, stream>>>(
        input, boxes, output, shape, spatial_scale, sampling_ratio, count);
  }
  return cudaGetLastError();
}

template <typename T>
cudaError_t launch_roi_align_rotated_backward(
    const T* grad, const T* boxes, T* grad_input, RoiAlignShape shape, T spatial_scale,
    int64_t sampling_ratio, cudaStream_t stream) {
  const int64_t count = num_outputs(shape);
  if (count > 0) {
    backward_kernel<<<grid_size(count), kThreads, 0, stream>>>(
        grad, boxes, grad_input, shape, spatial_scale, sampling_ratio, count);
  }
  return cudaGetLastError();
}

#define D2_INSTANTIATE(T)                                               \
  template cudaError_t launch_roi_align_rotated<T>(                     \
      const T*, const T*, T*, RoiAlignShape, T, int64_t, cudaStream_t); \
  template cudaError_t launch_roi_align_rotated_backward<T>(            \
      const T*, const T*, T*, RoiAlignShape, T, int64_t, cudaStream_t);
D2_INSTANTIATE(float)
D2_INSTANTIATE(double)
#undef D2_INSTANTIATE

}  // namespace detectron2
