#include "launch/pictures.h"

#include <algorithm>

#include <ATen/ATen.h>

namespace duoflow::launch {
namespace {

constexpr std::int64_t kMargin = 6, kCaptionHeight = 14, kRowCaptionWidth = 120;

void paste(data::Image8& canvas, data::Image8 const& picture, std::int64_t top, std::int64_t left, std::int64_t scale) {
  for (std::int64_t y = 0; y < picture.height * scale; ++y)
    for (std::int64_t x = 0; x < picture.width * scale; ++x)
      for (std::int64_t c = 0; c < 3; ++c)
        canvas.pixels[static_cast<std::size_t>(((top + y) * canvas.width + left + x) * 3 + c)] =
            picture.pixels[static_cast<std::size_t>(((y / scale) * picture.width + x / scale) * picture.channels + c)];
}

}  // namespace

data::Image8 to_image(at::Tensor const& image_3HW) {
  auto const bytes = (image_3HW.detach().to(at::kCPU, at::kFloat).clamp(0, 1) * 255)
                         .round()
                         .to(at::kByte)
                         .permute({1, 2, 0})
                         .contiguous();
  data::Image8 image{bytes.size(0), bytes.size(1), 3, {}};
  auto const* data = bytes.const_data_ptr<std::uint8_t>();
  image.pixels.assign(data, data + bytes.numel());
  return image;
}

data::Image8 picture_grid(std::vector<std::vector<data::Image8>> const& rows,
                          std::vector<std::string> const& column_captions, std::vector<std::string> const& row_captions,
                          int scale) {
  if (rows.empty() || rows.front().empty()) return {1, 1, 3, {255, 255, 255}};
  auto const cell_h = rows.front().front().height * scale + kMargin,
             cell_w = rows.front().front().width * scale + kMargin;
  auto const left = row_captions.empty() ? kMargin : kRowCaptionWidth;
  auto const columns = static_cast<std::int64_t>(rows.front().size());
  data::Image8 canvas{kCaptionHeight + kMargin + cell_h * std::ssize(rows), left + cell_w * columns, 3, {}};
  canvas.pixels.assign(static_cast<std::size_t>(canvas.height * canvas.width * 3), 255);
  for (std::int64_t c = 0; c < std::min<std::int64_t>(columns, std::ssize(column_captions)); ++c)
    data::draw_text(canvas, 4, left + c * cell_w, column_captions[static_cast<std::size_t>(c)]);
  for (std::int64_t r = 0; r < std::ssize(rows); ++r) {
    auto const top = kCaptionHeight + kMargin + r * cell_h;
    if (r < std::ssize(row_captions))
      data::draw_text(canvas, top + cell_h / 2 - 8, 4, row_captions[static_cast<std::size_t>(r)]);
    for (std::int64_t c = 0; c < std::ssize(rows[static_cast<std::size_t>(r)]); ++c)
      paste(canvas, rows[static_cast<std::size_t>(r)][static_cast<std::size_t>(c)], top, left + c * cell_w, scale);
  }
  return canvas;
}

at::Tensor error_picture(at::Tensor const& image_3HW, at::Tensor const& target_3HW) {
  auto const error = ((image_3HW - target_3HW).abs().mean(0) * 4).clamp(0, 1);
  return at::stack({1 - 0.4 * error, (1 - 1.3 * error).clamp_min(0), (1 - 3 * error).clamp_min(0)});
}

}  // namespace duoflow::launch
