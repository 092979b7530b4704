// The sizes that ROIAlign works with, for upright and rotated boxes, CPU and CUDA.
#pragma once

#include <cstdint>

#include "../common/host_device.h"

namespace detectron2 {

struct RoiAlignShape {
  int64_t num_boxes, batch_size, channels, height, width, pooled_height, pooled_width;

  D2_HOST_DEVICE int64_t plane_size() const { return height * width; }
  D2_HOST_DEVICE int64_t pooled_size() const { return pooled_height * pooled_width; }
};

}  // namespace detectron2
