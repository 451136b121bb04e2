#include "data/parallel.h"

#include <algorithm>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace duoflow::data {

void for_each_index(std::size_t count, int threads, std::function<void(std::size_t)> const& body) {
  std::mutex mutex;
  std::size_t next = 0, failed = count;
  std::exception_ptr error;
  auto const work = [&] {
    for (;;) {
      std::size_t index = 0;
      {
        std::lock_guard const held(mutex);
        if (next == count || error) return;
        index = next++;
      }
      try {
        body(index);
      } catch (...) {
        std::lock_guard const held(mutex);
        if (index < failed) {
          failed = index;
          error = std::current_exception();
        }
      }
    }
  };
  auto const wanted = threads > 0 ? static_cast<std::size_t>(threads) : std::max<std::size_t>(1, std::thread::hardware_concurrency());
  std::vector<std::jthread> others;
  for (std::size_t i = 1; i < std::min(wanted, count); ++i) others.emplace_back(work);
  work();
  others.clear();
  if (error) std::rethrow_exception(error);
}

}  // namespace duoflow::data
