// Intersection of rotated boxes: maths shared by the CPU and CUDA kernels, in double throughout.
//
// A box is (centre x, centre y, width, height, angle in degrees, counter-clockwise on a screen whose y points
// down).
#pragma once

#include <cmath>

#include "../common/host_device.h"

namespace detectron2 {

struct RotatedBox {
  double x, y;  // centre
  double half_width, half_height;
  double cos, sin;
  double area, radius;  // radius of the circle through the corners

  template <typename T>
  D2_HOST_DEVICE explicit RotatedBox(const T* box) {
    x = box[0], y = box[1];
    half_width = std::fabs(0.5 * box[2]), half_height = std::fabs(0.5 * box[3]);
    const double angle = box[4] * 0.017453292519943295;
    cos = std::cos(angle), sin = std::sin(angle);
    area = static_cast<double>(box[2]) * box[3];
    radius = std::sqrt(half_width * half_width + half_height * half_height);
  }
};

D2_HOST_DEVICE double clamp_to(double value, double low, double high) {
  return value < low ? low : (value > high ? high : value);
}

// Integral of clamp(x, -a, a) dy along the edge from (x0, y0) to (x1, y1), as far as |y| <= b.
//
// Cut where the edge crosses |y| = b and |x| = a, the integrand is linear between two cuts and the trapezoid
// rule is exact. No decision depends on rounding: touching and coinciding edges need no care.
D2_HOST_DEVICE double edge_integral(double x0, double y0, double x1, double y1, double a, double b) {
  const double dx = x1 - x0, dy = y1 - y0;
  const double inverse_y = 1.0 / (dy == 0.0 ? 1.0 : dy), inverse_x = 1.0 / (dx == 0.0 ? 1.0 : dx);
  const double y_low = (-b - y0) * inverse_y, y_high = (b - y0) * inverse_y;
  const double x_low = (-a - x0) * inverse_x, x_high = (a - x0) * inverse_x;
  const double t0 = clamp_to(y_low < y_high ? y_low : y_high, 0.0, 1.0);
  const double t3 = clamp_to(y_low < y_high ? y_high : y_low, 0.0, 1.0);
  const double t1 = clamp_to(x_low < x_high ? x_low : x_high, t0, t3);
  const double t2 = clamp_to(x_low < x_high ? x_high : x_low, t0, t3);
  const double v0 = clamp_to(x0 + t0 * dx, -a, a), v1 = clamp_to(x0 + t1 * dx, -a, a);
  const double v2 = clamp_to(x0 + t2 * dx, -a, a), v3 = clamp_to(x0 + t3 * dx, -a, a);
  return 0.5 * dy * ((v0 + v1) * (t1 - t0) + (v1 + v2) * (t2 - t1) + (v2 + v3) * (t3 - t2));
}

// Area of the intersection by Green's theorem: in the frame of `p`, which is [-a, a] x [-b, b] there, it is
// the integral of clamp(x, -a, a) dy along the outline of `q` as far as |y| <= b.
D2_HOST_DEVICE double intersection_area(const RotatedBox& q, const RotatedBox& p) {
  const double dx = q.x - p.x, dy = q.y - p.y, reach = q.radius + p.radius;
  if (dx * dx + dy * dy > reach * reach) {
    return 0.0 * (q.cos + p.cos);  // apart: 0, and NaN for an angle that is NaN
  }
  const double centre_x = dx * p.cos - dy * p.sin, centre_y = dx * p.sin + dy * p.cos;
  const double cos = q.cos * p.cos + q.sin * p.sin, sin = q.sin * p.cos - q.cos * p.sin;
  const double side_x = q.half_width * cos, side_y = -q.half_width * sin;
  const double up_x = q.half_height * sin, up_y = q.half_height * cos;
  const double x0 = centre_x + side_x + up_x, y0 = centre_y + side_y + up_y;
  const double x1 = centre_x - side_x + up_x, y1 = centre_y - side_y + up_y;
  const double x2 = centre_x - side_x - up_x, y2 = centre_y - side_y - up_y;
  const double x3 = centre_x + side_x - up_x, y3 = centre_y + side_y - up_y;
  const double a = p.half_width, b = p.half_height;
  return std::fabs(
      edge_integral(x0, y0, x1, y1, a, b) + edge_integral(x1, y1, x2, y2, a, b) +
      edge_integral(x2, y2, x3, y3, a, b) + edge_integral(x3, y3, x0, y0, a, b));
}

// 0 where one of the boxes has (almost) no area, or a size that is NaN; NaN where a centre or angle is.
D2_HOST_DEVICE double rotated_iou(const RotatedBox& p, const RotatedBox& q) {
  if (!(p.area >= 1e-14 && q.area >= 1e-14)) {
    return 0.0;
  }
  const double overlap = intersection_area(p, q);
  return overlap / (p.area + q.area - overlap);
}

}  // namespace detectron2
