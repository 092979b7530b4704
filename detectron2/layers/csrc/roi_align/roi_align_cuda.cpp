// Binding of ROIAlign's CUDA kernels. Image indices are not checked here, which would wait for the
// GPU: a box of an image that is not there pools NaN.
#include "roi_align_cuda.h"

#include "../common/cuda_binding.h"

namespace detectron2 {
namespace {

// input: (N, C, H, W), boxes: (R, 5) image index and XYXY -> (R, C, PH, PW).
Tensor roi_align_cuda(
    const Tensor& input, const Tensor& boxes, double spatial_scale, int64_t pooled_height,
    int64_t pooled_width, int64_t sampling_ratio, bool aligned) {
  check_shape("roi_align", "input", input, {-1, -1, -1, -1});
  check_shape("roi_align", "boxes", boxes, {-1, 5});
  check_same_device("roi_align", input, boxes);
  visit_floating(input.scalar_type(), "roi_align", [](auto) {});
  STD_TORCH_CHECK(pooled_height > 0 && pooled_width > 0, "roi_align: the output size must be positive");
  const CudaScope scope(input);
  const Tensor features = as_accumulator(input);
  const Tensor box_values = torch::stable::contiguous(cast_to(boxes, features.scalar_type()));
  const RoiAlignShape shape{boxes.size(0), input.size(0), input.size(1), input.size(2),
                            input.size(3), pooled_height, pooled_width};
  Tensor output =
      torch::stable::new_empty(features, {shape.num_boxes, shape.channels, pooled_height, pooled_width});
  visit_accumulator(features.scalar_type(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    check_launch(
        launch_roi_align<T>(
            features.const_data_ptr<T>(), box_values.const_data_ptr<T>(), output.mutable_data_ptr<T>(), shape,
            {static_cast<T>(spatial_scale), sampling_ratio, aligned}, scope.stream()));
  });
  return cast_to(output, input.scalar_type());
}

// grad: (R, C, PH, PW) -> (N, C, H, W).
Tensor roi_align_backward_cuda(
    const Tensor& grad, const Tensor& boxes, double spatial_scale, int64_t batch_size, int64_t channels,
    int64_t height, int64_t width, int64_t sampling_ratio, bool aligned) {
  check_shape("roi_align_backward", "boxes", boxes, {-1, 5});
  check_shape("roi_align_backward", "grad", grad, {boxes.size(0), channels, -1, -1});
  check_same_device("roi_align_backward", grad, boxes);
  const CudaScope scope(grad);
  const Tensor values = as_accumulator(grad);
  const Tensor box_values = torch::stable::contiguous(cast_to(boxes, values.scalar_type()));
  const RoiAlignShape shape{boxes.size(0), batch_size, channels, height, width, grad.size(2), grad.size(3)};
  Tensor grad_input = torch::stable::new_zeros(values, {batch_size, channels, height, width});
  visit_accumulator(values.scalar_type(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    check_launch(
        launch_roi_align_backward<T>(
            values.const_data_ptr<T>(), box_values.const_data_ptr<T>(), grad_input.mutable_data_ptr<T>(),
            shape, {static_cast<T>(spatial_scale), sampling_ratio, aligned}, scope.stream()));
  });
  return cast_to(grad_input, grad.scalar_type());
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detectron2, CUDA, m) {
  m.impl("roi_align", TORCH_BOX(&roi_align_cuda));
  m.impl("roi_align_backward", TORCH_BOX(&roi_align_backward_cuda));
}

}  // namespace detectron2
