// What every CUDA binding needs. The bindings are C++ files with stable headers; the kernels, in .cu files,
// see neither torch nor this header, so that nvcc compiles them in seconds against any torch.
#pragma once

#include <cuda_runtime.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>

#include "tensor.h"

// A CPU build of torch does not have this function. Weak, it is allowed to be missing there: the library
// loads, and no CUDA tensor ever comes to call it.
extern "C" AOTITorchError aoti_torch_get_current_cuda_stream(int32_t device_index, void** ret_stream);
#pragma weak aoti_torch_get_current_cuda_stream

namespace detectron2 {

// Makes the tensor's device current while it lives, and names the stream to work on.
class CudaScope {
 public:
  explicit CudaScope(const Tensor& t) : guard_(t.get_device_index()) {
    void* stream = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(t.get_device_index(), &stream));
    stream_ = static_cast<cudaStream_t>(stream);
  }

  cudaStream_t stream() const { return stream_; }

 private:
  torch::stable::accelerator::DeviceGuard guard_;
  cudaStream_t stream_ = nullptr;
};

// torch's own check needs functions that a CPU build of torch does not have.
inline void check_launch(cudaError_t status) {
  STD_TORCH_CHECK(status == cudaSuccess, "CUDA: ", cudaGetErrorString(status));
}

inline void check_same_device(const char* op, const Tensor& a, const Tensor& b) {
  STD_TORCH_CHECK(
      a.is_cuda() && b.is_cuda() && a.get_device_index() == b.get_device_index(), op,
      ": all tensors must be on the same CUDA device");
}

inline Tensor cast_to(const Tensor& t, ScalarType dtype) {
  return t.scalar_type() == dtype ? t : torch::stable::to(t, dtype);
}

}  // namespace detectron2
