// What the bindings of ROIAlign have in common, for upright and rotated boxes, CPU and CUDA: argument checks,
// and tensors in the type that sums are taken in.
#pragma once

#include "../common/tensor.h"
#include "roi_align.h"
#include "roi_align_shape.h"

namespace detectron2 {

// Checks input (N, C, H, W) and boxes (R, box_dim).
inline RoiAlignShape roi_align_shape(
    const char* op, const Tensor& input, const Tensor& boxes, int64_t box_dim, int64_t pooled_height,
    int64_t pooled_width) {
  check_shape(op, "input", input, {-1, -1, -1, -1});
  check_shape(op, "boxes", boxes, {-1, box_dim});
  visit_floating(input.scalar_type(), op, [](auto) {});
  STD_TORCH_CHECK(pooled_height > 0 && pooled_width > 0, op, ": the output size must be positive");
  return {boxes.size(0), input.size(0), input.size(1), input.size(2),
          input.size(3), pooled_height, pooled_width};
}

// Checks grad (R, C, PH, PW) and boxes (R, box_dim); the other sizes are those of the input.
inline RoiAlignShape roi_align_backward_shape(
    const char* op, const Tensor& grad, const Tensor& boxes, int64_t box_dim, int64_t batch_size,
    int64_t channels, int64_t height, int64_t width) {
  check_shape(op, "boxes", boxes, {-1, box_dim});
  check_shape(op, "grad", grad, {boxes.size(0), channels, -1, -1});
  return {boxes.size(0), batch_size, channels, height, width, grad.size(2), grad.size(3)};
}

// Checks that every box (of `box_dim` numbers, the first of them an index) names one of the images.
template <typename T>
void check_image_indices(const char* op, const T* boxes, int64_t box_dim, const RoiAlignShape& shape) {
  for (int64_t r = 0; r < shape.num_boxes; ++r) {
    const T index = boxes[box_dim * r];
    STD_TORCH_CHECK(
        names_image(index, shape.batch_size), op, ": box ", r, " names image ", index, " of ",
        shape.batch_size);
  }
}

// Calls run(features, boxes, output), pointers to the type of sums, and returns the output (R, C, PH, PW),
// which is not initialised, in the input's dtype.
template <typename Run>
Tensor roi_align_forward(
    const Tensor& input, const Tensor& boxes, const RoiAlignShape& shape, const Run& run) {
  const Tensor features = as_accumulator(input);
  const Tensor box_values = contiguous_as(boxes, features.scalar_type());
  Tensor output = torch::stable::new_empty(
      features, {shape.num_boxes, shape.channels, shape.pooled_height, shape.pooled_width});
  visit_accumulator(features.scalar_type(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    run(features.const_data_ptr<T>(), box_values.const_data_ptr<T>(), output.mutable_data_ptr<T>());
  });
  return cast_to(output, input.scalar_type());
}

// Calls run(grad, boxes, grad_input), pointers to the type of sums, and returns grad_input (N, C, H, W),
// which is zero at first, in the dtype of `grad`.
template <typename Run>
Tensor roi_align_backward(
    const Tensor& grad, const Tensor& boxes, const RoiAlignShape& shape, const Run& run) {
  const Tensor values = as_accumulator(grad);
  const Tensor box_values = contiguous_as(boxes, values.scalar_type());
  Tensor grad_input =
      torch::stable::new_zeros(values, {shape.batch_size, shape.channels, shape.height, shape.width});
  visit_accumulator(values.scalar_type(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    run(values.const_data_ptr<T>(), box_values.const_data_ptr<T>(), grad_input.mutable_data_ptr<T>());
  });
  return cast_to(grad_input, grad.scalar_type());
}

}  // namespace detectron2
