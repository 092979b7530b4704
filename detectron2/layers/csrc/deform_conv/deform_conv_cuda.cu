// Sampling of deformable convolution on CUDA. Columns are (C, K, L), so that neighbouring threads write next
// to each other and read near each other.
#include "../common/cuda_launch.cuh"
#include "deform_conv_cuda.h"

namespace detectron2 {
namespace {

// The samples of kernel position k at output position l in a deformable group.
template <typename T>
__device__ DeformTap<T> tap_at(
    const DeformGeometry& g, const T* offset, int64_t group, int64_t k, int64_t l) {
  const T* dy = offset + ((group * g.kernel_size() + k) * 2) * g.output_size() + l;
  return DeformTap<T>(g, k, l, dy[0], dy[g.output_size()]);
}

template <typename T>
__global__ void columns_kernel(
    DeformGeometry g, const T* input, const T* offset, const T* mask, T* columns, int64_t count) {
  const int64_t num_outputs = g.output_size(), num_taps = g.kernel_size();
  D2_CUDA_LOOP(index, count) {
    const int64_t l = index % num_outputs, k = index / num_outputs % num_taps,
                  c = index / (num_outputs * num_taps);
    const int64_t group = c / g.channels_per_group();
    const DeformTap<T> tap = tap_at(g, offset, group, k, l);
    const T value = DeformTap<T>::dot(input + c * g.plane_size(), tap.cells, tap.weights);
    columns[index] = mask ? value * mask[(group * num_taps + k) * num_outputs + l] : value;
  }
}

template <typename T>
__global__ void input_gradient_kernel(
    DeformGeometry g, const T* grad, const T* offset, const T* mask, T* grad_input, int64_t count) {
  const int64_t num_outputs = g.output_size(), num_taps = g.kernel_size();
  D2_CUDA_LOOP(index, count) {
    const int64_t l = index % num_outputs, k = index / num_outputs % num_taps,
                  c = index / (num_outputs * num_taps);
    const int64_t group = c / g.channels_per_group();
    const DeformTap<T> tap = tap_at(g, offset, group, k, l);
    const T value = mask ? grad[index] * mask[(group * num_taps + k) * num_outputs + l] : grad[index];
    T* plane = grad_input + c * g.plane_size();
    for (int corner = 0; corner < 4; ++corner) {
      if (tap.weights[corner] != T(0)) {
        atomicAdd(plane + tap.cells[corner], value * tap.weights[corner]);
      }
    }
  }
}

// One thread per sample, summing over the channels of its group.
template <typename T>
__global__ void sample_gradient_kernel(
    DeformGeometry g, const T* grad, const T* input, const T* offset, const T* mask, T* grad_offset,
    T* grad_mask, int64_t count) {
  const int64_t num_outputs = g.output_size(), num_taps = g.kernel_size();
  D2_CUDA_LOOP(index, count) {
    const int64_t l = index % num_outputs, k = index / num_outputs % num_taps;
    const int64_t group = index / (num_outputs * num_taps), first = group * g.channels_per_group();
    const DeformTap<T> tap = tap_at(g, offset, group, k, l);
    T dy = T(0), dx = T(0), dm = T(0);
    for (int64_t c = first; c < first + g.channels_per_group(); ++c) {
      const T* plane = input + c * g.plane_size();
      const T value = grad[(c * num_taps + k) * num_outputs + l];
      dy += value * DeformTap<T>::dot(plane, tap.cells, tap.y_slopes);
      dx += value * DeformTap<T>::dot(plane, tap.cells, tap.x_slopes);
      dm += value * DeformTap<T>::dot(plane, tap.cells, tap.weights);
    }
    const T weight = mask ? mask[index] : T(1);
    T* out = grad_offset + ((group * num_taps + k) * 2) * num_outputs + l;
    out[0] = dy * weight;
    out[num_outputs] = dx * weight;
    if (grad_mask) {
      grad_mask[index] = dm;
    }
  }
}

}  // namespace

template <typename T>
cudaError_t launch_columns(
    DeformGeometry g, const T* input, const T* offset, const T* mask, T* columns, cudaStream_t stream) {
  const int64_t count = g.channels * g.kernel_size() * g.output_size();
  if (count > 0) {
    columns_kernel<<<grid_size(count), kThreads, 0, stream>>>(g, input, offset, mask, columns, count);
  }
  return cudaGetLastError();
}

template <typename T>
cudaError_t launch_columns_backward(
    DeformGeometry g, const T* grad, const T* input, const T* offset, const T* mask, T* grad_input,
    T* grad_offset, T* grad_mask, cudaStream_t stream) {
  const int64_t count = g.channels * g.kernel_size() * g.output_size();
  const int64_t num_samples = g.deformable_groups * g.kernel_size() * g.output_size();
  if (count > 0) {
    input_gradient_kernel<<<grid_size(count), kThreads, 0, stream>>>(
        g, grad, offset, mask, grad_input, count);
  }
  if (num_samples > 0) {
    sample_gradient_kernel<<<grid_size(num_samples), kThreads, 0, stream>>>(
        g, grad, input, offset, mask, grad_offset, grad_mask, num_samples);
  }
  return cudaGetLastError();
}

#define D2_INSTANTIATE(T)                                                                                 \
  template cudaError_t launch_columns<T>(DeformGeometry, const T*, const T*, const T*, T*, cudaStream_t); \
  template cudaError_t launch_columns_backward<T>(                                                        \
      DeformGeometry, const T*, const T*, const T*, const T*, T*, T*, T*, cudaStream_t);
D2_INSTANTIATE(float)
D2_INSTANTIATE(double)
#undef D2_INSTANTIATE

}  // namespace detectron2
