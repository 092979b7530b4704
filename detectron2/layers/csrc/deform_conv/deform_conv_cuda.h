// The CUDA kernels of deformable convolution, for one image, T = float or double; all pointers are device
// memory.
#pragma once

#include <cuda_runtime.h>

#include "deform_conv.h"

namespace detectron2 {

// Shapes as in deform_conv.h; mask may be null.
template <typename T>
cudaError_t launch_columns(
    DeformGeometry g, const T* input, const T* offset, const T* mask, T* columns, cudaStream_t stream);

// From the gradient of the columns: adds to grad_input (C, H, W), in an order that differs from run to run,
// and writes grad_offset and, unless null, grad_mask.
template <typename T>
cudaError_t launch_columns_backward(
    DeformGeometry g, const T* grad, const T* input, const T* offset, const T* mask, T* grad_input,
    T* grad_offset, T* grad_mask, cudaStream_t stream);

}  // namespace detectron2
