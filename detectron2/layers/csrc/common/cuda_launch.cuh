// How every CUDA kernel here is launched: one thread per element, with a stride over the grid for more
// elements.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace detectron2 {

constexpr int kThreads = 256;

// A grid of at most 65536 blocks; indices are 64 bit, so that larger counts are strided over.
inline int grid_size(int64_t count) {
  const int64_t blocks = (count + kThreads - 1) / kThreads;
  return static_cast<int>(blocks < 65536 ? blocks : 65536);
}

// for (int64_t name = first element of this thread; name < count; next)
#define D2_CUDA_LOOP(name, count)                                                                  \
  for (int64_t name = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; name < (count); \
       name += static_cast<int64_t>(gridDim.x) * blockDim.x)

}  // namespace detectron2
