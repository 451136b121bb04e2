#pragma once
// NCCL and the CUDA device of this process. Built with or without CUDA (no_nccl_backend.cpp).

#include <memory>
#include <string>

#include "dist/communicator.h"
#include "dist/session.h"

namespace duoflow::dist {

// The device that "cuda" means on this rank: local_rank modulo the devices of the host. Nothing without CUDA.
void bind_device(int local_rank);

// All ranks over NCCL, one device each, on streams of high priority; a group of one rank is a real NCCL group too.
// `session` null: one rank. Collective; std::runtime_error when two ranks have the same device.
// Close it on every rank, then meet in a barrier, before the process ends: rank 0 may serve the keys that the others
// still use while closing.
std::shared_ptr<Transport> make_nccl_transport(Session* session, double timeout_s,
                                               std::shared_ptr<Watchdog> watchdog = nullptr);

std::string cuda_device_name();  // of the current device; "" in a build without CUDA
std::string nccl_version();      // built against; "none" in a build without CUDA

}  // namespace duoflow::dist
