#pragma once
// Tensors for kernels that are given plain pointers: each lies between guards, NaN around what is read, so that more spoils
// the result, and a number around what is written, so that more is seen, NaN too.

#include <cmath>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace duoflow {

class GuardedTensors {
 public:
  // `skip`: elements past the 64-byte boundary at which it starts, so that loads of several at once do not fit.
  explicit GuardedTensors(std::int64_t skip = 0) : skip_(skip) {}

  at::Tensor copy_of(at::Tensor const& tensor) {
    at::Tensor const place = between(NAN, tensor.sizes(), tensor.scalar_type());
    place.copy_(tensor);
    return place;
  }
  // NaN, to be written.
  at::Tensor empty(at::IntArrayRef shape, at::ScalarType type = at::kFloat) {
    at::Tensor const place = between(kNumber, shape, type);
    place.fill_(NAN);
    return place;
  }
  void expect_untouched_guards(std::string const& where) const {
    for (std::size_t i = 0; i < all_.size(); ++i) {
      auto const& [whole, guard, first, count] = all_[i];
      auto const untouched = [guard = guard](at::Tensor const& part) {
        return (std::isnan(guard) ? part.isnan() : part.eq(guard)).all().item<bool>();
      };
      EXPECT_TRUE(untouched(whole.narrow(0, 0, first))) << where << ": written before tensor " << i;
      EXPECT_TRUE(untouched(whole.narrow(0, first + count, kGuard))) << where << ": written behind tensor " << i;
    }
  }

 private:
  static constexpr std::int64_t kGuard = 64;
  static constexpr double kNumber = 12;
  struct Whole {
    at::Tensor tensor;
    double guard;
    std::int64_t first, count;
  };
  at::Tensor between(double guard, at::IntArrayRef shape, at::ScalarType type) {
    std::int64_t const count = c10::multiply_integers(shape);
    at::Tensor const whole = at::full({count + 2 * kGuard + skip_}, guard, type);
    all_.push_back({whole, guard, kGuard + skip_, count});
    return whole.narrow(0, kGuard + skip_, count).view(shape);
  }

  std::int64_t skip_;
  std::vector<Whole> all_;
};

// max |a - b| / max |b|; NaN where a has one.
inline double distance(at::Tensor const& a, at::Tensor const& b) {
  auto const x = a.to(at::kDouble), y = b.to(at::kDouble);
  return ((x - y).abs().max() / y.abs().max().clamp_min(1e-30)).item<double>();
}

}  // namespace duoflow
