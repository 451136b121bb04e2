#pragma once
// A session of ranks that no MPI joins: torchrun, srun without MPI, or anything else that sets the variables of
// launch_variables.h. Ranks meet by keys in a store that rank 0, or torchrun's agent, serves; collectives on CPU
// tensors go over plain TCP (tcp_backend.h).

#include <memory>

#include "dist/launch_variables.h"
#include "dist/session.h"

namespace duoflow::dist {

// Collective. PeerError when the store or a rank is not there within timeout_s (after that, the deadline of every
// meeting); std::invalid_argument when another process has the same rank, or another idea of how many there are.
std::unique_ptr<Session> make_store_session(LaunchVariables const& launch, double timeout_s);

}  // namespace duoflow::dist
