#pragma once
// DeviceGraph: work that is launched the same way many times, recorded once and then launched as a whole, by one call
// of the host instead of one for every kernel.

#include <functional>
#include <memory>

namespace duoflow::dist {

class DeviceGraph {
 public:
  virtual ~DeviceGraph() = default;
  // Runs `work` on the host while the current stream records what is launched on it, and on streams that come out of it
  // and are joined by it again; none of it is executed. The current stream is not the device's default one, and was it
  // when anything was made that `work` goes on using (gradient accumulators run on the stream they were made on).
  // `work` takes nothing from the device to the host, waits for nothing launched outside, and frees no memory that a
  // replay would read: tensors it makes and leaves behind have their memory for as long as the graph, and their values
  // from each replay. Once. What `work` or the device throws comes out with the recording ended and its memory given
  // back; the device's tensors are then as they were before.
  virtual void capture(std::function<void()> const& work) = 0;
  // After capture(): launches all of it on the current stream.
  virtual void replay() = 0;
};

// Of the current device. std::runtime_error in a binary without CUDA. All graphs that hold collectives of a group must
// be gone before the group is closed.
std::unique_ptr<DeviceGraph> make_cuda_graph();

// Whether a capture is under way in this process: what is launched is then recorded, not executed, and must not be
// waited for by the host, or asked about.
bool is_capturing();

}  // namespace duoflow::dist
