// Binding of mask pasting's CUDA kernel.
#include "paste_masks_cuda.h"

#include "../common/cuda_binding.h"

namespace detectron2 {
namespace {

// masks: (R, M, M), boxes: (R, 4) XYXY -> (R, height, width) bool, or uint8 in 0..255 where the threshold is
// negative.
Tensor paste_masks_cuda(
    const Tensor& masks, const Tensor& boxes, int64_t height, int64_t width, double threshold) {
  check_shape("paste_masks", "masks", masks, {-1, -1, -1});
  check_shape("paste_masks", "boxes", boxes, {masks.size(0), 4});
  visit_floating(masks.scalar_type(), "paste_masks", [](auto) {});
  STD_TORCH_CHECK(height >= 0 && width >= 0, "paste_masks: the image size must not be negative");
  const CudaScope scope("paste_masks", {&masks, &boxes});
  const Tensor values = as_accumulator(masks);
  const Tensor corners = contiguous_as(boxes, values.scalar_type());
  const PasteShape shape{masks.size(0), masks.size(1), masks.size(2), height, width};
  const ScalarType dtype = threshold >= 0 ? ScalarType::Bool : ScalarType::Byte;
  Tensor images = torch::stable::new_empty(masks, {shape.num_masks, height, width}, dtype);
  visit_accumulator(values.scalar_type(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    scope.run(
        launch_paste_masks<T>, values.const_data_ptr<T>(), corners.const_data_ptr<T>(),
        static_cast<uint8_t*>(images.mutable_data_ptr()), shape, static_cast<T>(threshold));
  });
  return images;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detectron2, CUDA, m) { m.impl("paste_masks", TORCH_BOX(&paste_masks_cuda)); }

}  // namespace detectron2
