// Multi-scale deformable attention on the CPU.
//
// Forward: the samples of a query and head are worked out first, as four rows of D channels and their weights
// each, and then summed block by block of channels, which stay in registers.
// Backward: a task is one level of one head of one image. No two tasks add to the same cell, so gradients do
// not depend on the number of threads.
#include <algorithm>
#include <vector>

#include "../common/vector_clones.h"
#include "ms_deform_attn_host.h"

// Code of a cloned function has to be part of it, to be compiled for the same processor.
#if defined(__GNUC__)
#define D2_INLINE inline __attribute__((always_inline))
#else
#define D2_INLINE inline
#endif

namespace detectron2 {
namespace {

// Sums over channels are taken in so many parts, which a processor adds up side by side.
constexpr int kLanes = 8;

// Most of the time goes into waiting for rows that are not in the cache: ask for them early.
template <typename T>
D2_INLINE void prefetch(const T* row, int64_t channels) {
#if defined(__GNUC__)
  constexpr int64_t kPerLine = 64 / sizeof(T);
  for (int64_t d = 0; d < channels; d += kPerLine) {
    __builtin_prefetch(row + d);
  }
#endif
}

// Each of the rows holds D channels; those of cells outside of the level are zeros.
template <typename T>
struct SampleRows {
  const T* rows[4];
  T weights[4];
};

// output[j] = the weighted sum of the samples' channels, for kBlock channels from `first` on.
template <int kBlock, typename T>
D2_INLINE void sum_block(T* output, const SampleRows<T>* samples, int64_t count, int64_t first) {
  T sums[kBlock] = {};
  for (int64_t i = 0; i < count; ++i) {
    const SampleRows<T>& sample = samples[i];
    const T *a = sample.rows[0] + first, *b = sample.rows[1] + first;
    const T *c = sample.rows[2] + first, *d = sample.rows[3] + first;
    const T wa = sample.weights[0], wb = sample.weights[1], wc = sample.weights[2], wd = sample.weights[3];
    for (int j = 0; j < kBlock; ++j) {
      sums[j] += wa * a[j] + wb * b[j] + (wc * c[j] + wd * d[j]);
    }
  }
  std::copy(sums, sums + kBlock, output + first);
}

template <typename T>
D2_INLINE void sum_channels(T* output, const SampleRows<T>* samples, int64_t count, int64_t channels) {
  int64_t first = 0;
  for (; first + 32 <= channels; first += 32) {
    sum_block<32>(output, samples, count, first);
  }
  for (; first + 8 <= channels; first += 8) {
    sum_block<8>(output, samples, count, first);
  }
  for (; first < channels; ++first) {
    sum_block<1>(output, samples, count, first);
  }
}

// The inputs on the CPU, with what all threads share.
template <typename T>
struct Work {
  MsDeformShape shape;
  MsDeformInputs<T> in;
  std::vector<FeatureLevel> levels;
  std::vector<T> zeros;  // D, what is around a level

  Work(const char* op, const MsDeformShape& s, const MsDeformInputs<T>& inputs)
      : shape(s), in(inputs), zeros(s.channels, T(0)) {
    for (int64_t l = 0; l < s.num_levels; ++l) {
      levels.emplace_back(in.spatial_shapes, in.level_start_index, l);
      const FeatureLevel& level = levels.back();
      STD_TORCH_CHECK(
          level.fits(s.num_cells), op, ": level ", l, " of ", level.height, " x ", level.width,
          " cells from cell ", level.start, " on does not fit into a value of ", s.num_cells, " cells");
    }
  }

