// Pasting of box-sized masks into images on the CPU: to bitmaps, and to COCO run-length codes without a
// bitmap.
//
// Only the part of the image that a mask reaches is computed. The rows of a mask are first stretched to the
// width of the box; each image row then mixes two of them, along memory.
#include <algorithm>
#include <string>
#include <vector>

#include "../common/tensor.h"
#include "../common/vector_clones.h"
#include "paste_masks.h"

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace detectron2 {
namespace {

// The image rows, or columns, that a mask reaches, and the mask cells that each mixes.
template <typename T>
struct PastedAxis {
  int64_t first = 0;
  std::vector<MaskTap<T>> taps;

  PastedAxis(T start, T end, int64_t mask_size, int64_t image_size) {
    if (!is_proper(start, end)) {
      return;
    }
    // Mixing with the zeros around a mask reaches half a mask cell beyond the box.
    const double low = start, high = end, limit = static_cast<double>(image_size);
    const double reach = (high - low) / (2.0 * static_cast<double>(std::max<int64_t>(mask_size, 1))) + 1.0;
    first = static_cast<int64_t>(std::clamp(std::floor(low - reach), 0.0, limit));
    int64_t last = static_cast<int64_t>(std::clamp(std::ceil(high + reach), 0.0, limit));
    while (first < last && !MaskTap<T>(first, start, end, mask_size).inside()) {
      ++first;
    }
    while (first < last && !MaskTap<T>(last - 1, start, end, mask_size).inside()) {
      --last;
    }
    taps.reserve(last - first);
    for (int64_t pixel = first; pixel < last; ++pixel) {
      taps.emplace_back(pixel, start, end, mask_size);
    }
  }

  int64_t size() const { return static_cast<int64_t>(taps.size()); }
};

// One mask in its place.
template <typename T>
struct PastedMask {
  PastedAxis<T> rows, columns;
  std::vector<T> stretched;  // (M_h, columns.size())

  // mask: (M_h, M_w); box: XYXY.
  PastedMask(
      const T* mask, int64_t mask_height, int64_t mask_width, const T* box, int64_t height, int64_t width)
      : rows(box[1], box[3], mask_height, height), columns(box[0], box[2], mask_width, width) {
    if (rows.size() == 0 || columns.size() == 0) {
      return;
    }
    // Of the mask rows only those between the first and the last that are used.
    const int64_t first = rows.taps.front().low, last = rows.taps.back().high;
    stretched.resize(mask_height * columns.size());
    for (int64_t y = first; y <= last; ++y) {
      T* out = stretched.data() + y * columns.size();
      const T* row = mask + y * mask_width;
      for (const MaskTap<T>& tap : columns.taps) {
        *out++ = tap.low_weight * row[tap.low] + tap.high_weight * row[tap.high];
      }
    }
  }

  const T* above(int64_t i) const { return stretched.data() + rows.taps[i].low * columns.size(); }
  const T* below(int64_t i) const { return stretched.data() + rows.taps[i].high * columns.size(); }
};

// Whether the mix of two rows reaches the threshold. Not a template: the compiler clones functions only.
D2_VECTOR_CLONES void write_row(
    uint8_t* __restrict out, const float* __restrict above, const float* __restrict below, float share_above,
    float share_below, float threshold, int64_t count) {
  for (int64_t j = 0; j < count; ++j) {
    out[j] = share_above * above[j] + share_below * below[j] >= threshold;
  }
}

D2_VECTOR_CLONES void write_row(
    uint8_t* __restrict out, const double* __restrict above, const double* __restrict below,
    double share_above, double share_below, double threshold, int64_t count) {
  for (int64_t j = 0; j < count; ++j) {
    out[j] = share_above * above[j] + share_below * below[j] >= threshold;
  }
}

// The rows of a mask at a threshold, or in 0..255 where that is negative; row i starts at out + i * stride.
template <typename T>
void write_rows(const PastedMask<T>& pasted, T threshold, uint8_t* out, int64_t stride) {
  const int64_t count = pasted.columns.size();
  for (int64_t i = 0; i < pasted.rows.size(); ++i, out += stride) {
    const T *above = pasted.above(i), *below = pasted.below(i);
    const T share_above = pasted.rows.taps[i].low_weight, share_below = pasted.rows.taps[i].high_weight;
    if (threshold >= T(0)) {
      write_row(out, above, below, share_above, share_below, threshold, count);
    } else {
      for (int64_t j = 0; j < count; ++j) {
        out[j] = as_level(share_above * above[j] + share_below * below[j]);
      }
    }
  }
}

// Asks the system for large pages: most of the time for a new bitmap goes into its pages' first use.
void prefer_large_pages(void* data, int64_t size) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr uintptr_t kPage = uintptr_t(1) << 21;
  const uintptr_t start = reinterpret_cast<uintptr_t>(data);
  const uintptr_t first = (start + kPage - 1) / kPage * kPage, last = (start + size) / kPage * kPage;
  if (first < last) {
    madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);  // a wish: failure changes nothing
  }
#endif
}

