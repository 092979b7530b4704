// Pasting of masks on CUDA: one thread per image pixel and mask.
#include "../common/cuda_launch.cuh"
#include "paste_masks.h"
#include "paste_masks_cuda.h"

namespace detectron2 {
namespace {

template <typename T>
__global__ void paste_kernel(
    const T* masks, const T* boxes, uint8_t* images, PasteShape s, T threshold, int64_t count) {
  D2_CUDA_LOOP(index, count) {
    const int64_t x = index % s.width, y = index / s.width % s.height, r = index / (s.width * s.height);
    const T* box = boxes + 4 * r;
    T value = T(0);
    if (is_proper(box[0], box[2]) && is_proper(box[1], box[3])) {
      const MaskTap<T> row(y, box[1], box[3], s.mask_height), column(x, box[0], box[2], s.mask_width);
      if (row.inside() && column.inside()) {
        const T* mask = masks + r * s.mask_height * s.mask_width;
        const T *above = mask + row.low * s.mask_width, *below = mask + row.high * s.mask_width;
        value = row.low_weight *
                    (column.low_weight * above[column.low] + column.high_weight * above[column.high]) +
                row.high_weight *
                    (column.low_weight * below[column.low] + column.high_weight * below[column.high]);
      }
    }
    images[index] = threshold >= T(0) ? static_cast<uint8_t>(value >= threshold) : as_level(value);
  }
}

}  // namespace

template <typename T>
cudaError_t launch_paste_masks(
    const T* masks, const T* boxes, uint8_t* images, PasteShape shape, T threshold, cudaStream_t stream) {
  const int64_t count = shape.num_masks * shape.height * shape.width;
  if (count > 0) {
    paste_kernel<<<grid_size(count), kThreads, 0, stream>>>(masks, boxes, images, shape, threshold, count);
  }
  return cudaGetLastError();
}

template cudaError_t launch_paste_masks<float>(
    const float*, const float*, uint8_t*, PasteShape, float, cudaStream_t);
template cudaError_t launch_paste_masks<double>(
    const double*, const double*, uint8_t*, PasteShape, double, cudaStream_t);

}  // namespace detectron2
