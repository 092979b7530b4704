// The CUDA kernels of suppression, shared by upright and rotated boxes; all pointers are device memory.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace detectron2 {

// Number of 64-bit words in a row of conflicts.
inline int64_t num_words(int64_t num_boxes) { return (num_boxes + 63) / 64; }

// boxes: (N, 4) XYXY by falling score; groups: (N,) or null -> conflicts (N, words): bit j of row i is set
// where box j comes after box i, is of its group and overlaps it by more than the threshold.
template <typename T>
cudaError_t launch_conflicts(
    const T* boxes, const int64_t* groups, uint64_t* conflicts, int64_t num_boxes, T threshold,
    cudaStream_t stream);

// The same for rotated boxes (N, 5).
template <typename T>
cudaError_t launch_conflicts_rotated(
    const T* boxes, const int64_t* groups, uint64_t* conflicts, int64_t num_boxes, T threshold,
    cudaStream_t stream);

// keep: (N,) 0 or 1; `removed` is scratch of `words` words.
cudaError_t launch_sweep(
    const uint64_t* conflicts, uint64_t* removed, bool* keep, int64_t num_boxes, cudaStream_t stream);

// boxes1 (N, 5), boxes2 (M, 5) -> ious (N, M)
template <typename T>
cudaError_t launch_iou_rotated(
    const T* boxes1, const T* boxes2, T* ious, int64_t num_rows, int64_t num_columns, cudaStream_t stream);

}  // namespace detectron2
