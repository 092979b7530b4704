// ROIAlign on the CPU.
//
// Bilinear weights are products of one weight per axis, and so are their means over a grid of samples. An
// output cell is therefore  sum_y wy[y] * (sum_x wx[x] * feature[y][x]): per box and channel the rows of a
// cell are summed first, along memory, into one line of columns, and the line is then summed into the cells.
// Work is split over the N * C feature planes, (H, W) contiguous each, so that a plane stays in cache for all
// boxes of its image, and so that in the backward pass no two threads add to the same plane: its result does
// not depend on the number of threads.
#include <algorithm>
#include <vector>

#include "../common/tensor.h"
#include "roi_align.h"
#include "roi_align_host.h"

namespace detectron2 {
namespace {

// Bounds the memory of tables, which are built for so many boxes at a time.
constexpr int64_t kBoxesPerBlock = 512;

// Which positions on an axis each of the P output cells of a box sums, and with which weights.
template <typename T>
struct AxisTable {
  std::vector<int64_t> cells;   // feature cells touched, ascending
  std::vector<int32_t> starts;  // P + 1 offsets into slots and weights
  std::vector<int32_t> slots;   // index into `cells`
  std::vector<T> weights;
  bool dense = true;  // cells follow one another

  AxisTable(const SampledAxis<T>& axis, int64_t num_outputs, int64_t size) {
    std::vector<T> weight_of(size > 0 ? size : 0, T(0));
    std::vector<int64_t> touched;
    std::vector<int64_t> entry_cells;
    starts.push_back(0);
    for (int64_t p = 0; p < num_outputs; ++p) {
      touched.clear();
      int64_t first, last;
      axis.samples_on_map(p, size, first, last);
      for (int64_t i = first; i < last; ++i) {
        const LinearSample<T> sample(axis.position(p, i), size);
        if (!sample.inside) {
          continue;
        }
        const T share = T(1) / static_cast<T>(axis.num_samples);
        add(weight_of, touched, sample.low, share * (T(1) - sample.high_share));
        add(weight_of, touched, sample.high, share * sample.high_share);
      }
      for (int64_t cell : touched) {
        entry_cells.push_back(cell);
        weights.push_back(weight_of[cell]);
        weight_of[cell] = T(0);
      }
      starts.push_back(static_cast<int32_t>(weights.size()));
    }
    index(entry_cells);
  }

 private:
  static void add(std::vector<T>& weight_of, std::vector<int64_t>& touched, int64_t cell, T weight) {
    if (weight == T(0)) {
      return;
    }
    if (weight_of[cell] == T(0)) {
      touched.push_back(cell);
    }
    weight_of[cell] += weight;
  }

