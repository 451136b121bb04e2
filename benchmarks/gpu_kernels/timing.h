#pragma once
// Times of work on a GPU by its own clock, with the host out of the way.

#include <cstdint>
#include <functional>

namespace duoflow::benchmark {

struct Times {
  double median_ms = 0, least_ms = 0, most_ms = 0;
};

// Milliseconds that one call of `body` keeps the current stream busy: of `repeats` series of `calls` calls. The stream is
// kept waiting while the host queues a series, so that short kernels follow each other without the host's pauses.
Times time_of(std::function<void()> const& body, int calls = 20, int repeats = 7);

// Bytes per second of large copies within the device's memory: read and written ones counted.
double copy_bandwidth(std::int64_t bytes = std::int64_t{1} << 30);

}  // namespace duoflow::benchmark
