// Pasting of box-sized masks into images on the CPU: to bitmaps, and to COCO run-length codes without a bitmap.
//
// Only the part of the image that a box covers is computed. Two mask rows are mixed for an image row first; its pixels
// then mix two neighbours of that line.
#include <algorithm>
#include <string>
#include <vector>

#include "../common/tensor.h"
#include "paste_masks.h"

namespace detectron2 {
namespace {

// The image rows, or columns, that a box reaches, and the mask cells that each mixes.
template <typename T>
struct PastedAxis {
  int64_t first = 0;
  std::vector<MaskTap<T>> taps;

  PastedAxis(T start, T end, int64_t mask_size, int64_t image_size) {
    if (!(end > start)) {
      return;
    }
    // One pixel around the box, as the published operator has it on the CPU.
    const double limit = static_cast<double>(image_size);
    first = static_cast<int64_t>(std::clamp(std::floor(static_cast<double>(start)) - 1.0, 0.0, limit));
    int64_t last = static_cast<int64_t>(std::clamp(std::ceil(static_cast<double>(end)) + 1.0, 0.0, limit));
    while (first < last && !MaskTap<T>(first, start, end, mask_size).inside()) {
      ++first;
    }
    while (first < last && !MaskTap<T>(last - 1, start, end, mask_size).inside()) {
      --last;
    }
    for (int64_t pixel = first; pixel < last; ++pixel) {
      taps.emplace_back(pixel, start, end, mask_size);
    }
  }
};

// One mask in its place; `mask` is (M_h, M_w), values in T.
template <typename T>
struct PastedMask {
  const T* mask;
  int64_t mask_width;
  PastedAxis<T> rows, columns;

  PastedMask(const T* mask, int64_t mask_height, int64_t mask_width, const T* box, int64_t height, int64_t width)
      : mask(mask),
        mask_width(mask_width),
        rows(box[1], box[3], mask_height, height),
        columns(box[0], box[2], mask_width, width) {}

  // Writes the values of image row `rows.first + i` at columns.first, ... to `values`; `line` holds mask_width numbers.
  void row_values(size_t i, T* line, T* values) const {
    const MaskTap<T>& tap = rows.taps[i];
    const T *above = mask + tap.low * mask_width, *below = mask + tap.high * mask_width;
    for (int64_t x = 0; x < mask_width; ++x) {
      line[x] = tap.low_weight * above[x] + tap.high_weight * below[x];
    }
    const size_t count = columns.taps.size();
    for (size_t j = 0; j < count; ++j) {
      const MaskTap<T>& column = columns.taps[j];
      values[j] = column.low_weight * line[column.low] + column.high_weight * line[column.high];
    }
  }
};

void check_arguments(const char* op, const Tensor& masks, const Tensor& boxes, int64_t height, int64_t width) {
  check_shape(op, "masks", masks, {-1, -1, -1});
  check_shape(op, "boxes", boxes, {masks.size(0), 4});
  STD_TORCH_CHECK(height >= 0 && width >= 0, op, ": the image size must not be negative, got ", height, " x ", width);
}

// masks: (R, M, M), boxes: (R, 4) XYXY -> (R, height, width) bool, or uint8 in 0..255 where the threshold is negative.
Tensor paste_masks_cpu(const Tensor& masks, const Tensor& boxes, int64_t height, int64_t width, double threshold) {
  check_arguments("paste_masks", masks, boxes, height, width);
  const Tensor values = as_accumulator(masks);
  const Tensor corners = torch::stable::contiguous(torch::stable::to(boxes, values.scalar_type()));
  const int64_t count = masks.size(0), mask_height = masks.size(1), mask_width = masks.size(2);
  const ScalarType dtype = threshold >= 0 ? ScalarType::Bool : ScalarType::Byte;
  Tensor images = torch::stable::new_zeros(masks, {count, height, width}, dtype);
  uint8_t* bytes = static_cast<uint8_t*>(images.mutable_data_ptr());
  visit_accumulator(values.scalar_type(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    const T *data = values.const_data_ptr<T>(), *box_data = corners.const_data_ptr<T>();
    const T limit = static_cast<T>(threshold);
    torch::stable::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
      std::vector<T> line(mask_width), row(width);
      for (int64_t r = begin; r < end; ++r) {
        const T* mask = data + r * mask_height * mask_width;
        const PastedMask<T> pasted(mask, mask_height, mask_width, box_data + 4 * r, height, width);
        const size_t num_columns = pasted.columns.taps.size();
        for (size_t i = 0; i < pasted.rows.taps.size(); ++i) {
          pasted.row_values(i, line.data(), row.data());
          uint8_t* out = bytes + (r * height + pasted.rows.first + static_cast<int64_t>(i)) * width + pasted.columns.first;
          if (threshold >= 0) {
            for (size_t j = 0; j < num_columns; ++j) {
              out[j] = row[j] >= limit;
            }
          } else {
            for (size_t j = 0; j < num_columns; ++j) {
              out[j] = static_cast<uint8_t>(std::clamp(row[j] * T(255), T(0), T(255)));
            }
          }
        }
        if (threshold == 0) {
          // Everything, the outside included, reaches a threshold of 0.
          std::fill(bytes + r * height * width, bytes + (r + 1) * height * width, uint8_t(1));
        }
      }
    });
  });
  return images;
}