  // Whether no cell belongs to two levels.
  bool has_separate_levels() const {
    std::vector<FeatureLevel> sorted;
    std::copy_if(levels.begin(), levels.end(), std::back_inserter(sorted), [](const FeatureLevel& level) {
      return level.height * level.width > 0;
    });
    std::sort(sorted.begin(), sorted.end(), [](const FeatureLevel& a, const FeatureLevel& b) {
      return a.start < b.start;
    });
    for (size_t i = 1; i < sorted.size(); ++i) {
      const FeatureLevel& before = sorted[i - 1];
      if (sorted[i].start < before.start + before.height * before.width) {
        return false;
      }
    }
    return true;
  }
};

// Queries [begin, end) of those of all images.
template <typename T>
D2_INLINE void attend(const Work<T>& work, T* output, int64_t begin, int64_t end) {
  const MsDeformShape& s = work.shape;
  std::vector<SampleRows<T>> samples(s.samples_per_head());
  for (int64_t index = begin * s.num_heads; index < end * s.num_heads; ++index) {
    const int64_t n = index / (s.num_heads * s.num_queries), head = index % s.num_heads;
    const T* value = work.in.value + n * s.image_stride() + head * s.channels;
    const T* location = work.in.sampling_locations + index * s.samples_per_head() * 2;
    const T* factor = work.in.attention_weights + index * s.samples_per_head();
    int64_t count = 0;
    for (const FeatureLevel& level : work.levels) {
      for (int64_t p = 0; p < s.num_points; ++p, location += 2, ++factor) {
        const MsDeformSample<T> sample(level, location[0], location[1]);
        if (!sample.inside) {
          continue;
        }
        SampleRows<T>& rows = samples[count++];
        for (int corner = 0; corner < 4; ++corner) {
          const int64_t cell = sample.cells[corner];
          rows.rows[corner] = cell < 0 ? work.zeros.data() : value + cell * s.cell_stride();
          rows.weights[corner] = cell < 0 ? T(0) : *factor * sample.weights[corner];
          prefetch(rows.rows[corner], s.channels);
        }
      }
    }
    sum_channels(output + index * s.channels, samples.data(), count, s.channels);
  }
}

D2_VECTOR_CLONES void attend_rows(const Work<float>& work, float* output, int64_t begin, int64_t end) {
  attend(work, output, begin, end);
}

D2_VECTOR_CLONES void attend_rows(const Work<double>& work, double* output, int64_t begin, int64_t end) {
  attend(work, output, begin, end);
}

// Returns the product of a gradient and a cell's row, D channels each, and adds weight * gradient to
// grad_row.
template <typename T>
D2_INLINE T multiply_and_add(
    const T* __restrict grad, const T* __restrict row, T* __restrict grad_row, T weight, int64_t channels) {
  T lanes[kLanes] = {}, rest = T(0);
  int64_t d = 0;
  for (; d + kLanes <= channels; d += kLanes) {
    for (int j = 0; j < kLanes; ++j) {
      lanes[j] += grad[d + j] * row[d + j];
    }
    for (int j = 0; j < kLanes; ++j) {
      grad_row[d + j] += weight * grad[d + j];
    }
  }
  for (; d < channels; ++d) {
    rest += grad[d] * row[d];
    grad_row[d] += weight * grad[d];
  }
  T halves[kLanes / 2];
  for (int j = 0; j < kLanes / 2; ++j) {
    halves[j] = lanes[j] + lanes[j + kLanes / 2];
  }
  return (halves[0] + halves[2]) + (halves[1] + halves[3]) + rest;
}

template <typename T>
D2_INLINE T dot(const T* a, const T* b) {
  return a[0] * b[0] + a[1] * b[1] + a[2] * b[2] + a[3] * b[3];
}

template <typename T>
struct Gradients {
  const T* output;  // given
  T *value, *locations, *weights;
};

// All queries of one image that look at one level with one head.
template <typename T>
D2_INLINE void attend_backward(
    const Work<T>& work, const Gradients<T>& grads, int64_t n, int64_t head, int64_t l) {
  const MsDeformShape& s = work.shape;
  const int64_t offset = n * s.image_stride() + head * s.channels;
  const T* value = work.in.value + offset;
  T* grad_value = grads.value + offset;
  std::vector<MsDeformSample<T>> samples;
  samples.reserve(s.num_points);
  for (int64_t q = 0; q < s.num_queries; ++q) {
    const int64_t query_head = (n * s.num_queries + q) * s.num_heads + head;
    const int64_t first = (query_head * s.num_levels + l) * s.num_points;
    samples.clear();
    for (int64_t i = first; i < first + s.num_points; ++i) {
      const T* location = work.in.sampling_locations + 2 * i;
      samples.emplace_back(work.levels[l], location[0], location[1]);
      for (int64_t cell : samples.back().cells) {
        if (cell >= 0) {
          prefetch(value + cell * s.cell_stride(), s.channels);
          prefetch(grad_value + cell * s.cell_stride(), s.channels);
        }
      }
    }
    for (int64_t p = 0; p < s.num_points; ++p) {
      const MsDeformSample<T>& sample = samples[p];
      const T factor = sample.inside ? work.in.attention_weights[first + p] : T(0);
      T products[4];
      for (int corner = 0; corner < 4; ++corner) {
        const int64_t at = sample.cells[corner] * s.cell_stride();
        products[corner] = at < 0 ? T(0)
                                  : multiply_and_add(
                                        grads.output + query_head * s.channels, value + at, grad_value + at,
                                        factor * sample.weights[corner], s.channels);
      }
      grads.weights[first + p] = dot(products, sample.weights);
      grads.locations[2 * (first + p)] = factor * dot(products, sample.x_slopes);
      grads.locations[2 * (first + p) + 1] = factor * dot(products, sample.y_slopes);
    }
  }
}

D2_VECTOR_CLONES void attend_backward_task(
    const Work<float>& work, const Gradients<float>& grads, int64_t n, int64_t head, int64_t level) {
  attend_backward(work, grads, n, head, level);
}

D2_VECTOR_CLONES void attend_backward_task(
    const Work<double>& work, const Gradients<double>& grads, int64_t n, int64_t head, int64_t level) {
  attend_backward(work, grads, n, head, level);
}

struct CpuKernels {
  CpuKernels(const char*, std::initializer_list<const Tensor*>) {}

  template <typename T>
  void forward(const MsDeformShape& shape, const MsDeformInputs<T>& in, T* output) const {
    const Work<T> work("ms_deform_attn", shape, in);
    torch::stable::parallel_for(0, shape.num_images * shape.num_queries, 8, [&](int64_t begin, int64_t end) {
      attend_rows(work, output, begin, end);
    });
  }

  template <typename T>
  void backward(
      const MsDeformShape& shape, const MsDeformInputs<T>& in, const T* grad, T* grad_value,
      T* grad_locations, T* grad_weights) const {
    const Work<T> work("ms_deform_attn_backward", shape, in);
    const Gradients<T> grads{grad, grad_value, grad_locations, grad_weights};
    // Levels that share cells must not be worked on at the same time.
    const int64_t num_parts = work.has_separate_levels() ? shape.num_levels : 1;
    const int64_t num_tasks = shape.num_images * shape.num_heads * num_parts;
    torch::stable::parallel_for(0, num_tasks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) {
        const int64_t part = task % num_parts, image_head = task / num_parts;
        const int64_t last = num_parts == 1 ? shape.num_levels : part + 1;
        for (int64_t l = part; l < last; ++l) {
          attend_backward_task(work, grads, image_head / shape.num_heads, image_head % shape.num_heads, l);
        }
      }
    });
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detectron2, CPU, m) {
  m.impl("ms_deform_attn", TORCH_BOX(&ms_deform_attn_host<CpuKernels>));
  m.impl("ms_deform_attn_backward", TORCH_BOX(&ms_deform_attn_backward_host<CpuKernels>));
}

}  // namespace detectron2
