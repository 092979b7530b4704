// Binding of multi-scale deformable attention's CUDA kernels.
#include "ms_deform_attn_cuda.h"

#include "../common/cuda_binding.h"
#include "ms_deform_attn_host.h"

namespace detectron2 {
namespace {

struct CudaKernels {
  CudaKernels(const char* op, std::initializer_list<const Tensor*> tensors) : scope(op, tensors) {}

  template <typename T>
  void forward(const MsDeformShape& shape, const MsDeformInputs<T>& in, T* output) const {
    scope.run(launch_ms_deform_attn<T>, shape, in, output);
  }

  template <typename T>
  void backward(
      const MsDeformShape& shape, const MsDeformInputs<T>& in, const T* grad, T* grad_value,
      T* grad_locations, T* grad_weights) const {
    scope.run(launch_ms_deform_attn_backward<T>, shape, in, grad, grad_value, grad_locations, grad_weights);
  }

  CudaScope scope;
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detectron2, CUDA, m) {
  m.impl("ms_deform_attn", TORCH_BOX(&ms_deform_attn_host<CudaKernels>));
  m.impl("ms_deform_attn_backward", TORCH_BOX(&ms_deform_attn_backward_host<CudaKernels>));
}

}  // namespace detectron2