void check_arguments(
    const char* op, const Tensor& masks, const Tensor& boxes, int64_t height, int64_t width) {
  check_shape(op, "masks", masks, {-1, -1, -1});
  check_shape(op, "boxes", boxes, {masks.size(0), 4});
  visit_floating(masks.scalar_type(), op, [](auto) {});
  STD_TORCH_CHECK(
      height >= 0 && width >= 0, op, ": the image size must not be negative, got ", height, " x ", width);
}

// masks: (R, M, M), boxes: (R, 4) XYXY -> (R, height, width) bool, or uint8 in 0..255 where the threshold is
// negative.
Tensor paste_masks_cpu(
    const Tensor& masks, const Tensor& boxes, int64_t height, int64_t width, double threshold) {
  check_arguments("paste_masks", masks, boxes, height, width);
  const Tensor values = as_accumulator(masks);
  const Tensor corners = contiguous_as(boxes, values.scalar_type());
  const int64_t count = masks.size(0), mask_height = masks.size(1), mask_width = masks.size(2);
  const ScalarType dtype = threshold >= 0 ? ScalarType::Bool : ScalarType::Byte;
  Tensor images = torch::stable::new_empty(masks, {count, height, width}, dtype);
  uint8_t* bytes = static_cast<uint8_t*>(images.mutable_data_ptr());
  prefer_large_pages(bytes, count * height * width);
  // Around the masks values are 0, which may reach the threshold.
  const uint8_t outside = threshold == 0 ? 1 : 0;
  visit_accumulator(values.scalar_type(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    const T *data = values.const_data_ptr<T>(), *box_data = corners.const_data_ptr<T>();
    torch::stable::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const T* mask = data + r * mask_height * mask_width;
        const PastedMask<T> pasted(mask, mask_height, mask_width, box_data + 4 * r, height, width);
        uint8_t* image = bytes + r * height * width;
        std::fill(image, image + height * width, outside);
        write_rows(
            pasted, static_cast<T>(threshold), image + pasted.rows.first * width + pasted.columns.first,
            width);
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

// (rows, columns) -> (columns, rows), in blocks that stay in cache.
void transpose(const uint8_t* from, uint8_t* to, int64_t num_rows, int64_t num_columns) {
  constexpr int64_t kBlock = 32;
  for (int64_t i0 = 0; i0 < num_rows; i0 += kBlock) {
    for (int64_t j0 = 0; j0 < num_columns; j0 += kBlock) {
      const int64_t i1 = std::min(i0 + kBlock, num_rows), j1 = std::min(j0 + kBlock, num_columns);
      for (int64_t j = j0; j < j1; ++j) {
        for (int64_t i = i0; i < i1; ++i) {
          to[j * num_rows + i] = from[i * num_columns + j];
        }
      }
    }
  }
}

// The runs of the whole image, column by column, of one mask at a threshold > 0.
template <typename T>
std::vector<int64_t> mask_runs(const PastedMask<T>& pasted, int64_t height, int64_t width, T threshold) {
  const int64_t num_rows = pasted.rows.size(), num_columns = pasted.columns.size();
  std::vector<int64_t> runs;
  if (num_rows == 0 || num_columns == 0) {
    runs.push_back(height * width);
    return runs;
  }
  std::vector<uint8_t> window(num_rows * num_columns),
      columns(num_rows * num_columns);  // by rows, by columns
  write_rows(pasted, threshold, window.data(), num_columns);
  transpose(window.data(), columns.data(), num_rows, num_columns);
  const int64_t above = pasted.rows.first, below = height - above - num_rows;
  extend_runs(runs, false, pasted.columns.first * height);
  for (int64_t j = 0; j < num_columns; ++j) {
    extend_runs(runs, false, above);
    const uint8_t* pixel = columns.data() + j * num_rows;
    const uint8_t* const end = pixel + num_rows;
    while (pixel < end) {
      const uint8_t value = *pixel;
      const uint8_t* next = std::find(pixel, end, static_cast<uint8_t>(1 - value));
      extend_runs(runs, value != 0, next - pixel);
      pixel = next;
    }
    extend_runs(runs, false, below);
  }
  extend_runs(runs, false, (width - pasted.columns.first - num_columns) * height);
  return runs;
}

// masks: (R, M, M), boxes: (R, 4) XYXY -> the compressed codes of all masks, one after the other (uint8), and
// where each ends (R,) int64.
std::tuple<Tensor, Tensor> paste_masks_rle_cpu(
    const Tensor& masks, const Tensor& boxes, int64_t height, int64_t width, double threshold) {
  check_arguments("paste_masks_rle", masks, boxes, height, width);
  STD_TORCH_CHECK(threshold > 0, "paste_masks_rle: the threshold must be positive, got ", threshold);
  const Tensor values = as_accumulator(masks);
  const Tensor corners = contiguous_as(boxes, values.scalar_type());
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
