#pragma once
// Collectives on CPU tensors (CUDA tensors: staged through host memory) over plain TCP, for ranks that no MPI joins.
// Meant for small messages: start-up, checkpoints, tests. Rank 0 receives every rank's tensors, computes, and sends the
// results: 2 (n-1) tensors go through its link one collective at a time, so gradients of any size belong to NCCL or
// MPI. Sums are taken in rank order and have the same bits on every rank and in every run.

#include <memory>

#include "dist/session.h"

namespace duoflow::dist {

// Collective. `session` must outlive the transport's close(); it is marked broken when a collective fails. PeerError
// when the ranks do not connect within timeout_s; collectives have the watchdog's deadline.
std::shared_ptr<Transport> make_tcp_transport(Session& session, double timeout_s, std::shared_ptr<Watchdog> watchdog);

}  // namespace duoflow::dist
