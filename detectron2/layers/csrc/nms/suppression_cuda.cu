// Suppression on CUDA. All pairs are compared in tiles of 64 x 64, one bit each; one block then walks down
// the tiles.
//
// Memory: N * N / 8 bytes of conflicts (8 MB for 8192 boxes).
#include "../common/cuda_launch.cuh"
#include "../rotated/rotated_iou.h"
#include "suppression_cuda.h"

namespace detectron2 {
namespace {

constexpr int kTile = 64;

template <typename T>
struct UprightBox {
  static constexpr int kNumbers = 4;
  T x1, y1, x2, y2, area;

  __device__ explicit UprightBox(const T* box)
      : x1(box[0]), y1(box[1]), x2(box[2]), y2(box[3]), area((box[2] - box[0]) * (box[3] - box[1])) {}

  __device__ T iou(const UprightBox& other) const {
    const T w = max(min(x2, other.x2) - max(x1, other.x1), T(0));
    const T h = max(min(y2, other.y2) - max(y1, other.y1), T(0));
    const T overlap = w * h;
    return overlap / (area + other.area - overlap);
  }
};

template <typename T>
struct TurnedBox {
  static constexpr int kNumbers = 5;
  RotatedBox box;

  __device__ explicit TurnedBox(const T* numbers) : box(numbers) {}

  __device__ T iou(const TurnedBox& other) const { return static_cast<T>(rotated_iou(box, other.box)); }
};

// Block (x, y) compares the boxes of row tile y, one a thread, with those of column tile x.
template <typename T, typename Box>
__global__ void conflicts_kernel(
    const T* boxes, const int64_t* groups, uint64_t* conflicts, int64_t num_boxes, int64_t words,
    T threshold) {
  const int64_t num_tiles = words, tile = blockIdx.x;
  const int64_t row_tile = tile / num_tiles, column_tile = tile % num_tiles;
  const int64_t row = row_tile * kTile + threadIdx.x, first = column_tile * kTile;
  if (row >= num_boxes || column_tile < row_tile) {
    return;  // what lies before a row is never read
  }
  uint64_t bits = 0;
  const Box own(boxes + Box::kNumbers * row);
  const int64_t last = first + kTile < num_boxes ? first + kTile : num_boxes;
  for (int64_t column = first > row ? first : row + 1; column < last; ++column) {
    if (groups && groups[row] != groups[column]) {
      continue;
    }
    if (own.iou(Box(boxes + Box::kNumbers * column)) > threshold) {
      bits |= uint64_t(1) << (column - first);
    }
  }
  conflicts[row * words + column_tile] = bits;
}

// One block. Of each tile of rows one thread decides which are kept; all threads then share the words behind
// it.
__global__ void sweep_kernel(
    const uint64_t* conflicts, uint64_t* removed, bool* keep, int64_t num_boxes, int64_t words) {
  __shared__ uint64_t among[kTile];  // conflicts of the tile's rows among themselves
  __shared__ uint64_t kept;
  for (int64_t w = threadIdx.x; w < words; w += blockDim.x) {
    removed[w] = 0;
  }
  for (int64_t tile = 0; tile < words; ++tile) {
    const int64_t first = tile * kTile;
    const int num_rows = static_cast<int>(num_boxes - first < kTile ? num_boxes - first : kTile);
    if (threadIdx.x < num_rows) {
      among[threadIdx.x] = conflicts[(first + threadIdx.x) * words + tile];
    }
    __syncthreads();  // also: the removals of the tile before are complete
    if (threadIdx.x == 0) {
      uint64_t gone = removed[tile], survivors = 0;
      for (int i = 0; i < num_rows; ++i) {
        if (!(gone >> i & 1)) {
          survivors |= uint64_t(1) << i;
          gone |= among[i];
        }
      }
      kept = survivors;
    }
    __syncthreads();
    if (threadIdx.x < num_rows) {
      keep[first + threadIdx.x] = kept >> threadIdx.x & 1;
    }
    for (int64_t w = tile + 1 + threadIdx.x; w < words; w += blockDim.x) {
      uint64_t gone = removed[w];
      for (uint64_t left = kept; left; left &= left - 1) {
        gone |= conflicts[(first + __ffsll(static_cast<long long>(left)) - 1) * words + w];
      }
      removed[w] = gone;
    }
    __syncthreads();  // `among` and `kept` are free again
  }
}

template <typename T>
__global__ void iou_rotated_kernel(
    const T* boxes1, const T* boxes2, T* ious, int64_t num_columns, int64_t count) {
  D2_CUDA_LOOP(index, count) {
    const RotatedBox a(boxes1 + 5 * (index / num_columns)), b(boxes2 + 5 * (index % num_columns));
    ious[index] = static_cast<T>(rotated_iou(a, b));
  }
}

template <typename T, typename Box>
cudaError_t launch_tiles(
    const T* boxes, const int64_t* groups, uint64_t* conflicts, int64_t num_boxes, T threshold,
    cudaStream_t stream) {
  const int64_t words = num_words(num_boxes);
  if (num_boxes > 0) {
    conflicts_kernel<T, Box><<<static_cast<unsigned>(words * words), kTile, 0, stream>>>(
        boxes, groups, conflicts, num_boxes, words, threshold);
  }
  return cudaGetLastError();
}

}  // namespace

template <typename T>
cudaError_t launch_conflicts(
    const T* boxes, const int64_t* groups, uint64_t* conflicts, int64_t num_boxes, T threshold,
    cudaStream_t stream) {
  return launch_tiles<T, UprightBox<T>>(boxes, groups, conflicts, num_boxes, threshold, stream);
}

template <typename T>
cudaError_t launch_conflicts_rotated(
    const T* boxes, const int64_t* groups, uint64_t* conflicts, int64_t num_boxes, T threshold,
    cudaStream_t stream) {
  return launch_tiles<T, TurnedBox<T>>(boxes, groups, conflicts, num_boxes, threshold, stream);
}

cudaError_t launch_sweep(
    const uint64_t* conflicts, uint64_t* removed, bool* keep, int64_t num_boxes, cudaStream_t stream) {
  if (num_boxes > 0) {
    sweep_kernel<<<1, kThreads, 0, stream>>>(conflicts, removed, keep, num_boxes, num_words(num_boxes));
  }
  return cudaGetLastError();
}

template <typename T>
cudaError_t launch_iou_rotated(
    const T* boxes1, const T* boxes2, T* ious, int64_t num_rows, int64_t num_columns, cudaStream_t stream) {
  const int64_t count = num_rows * num_columns;
  if (count > 0) {
    iou_rotated_kernel<<<grid_size(count), kThreads, 0, stream>>>(boxes1, boxes2, ious, num_columns, count);
  }
  return cudaGetLastError();
}

#define D2_INSTANTIATE(T)                                                                                  \
  template cudaError_t launch_conflicts<T>(const T*, const int64_t*, uint64_t*, int64_t, T, cudaStream_t); \
  template cudaError_t launch_conflicts_rotated<T>(                                                        \
      const T*, const int64_t*, uint64_t*, int64_t, T, cudaStream_t);                                      \
  template cudaError_t launch_iou_rotated<T>(const T*, const T*, T*, int64_t, int64_t, cudaStream_t);
D2_INSTANTIATE(float)
D2_INSTANTIATE(double)
#undef D2_INSTANTIATE

}  // namespace detectron2
