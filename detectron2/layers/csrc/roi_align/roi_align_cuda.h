// The CUDA kernels of ROIAlign, T = float or double; all pointers are device memory.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "roi_align_shape.h"

namespace detectron2 {

template <typename T>
struct RoiAlignSettings {
  T spatial_scale;
  int64_t sampling_ratio;
  bool aligned;
};

// input (N, C, H, W), boxes (R, 5) -> output (R, C, PH, PW)
template <typename T>
cudaError_t launch_roi_align(
    const T* input, const T* boxes, T* output, RoiAlignShape shape, RoiAlignSettings<T> settings,
    cudaStream_t stream);

// grad (R, C, PH, PW) is added to grad_input (N, C, H, W), in an order that differs from run to run.
template <typename T>
cudaError_t launch_roi_align_backward(
    const T* grad, const T* boxes, T* grad_input, RoiAlignShape shape, RoiAlignSettings<T> settings,
    cudaStream_t stream);

}  // namespace detectron2
