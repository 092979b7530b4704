// What every CUDA binding needs. The bindings are C++ files with stable headers; the kernels, in .cu files,
// see neither torch nor this header, so that nvcc compiles them in seconds against any torch.
#pragma once

#include <cuda_runtime.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>

#include <initializer_list>

#include "tensor.h"

// A CPU build of torch does not have this function. Weak, it is allowed to be missing there: the library
// loads, and no CUDA tensor ever comes to call it.
extern "C" AOTITorchError aoti_torch_get_current_cuda_stream(int32_t device_index, void** ret_stream);
#pragma weak aoti_torch_get_current_cuda_stream

namespace detectron2 {

// Checks that all tensors of an operator are on one CUDA device, makes that current while it lives, and runs
// kernels on its stream.
class CudaScope {
 public:
  CudaScope(const char* op, std::initializer_list<const Tensor*> tensors)
      : guard_(common_device(op, tensors)) {
    void* stream = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(common_device(op, tensors), &stream));
    stream_ = static_cast<cudaStream_t>(stream);
  }

  // Calls launch(arguments..., stream) and checks the status that it returns.
  template <typename Launch, typename... Args>
  void run(Launch launch, Args... args) const {
    // torch's own check needs functions that a CPU build of torch does not have.
    const cudaError_t status = launch(args..., stream_);
    STD_TORCH_CHECK(status == cudaSuccess, "CUDA: ", cudaGetErrorString(status));
  }

 private:
  static int32_t common_device(const char* op, std::initializer_list<const Tensor*> tensors) {
    const Tensor& first = **tensors.begin();
    for (const Tensor* t : tensors) {
      STD_TORCH_CHECK(
          t->is_cuda() && t->get_device_index() == first.get_device_index(), op,
          ": all tensors must be on the same CUDA device");
    }
    return first.get_device_index();
  }

  torch::stable::accelerator::DeviceGuard guard_;
  cudaStream_t stream_ = nullptr;
};

}  // namespace detectron2
