// The CUDA kernels of multi-scale deformable attention, T = float or double; all pointers are device memory.
//
// What the level tensors hold is not checked on the host, which would wait for the GPU: a level whose cells
// are not all there gives NaN, and no gradient.
#pragma once

#include <cuda_runtime.h>

#include "ms_deform_attn.h"

namespace detectron2 {

template <typename T>
cudaError_t launch_ms_deform_attn(MsDeformShape shape, MsDeformInputs<T> in, T* output, cudaStream_t stream);

// Adds to grad_value, in an order that differs from run to run, and writes the other two.
template <typename T>
cudaError_t launch_ms_deform_attn_backward(
    MsDeformShape shape, MsDeformInputs<T> in, const T* grad, T* grad_value, T* grad_locations,
    T* grad_weights, cudaStream_t stream);

}  // namespace detectron2
