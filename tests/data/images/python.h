#pragma once
// The project's Python, for twins of our formulas. Tests that need it report a skip where it is missing.

#include <string>

namespace duoflow::data::testing {

bool python_has(std::string const& modules);        // "numpy, PIL"
std::string run_python(std::string const& arguments);  // what `python ARGUMENTS` printed, errors included
std::string twin(std::string const& name);            // path of a script beside the tests

// The folder of shared input data, "" when it is not there.
std::string shared_data();

}  // namespace duoflow::data::testing
