// Binding of rotated ROIAlign's CUDA kernels. Image indices are not checked here, which would wait for the
// GPU: a box of an image that is not there pools NaN.
#include "roi_align_rotated_cuda.h"

#include "../common/cuda_binding.h"
#include "../roi_align/roi_align_host.h"

namespace detectron2 {
namespace {

// input: (N, C, H, W), boxes: (R, 6) image index and rotated box -> (R, C, PH, PW).
Tensor roi_align_rotated_cuda(
    const Tensor& input, const Tensor& boxes, double spatial_scale, int64_t pooled_height,
    int64_t pooled_width, int64_t sampling_ratio) {
  const char* op = "roi_align_rotated";
  const RoiAlignShape shape = roi_align_shape(op, input, boxes, 6, pooled_height, pooled_width);
  const CudaScope scope(op, {&input, &boxes});
  return roi_align_forward(
      input, boxes, shape, [&]<typename T>(const T* features, const T* box_values, T* output) {
        const T scale = static_cast<T>(spatial_scale);
        scope.run(launch_roi_align_rotated<T>, features, box_values, output, shape, scale, sampling_ratio);
      });
}

// grad: (R, C, PH, PW) -> (N, C, H, W).
Tensor roi_align_rotated_backward_cuda(
    const Tensor& grad, const Tensor& boxes, double spatial_scale, int64_t batch_size, int64_t channels,
    int64_t height, int64_t width, int64_t sampling_ratio) {
  const char* op = "roi_align_rotated_backward";
  const RoiAlignShape shape =
      roi_align_backward_shape(op, grad, boxes, 6, batch_size, channels, height, width);
  const CudaScope scope(op, {&grad, &boxes});
  return roi_align_backward(
      grad, boxes, shape, [&]<typename T>(const T* values, const T* box_values, T* grad_input) {
        const T scale = static_cast<T>(spatial_scale);
        scope.run(
            launch_roi_align_rotated_backward<T>, values, box_values, grad_input, shape, scale,
            sampling_ratio);
      });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detectron2, CUDA, m) {
  m.impl("roi_align_rotated", TORCH_BOX(&roi_align_rotated_cuda));
  m.impl("roi_align_rotated_backward", TORCH_BOX(&roi_align_rotated_backward_cuda));
}

}  // namespace detectron2
