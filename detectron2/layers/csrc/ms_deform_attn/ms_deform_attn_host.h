// Multi-scale deformable attention: what the devices have in common, arguments and results.
#pragma once

#include <tuple>

#include "../common/tensor.h"
#include "ms_deform_attn.h"

namespace detectron2 {

// Checks every argument but what the level tensors hold, which only the CPU can read without waiting.
inline MsDeformShape ms_deform_shape(
    const char* op, const Tensor& value, const Tensor& spatial_shapes, const Tensor& level_start_index,
    const Tensor& locations, const Tensor& weights) {
  check_shape(op, "value", value, {-1, -1, -1, -1});
  check_shape(op, "spatial_shapes", spatial_shapes, {-1, 2});
  check_shape(op, "sampling_locations", locations, {value.size(0), -1, value.size(2), -1, -1, 2});
  const MsDeformShape shape{value.size(0),     value.size(1),     value.size(2),    value.size(3),
                            locations.size(1), locations.size(3), locations.size(4)};
  check_shape(op, "spatial_shapes", spatial_shapes, {shape.num_levels, 2});
  check_shape(op, "level_start_index", level_start_index, {shape.num_levels});
  check_shape(
      op, "attention_weights", weights,
      {shape.num_images, shape.num_queries, shape.num_heads, shape.num_levels, shape.num_points});
  for (const Tensor* t : {&value, &locations, &weights}) {
    visit_floating(t->scalar_type(), op, [](auto) {});
  }
  for (const Tensor* t : {&spatial_shapes, &level_start_index}) {
    STD_TORCH_CHECK(
        t->scalar_type() == ScalarType::Long || t->scalar_type() == ScalarType::Int, op,
        ": spatial_shapes and level_start_index must be int64 or int32, got ", toString(t->scalar_type()));
  }
  return shape;
}

// Every operand in memory order and in the type that sums are taken in.
struct MsDeformOperands {
  Tensor value, spatial_shapes, level_start_index, locations, weights;

  MsDeformOperands(
      const Tensor& values, const Tensor& shapes, const Tensor& starts, const Tensor& places,
      const Tensor& factors)
      : value(as_accumulator(values)),
        spatial_shapes(contiguous_as(shapes, ScalarType::Long)),
        level_start_index(contiguous_as(starts, ScalarType::Long)),
        locations(contiguous_as(places, value.scalar_type())),
        weights(contiguous_as(factors, value.scalar_type())) {}

  template <typename T>
  MsDeformInputs<T> pointers() const {
    return {
        value.const_data_ptr<T>(), spatial_shapes.const_data_ptr<int64_t>(),
        level_start_index.const_data_ptr<int64_t>(), locations.const_data_ptr<T>(),
        weights.const_data_ptr<T>()};
  }
};

// -> (N, Q, M * D), in the dtype of value.
template <typename Kernels>
Tensor ms_deform_attn_host(
    const Tensor& value, const Tensor& spatial_shapes, const Tensor& level_start_index,
    const Tensor& locations, const Tensor& weights) {
  const char* op = "ms_deform_attn";
  const MsDeformShape shape =
      ms_deform_shape(op, value, spatial_shapes, level_start_index, locations, weights);
  const Kernels kernels(op, {&value, &spatial_shapes, &level_start_index, &locations, &weights});
  const MsDeformOperands in(value, spatial_shapes, level_start_index, locations, weights);
  Tensor output =
      torch::stable::new_empty(in.value, {shape.num_images, shape.num_queries, shape.cell_stride()});
  visit_accumulator(in.value.scalar_type(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    kernels.forward(shape, in.pointers<T>(), output.mutable_data_ptr<T>());
  });
  return cast_to(output, value.scalar_type());
}

// grad (N, Q, M * D) -> gradients of value, locations and weights, in the dtypes of these.
template <typename Kernels>
std::tuple<Tensor, Tensor, Tensor> ms_deform_attn_backward_host(
    const Tensor& grad, const Tensor& value, const Tensor& spatial_shapes, const Tensor& level_start_index,
    const Tensor& locations, const Tensor& weights) {
  const char* op = "ms_deform_attn_backward";
  const MsDeformShape shape =
      ms_deform_shape(op, value, spatial_shapes, level_start_index, locations, weights);
  check_shape(op, "grad", grad, {shape.num_images, shape.num_queries, shape.cell_stride()});
  visit_floating(grad.scalar_type(), op, [](auto) {});
  const Kernels kernels(op, {&grad, &value, &spatial_shapes, &level_start_index, &locations, &weights});
  const MsDeformOperands in(value, spatial_shapes, level_start_index, locations, weights);
  const Tensor grads = contiguous_as(grad, in.value.scalar_type());
  Tensor grad_value = torch::stable::new_zeros(
      in.value, {shape.num_images, shape.num_cells, shape.num_heads, shape.channels});
  Tensor grad_locations = torch::stable::empty_like(in.locations);
  Tensor grad_weights = torch::stable::empty_like(in.weights);
  visit_accumulator(in.value.scalar_type(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    kernels.backward(
        shape, in.pointers<T>(), grads.const_data_ptr<T>(), grad_value.mutable_data_ptr<T>(),
        grad_locations.mutable_data_ptr<T>(), grad_weights.mutable_data_ptr<T>());
  });
  return {
      cast_to(grad_value, value.scalar_type()), cast_to(grad_locations, locations.scalar_type()),
      cast_to(grad_weights, weights.scalar_type())};
}

}  // namespace detectron2
