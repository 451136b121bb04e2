#pragma once
// The Runtime of a test program under mpirun; mpi_main.cpp owns it.

#include "dist/runtime.h"

namespace duoflow::dist {

Runtime& world();

}  // namespace duoflow::dist
