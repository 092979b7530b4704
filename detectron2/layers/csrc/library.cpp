// Every operator's schema; each device file of an operator registers its kernel for it.
//
// Names and argument orders are those of the plain PyTorch implementations in detectron2/layers.
#include <Python.h>

#include "common/tensor.h"

STABLE_TORCH_LIBRARY(detectron2, m) {
  m.def("nms(Tensor boxes, Tensor scores, float iou_threshold) -> Tensor");
  m.def("batched_nms(Tensor boxes, Tensor scores, Tensor idxs, float iou_threshold) -> Tensor");
  m.def("nms_rotated(Tensor boxes, Tensor scores, float iou_threshold) -> Tensor");
  m.def("batched_nms_rotated(Tensor boxes, Tensor scores, Tensor idxs, float iou_threshold) -> Tensor");
  m.def("box_iou_rotated(Tensor boxes1, Tensor boxes2) -> Tensor");
  m.def("paste_masks(Tensor masks, Tensor boxes, SymInt height, SymInt width, float threshold) -> Tensor");
  m.def(
      "paste_masks_rle(Tensor masks, Tensor boxes, int height, int width, float threshold) "
      "-> (Tensor, Tensor)");
  m.def(
      "roi_align(Tensor input, Tensor boxes, float spatial_scale, SymInt pooled_height, "
      "SymInt pooled_width, int sampling_ratio, bool aligned) -> Tensor");
  m.def(
      "roi_align_backward(Tensor grad, Tensor boxes, float spatial_scale, SymInt batch_size, "
      "SymInt channels, SymInt height, SymInt width, int sampling_ratio, bool aligned) -> Tensor");
  m.def(
      "roi_align_rotated(Tensor input, Tensor boxes, float spatial_scale, SymInt pooled_height, "
      "SymInt pooled_width, int sampling_ratio) -> Tensor");
  m.def(
      "roi_align_rotated_backward(Tensor grad, Tensor boxes, float spatial_scale, SymInt batch_size, "
      "SymInt channels, SymInt height, SymInt width, int sampling_ratio) -> Tensor");
  m.def(
      "deform_conv(Tensor input, Tensor offset, Tensor? mask, Tensor weight, int[] stride, "
      "int[] padding, int[] dilation, int groups, int deformable_groups) -> Tensor");
  m.def(
      "deform_conv_backward(Tensor grad, Tensor input, Tensor offset, Tensor? mask, Tensor weight, "
      "int[] stride, int[] padding, int[] dilation, int groups, int deformable_groups) "
      "-> (Tensor, Tensor, Tensor, Tensor)");
  m.def(
      "ms_deform_attn(Tensor value, Tensor spatial_shapes, Tensor level_start_index, "
      "Tensor sampling_locations, Tensor attention_weights) -> Tensor");
  m.def(
      "ms_deform_attn_backward(Tensor grad, Tensor value, Tensor spatial_shapes, "
      "Tensor level_start_index, Tensor sampling_locations, Tensor attention_weights) "
      "-> (Tensor, Tensor, Tensor)");
}

// The module is empty: importing it loads the library, and that registers the operators.
PyMODINIT_FUNC PyInit__C(void) {
  static PyModuleDef module = {PyModuleDef_HEAD_INIT, "_C", "Compiled operators of detectron2.", -1, nullptr};
  return PyModule_Create(&module);
}
