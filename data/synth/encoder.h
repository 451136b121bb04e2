#pragma once
// 8-bit codes of linear values.

#include <array>
#include <cmath>
#include <cstdint>

namespace duoflow::data {

// round(255 clip(x)^(1/2.2)), by a table of where each code begins.
class Encoder {
 public:
  Encoder() {
    for (std::size_t code = 1; code < 256; ++code) {
      begins_[code] = static_cast<float>(std::pow((static_cast<double>(code) - 0.5) / 255, 2.2));
    }
    begins_[256] = 2;
    std::size_t code = 0;
    for (std::size_t i = 0; i < kCoarse; ++i) {
      while (begins_[code + 1] <= static_cast<float>(i) / kCoarse) {
        ++code;
      }
      coarse_[i] = static_cast<std::uint8_t>(code);
    }
  }
  std::uint8_t operator()(float x) const {
    if (!(x > 0)) {
      return 0;
    }
    if (x >= 1) {
      return 255;
    }
    std::size_t code = coarse_[static_cast<std::size_t>(x * kCoarse)];
    while (x >= begins_[code + 1]) {
      ++code;
    }
    return static_cast<std::uint8_t>(code);
  }

 private:
  static constexpr int kCoarse = 4096;
  std::array<float, 257> begins_{};
  std::array<std::uint8_t, kCoarse> coarse_{};
};

}  // namespace duoflow::data
