// What every binding needs: the tensor type, argument checks and the choice of a kernel by dtype.
//
// Only torch's stable ABI is used here and in every other file of this folder: no at::, no c10::.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Exception.h>
#include <torch/headeronly/util/Half.h>

#include <cstdint>
#include <initializer_list>
#include <string>

namespace detectron2 {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// The type in which sums of T are taken: half precision accumulates in float.
template <typename T>
struct Accumulator {
  using type = float;
};
template <>
struct Accumulator<double> {
  using type = double;
};
template <typename T>
using accumulator_t = typename Accumulator<T>::type;

template <typename T>
struct TypeTag {
  using type = T;
};

// Calls visit(TypeTag<T>{}) with the C++ type of a floating dtype.
template <typename Visitor>
decltype(auto) visit_floating(ScalarType dtype, const char* op, Visitor&& visit) {
  switch (dtype) {
    case ScalarType::Float:
      return visit(TypeTag<float>{});
    case ScalarType::Double:
      return visit(TypeTag<double>{});
    case ScalarType::Half:
      return visit(TypeTag<torch::headeronly::Half>{});
    case ScalarType::BFloat16:
      return visit(TypeTag<torch::headeronly::BFloat16>{});
    default:
      STD_TORCH_CHECK(false, op, ": expected float64, float32, float16 or bfloat16, got ", toString(dtype));
  }
}

// Calls visit(TypeTag<double>{}) for float64 and visit(TypeTag<float>{}) for everything else.
template <typename Visitor>
decltype(auto) visit_accumulator(ScalarType dtype, Visitor&& visit) {
  return dtype == ScalarType::Double ? visit(TypeTag<double>{}) : visit(TypeTag<float>{});
}

inline ScalarType accumulator_dtype(ScalarType dtype) {
  return dtype == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

inline Tensor cast_to(const Tensor& t, ScalarType dtype) {
  return t.scalar_type() == dtype ? t : torch::stable::to(t, dtype);
}

// `t` in memory order, in the given type.
inline Tensor contiguous_as(const Tensor& t, ScalarType dtype) {
  return torch::stable::contiguous(cast_to(t, dtype));
}

// `t` in memory order, in the type that sums of it are taken in.
inline Tensor as_accumulator(const Tensor& t) { return contiguous_as(t, accumulator_dtype(t.scalar_type())); }

// Checks that `t` has `sizes.size()` dimensions; -1 stands for any size.
inline void check_shape(
    const char* op, const char* name, const Tensor& t, std::initializer_list<int64_t> sizes) {
  bool fits = t.dim() == static_cast<int64_t>(sizes.size());
  int64_t dim = 0;
  for (int64_t size : sizes) {
    fits = fits && (size < 0 || t.size(dim) == size);
    ++dim;
  }
  if (fits) {
    return;
  }
  std::string wanted, got;
  for (int64_t size : sizes) {
    wanted += (wanted.empty() ? "" : ", ") + (size < 0 ? std::string("*") : std::to_string(size));
  }
  for (dim = 0; dim < t.dim(); ++dim) {
    got += (dim ? ", " : "") + std::to_string(t.size(dim));
  }
  STD_TORCH_CHECK(false, op, ": ", name, " must have shape (", wanted, "), got (", got, ")");
}

}  // namespace detectron2
