#include "data/order/ordered_source.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <utility>

#include "data/error.h"

namespace duoflow::data {
namespace {

std::string described(std::vector<Field> const& fields, std::string const& name) {
  auto const field = std::find_if(fields.begin(), fields.end(), [&](Field const& f) { return f.name == name; });
  if (field == fields.end()) return "absent";
  return fmt::format("{} [{}]", to_string(field->dtype), fmt::join(field->sample_shape, ","));
}

void require_alike(FolderSource const& a, FolderSource const& b) {
  for (auto const* folder : {&a, &b})
    for (auto const& field : folder->source->fields()) {
      auto const in_a = described(a.source->fields(), field.name), in_b = described(b.source->fields(), field.name);
      if (in_a != in_b)
        throw DataError(fmt::format(
            "{} of a sample is {} in {} and {} in {} (the folders of one run hold samples of one size and type); make "
            "them alike, or train on one of them",
            field.name, in_a, a.directory, in_b, b.directory));
    }
}

class OrderedSource : public BatchSource {
 public:
  OrderedSource(std::vector<FolderSource> folders, std::shared_ptr<Mixture const> mixture, SkippedPositions skipped)
      : folders_(std::move(folders)), mixture_(std::move(mixture)), skipped_(std::move(skipped)) {
    if (folders_.empty() || (mixture_ ? mixture_->weights().size() : 1) != folders_.size())
      throw std::logic_error(fmt::format("{} folders do not match their mixture", folders_.size()));
    for (auto const& folder : folders_) require_alike(folders_.front(), folder);
    fields_ = folders_.front().source->fields();
    fields_.push_back({"position", DType::i64, {1}});
    fields_.push_back({"folder", DType::i64, {1}});
  }

  std::vector<Field> const& fields() const override { return fields_; }

  void fill(std::uint64_t number, std::vector<std::byte*> const& out) const override {
    auto const position = skipped_.position(number);
    auto const folder = mixture_ ? mixture_->at(position).folder : 0;
    folders_[folder].source->fill(position, out);  // its fields come first
    put(position, out[fields_.size() - 2]);
    put(folder, out[fields_.size() - 1]);
  }

 private:
  static void put(std::uint64_t value, std::byte* out) {
    auto const number = static_cast<std::int64_t>(value);
    std::memcpy(out, &number, sizeof(number));
  }

  std::vector<FolderSource> folders_;
  std::shared_ptr<Mixture const> mixture_;
  SkippedPositions skipped_;
  std::vector<Field> fields_;
};

}  // namespace

std::shared_ptr<BatchSource const> make_ordered_source(std::vector<FolderSource> folders,
                                                       std::shared_ptr<Mixture const> mixture,
                                                       SkippedPositions skipped) {
  return std::make_shared<OrderedSource const>(std::move(folders), std::move(mixture), std::move(skipped));
}

}  // namespace duoflow::data
