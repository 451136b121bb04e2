# Target duoflow_xxhash. #include DUOFLOW_XXHASH is <xxhash.h>; where the library has its dispatcher, with the widest vectors of
# the processor it runs on: the same hashes, 41 instead of 18 GB/s with AVX-512.
include(CheckCXXSourceCompiles)
pkg_check_modules(xxhash REQUIRED IMPORTED_TARGET libxxhash)
set(CMAKE_REQUIRED_LIBRARIES PkgConfig::xxhash)
check_cxx_source_compiles("#include <xxh_x86dispatch.h>
int main(int, char** words) { return static_cast<int>(XXH3_64bits(words[0], 1)); }" DUOFLOW_XXHASH_DISPATCHES)
unset(CMAKE_REQUIRED_LIBRARIES)
add_library(duoflow_xxhash INTERFACE)
target_link_libraries(duoflow_xxhash INTERFACE PkgConfig::xxhash)
if(DUOFLOW_XXHASH_DISPATCHES)
  target_compile_definitions(duoflow_xxhash INTERFACE "DUOFLOW_XXHASH=<xxh_x86dispatch.h>")
else()
  target_compile_definitions(duoflow_xxhash INTERFACE "DUOFLOW_XXHASH=<xxhash.h>")
endif()
