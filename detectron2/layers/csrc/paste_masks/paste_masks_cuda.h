// The CUDA kernel of mask pasting, T = float or double; all pointers are device memory.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace detectron2 {

struct PasteShape {
  int64_t num_masks, mask_height, mask_width, height, width;
};

// masks (R, Mh, Mw), boxes (R, 4) -> images (R, H, W): 0 or 1, or 0..255 where the threshold is negative.
template <typename T>
cudaError_t launch_paste_masks(
    const T* masks, const T* boxes, uint8_t* images, PasteShape shape, T threshold, cudaStream_t stream);

}  // namespace detectron2
