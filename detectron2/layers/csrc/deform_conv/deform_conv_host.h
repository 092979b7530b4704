// Deformable convolution as a product of matrices: what the devices have in common.
//
// An image's samples are laid out as columns (C * K, L); the convolution is then one product with the weights
// per group. Columns are made again in the backward pass instead of being kept: they are K times the input.
#pragma once

#include <array>
#include <initializer_list>
#include <optional>
#include <tuple>
#include <vector>

#include "../common/tensor.h"
#include "deform_conv.h"

namespace detectron2 {

using IntList = std::vector<int64_t>;

// Checks every argument and works out the geometry.
inline DeformGeometry deform_geometry(
    const char* op, const Tensor& input, const Tensor& offset, const std::optional<Tensor>& mask,
    const Tensor& weight, const IntList& stride, const IntList& padding, const IntList& dilation,
    int64_t groups, int64_t deformable_groups) {
  check_shape(op, "input", input, {-1, -1, -1, -1});
  check_shape(op, "weight", weight, {-1, -1, -1, -1});
  STD_TORCH_CHECK(
      stride.size() == 2 && padding.size() == 2 && dilation.size() == 2, op,
      ": stride, padding and dilation take two numbers each, of rows and columns");
  STD_TORCH_CHECK(
      stride[0] > 0 && stride[1] > 0 && dilation[0] > 0 && dilation[1] > 0, op,
      ": stride and dilation must be positive");
  STD_TORCH_CHECK(padding[0] >= 0 && padding[1] >= 0, op, ": padding must not be negative");
  STD_TORCH_CHECK(weight.size(2) > 0 && weight.size(3) > 0, op, ": the kernel must not be empty");
  STD_TORCH_CHECK(input.size(2) > 0 && input.size(3) > 0, op, ": the input must have rows and columns");
  const int64_t channels = input.size(1);
  STD_TORCH_CHECK(
      groups > 0 && channels % groups == 0 && weight.size(0) % groups == 0 &&
          weight.size(1) == channels / groups,
      op, ": ", channels, " input and ", weight.size(0), " output channels do not fit ", groups,
      " groups of a weight with ", weight.size(1), " input channels");
  STD_TORCH_CHECK(
      deformable_groups > 0 && channels % deformable_groups == 0, op, ": ", channels,
      " input channels do not split into ", deformable_groups, " deformable groups");
  DeformGeometry g{
      channels,   input.size(2), input.size(3), weight.size(2), weight.size(3),    stride[0], stride[1],
      padding[0], padding[1],    dilation[0],   dilation[1],    deformable_groups, 0,         0};
  const int64_t room_height = g.height + 2 * g.padding_height - g.dilation_height * (g.kernel_height - 1) - 1;
  const int64_t room_width = g.width + 2 * g.padding_width - g.dilation_width * (g.kernel_width - 1) - 1;
  g.output_height = room_height / g.stride_height + 1;
  g.output_width = room_width / g.stride_width + 1;
  STD_TORCH_CHECK(
      room_height >= 0 && room_width >= 0, op, ": the kernel is larger than the padded input of ", g.height,
      " x ", g.width);
  const int64_t maps = deformable_groups * g.kernel_size();
  check_shape(op, "offset", offset, {input.size(0), 2 * maps, g.output_height, g.output_width});
  if (mask.has_value()) {
    check_shape(op, "mask", *mask, {input.size(0), maps, g.output_height, g.output_width});
  }
  return g;
}

// Every operand in memory order and in the type that sums are taken in.
struct DeformOperands {
  Tensor input, offset, weight;
  std::optional<Tensor> mask;

  DeformOperands(const Tensor& in, const Tensor& off, const std::optional<Tensor>& m, const Tensor& w)
      : input(as_accumulator(in)),
        offset(contiguous_as(off, input.scalar_type())),
        weight(contiguous_as(w, input.scalar_type())) {
    if (m.has_value()) {
      mask = contiguous_as(*m, input.scalar_type());
    }
  }

