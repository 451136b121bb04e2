#include "dist/nccl_backend.h"

#include <algorithm>
#include <sstream>
#include <stdexcept>

#include <ATen/ATen.h>
#include <ATen/cuda/CUDAContext.h>
#include <c10/cuda/CUDAFunctions.h>
#include <fmt/format.h>
#include <nccl.h>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

#include "dist/c10d_backend.h"
#include "dist/key_store.h"

namespace duoflow::dist {
namespace {

std::string const this_host = "127.0.0.1";
constexpr double alone_s = 60;  // for a store that nobody else joins

// Where the group meets. MPI has no keys: rank 0 serves some on a port that the system picks, and tells where over MPI.
std::shared_ptr<KeyStore> meet(Session* session, double timeout_s) {
  constexpr char const* prefix = "duoflow";
  if (session == nullptr) return KeyStore::serve(this_host, 0, prefix, alone_s);
  if (auto store = session->key_store()) return store;
  auto const hosts = session->gather_strings(host_name());
  bool const is_one_host = std::all_of(hosts.begin(), hosts.end(), [&](auto const& one) { return one == hosts[0]; });
  if (session->world().rank == 0) {
    auto const address = is_one_host ? this_host : session->address();
    auto store = KeyStore::serve(address, 0, prefix, timeout_s);
    session->broadcast_string(fmt::format("{} {}", store->port(), address));
    return store;
  }
  std::istringstream line(session->broadcast_string(""));
  int port = 0;
  std::string host;
  line >> port >> host;
  return KeyStore::join(host, port, prefix, timeout_s, fmt::format("rank 0 on host {}, port {}", host, port));
}

c10::DeviceIndex device_of(int local_rank) {
  return static_cast<c10::DeviceIndex>(local_rank % std::max<int>(1, c10::cuda::device_count()));
}

// Two ranks on one device: NCCL would say so in its own words, and only on some ranks. A rank that sees one device of
// several (CUDA_VISIBLE_DEVICES, srun --gpus-per-task) may number it like its neighbour does another one.
void refuse_shared_device(Session& session, c10::DeviceIndex device) {
  auto const* const p = at::cuda::getDeviceProperties(device);
  auto const mine = fmt::format("{} {:04x}:{:02x}:{:02x}", host_name(), p->pciDomainID, p->pciBusID, p->pciDeviceID);
  auto const all = session.gather_strings(mine);
  for (std::size_t rank = 0; rank < all.size(); ++rank) {
    auto const twin = std::find(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(rank), all[rank]);
    if (*twin != all[rank] || twin == all.begin() + static_cast<std::ptrdiff_t>(rank)) continue;
    throw std::runtime_error(fmt::format(
        "ranks {} and {} have the same CUDA device ({}; NCCL wants one per rank): start fewer ranks there, or set "
        "DUOFLOW_CUDA_TRANSPORT=staged",
        twin - all.begin(), rank, all[rank]));
  }
}

}  // namespace

void bind_device(int local_rank) {
  if (c10::cuda::device_count() > 0) {
    // "Maybe": the context is only made when the device is first used.
    static_cast<void>(c10::cuda::MaybeSetDevice(device_of(local_rank)));
  }
}

std::shared_ptr<Transport> make_nccl_transport(Session* session, double timeout_s, std::shared_ptr<Watchdog> watchdog) {
  World const world = session != nullptr ? session->world() : World();
  if (c10::cuda::device_count() == 0) {
    throw std::runtime_error(
        "CUDA was asked for, but no device is visible: check nvidia-smi and CUDA_VISIBLE_DEVICES, "
        "or run on the cpu");
  }
  at::Device const device(at::kCUDA, c10::cuda::current_device());  // bind_device has chosen it
  if (session != nullptr) refuse_shared_device(*session, device.index());
  // Streams of high priority: a bucket's sum starts beside the backward instead of behind what it has queued.
  auto const options = c10d::ProcessGroupNCCL::Options::create(/*is_high_priority_stream=*/true);
  // LibTorch's own watchdog ends the process without naming the rank that is missing: ours comes first.
  options->timeout = std::chrono::milliseconds(static_cast<std::int64_t>((timeout_s + (watchdog ? 10 : 0)) * 1000));
  auto const store = meet(session, timeout_s);
  auto group = c10::make_intrusive<c10d::ProcessGroupNCCL>(store->for_group("nccl"), world.rank, world.size, options);
  // Connecting now rather than at the first collective: a broken set-up shows before any work is done. With a bound
  // device every collective, barriers too, uses this one communicator.
  group->setBoundDeviceId(device);
  group->eagerConnectSingleDevice(device);
  return wrap_backend(group, std::move(watchdog), store);
}

std::string cuda_device_name() { return at::cuda::getCurrentDeviceProperties()->name; }
std::string nccl_version() { return fmt::format("{}.{}.{}", NCCL_MAJOR, NCCL_MINOR, NCCL_PATCH); }

}  // namespace duoflow::dist
