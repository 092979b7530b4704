// ROIAlign of rotated boxes on the CPU.
//
// The feature cells that an output cell sums, and their weights, are the same for every channel: they are
// listed once per box, samples that share a cell merged. The lists are then run for kLanes channels at a
// time, whose planes were copied to (H * W, kLanes), or for one channel at a time where boxes are too few to
// repay the copy. Threads share planes, not boxes: no two of them add to one plane in the backward pass, and
// the result does not depend on their number.
#include <algorithm>
#include <vector>

#include "../common/tensor.h"
#include "../common/vector_clones.h"
#include "../roi_align/roi_align_host.h"
#include "roi_align_rotated.h"

namespace detectron2 {
namespace {

// Channels that are pooled together, side by side in memory.
constexpr int kLanes = 16;
// Bounds the memory of lists: boxes are listed and pooled in blocks of about so many entries.
constexpr int64_t kEntriesPerBlock = 1 << 22;
constexpr int64_t kBoxesListedTogether = 64;

// What each of the PH * PW output cells of a box sums.
template <typename T>
struct CellLists {
  std::vector<int64_t> starts;  // PH * PW + 1 offsets into cells and weights
  std::vector<int64_t> cells;   // offsets in a feature plane
  std::vector<T> weights;

  // `scratch`: one zero per feature cell, left as found.
  void fill(
      const T* box, const RoiAlignShape& shape, T scale, int64_t sampling_ratio, std::vector<T>& scratch) {
    const RotatedGrid<T> grid(box, scale, shape.pooled_height, shape.pooled_width, sampling_ratio);
    starts.push_back(0);
    for (int64_t ph = 0; ph < shape.pooled_height; ++ph) {
      for (int64_t pw = 0; pw < shape.pooled_width; ++pw) {
        const size_t first = cells.size();
        for (int64_t i = 0; i < grid.samples_y; ++i) {
          for (int64_t j = 0; j < grid.samples_x; ++j) {
            T y, x;
            grid.position(ph, pw, i, j, y, x);
            add_sample(
                LinearSample<T>(y, shape.height), LinearSample<T>(x, shape.width), shape.width, scratch);
          }
        }
        for (size_t e = first; e < cells.size(); ++e) {
          weights.push_back(scratch[cells[e]] / static_cast<T>(grid.num_samples()));
          scratch[cells[e]] = T(0);
        }
        starts.push_back(static_cast<int64_t>(cells.size()));
      }
    }
  }

 private:
  void add_sample(
      const LinearSample<T>& y, const LinearSample<T>& x, int64_t width, std::vector<T>& scratch) {
    if (!y.inside || !x.inside) {
      return;
    }
    add(y.low * width + x.low, (T(1) - y.high_share) * (T(1) - x.high_share), scratch);
    add(y.low * width + x.high, (T(1) - y.high_share) * x.high_share, scratch);
    add(y.high * width + x.low, y.high_share * (T(1) - x.high_share), scratch);
    add(y.high * width + x.high, y.high_share * x.high_share, scratch);
  }

  void add(int64_t cell, T weight, std::vector<T>& scratch) {
    if (weight > T(0)) {
      if (scratch[cell] == T(0)) {
        cells.push_back(cell);
      }
      scratch[cell] += weight;
    }
  }
};

// Which boxes (R, 6) to pool, and how. Features and their gradient are (N, C, H, W), pooled values and theirs
// (R, C, PH, PW).
template <typename T>
struct Task {
  const T* boxes;
  RoiAlignShape shape;
  T scale;
  int64_t sampling_ratio;

  int64_t image_of(int64_t box) const { return static_cast<int64_t>(boxes[6 * box]); }

  int64_t pooled_offset(int64_t box, int64_t channel) const {
    return (box * shape.channels + channel) * shape.pooled_size();
  }

  // Lists of the boxes from `first` on, for as many as fit a block.
  std::vector<CellLists<T>> make_lists(int64_t first) const {
    std::vector<CellLists<T>> lists;
    int64_t num_entries = 0;
    while (first < shape.num_boxes && num_entries < kEntriesPerBlock) {
      const int64_t count = std::min(kBoxesListedTogether, shape.num_boxes - first);
      const size_t start = lists.size();
      lists.resize(start + count);
      torch::stable::parallel_for(0, count, 8, [&](int64_t begin, int64_t end) {
        std::vector<T> scratch(shape.plane_size(), T(0));
        for (int64_t i = begin; i < end; ++i) {
          lists[start + i].fill(boxes + 6 * (first + i) + 1, shape, scale, sampling_ratio, scratch);
        }
      });
      for (size_t i = start; i < lists.size(); ++i) {
        num_entries += static_cast<int64_t>(lists[i].cells.size());
      }
      first += count;
    }
    return lists;
  }

