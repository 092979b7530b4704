// Sampling of deformable convolution on the CPU, for one image at a time.
//
// The samples of a deformable group are worked out once and used for all of its channels. Gradients are
// summed by channel (input) or by sample (offset, mask), never by two threads in one place: they do not
// depend on the number of threads.
#include <vector>

#include "deform_conv_host.h"

namespace detectron2 {
namespace {

// The samples of one deformable group: four cells and weights for each of K * L.
template <typename T>
std::vector<DeformTap<T>> group_taps(const DeformGeometry& g, const T* offset, int64_t group) {
  const int64_t num_outputs = g.output_size(), count = g.kernel_size() * num_outputs;
  const T* group_offset = offset + group * 2 * count;
  std::vector<DeformTap<T>> taps;
  taps.reserve(count);
  for (int64_t k = 0; k < g.kernel_size(); ++k) {
    const T *dy = group_offset + 2 * k * num_outputs, *dx = dy + num_outputs;
    for (int64_t l = 0; l < num_outputs; ++l) {
      taps.emplace_back(g, k, l, dy[l], dx[l]);
    }
  }
  return taps;
}

template <typename T>
void columns(const DeformGeometry& g, const T* input, const T* offset, const T* mask, T* columns) {
  const int64_t count = g.kernel_size() * g.output_size(), per_group = g.channels_per_group();
  for (int64_t group = 0; group < g.deformable_groups; ++group) {
    const auto taps = group_taps(g, offset, group);
    const T* group_mask = mask ? mask + group * count : nullptr;
    torch::stable::parallel_for(
        group * per_group, (group + 1) * per_group, 1, [&](int64_t begin, int64_t end) {
          for (int64_t c = begin; c < end; ++c) {
            const T* plane = input + c * g.plane_size();
            T* out = columns + c * count;
            for (int64_t s = 0; s < count; ++s) {
              const T value = DeformTap<T>::dot(plane, taps[s].cells, taps[s].weights);
              out[s] = group_mask ? value * group_mask[s] : value;
            }
          }
        });
  }
}

// Gradients of one image from that of its columns; grad_mask is null where there is no mask. grad_input is
// added to.
template <typename T>
void columns_backward(
    const DeformGeometry& g, const T* grad, const T* input, const T* offset, const T* mask, T* grad_input,
    T* grad_offset, T* grad_mask) {
  const int64_t num_outputs = g.output_size(), count = g.kernel_size() * num_outputs;
  const int64_t per_group = g.channels_per_group();
  for (int64_t group = 0; group < g.deformable_groups; ++group) {
    const auto taps = group_taps(g, offset, group);
    const T* group_mask = mask ? mask + group * count : nullptr;
    const int64_t first = group * per_group, last = first + per_group;
    torch::stable::parallel_for(first, last, 1, [&](int64_t begin, int64_t end) {
      for (int64_t c = begin; c < end; ++c) {
        T* plane = grad_input + c * g.plane_size();
        const T* values = grad + c * count;
        for (int64_t s = 0; s < count; ++s) {
          const T value = group_mask ? values[s] * group_mask[s] : values[s];
          for (int corner = 0; corner < 4; ++corner) {
            plane[taps[s].cells[corner]] += value * taps[s].weights[corner];
          }
        }
      }
    });
    torch::stable::parallel_for(0, count, 64, [&](int64_t begin, int64_t end) {
      std::vector<T> dy(end - begin, T(0)), dx(end - begin, T(0)), dm(end - begin, T(0));
      for (int64_t c = first; c < last; ++c) {
        const T *plane = input + c * g.plane_size(), *values = grad + c * count;
        for (int64_t s = begin; s < end; ++s) {
          const DeformTap<T>& tap = taps[s];
          dy[s - begin] += values[s] * DeformTap<T>::dot(plane, tap.cells, tap.y_slopes);
          dx[s - begin] += values[s] * DeformTap<T>::dot(plane, tap.cells, tap.x_slopes);
          dm[s - begin] += values[s] * DeformTap<T>::dot(plane, tap.cells, tap.weights);
        }
      }
      for (int64_t s = begin; s < end; ++s) {
        const int64_t k = s / num_outputs, l = s % num_outputs;
        const T weight = group_mask ? group_mask[s] : T(1);
        T* out = grad_offset + (group * g.kernel_size() + k) * 2 * num_outputs + l;
        out[0] = dy[s - begin] * weight;
        out[num_outputs] = dx[s - begin] * weight;
        if (grad_mask) {
          grad_mask[group * count + s] = dm[s - begin];
        }
      }
    });
  }
}

struct CpuKernels {
  CpuKernels(const char*, std::initializer_list<const Tensor*>) {}

  template <typename T>
  void columns(const DeformGeometry& g, const T* input, const T* offset, const T* mask, T* out) const {
    detectron2::columns(g, input, offset, mask, out);
  }

  template <typename T>
  void columns_backward(
      const DeformGeometry& g, const T* grad, const T* input, const T* offset, const T* mask, T* grad_input,
      T* grad_offset, T* grad_mask) const {
    detectron2::columns_backward(g, grad, input, offset, mask, grad_input, grad_offset, grad_mask);
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detectron2, CPU, m) {
  m.impl("deform_conv", TORCH_BOX(&deform_conv_host<CpuKernels>));
  m.impl("deform_conv_backward", TORCH_BOX(&deform_conv_backward_host<CpuKernels>));
}

}  // namespace detectron2