  void index(const std::vector<int64_t>& entry_cells) {
    cells = entry_cells;
    std::sort(cells.begin(), cells.end());
    cells.erase(std::unique(cells.begin(), cells.end()), cells.end());
    // A few unused columns between used ones cost less than gathering.
    if (!cells.empty() && cells.back() - cells.front() < 2 * static_cast<int64_t>(cells.size()) + 8) {
      const int64_t first = cells.front(), count = cells.back() - first + 1;
      cells.resize(count);
      for (int64_t i = 0; i < count; ++i) {
        cells[i] = first + i;
      }
    } else {
      dense = false;
    }
    for (int64_t cell : entry_cells) {
      const auto slot = std::lower_bound(cells.begin(), cells.end(), cell) - cells.begin();
      slots.push_back(static_cast<int32_t>(slot));
    }
  }
};

template <typename T>
struct BoxTables {
  AxisTable<T> rows, columns;
};

// line[j] += weight * row[columns[j]]
template <typename T>
void add_row(T* line, const T* row, const AxisTable<T>& columns, T weight) {
  const int64_t count = static_cast<int64_t>(columns.cells.size());
  if (columns.dense) {
    const T* from = row + columns.cells.front();
    for (int64_t j = 0; j < count; ++j) {
      line[j] += weight * from[j];
    }
  } else {
    const int64_t* cells = columns.cells.data();
    for (int64_t j = 0; j < count; ++j) {
      line[j] += weight * row[cells[j]];
    }
  }
}

// row[columns[j]] += weight * line[j]
template <typename T>
void spread_row(T* row, const T* line, const AxisTable<T>& columns, T weight) {
  const int64_t count = static_cast<int64_t>(columns.cells.size());
  if (columns.dense) {
    T* to = row + columns.cells.front();
    for (int64_t j = 0; j < count; ++j) {
      to[j] += weight * line[j];
    }
  } else {
    const int64_t* cells = columns.cells.data();
    for (int64_t j = 0; j < count; ++j) {
      row[cells[j]] += weight * line[j];
    }
  }
}

// Pools one box from one plane into PH x PW values.
template <typename T, typename Out>
void pool_box(Out* output, const T* plane, const BoxTables<T>& box, const RoiAlignShape& shape, T* line) {
  const AxisTable<T>&rows = box.rows, &columns = box.columns;
  const bool empty = rows.cells.empty() || columns.cells.empty();
  for (int64_t ph = 0; ph < shape.pooled_height; ++ph, output += shape.pooled_width) {
    if (empty) {
      std::fill(output, output + shape.pooled_width, Out(T(0)));
      continue;
    }
    std::fill(line, line + columns.cells.size(), T(0));
    for (int32_t e = rows.starts[ph]; e < rows.starts[ph + 1]; ++e) {
      add_row(line, plane + rows.cells[rows.slots[e]] * shape.width, columns, rows.weights[e]);
    }
    for (int64_t pw = 0; pw < shape.pooled_width; ++pw) {
      T sum = T(0);
      for (int32_t e = columns.starts[pw]; e < columns.starts[pw + 1]; ++e) {
        sum += columns.weights[e] * line[columns.slots[e]];
      }
      output[pw] = Out(sum);
    }
  }
}

// Adds the gradient of one box's PH x PW values to one plane.
template <typename T>
void unpool_box(T* plane, const T* grad, const BoxTables<T>& box, const RoiAlignShape& shape, T* line) {
  const AxisTable<T>&rows = box.rows, &columns = box.columns;
  if (rows.cells.empty() || columns.cells.empty()) {
    return;
  }
  for (int64_t ph = 0; ph < shape.pooled_height; ++ph, grad += shape.pooled_width) {
    std::fill(line, line + columns.cells.size(), T(0));
    for (int64_t pw = 0; pw < shape.pooled_width; ++pw) {
      for (int32_t e = columns.starts[pw]; e < columns.starts[pw + 1]; ++e) {
        line[columns.slots[e]] += columns.weights[e] * grad[pw];
      }
    }
    for (int32_t e = rows.starts[ph]; e < rows.starts[ph + 1]; ++e) {
      spread_row(plane + rows.cells[rows.slots[e]] * shape.width, line, columns, rows.weights[e]);
    }
  }
}

struct Settings {
  double spatial_scale;
  int64_t sampling_ratio;
  bool aligned;
};

// boxes: (R, 5), of which [first, last) are used.
template <typename T>
std::vector<BoxTables<T>> make_tables(
    const T* boxes, int64_t first, int64_t last, const RoiAlignShape& shape, const Settings& settings) {
  std::vector<BoxTables<T>> tables;
  tables.reserve(last - first);
  const T scale = static_cast<T>(settings.spatial_scale);
  for (int64_t r = first; r < last; ++r) {
    const T* box = boxes + 5 * r;
    const SampledAxis<T> y(
        box[2], box[4], scale, shape.pooled_height, settings.sampling_ratio, settings.aligned);
    const SampledAxis<T> x(
        box[1], box[3], scale, shape.pooled_width, settings.sampling_ratio, settings.aligned);
    tables.push_back(
        {AxisTable<T>(y, shape.pooled_height, shape.height),
         AxisTable<T>(x, shape.pooled_width, shape.width)});
  }
  return tables;
}

// The plane in the type of sums: itself, or a converted copy in `buffer`.
template <typename T, typename In>
const T* as_plane(const In* plane, int64_t size, std::vector<T>& buffer) {
  if constexpr (std::is_same_v<T, In>) {
    return plane;
  } else {
    buffer.resize(size);
    for (int64_t i = 0; i < size; ++i) {
      buffer[i] = static_cast<T>(plane[i]);
    }
    return buffer.data();
  }
}

template <typename In>
void forward(
    const Tensor& input, const Tensor& boxes, Tensor& output, const RoiAlignShape& shape,
    const Settings& settings) {
  using T = accumulator_t<In>;
  const int64_t num_boxes = shape.num_boxes, plane_size = shape.plane_size();
  const int64_t pooled_size = shape.pooled_size();
  const In* features = input.const_data_ptr<In>();
  const T* box_data = boxes.const_data_ptr<T>();
  In* pooled = output.mutable_data_ptr<In>();
  check_image_indices("roi_align", box_data, 5, shape);
  for (int64_t first = 0; first < num_boxes; first += kBoxesPerBlock) {
    const int64_t last = std::min(first + kBoxesPerBlock, num_boxes);
    const auto tables = make_tables(box_data, first, last, shape, settings);
    torch::stable::parallel_for(0, shape.batch_size * shape.channels, 1, [&](int64_t begin, int64_t end) {
      std::vector<T> line(shape.width), buffer;
      for (int64_t p = begin; p < end; ++p) {
        const int64_t n = p / shape.channels, c = p % shape.channels;
        const T* plane = nullptr;
        for (int64_t r = first; r < last; ++r) {
          if (static_cast<int64_t>(box_data[5 * r]) != n) {
            continue;
          }
          plane = plane ? plane : as_plane(features + p * plane_size, plane_size, buffer);
          pool_box(
              pooled + (r * shape.channels + c) * pooled_size, plane, tables[r - first], shape, line.data());
        }
      }
    });
  }
}

// pooled: gradient (R, C, PH, PW), added to planes (N, C, H, W).
template <typename T>
void backward(
    const T* pooled, const T* box_data, T* planes, const RoiAlignShape& shape, const Settings& settings) {
  const int64_t plane_size = shape.plane_size(), pooled_size = shape.pooled_size();
  check_image_indices("roi_align_backward", box_data, 5, shape);
  for (int64_t first = 0; first < shape.num_boxes; first += kBoxesPerBlock) {
    const int64_t last = std::min(first + kBoxesPerBlock, shape.num_boxes);
    const auto tables = make_tables(box_data, first, last, shape, settings);
    torch::stable::parallel_for(0, shape.batch_size * shape.channels, 1, [&](int64_t begin, int64_t end) {
      std::vector<T> line(shape.width);
      for (int64_t p = begin; p < end; ++p) {
        const int64_t n = p / shape.channels, c = p % shape.channels;
        for (int64_t r = first; r < last; ++r) {
          if (static_cast<int64_t>(box_data[5 * r]) == n) {
            const T* box_grad = pooled + (r * shape.channels + c) * pooled_size;
            unpool_box(planes + p * plane_size, box_grad, tables[r - first], shape, line.data());
          }
        }
      }
    });
  }
}

// input: (N, C, H, W), boxes: (R, 5) image index and XYXY -> (R, C, PH, PW).
Tensor roi_align_cpu(
    const Tensor& input, const Tensor& boxes, double spatial_scale, int64_t pooled_height,
    int64_t pooled_width, int64_t sampling_ratio, bool aligned) {
  const char* op = "roi_align";
  const RoiAlignShape shape = roi_align_shape(op, input, boxes, 5, pooled_height, pooled_width);
  // Not converted as a whole: planes are, one at a time.
  const Tensor features = torch::stable::contiguous(input);
  const Tensor box_values = contiguous_as(boxes, accumulator_dtype(input.scalar_type()));
  Tensor output =
      torch::stable::new_empty(input, {boxes.size(0), shape.channels, pooled_height, pooled_width});
  visit_floating(input.scalar_type(), op, [&](auto tag) {
    using In = typename decltype(tag)::type;
    forward<In>(features, box_values, output, shape, {spatial_scale, sampling_ratio, aligned});
  });
  return output;
}

// grad: (R, C, PH, PW) -> (N, C, H, W).
Tensor roi_align_backward_cpu(
    const Tensor& grad, const Tensor& boxes, double spatial_scale, int64_t batch_size, int64_t channels,
    int64_t height, int64_t width, int64_t sampling_ratio, bool aligned) {
  const RoiAlignShape shape =
      roi_align_backward_shape("roi_align_backward", grad, boxes, 5, batch_size, channels, height, width);
  return roi_align_backward(
      grad, boxes, shape, [&]<typename T>(const T* values, const T* box_values, T* grad_input) {
        backward(values, box_values, grad_input, shape, {spatial_scale, sampling_ratio, aligned});
      });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detectron2, CPU, m) {
  m.impl("roi_align", TORCH_BOX(&roi_align_cpu));
  m.impl("roi_align_backward", TORCH_BOX(&roi_align_backward_cpu));
}

}  // namespace detectron2