  template <typename T>
  const T* mask_data(int64_t n) const {
    return mask.has_value() ? mask->const_data_ptr<T>() + n * mask->stride(0) : nullptr;
  }
};

// out = a @ b. The overload with `out` is one that autocast leaves alone: sums stay in the type of the
// operands.
inline void multiply(const Tensor& a, const Tensor& b, const Tensor& out) {
  std::array<StableIValue, 3> stack{
      torch::stable::detail::from(a), torch::stable::detail::from(b), torch::stable::detail::from(out)};
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::mm", "out", stack.data(), TORCH_ABI_VERSION));
  torch::stable::detail::to<Tensor>(stack[0]);  // takes the reference that the call returns
}

// Rows [group * count, (group + 1) * count) of a matrix.
inline Tensor row_block(const Tensor& matrix, int64_t group, int64_t count) {
  Tensor whole = matrix;
  return torch::stable::narrow(whole, 0, group * count, count);
}

inline Tensor reshaped(const Tensor& t, std::vector<int64_t> sizes) {
  return torch::stable::reshape(t, sizes);
}

// input (N, C, H, W), weight (O, C / groups, KH, KW) -> (N, O, HO, WO), without bias.
template <typename Kernels>
Tensor deform_conv_host(
    const Tensor& input, const Tensor& offset, const std::optional<Tensor>& mask, const Tensor& weight,
    IntList stride, IntList padding, IntList dilation, int64_t groups, int64_t deformable_groups) {
  const DeformGeometry g = deform_geometry(
      "deform_conv", input, offset, mask, weight, stride, padding, dilation, groups, deformable_groups);
  visit_floating(input.scalar_type(), "deform_conv", [](auto) {});
  const Kernels kernels("deform_conv", {&input, &offset, mask.has_value() ? &*mask : &input, &weight});
  const DeformOperands in(input, offset, mask, weight);
  const int64_t num_images = input.size(0), outputs = weight.size(0), num_rows = g.channels * g.kernel_size();
  Tensor result = torch::stable::new_empty(in.input, {num_images, outputs, g.output_size()});
  Tensor columns = torch::stable::new_empty(in.input, {num_rows, g.output_size()});
  const Tensor matrix = reshaped(in.weight, {outputs, num_rows / groups});
  visit_accumulator(in.input.scalar_type(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    for (int64_t n = 0; n < num_images; ++n) {
      kernels.template columns<T>(
          g, in.input.const_data_ptr<T>() + n * in.input.stride(0),
          in.offset.const_data_ptr<T>() + n * in.offset.stride(0), in.template mask_data<T>(n),
          columns.mutable_data_ptr<T>());
      const Tensor image = torch::stable::select(result, 0, n);
      for (int64_t group = 0; group < groups; ++group) {
        multiply(
            row_block(matrix, group, outputs / groups), row_block(columns, group, num_rows / groups),
            row_block(image, group, outputs / groups));
      }
    }
  });
  result = reshaped(result, {num_images, outputs, g.output_height, g.output_width});
  return cast_to(result, input.scalar_type());
}

// grad (N, O, HO, WO) -> gradients of input, offset, mask (empty without one) and weight, in the dtypes of
// these.
template <typename Kernels>
std::tuple<Tensor, Tensor, Tensor, Tensor> deform_conv_backward_host(
    const Tensor& grad, const Tensor& input, const Tensor& offset, const std::optional<Tensor>& mask,
    const Tensor& weight, IntList stride, IntList padding, IntList dilation, int64_t groups,
    int64_t deformable_groups) {
  const char* op = "deform_conv_backward";
  const DeformGeometry g =
      deform_geometry(op, input, offset, mask, weight, stride, padding, dilation, groups, deformable_groups);
  check_shape(op, "grad", grad, {input.size(0), weight.size(0), g.output_height, g.output_width});
  const Kernels kernels(op, {&grad, &input, &offset, mask.has_value() ? &*mask : &input, &weight});
  const DeformOperands in(input, offset, mask, weight);
  const int64_t num_images = input.size(0), outputs = weight.size(0), num_rows = g.channels * g.kernel_size();
  const int64_t group_rows = num_rows / groups, group_outputs = outputs / groups;
  const Tensor grads = contiguous_as(grad, in.input.scalar_type());
  const Tensor grad_images = reshaped(grads, {num_images, outputs, g.output_size()});
  const Tensor matrix = reshaped(in.weight, {outputs, group_rows});
  Tensor grad_input = torch::stable::new_zeros(in.input, {num_images, g.channels, g.height, g.width});
  Tensor grad_offset = torch::stable::empty_like(in.offset);
  Tensor grad_mask =
      mask.has_value() ? torch::stable::empty_like(*in.mask) : torch::stable::new_empty(in.input, {0});
  // One gradient of the weights per image, summed in the end.
  Tensor grad_weights = torch::stable::new_empty(in.input, {num_images, outputs, group_rows});
  Tensor columns = torch::stable::new_empty(in.input, {num_rows, g.output_size()});
  visit_accumulator(in.input.scalar_type(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    for (int64_t n = 0; n < num_images; ++n) {
      const T* image = in.input.const_data_ptr<T>() + n * in.input.stride(0);
      const T* image_offset = in.offset.const_data_ptr<T>() + n * in.offset.stride(0);
      const T* image_mask = in.template mask_data<T>(n);
      const Tensor image_grad = torch::stable::select(grad_images, 0, n);
      const Tensor weight_grad = torch::stable::select(grad_weights, 0, n);
      kernels.template columns<T>(g, image, image_offset, image_mask, columns.mutable_data_ptr<T>());
      for (int64_t group = 0; group < groups; ++group) {
        const Tensor rows = row_block(columns, group, group_rows);
        const Tensor weights = row_block(matrix, group, group_outputs);
        const Tensor output_grad = row_block(image_grad, group, group_outputs);
        multiply(
            output_grad, torch::stable::transpose(rows, 0, 1), row_block(weight_grad, group, group_outputs));
        multiply(torch::stable::transpose(weights, 0, 1), output_grad, rows);
      }
      kernels.template columns_backward<T>(
          g, columns.const_data_ptr<T>(), image, image_offset, image_mask,
          grad_input.mutable_data_ptr<T>() + n * grad_input.stride(0),
          grad_offset.mutable_data_ptr<T>() + n * grad_offset.stride(0),
          mask.has_value() ? grad_mask.mutable_data_ptr<T>() + n * grad_mask.stride(0) : nullptr);
    }
  });
  const std::vector<int64_t> image_dim = {0};
  Tensor grad_weight = reshaped(
      torch::stable::sum(grad_weights, image_dim),
      {outputs, weight.size(1), g.kernel_height, g.kernel_width});
  return {
      cast_to(grad_input, input.scalar_type()), cast_to(grad_offset, offset.scalar_type()),
      mask.has_value() ? cast_to(grad_mask, mask->scalar_type()) : grad_mask,
      cast_to(grad_weight, weight.scalar_type())};
}

}  // namespace detectron2
