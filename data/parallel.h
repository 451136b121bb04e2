#pragma once
// The same work for each of a list, on several threads. Private to data/.

#include <cstddef>
#include <functional>

namespace duoflow::data {

// body(0), ..., body(count - 1), each once, begun in this order, on at most `threads` threads (0: one per core).
// When some throw, no further one is begun, and the error of the lowest is thrown once all that were begun have ended.
void for_each_index(std::size_t count, int threads, std::function<void(std::size_t)> const& body);

}  // namespace duoflow::data
