# Imported targets over an unpacked LibTorch: the pip wheel in .venv, or -DLIBTORCH_DIR=<folder with include/ and lib/>.
# find_package(Torch) of the wheel insists on a full CUDA toolkit, which neither building nor running needs.
if(NOT LIBTORCH_DIR)
  file(GLOB wheel_dirs "${CMAKE_SOURCE_DIR}/.venv/lib/python3*/site-packages/torch")
  if(NOT wheel_dirs)
    message(FATAL_ERROR "LibTorch not found (no torch in .venv). Run ./launch/setup.sh, or pass -DLIBTORCH_DIR=<unpacked LibTorch>.")
  endif()
  list(GET wheel_dirs 0 LIBTORCH_DIR)
endif()
set(LIBTORCH_DIR "${LIBTORCH_DIR}" CACHE PATH "folder with LibTorch's include/ and lib/" FORCE)
get_filename_component(site_packages "${LIBTORCH_DIR}" DIRECTORY)

add_library(libtorch INTERFACE)
target_include_directories(libtorch SYSTEM INTERFACE
  "${LIBTORCH_DIR}/include" "${LIBTORCH_DIR}/include/torch/csrc/api/include")
# LibTorch's include folder carries fmt headers newer than Debian's libfmt and comes before it: no library, headers only.
target_compile_definitions(libtorch INTERFACE FMT_HEADER_ONLY=1)
target_link_directories(libtorch INTERFACE "${LIBTORCH_DIR}/lib")
target_link_options(libtorch INTERFACE "-Wl,-rpath,${LIBTORCH_DIR}/lib")
# stdc++ comes first: LibTorch exports a std::filesystem of its own, which must not win over the compiler's.
if(DUOFLOW_CUDA)
  # --no-as-needed keeps the CUDA libraries: nothing refers to their symbols, their registration is what is wanted.
  target_compile_definitions(libtorch INTERFACE USE_C10D_NCCL)
  target_include_directories(libtorch SYSTEM INTERFACE
    "${site_packages}/nvidia/nccl/include" "${site_packages}/nvidia/cu13/include")
  target_link_libraries(libtorch INTERFACE
    stdc++ "-Wl,--no-as-needed" torch_cuda c10_cuda torch torch_cpu c10 "-Wl,--as-needed")
else()
  target_link_libraries(libtorch INTERFACE stdc++ torch torch_cpu c10)
endif()
# The wheel's NVIDIA libraries lie in sibling packages that libtorch's own rpath names only for libtorch itself.
file(GLOB nvidia_libs "${site_packages}/nvidia/*/lib")
foreach(dir IN LISTS nvidia_libs)
  target_link_options(libtorch INTERFACE "-Wl,-rpath-link,${dir}")
endforeach()
