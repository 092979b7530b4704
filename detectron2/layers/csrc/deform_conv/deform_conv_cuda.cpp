// Binding of deformable convolution's CUDA kernels.
#include "deform_conv_cuda.h"

#include "../common/cuda_binding.h"
#include "deform_conv_host.h"

namespace detectron2 {
namespace {

struct CudaKernels {
  CudaKernels(const char* op, std::initializer_list<const Tensor*> tensors) : scope(op, tensors) {}

  template <typename T>
  void columns(const DeformGeometry& g, const T* input, const T* offset, const T* mask, T* out) const {
    scope.run(launch_columns<T>, g, input, offset, mask, out);
  }

  template <typename T>
  void columns_backward(
      const DeformGeometry& g, const T* grad, const T* input, const T* offset, const T* mask, T* grad_input,
      T* grad_offset, T* grad_mask) const {
    scope.run(launch_columns_backward<T>, g, grad, input, offset, mask, grad_input, grad_offset, grad_mask);
  }

  CudaScope scope;
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detectron2, CUDA, m) {
  m.impl("deform_conv", TORCH_BOX(&deform_conv_host<CudaKernels>));
  m.impl("deform_conv_backward", TORCH_BOX(&deform_conv_backward_host<CudaKernels>));
}

}  // namespace detectron2