// Appends one count of a COCO run-length code: differences to the count before last, six bits a character.
void append_count(std::string& code, int64_t value) {
  bool more = true;
  while (more) {
    int64_t bits = value & 0x1f;
    value >>= 5;
    more = (bits & 0x10) ? value != -1 : value != 0;
    code.push_back(static_cast<char>((more ? bits | 0x20 : bits) + 48));
  }
}

// COCO's compressed code of runs that start with background, in column-major order.
std::string encode_runs(const std::vector<int64_t>& runs) {
  std::string code;
  for (size_t i = 0; i < runs.size(); ++i) {
    append_count(code, i > 2 ? runs[i] - runs[i - 2] : runs[i]);
  }
  return code;
}

// Adds `length` pixels of `foreground` to runs that alternate, background first.
void extend_runs(std::vector<int64_t>& runs, bool foreground, int64_t length) {
  if (length == 0) {
    return;
  }
  const bool last_is_foreground = runs.size() % 2 == 0;
  if (runs.empty() && foreground) {
    runs.push_back(0);
  }
  if (!runs.empty() && last_is_foreground == foreground && runs.size() > (foreground ? 1u : 0u)) {
    runs.back() += length;
  } else {
    runs.push_back(length);
  }
}

// The runs of the whole image, column by column, of one mask at a threshold > 0.
template <typename T>
std::vector<int64_t> mask_runs(const PastedMask<T>& pasted, int64_t height, int64_t width, T threshold) {
  const size_t num_rows = pasted.rows.taps.size(), num_columns = pasted.columns.taps.size();
  std::vector<int64_t> runs;
  if (num_rows == 0 || num_columns == 0) {
    extend_runs(runs, false, height * width);
    return runs;
  }
  std::vector<T> line(pasted.mask_width), row(num_columns);
  std::vector<uint8_t> window(num_rows * num_columns);  // column-major, of the box alone
  for (size_t i = 0; i < num_rows; ++i) {
    pasted.row_values(i, line.data(), row.data());
    for (size_t j = 0; j < num_columns; ++j) {
      window[j * num_rows + i] = row[j] >= threshold;
    }
  }
  const int64_t above = pasted.rows.first, below = height - above - static_cast<int64_t>(num_rows);
  extend_runs(runs, false, pasted.columns.first * height);
  for (size_t j = 0; j < num_columns; ++j) {
    extend_runs(runs, false, above);
    const uint8_t* column = window.data() + j * num_rows;
    for (size_t i = 0; i < num_rows;) {
      const size_t start = i;
      while (i < num_rows && column[i] == column[start]) {
        ++i;
      }
      extend_runs(runs, column[start] != 0, static_cast<int64_t>(i - start));
    }
    extend_runs(runs, false, below);
  }
  extend_runs(runs, false, (width - pasted.columns.first - static_cast<int64_t>(num_columns)) * height);
  return runs;
}

// masks: (R, M, M), boxes: (R, 4) XYXY -> the compressed codes of all masks, one after the other (uint8), and where each
// ends (R,) int64.
std::tuple<Tensor, Tensor> paste_masks_rle_cpu(
    const Tensor& masks, const Tensor& boxes, int64_t height, int64_t width, double threshold) {
  check_arguments("paste_masks_rle", masks, boxes, height, width);
  STD_TORCH_CHECK(threshold > 0, "paste_masks_rle: the threshold must be positive, got ", threshold);
  const Tensor values = as_accumulator(masks);
  const Tensor corners = torch::stable::contiguous(torch::stable::to(boxes, values.scalar_type()));
  const int64_t count = masks.size(0), mask_height = masks.size(1), mask_width = masks.size(2);
  std::vector<std::string> codes(count);
  visit_accumulator(values.scalar_type(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    const T *data = values.const_data_ptr<T>(), *box_data = corners.const_data_ptr<T>();
    torch::stable::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const T* mask = data + r * mask_height * mask_width;
        const PastedMask<T> pasted(mask, mask_height, mask_width, box_data + 4 * r, height, width);
        codes[r] = encode_runs(mask_runs(pasted, height, width, static_cast<T>(threshold)));
      }
    });
  });
  Tensor ends = torch::stable::new_empty(masks, {count}, ScalarType::Long);
  int64_t total = 0;
  for (int64_t r = 0; r < count; ++r) {
    total += static_cast<int64_t>(codes[r].size());
    ends.mutable_data_ptr<int64_t>()[r] = total;
  }
  Tensor bytes = torch::stable::new_empty(masks, {total}, ScalarType::Byte);
  uint8_t* out = bytes.mutable_data_ptr<uint8_t>();
  for (const std::string& code : codes) {
    out = std::copy(code.begin(), code.end(), out);
  }
  return {bytes, ends};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detectron2, CPU, m) {
  m.impl("paste_masks", TORCH_BOX(&paste_masks_cpu));
  m.impl("paste_masks_rle", TORCH_BOX(&paste_masks_rle_cpu));
}

}  // namespace detectron2
