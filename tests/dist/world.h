#pragma once
// The Runtime of a test program of several ranks; world_main.cpp owns it.

#include "dist/runtime.h"

namespace duoflow::dist {

Runtime& world();

}  // namespace duoflow::dist
