#pragma once
// Disk faults on demand, for tests of real jobs: DUOFLOW_FAULT=RANK:N:ACTION makes the N-th modifying file operation
// (from 0; creating, writing, syncing, renaming, removing, in the order they happen) of a rank's checkpoints
//   kill             end that rank by SIGKILL, just before it
//   ENOSPC EIO EROFS EDQUOT   fail so, once
//   full:ENOSPC ...  fail so, it and all after it
//   slow:MS          and all after it take so many milliseconds longer

namespace duoflow::launch {

// Throws std::invalid_argument for a value that is none of these. Unset: does nothing.
void inject_faults_from_environment(int rank);

}  // namespace duoflow::launch
