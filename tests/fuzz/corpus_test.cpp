// Every seed of every fuzz target and some thousand mutations of them, the same ones each time: what tests/fuzz.sh
// looks for at length, in seconds and without clang. Under tests/sanitize.sh asan it finds more.

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <exception>
#include <new>
#include <random>

#include "tests/fuzz/target.h"

namespace {

std::atomic<std::size_t> largest_request{0};

void* remembered(std::size_t bytes) {
  auto seen = largest_request.load();
  while (bytes > seen && !largest_request.compare_exchange_weak(seen, bytes)) {
  }
  void* const memory = std::malloc(std::max<std::size_t>(bytes, 1));
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace

// What inputs of a few kilobytes make the readers ask for.
void* operator new(std::size_t bytes) { return remembered(bytes); }
void* operator new[](std::size_t bytes) { return remembered(bytes); }
// AddressSanitizer has its own of these, whose memory is not for free().
void* operator new(std::size_t bytes, std::nothrow_t const&) noexcept try {
  return remembered(bytes);
} catch (std::bad_alloc const&) {
  return nullptr;
}
void* operator new[](std::size_t bytes, std::nothrow_t const& none) noexcept { return operator new(bytes, none); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }

namespace duoflow::fuzz {
namespace {

constexpr int kMutations = 2000;
constexpr std::size_t kMostBytes = std::size_t{256} << 20;

class Mutator {
 public:
  std::string operator()(std::string input, std::string const& other) {
    for (auto changes = 1 + below(3); changes > 0; --changes) change(input, other);
    return input;
  }

 private:
  std::size_t below(std::size_t end) { return end == 0 ? 0 : static_cast<std::size_t>(random_() % end); }

  void change(std::string& input, std::string const& other) {
    auto const at = below(input.size());
    switch (input.empty() ? 5 : below(8)) {
      case 0:
        input[at] = static_cast<char>(input[at] ^ (1 << below(8)));
        break;
      case 1:
        input[at] = static_cast<char>(below(256));
        break;
      case 2:
        put_number(input, at);
        break;
      case 3:
        input.resize(at);
        break;
      case 4:
        input.erase(at, 1 + below(16));
        break;
      case 5:
        input = input.substr(0, at) + other.substr(below(other.size()));
        break;
      case 6:
        input.insert(at, input.substr(below(input.size()), 1 + below(32)));
        break;
      default:
        replace_digits(input, at);
    }
  }

  // Over 1, 2, 4 or 8 bytes, in either order: lengths, counts, offsets.
  void put_number(std::string& input, std::size_t at) {
    std::array<std::uint64_t, 9> const values{
        0, 1, 0x7f, input.size(), input.size() + 1, 0x7fffffff, 0x80000000, std::uint64_t{1} << 62, ~std::uint64_t{0}};
    auto const value = values[below(values.size())];
    auto const bytes = std::size_t{1} << below(4);
    bool const swapped = below(2) == 1;
    for (std::size_t i = 0; i < bytes && at + i < input.size(); ++i)
      input[at + i] = static_cast<char>(value >> (8 * (swapped ? bytes - 1 - i : i)));
  }

  // The next number of a text.
  void replace_digits(std::string& input, std::size_t at) {
    constexpr std::array<char const*, 8> numbers{
        "-1", "0", "1e300", "0.5", "4611686018427387904", "99999999999999999999", "null", "[]"};
    auto const begin = input.find_first_of("0123456789", at);
    if (begin == std::string::npos) return;
    auto const end = input.find_first_not_of("0123456789", begin);
    input.replace(begin, (end == std::string::npos ? input.size() : end) - begin, numbers[below(numbers.size())]);
  }

  std::mt19937_64 random_{20240607};
};

std::string shown(std::string const& input) {
  std::string text;
  for (char const c : input.substr(0, 600)) {
    constexpr char const* digits = "0123456789abcdef";
    auto const byte = static_cast<unsigned char>(c);
    text += {digits[byte >> 4], digits[byte & 15]};
  }
  return text + (input.size() > 600 ? "..." : "");
}

// Whether it was read; any other answer than that or the reader's own error is a failure.
bool answers(Target const& target, std::string const& input) {
  try {
    return target.run(input);
  } catch (std::exception const& error) {
    ADD_FAILURE() << target.name << ": " << error.what() << "\nfor the bytes " << shown(input);
    return false;
  }
}

class FuzzCorpusTest : public ::testing::TestWithParam<Target> {};

TEST_P(FuzzCorpusTest, SeedsAndTheirMutationsAreReadOrRefused) {
  auto const& target = GetParam();
  auto const seeds = target.seeds();
  ASSERT_TRUE(answers(target, seeds.front())) << "the first seed is what the reader is for";
  largest_request = 0;
  int read = 0, refused = 0;
  for (auto const& seed : seeds) (answers(target, seed) ? read : refused) += 1;
  Mutator mutate;
  for (int i = 0; i < kMutations && !HasFailure(); ++i) {
    auto const& seed = seeds[static_cast<std::size_t>(i) % seeds.size()];
    auto const input = mutate(seed, seeds[static_cast<std::size_t>(i / 7) % seeds.size()]);
    (answers(target, input) ? read : refused) += 1;
    ASSERT_LE(largest_request, kMostBytes)
        << target.name << " asked for that much memory for the bytes " << shown(input);
  }
  EXPECT_GT(read, 0);
  EXPECT_GT(refused, 0);
}

INSTANTIATE_TEST_SUITE_P(, FuzzCorpusTest, ::testing::ValuesIn(targets()),
                         [](auto const& target) { return std::string(target.param.name); });

TEST(FuzzTargetsTest, AllAreHere) { EXPECT_EQ(targets().size(), std::size_t{DUOFLOW_FUZZ_TARGETS}); }

}  // namespace
}  // namespace duoflow::fuzz