  // Calls run(lists, first box, image, whether lists are long enough to repay a copy of the planes) for every
  // image that has boxes in a block, block after block.
  template <typename Run>
  void for_each_image(const Run& run) const {
    for (int64_t first = 0; first < shape.num_boxes;) {
      const auto lists = make_lists(first);
      std::vector<int64_t> entries_of(shape.batch_size, 0);
      for (size_t i = 0; i < lists.size(); ++i) {
        entries_of[image_of(first + static_cast<int64_t>(i))] += static_cast<int64_t>(lists[i].cells.size());
      }
      for (int64_t n = 0; n < shape.batch_size; ++n) {
        if (entries_of[n] > 0) {
          run(lists, first, n, entries_of[n] > 2 * shape.plane_size());
        }
      }
      first += static_cast<int64_t>(lists.size());
    }
  }
};

// values[p][k] = sum of the listed cells of packed (H * W, lanes), for every output cell p.
template <int lanes, typename T>
[[gnu::always_inline]] inline void sum_lists(
    const CellLists<T>& lists, const T* packed, T* values, int64_t count) {
  const int64_t *starts = lists.starts.data(), *cells = lists.cells.data();
  const T* weights = lists.weights.data();
  for (int64_t p = 0; p < count; ++p, values += lanes) {
    T sums[lanes] = {};
    for (int64_t e = starts[p]; e < starts[p + 1]; ++e) {
      for (int k = 0; k < lanes; ++k) {
        sums[k] += weights[e] * packed[cells[e] * lanes + k];
      }
    }
    std::copy(sums, sums + lanes, values);
  }
}

// The reverse: adds values[p][k] to the listed cells.
template <int lanes, typename T>
[[gnu::always_inline]] inline void spread_lists(
    const CellLists<T>& lists, T* packed, const T* values, int64_t count) {
  const int64_t *starts = lists.starts.data(), *cells = lists.cells.data();
  const T* weights = lists.weights.data();
  for (int64_t p = 0; p < count; ++p, values += lanes) {
    T own[lanes];
    std::copy(values, values + lanes, own);
    for (int64_t e = starts[p]; e < starts[p + 1]; ++e) {
      for (int k = 0; k < lanes; ++k) {
        packed[cells[e] * lanes + k] += weights[e] * own[k];
      }
    }
  }
}

// Functions that are no templates, which the compiler can clone.
D2_VECTOR_CLONES void sum_wide(
    const CellLists<float>& lists, const float* packed, float* values, int64_t count) {
  sum_lists<kLanes>(lists, packed, values, count);
}
D2_VECTOR_CLONES void sum_wide(
    const CellLists<double>& lists, const double* packed, double* values, int64_t count) {
  sum_lists<kLanes>(lists, packed, values, count);
}
D2_VECTOR_CLONES void spread_wide(
    const CellLists<float>& lists, float* packed, const float* values, int64_t count) {
  spread_lists<kLanes>(lists, packed, values, count);
}
D2_VECTOR_CLONES void spread_wide(
    const CellLists<double>& lists, double* packed, const double* values, int64_t count) {
  spread_lists<kLanes>(lists, packed, values, count);
}

// (lanes, size) -> (size, kLanes); lanes beyond the last are left alone.
template <typename T>
void pack(const T* rows, T* packed, int64_t lanes, int64_t size) {
  for (int64_t start = 0; start < size; start += kLanes) {
    const int64_t end = std::min(start + kLanes, size);
    for (int64_t k = 0; k < lanes; ++k) {
      for (int64_t i = start; i < end; ++i) {
        packed[i * kLanes + k] = rows[k * size + i];
      }
    }
  }
}

// The reverse, added to `rows`.
template <typename T>
void add_unpacked(const T* packed, T* rows, int64_t lanes, int64_t size) {
  for (int64_t start = 0; start < size; start += kLanes) {
    const int64_t end = std::min(start + kLanes, size);
    for (int64_t k = 0; k < lanes; ++k) {
      for (int64_t i = start; i < end; ++i) {
        rows[k * size + i] += packed[i * kLanes + k];
      }
    }
  }
}

// pooled: zeros at first.
template <typename T>
void forward(const Task<T>& task, const T* features, T* pooled) {
  const RoiAlignShape& shape = task.shape;
  const int64_t plane_size = shape.plane_size(), pooled_size = shape.pooled_size();
  task.for_each_image([&](const auto& lists, int64_t first, int64_t n, bool wide) {
    const int64_t step = wide ? kLanes : 1, num_steps = (shape.channels + step - 1) / step;
    torch::stable::parallel_for(0, num_steps, 1, [&](int64_t begin, int64_t end) {
      std::vector<T> packed(wide ? plane_size * kLanes : 0), values(wide ? pooled_size * kLanes : 0);
      for (int64_t c = begin * step; c < std::min(end * step, shape.channels); c += step) {
        const int64_t lanes = std::min(step, shape.channels - c);
        const T* planes = features + (n * shape.channels + c) * plane_size;
        if (wide) {
          pack(planes, packed.data(), lanes, plane_size);
        }
        for (size_t i = 0; i < lists.size(); ++i) {
          const int64_t box = first + static_cast<int64_t>(i);
          if (task.image_of(box) != n) {
            continue;
          }
          T* out = pooled + task.pooled_offset(box, c);
          if (wide) {
            sum_wide(lists[i], packed.data(), values.data(), pooled_size);
            add_unpacked(values.data(), out, lanes, pooled_size);
          } else {
            sum_lists<1>(lists[i], planes, out, pooled_size);
          }
        }
      }
    });
  });
}

// features_grad: added to.
template <typename T>
void backward(const Task<T>& task, const T* grad, T* features_grad) {
  const RoiAlignShape& shape = task.shape;
  const int64_t plane_size = shape.plane_size(), pooled_size = shape.pooled_size();
  task.for_each_image([&](const auto& lists, int64_t first, int64_t n, bool wide) {
    const int64_t step = wide ? kLanes : 1, num_steps = (shape.channels + step - 1) / step;
    torch::stable::parallel_for(0, num_steps, 1, [&](int64_t begin, int64_t end) {
      std::vector<T> packed(wide ? plane_size * kLanes : 0), values(wide ? pooled_size * kLanes : 0);
      for (int64_t c = begin * step; c < std::min(end * step, shape.channels); c += step) {
        const int64_t lanes = std::min(step, shape.channels - c);
        T* planes = features_grad + (n * shape.channels + c) * plane_size;
        std::fill(packed.begin(), packed.end(), T(0));
        for (size_t i = 0; i < lists.size(); ++i) {
          const int64_t box = first + static_cast<int64_t>(i);
          if (task.image_of(box) != n) {
            continue;
          }
          const T* box_grad = grad + task.pooled_offset(box, c);
          if (wide) {
            pack(box_grad, values.data(), lanes, pooled_size);
            spread_wide(lists[i], packed.data(), values.data(), pooled_size);
          } else {
            spread_lists<1>(lists[i], planes, box_grad, pooled_size);
          }
        }
        if (wide) {
          add_unpacked(packed.data(), planes, lanes, plane_size);
        }
      }
    });
  });
}

// input: (N, C, H, W), boxes: (R, 6) image index and rotated box -> (R, C, PH, PW).
Tensor roi_align_rotated_cpu(
    const Tensor& input, const Tensor& boxes, double spatial_scale, int64_t pooled_height,
    int64_t pooled_width, int64_t sampling_ratio) {
  const char* op = "roi_align_rotated";
  const RoiAlignShape shape = roi_align_shape(op, input, boxes, 6, pooled_height, pooled_width);
  return roi_align_forward(
      input, boxes, shape, [&]<typename T>(const T* features, const T* box_values, T* output) {
        check_image_indices(op, box_values, 6, shape);
        std::fill(output, output + shape.num_boxes * shape.channels * shape.pooled_size(), T(0));
        forward(Task<T>{box_values, shape, static_cast<T>(spatial_scale), sampling_ratio}, features, output);
      });
}

// grad: (R, C, PH, PW) -> (N, C, H, W).
Tensor roi_align_rotated_backward_cpu(
    const Tensor& grad, const Tensor& boxes, double spatial_scale, int64_t batch_size, int64_t channels,
    int64_t height, int64_t width, int64_t sampling_ratio) {
  const char* op = "roi_align_rotated_backward";
  const RoiAlignShape shape =
      roi_align_backward_shape(op, grad, boxes, 6, batch_size, channels, height, width);
  return roi_align_backward(
      grad, boxes, shape, [&]<typename T>(const T* values, const T* box_values, T* grad_input) {
        check_image_indices(op, box_values, 6, shape);
        backward(
            Task<T>{box_values, shape, static_cast<T>(spatial_scale), sampling_ratio}, values, grad_input);
      });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detectron2, CPU, m) {
  m.impl("roi_align_rotated", TORCH_BOX(&roi_align_rotated_cpu));
  m.impl("roi_align_rotated_backward", TORCH_BOX(&roi_align_rotated_backward_cpu));
}

}  // namespace detectron2
