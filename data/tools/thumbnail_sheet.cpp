#include "data/tools/thumbnail_sheet.h"

#include <algorithm>
#include <map>
#include <memory>
#include <set>

#include "data/shards/raw_reader.h"

namespace duoflow::data {
namespace {

constexpr std::int64_t kCell = 96, kGap = 4, kLetter = 8, kLabelLetters = 16, kTop = 12;
constexpr std::int64_t kLeft = kLabelLetters * kLetter + kGap;
constexpr std::uint8_t kGrey = 96;

struct PlaceOfPicture {
  std::int64_t shard = 0, row = 0;
};
using Places = std::map<std::string, std::map<std::string, PlaceOfPicture>>;  // object, light

std::string cut(std::string const& text, std::int64_t letters) {
  auto const most = static_cast<std::size_t>(letters);
  return text.size() <= most ? text : text.substr(0, most - 1) + "~";
}

void paste(Image8& sheet, Image8 const& picture, std::int64_t top, std::int64_t left) {
  for (std::int64_t row = 0; row < picture.height; ++row)
    std::copy_n(picture.pixels.begin() + row * picture.width * 3, picture.width * 3,
                sheet.pixels.begin() + ((top + row) * sheet.width + left) * 3);
}

class Thumbnails {
 public:
  explicit Thumbnails(ShardIndex const& index) : reader_(std::make_shared<ShardIndex const>(index)) {
    if (index.kind() == ShardKind::scene) {
      auto const set = load_scenes(index);
      dataset_ = "images", height_ = set.height, width_ = set.width;
      for (auto const& scene : set.scenes)
        if (scene.frame_count > 0)
          places_[scene.object].try_emplace(scene.light, PlaceOfPicture{scene.shard, scene.first_frame});
    } else {
      auto const set = load_pairs(index);
      dataset_ = "target_images", height_ = set.height, width_ = set.width;
      for (auto const& row : set.rows) places_[row.object].try_emplace(row.light, PlaceOfPicture{row.shard, row.row});
    }
  }

  Places const& places() const { return places_; }

  Image8 read(PlaceOfPicture const& place) const {
    Image8 picture{height_, width_, 3, std::vector<std::uint8_t>(static_cast<std::size_t>(height_ * width_ * 3))};
    reader_.read_part(place.shard, dataset_, place.row, 0, picture.pixels.size(), picture.pixels.data());
    auto const longest = std::max(height_, width_);
    return resize_lanczos(picture, std::max<std::int64_t>(1, height_ * kCell / longest),
                          std::max<std::int64_t>(1, width_ * kCell / longest));
  }

 private:
  RawReader reader_;
  char const* dataset_ = "";
  std::int64_t height_ = 0, width_ = 0;
  Places places_;
};

}  // namespace

ThumbnailSheet thumbnail_sheet(ShardIndex const& index, SheetOptions const& options) {
  Thumbnails const thumbnails(index);
  std::vector<std::string> objects, lights;
  std::set<std::string> all_lights;
  for (auto const& [object, of_object] : thumbnails.places()) {
    objects.push_back(object);
    for (auto const& [light, place] : of_object) all_lights.insert(light);
  }
  lights.assign(all_lights.begin(), all_lights.end());
  ThumbnailSheet sheet;
  sheet.objects = std::min<std::int64_t>(options.objects, std::ssize(objects));
  sheet.lights = std::min<std::int64_t>(options.lights, std::ssize(lights));
  sheet.objects_left_out = std::ssize(objects) - sheet.objects;
  sheet.lights_left_out = std::ssize(lights) - sheet.lights;
  auto& image = sheet.image;
  image = {kTop + sheet.objects * (kCell + kGap), kLeft + sheet.lights * (kCell + kGap), 3, {}};
  image.pixels.assign(static_cast<std::size_t>(image.height * image.width * 3), 0);
  for (std::int64_t column = 0; column < sheet.lights; ++column)
    draw_text(image, 2, kLeft + column * (kCell + kGap),
              cut(lights[static_cast<std::size_t>(column)], kCell / kLetter));
  Image8 const missing{kCell, kCell, 3, std::vector<std::uint8_t>(static_cast<std::size_t>(kCell * kCell * 3), kGrey)};
  for (std::int64_t row = 0; row < sheet.objects; ++row) {
    auto const& object = objects[static_cast<std::size_t>(row)];
    auto const top = kTop + row * (kCell + kGap);
    draw_text(image, top + kCell / 2, 0, cut(object, kLabelLetters));
    auto const& of_object = thumbnails.places().at(object);
    for (std::int64_t column = 0; column < sheet.lights; ++column) {
      auto const place = of_object.find(lights[static_cast<std::size_t>(column)]);
      paste(image, place == of_object.end() ? missing : thumbnails.read(place->second), top,
            kLeft + column * (kCell + kGap));
    }
  }
  return sheet;
}

}  // namespace duoflow::data
