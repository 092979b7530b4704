// ROIAlign on CUDA: one thread per output value. Neighbouring threads share a row of output cells, and so
// most of their reads.
#include "../common/cuda_launch.cuh"
#include "roi_align.h"
#include "roi_align_cuda.h"

namespace detectron2 {
namespace {

// What a thread works on: one output cell of one box and channel.
template <typename T>
struct Cell {
  int64_t row, column, channel, box;
  SampledAxis<T> y, x;
  int64_t first_y, last_y, first_x, last_x;  // samples that may lie on the map

  __device__ Cell(int64_t index, const T* boxes, const RoiAlignShape& s, const RoiAlignSettings<T>& o)
      : row(index / s.pooled_width % s.pooled_height),
        column(index % s.pooled_width),
        channel(index / (s.pooled_width * s.pooled_height) % s.channels),
        box(index / (s.pooled_width * s.pooled_height * s.channels)),
        y(boxes[5 * box + 2], boxes[5 * box + 4], o.spatial_scale, s.pooled_height, o.sampling_ratio,
          o.aligned),
        x(boxes[5 * box + 1], boxes[5 * box + 3], o.spatial_scale, s.pooled_width, o.sampling_ratio,
          o.aligned) {
    y.samples_on_map(row, s.height, first_y, last_y);
    x.samples_on_map(column, s.width, first_x, last_x);
  }

  // Offset of the feature plane that the box lies on.
  __device__ int64_t plane(const T* boxes, const RoiAlignShape& s) const {
    return (static_cast<int64_t>(boxes[5 * box]) * s.channels + channel) * s.height * s.width;
  }
};

template <typename T>
__global__ void forward_kernel(
    const T* input, const T* boxes, T* output, RoiAlignShape s, RoiAlignSettings<T> o, int64_t count) {
  D2_CUDA_LOOP(index, count) {
    const Cell<T> cell(index, boxes, s, o);
    if (!names_image(boxes[5 * cell.box], s.batch_size)) {
      output[index] = static_cast<T>(NAN);
      continue;
    }
    const T* plane = input + cell.plane(boxes, s);
    T sum = T(0);
    for (int64_t i = cell.first_y; i < cell.last_y; ++i) {
      const LinearSample<T> y(cell.y.position(cell.row, i), s.height);
      if (!y.inside) {
        continue;
      }
      const T *low = plane + y.low * s.width, *high = plane + y.high * s.width;
      for (int64_t j = cell.first_x; j < cell.last_x; ++j) {
        const LinearSample<T> x(cell.x.position(cell.column, j), s.width);
        if (x.inside) {
          const T left = low[x.low] + y.high_share * (high[x.low] - low[x.low]);
          const T right = low[x.high] + y.high_share * (high[x.high] - low[x.high]);
          sum += left + x.high_share * (right - left);
        }
      }
    }
    const int64_t num_samples = cell.y.num_samples * cell.x.num_samples;
    output[index] = num_samples > 0 ? sum / static_cast<T>(num_samples) : T(0);
  }
}

template <typename T>
__global__ void backward_kernel(
    const T* grad, const T* boxes, T* grad_input, RoiAlignShape s, RoiAlignSettings<T> o, int64_t count) {
  D2_CUDA_LOOP(index, count) {
    const Cell<T> cell(index, boxes, s, o);
    if (!names_image(boxes[5 * cell.box], s.batch_size)) {
      continue;
    }
    T* plane = grad_input + cell.plane(boxes, s);
    const int64_t num_samples = cell.y.num_samples * cell.x.num_samples;
    const T share = num_samples > 0 ? grad[index] / static_cast<T>(num_samples) : T(0);
    for (int64_t i = cell.first_y; i < cell.last_y; ++i) {
      const LinearSample<T> y(cell.y.position(cell.row, i), s.height);
      if (!y.inside) {
        continue;
      }
      T *low = plane + y.low * s.width, *high = plane + y.high * s.width;
      for (int64_t j = cell.first_x; j < cell.last_x; ++j) {
        const LinearSample<T> x(cell.x.position(cell.column, j), s.width);
        if (x.inside) {
          atomicAdd(low + x.low, share * (T(1) - y.high_share) * (T(1) - x.high_share));
          atomicAdd(low + x.high, share * (T(1) - y.high_share) * x.high_share);
          atomicAdd(high + x.low, share * y.high_share * (T(1) - x.high_share));
          atomicAdd(high + x.high, share * y.high_share * x.high_share);
        }
      }
    }
  }
}

int64_t num_outputs(const RoiAlignShape& s) {
  return s.num_boxes * s.channels * s.pooled_height * s.pooled_width;
}

}  // namespace

template <typename T>
cudaError_t launch_roi_align(
    const T* input, const T* boxes, T* output, RoiAlignShape shape, RoiAlignSettings<T> settings,
    cudaStream_t stream) {
  const int64_t count = num_outputs(shape);
  if (count > 0) {
    forward_kernel<<<grid_size(count), kThreads, 0, stream>>>(input, boxes, output, shape, settings, count);
  }
  return cudaGetLastError();
}

template <typename T>
cudaError_t launch_roi_align_backward(
    const T* grad, const T* boxes, T* grad_input, RoiAlignShape shape, RoiAlignSettings<T> settings,
    cudaStream_t stream) {
  const int64_t count = num_outputs(shape);
  if (count > 0) {
    backward_kernel<<<grid_size(count), kThreads, 0, stream>>>(
        grad, boxes, grad_input, shape, settings, count);
  }
  return cudaGetLastError();
}

#define D2_INSTANTIATE(T)                                                        \
  template cudaError_t launch_roi_align<T>(                                      \
      const T*, const T*, T*, RoiAlignShape, RoiAlignSettings<T>, cudaStream_t); \
  template cudaError_t launch_roi_align_backward<T>(                             \
      const T*, const T*, T*, RoiAlignShape, RoiAlignSettings<T>, cudaStream_t);
D2_INSTANTIATE(float)
D2_INSTANTIATE(double)
#undef D2_INSTANTIATE

}  // namespace detectron2
