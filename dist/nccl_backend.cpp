#include "dist/nccl_backend.h"

#include <stdexcept>

#include <ATen/ATen.h>
#include <ATen/cuda/CUDAContext.h>
#include <c10/cuda/CUDAFunctions.h>
#include <fmt/format.h>
#include <nccl.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <unistd.h>

#include "dist/c10d_backend.h"

namespace duoflow::dist {
namespace {

constexpr char const* this_host = "127.0.0.1";

std::string name_of_host() {
  char name[256] = {};
  if (gethostname(name, sizeof(name) - 1) != 0) {
    throw std::runtime_error("the name of this host cannot be read (gethostname failed)");
  }
  return name;
}

// Rank 0 serves on a port that the system picks; where it is travels over MPI.
c10::intrusive_ptr<c10d::Store> meet(MpiSession const* session, std::chrono::milliseconds timeout) {
  MpiWorld const world = session != nullptr ? session->world() : MpiWorld();
  c10d::TCPStoreOptions options;
  options.port = 0;
  options.isServer = world.rank == 0;
  options.numWorkers = static_cast<std::size_t>(world.size);
  options.waitWorkers = false;
  options.timeout = timeout;
  c10::intrusive_ptr<c10d::TCPStore> store;
  std::string address;
  if (world.rank == 0) {
    store = c10::make_intrusive<c10d::TCPStore>(this_host, options);
    address = fmt::format("{} {}", world.local_size == world.size ? this_host : name_of_host(), store->getPort());
  }
  if (session != nullptr) {
    address = session->broadcast_string(address);
  }
  if (world.rank != 0) {
    std::size_t const space = address.find(' ');
    options.port = static_cast<std::uint16_t>(std::stoi(address.substr(space + 1)));
    store = c10::make_intrusive<c10d::TCPStore>(address.substr(0, space), options);
  }
  return c10::make_intrusive<c10d::PrefixStore>("duoflow", store);
}

}  // namespace

void bind_device(int local_rank) {
  int const devices = c10::cuda::device_count();
  if (devices > 0) {
    // "Maybe": the context is only made when the device is first used.
    static_cast<void>(c10::cuda::MaybeSetDevice(static_cast<c10::DeviceIndex>(local_rank % devices)));
  }
}

std::shared_ptr<Transport> make_nccl_transport(MpiSession const* session, double timeout_s,
                                               std::shared_ptr<Watchdog> watchdog) {
  MpiWorld const world = session != nullptr ? session->world() : MpiWorld();
  int const devices = c10::cuda::device_count();
  if (devices == 0) {
    throw std::runtime_error("CUDA was asked for, but no device is visible: check nvidia-smi and CUDA_VISIBLE_DEVICES, "
                             "or run on the cpu");
  }
  if (world.local_size > devices) {
    throw std::runtime_error(fmt::format(
        "{} ranks on a host with {} CUDA device(s) (NCCL wants one device per rank): start fewer ranks there, or set "
        "DUOFLOW_CUDA_TRANSPORT=staged", world.local_size, devices));
  }
  // LibTorch's own watchdog ends the process without naming the rank that is missing: ours comes first.
  auto const timeout = std::chrono::milliseconds(static_cast<std::int64_t>((timeout_s + (watchdog ? 10 : 0)) * 1000));
  auto const options = c10d::ProcessGroupNCCL::Options::create();
  options->timeout = timeout;
  auto group = c10::make_intrusive<c10d::ProcessGroupNCCL>(meet(session, timeout), world.rank, world.size, options);
  // Connecting now rather than at the first collective: a broken set-up shows before any work is done.
  at::Device const device(at::kCUDA, static_cast<c10::DeviceIndex>(world.local_rank));
  group->setBoundDeviceId(device);
  group->eagerConnectSingleDevice(device);
  return wrap_backend(group, std::move(watchdog));
}

std::string cuda_device_name() { return at::cuda::getCurrentDeviceProperties()->name; }
std::string nccl_version() { return fmt::format("{}.{}.{}", NCCL_MAJOR, NCCL_MINOR, NCCL_PATCH); }

}  // namespace duoflow::dist
