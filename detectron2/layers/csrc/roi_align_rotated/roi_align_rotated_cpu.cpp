// ROIAlign of rotated boxes on the CPU.
//
// The feature cells that an output cell sums, and their weights, are the same for every channel: they are listed once
// per box, samples that share a cell merged, and the list is then run for all channels. Forward, boxes are shared among
// threads; backward, feature planes are, so that no two threads add to one plane and the result does not depend on
// their number.
#include <algorithm>
#include <vector>

#include "../common/tensor.h"
#include "roi_align_rotated.h"

namespace detectron2 {
namespace {

constexpr int64_t kBoxesPerBlock = 64;  // bounds the memory of lists in the backward pass

struct Shape {
  int64_t batch_size, channels, height, width, pooled_height, pooled_width;
  int64_t plane_size() const {
    return height * width;
  }
  int64_t pooled_size() const {
    return pooled_height * pooled_width;
  }
};

// What each of the PH * PW output cells of a box sums.
template <typename T>
struct CellLists {
  std::vector<int64_t> starts;  // PH * PW + 1 offsets into cells and weights
  std::vector<int64_t> cells;   // offsets in a feature plane
  std::vector<T> weights;

  // `scratch`: one zero per feature cell, left as found.
  CellLists(const T* box, const Shape& shape, T scale, int64_t sampling_ratio, std::vector<T>& scratch) {
    const RotatedGrid<T> grid(box, scale, shape.pooled_height, shape.pooled_width, sampling_ratio);
    starts.push_back(0);
    for (int64_t ph = 0; ph < shape.pooled_height; ++ph) {
      for (int64_t pw = 0; pw < shape.pooled_width; ++pw) {
        const size_t first = cells.size();
        for (int64_t i = 0; i < grid.samples_y; ++i) {
          for (int64_t j = 0; j < grid.samples_x; ++j) {
            T y, x;
            grid.position(ph, pw, i, j, y, x);
            add_sample(LinearSample<T>(y, shape.height), LinearSample<T>(x, shape.width), shape.width, scratch);
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
  void add_sample(const LinearSample<T>& y, const LinearSample<T>& x, int64_t width, std::vector<T>& scratch) {
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

template <typename T>
void check_batch_indices(const char* op, const T* boxes, int64_t num_boxes, int64_t batch_size) {
  for (int64_t r = 0; r < num_boxes; ++r) {
    const T index = boxes[6 * r];
    STD_TORCH_CHECK(
        index >= T(0) && index < static_cast<T>(batch_size), op, ": box ", r, " names image ", index, " of ", batch_size);
  }
}

template <typename T>
void forward(const T* features, const T* boxes, T* pooled, int64_t num_boxes, const Shape& shape, T scale, int64_t ratio) {
  torch::stable::parallel_for(0, num_boxes, 1, [&](int64_t begin, int64_t end) {
    std::vector<T> scratch(shape.plane_size(), T(0));
    for (int64_t r = begin; r < end; ++r) {
      const CellLists<T> lists(boxes + 6 * r + 1, shape, scale, ratio, scratch);
      const int64_t first_plane = static_cast<int64_t>(boxes[6 * r]) * shape.channels;
      T* out = pooled + r * shape.channels * shape.pooled_size();
      for (int64_t c = 0; c < shape.channels; ++c) {
        const T* plane = features + (first_plane + c) * shape.plane_size();
        for (int64_t p = 0; p < shape.pooled_size(); ++p) {
          T sum = T(0);
          for (int64_t e = lists.starts[p]; e < lists.starts[p + 1]; ++e) {
            sum += lists.weights[e] * plane[lists.cells[e]];
          }
          *out++ = sum;
        }
      }
    }
  });
}

template <typename T>
void backward(const T* grad, const T* boxes, T* planes, int64_t num_boxes, const Shape& shape, T scale, int64_t ratio) {
  std::vector<T> scratch(shape.plane_size(), T(0));
  for (int64_t first = 0; first < num_boxes; first += kBoxesPerBlock) {
    const int64_t last = std::min(first + kBoxesPerBlock, num_boxes);
    std::vector<CellLists<T>> lists;
    for (int64_t r = first; r < last; ++r) {
      lists.emplace_back(boxes + 6 * r + 1, shape, scale, ratio, scratch);
    }
    torch::stable::parallel_for(0, shape.batch_size * shape.channels, 1, [&](int64_t begin, int64_t end) {
      for (int64_t p = begin; p < end; ++p) {
        const int64_t n = p / shape.channels, c = p % shape.channels;
        T* plane = planes + p * shape.plane_size();
        for (int64_t r = first; r < last; ++r) {
          if (static_cast<int64_t>(boxes[6 * r]) != n) {
            continue;
          }
          const CellLists<T>& list = lists[r - first];
          const T* box_grad = grad + (r * shape.channels + c) * shape.pooled_size();
          for (int64_t cell = 0; cell < shape.pooled_size(); ++cell) {
            for (int64_t e = list.starts[cell]; e < list.starts[cell + 1]; ++e) {
              plane[list.cells[e]] += list.weights[e] * box_grad[cell];
            }
          }
        }
      }
    });
  }
}

Tensor cast_back(const Tensor& result, ScalarType dtype) {
  return result.scalar_type() == dtype ? result : torch::stable::to(result, dtype);
}

// input: (N, C, H, W), boxes: (R, 6) image index and rotated box -> (R, C, PH, PW).
Tensor roi_align_rotated_cpu(
    const Tensor& input,
    const Tensor& boxes,
    double spatial_scale,
    int64_t pooled_height,
    int64_t pooled_width,
    int64_t sampling_ratio) {
  check_shape("roi_align_rotated", "input", input, {-1, -1, -1, -1});
  check_shape("roi_align_rotated", "boxes", boxes, {-1, 6});
  visit_floating(input.scalar_type(), "roi_align_rotated", [](auto) {});
  STD_TORCH_CHECK(pooled_height > 0 && pooled_width > 0, "roi_align_rotated: the output size must be positive");
  const Shape shape{input.size(0), input.size(1), input.size(2), input.size(3), pooled_height, pooled_width};
  const Tensor features = as_accumulator(input);
  const Tensor box_values = torch::stable::contiguous(torch::stable::to(boxes, features.scalar_type()));
  Tensor output = torch::stable::new_empty(features, {boxes.size(0), shape.channels, pooled_height, pooled_width});
  visit_accumulator(features.scalar_type(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    const T* box_data = box_values.const_data_ptr<T>();
    check_batch_indices("roi_align_rotated", box_data, boxes.size(0), shape.batch_size);
    forward(
        features.const_data_ptr<T>(), box_data, output.mutable_data_ptr<T>(), boxes.size(0), shape,
        static_cast<T>(spatial_scale), sampling_ratio);
  });
  return cast_back(output, input.scalar_type());
}

// grad: (R, C, PH, PW) -> (N, C, H, W).
Tensor roi_align_rotated_backward_cpu(
    const Tensor& grad,
    const Tensor& boxes,
    double spatial_scale,
    int64_t batch_size,
    int64_t channels,
    int64_t height,
    int64_t width,
    int64_t sampling_ratio) {
  check_shape("roi_align_rotated_backward", "boxes", boxes, {-1, 6});
  check_shape("roi_align_rotated_backward", "grad", grad, {boxes.size(0), channels, -1, -1});
  const Shape shape{batch_size, channels, height, width, grad.size(2), grad.size(3)};
  const Tensor values = as_accumulator(grad);
  const Tensor box_values = torch::stable::contiguous(torch::stable::to(boxes, values.scalar_type()));
  Tensor grad_input = torch::stable::new_zeros(values, {batch_size, channels, height, width});
  visit_accumulator(values.scalar_type(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    const T* box_data = box_values.const_data_ptr<T>();
    check_batch_indices("roi_align_rotated_backward", box_data, boxes.size(0), batch_size);
    backward(
        values.const_data_ptr<T>(), box_data, grad_input.mutable_data_ptr<T>(), boxes.size(0), shape,
        static_cast<T>(spatial_scale), sampling_ratio);
  });
  return cast_back(grad_input, grad.scalar_type());
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detectron2, CPU, m) {
  m.impl("roi_align_rotated", TORCH_BOX(&roi_align_rotated_cpu));
  m.impl("roi_align_rotated_backward", TORCH_BOX(&roi_align_rotated_backward_cpu));
}

}  // namespace detectron2
