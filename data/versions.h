#pragma once
#include <string>

namespace duoflow::data {

std::string hdf5_version();  // of the library this process runs with

}  // namespace duoflow::data
