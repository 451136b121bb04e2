#pragma once
// A loop over independent items on several threads. Private to this folder.

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <exception>
#include <limits>
#include <mutex>
#include <thread>
#include <vector>

namespace duoflow::data {

// body(i) once for each i below count, on at most `threads` threads, the caller's among them. After an error no further item is
// begun; of several errors the one of the lowest item is thrown, so that it does not depend on the threads' pace.
template <class Body>
void parallel_for(std::size_t count, std::size_t threads, Body const& body) {
  std::atomic<std::size_t> next{0}, first_failed{std::numeric_limits<std::size_t>::max()};
  std::exception_ptr error;
  std::mutex mutex;
  auto const work = [&] {
    for (std::size_t i = next++; i < count && first_failed == std::numeric_limits<std::size_t>::max(); i = next++) {
      try {
        body(i);
      } catch (...) {
        std::lock_guard const held(mutex);
        if (i < first_failed) {
          first_failed = i;
          error = std::current_exception();
        }
      }
    }
  };
  std::vector<std::jthread> others;
  for (std::size_t k = 1; k < std::min(threads, count); ++k) { others.emplace_back(work); }
  work();
  others.clear();
  if (error) { std::rethrow_exception(error); }
}

}  // namespace duoflow::data
