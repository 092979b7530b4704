// Multi-scale deformable attention on CUDA.
//
// Forward: one thread per output number; the threads of a head read neighbouring channels of the same cells.
// Backward: one warp per query and head, a thread per channel and every 32nd after it; the sums over channels
// that a location and a weight need are taken inside the warp, in a fixed order.
#include "../common/cuda_launch.cuh"
#include "ms_deform_attn_cuda.h"

namespace detectron2 {
namespace {

constexpr int kWarp = 32;
constexpr unsigned kAllThreads = 0xffffffffu;

template <typename T>
__global__ void forward_kernel(MsDeformShape s, MsDeformInputs<T> in, T* output, int64_t count) {
  const int64_t stride = s.cell_stride();
  D2_CUDA_LOOP(index, count) {
    const int64_t query_head = index / s.channels, n = query_head / (s.num_heads * s.num_queries);
    const T* channel = in.value + n * s.image_stride() + index % stride;
    const T* location = in.sampling_locations + query_head * s.samples_per_head() * 2;
    const T* weight = in.attention_weights + query_head * s.samples_per_head();
    T sum = T(0);
    for (int64_t l = 0; l < s.num_levels; ++l) {
      const FeatureLevel level(in.spatial_shapes, in.level_start_index, l);
      if (!level.fits(s.num_cells)) {
        sum = static_cast<T>(NAN);
        break;
      }
      for (int64_t p = 0; p < s.num_points; ++p) {
        const int64_t i = l * s.num_points + p;
        const MsDeformSample<T> sample(level, location[2 * i], location[2 * i + 1]);
        if (!sample.inside) {
          continue;
        }
        for (int corner = 0; corner < 4; ++corner) {
          if (sample.cells[corner] >= 0) {
            sum += weight[i] * sample.weights[corner] * channel[sample.cells[corner] * stride];
          }
        }
      }
    }
    output[index] = sum;
  }
}

template <typename T>
__device__ T sum_of_warp(T number) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    number += __shfl_down_sync(kAllThreads, number, distance);
  }
  return number;  // in the first thread
}

template <typename T>
__global__ void backward_kernel(
    MsDeformShape s, MsDeformInputs<T> in, const T* grad, T* grad_value, T* grad_locations, T* grad_weights,
    int64_t num_query_heads) {
  const int lane = threadIdx.x % kWarp;
  const int64_t stride = s.cell_stride(), warps_per_block = blockDim.x / kWarp;
  const int64_t first = blockIdx.x * warps_per_block + threadIdx.x / kWarp;
  for (int64_t query_head = first; query_head < num_query_heads; query_head += gridDim.x * warps_per_block) {
    const int64_t n = query_head / (s.num_heads * s.num_queries), head = query_head % s.num_heads;
    const int64_t offset = n * s.image_stride() + head * s.channels;
    const T* head_grad = grad + query_head * s.channels;
    for (int64_t i = 0; i < s.samples_per_head(); ++i) {
      const int64_t at = query_head * s.samples_per_head() + i;
      const FeatureLevel level(in.spatial_shapes, in.level_start_index, i / s.num_points);
      T by_weight = T(0), by_x = T(0), by_y = T(0);
      const MsDeformSample<T> sample(level, in.sampling_locations[2 * at], in.sampling_locations[2 * at + 1]);
      // All threads of a warp see the same sample, and go the same way.
      if (sample.inside && level.fits(s.num_cells)) {
        const T weight = in.attention_weights[at];
        for (int64_t d = lane; d < s.channels; d += kWarp) {
          for (int corner = 0; corner < 4; ++corner) {
            if (sample.cells[corner] >= 0) {
              const int64_t cell = offset + sample.cells[corner] * stride + d;
              const T product = head_grad[d] * in.value[cell];
              by_weight += sample.weights[corner] * product;
              by_x += sample.x_slopes[corner] * product;
              by_y += sample.y_slopes[corner] * product;
              atomicAdd(grad_value + cell, weight * sample.weights[corner] * head_grad[d]);
            }
          }
        }
        by_weight = sum_of_warp(by_weight);
        by_x = weight * sum_of_warp(by_x);
        by_y = weight * sum_of_warp(by_y);
      }
      if (lane == 0) {
        grad_weights[at] = by_weight;
        grad_locations[2 * at] = by_x;
        grad_locations[2 * at + 1] = by_y;
      }
    }
  }
}

}  // namespace

template <typename T>
cudaError_t launch_ms_deform_attn(MsDeformShape shape, MsDeformInputs<T> in, T* output, cudaStream_t stream) {
  const int64_t count = shape.num_images * shape.num_queries * shape.cell_stride();
  if (count > 0) {
    forward_kernel<<<grid_size(count), kThreads, 0, stream>>>(shape, in, output, count);
  }
  return cudaGetLastError();
}

template <typename T>
cudaError_t launch_ms_deform_attn_backward(
    MsDeformShape shape, MsDeformInputs<T> in, const T* grad, T* grad_value, T* grad_locations,
    T* grad_weights, cudaStream_t stream) {
  const int64_t count = shape.num_images * shape.num_queries * shape.num_heads;
  if (count > 0) {
    backward_kernel<<<grid_size(count * kWarp), kThreads, 0, stream>>>(
        shape, in, grad, grad_value, grad_locations, grad_weights, count);
  }
  return cudaGetLastError();
}

#define D2_INSTANTIATE(T)                                                                            \
  template cudaError_t launch_ms_deform_attn<T>(MsDeformShape, MsDeformInputs<T>, T*, cudaStream_t); \
  template cudaError_t launch_ms_deform_attn_backward<T>(                                            \
      MsDeformShape, MsDeformInputs<T>, const T*, T*, T*, T*, cudaStream_t);
D2_INSTANTIATE(float)
D2_INSTANTIATE(double)
#undef D2_INSTANTIATE

}  // namespace detectron2
