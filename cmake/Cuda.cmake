# CUDA kernels, with DUOFLOW_CUDA: needs nvcc, which LibTorch does not (it was built for the wheel's CUDA version, whose
# runtime it brings along). Without one of that version the program is built all the same: the fused operators then are
# ATen's on a GPU.
set(DUOFLOW_KERNELS OFF)
if(NOT DUOFLOW_CUDA)
  return()
endif()
file(GLOB wheel_cudart "${site_packages}/nvidia/cu*/lib/libcudart.so.*" "${LIBTORCH_DIR}/lib/libcudart*.so*")
find_program(DUOFLOW_NVCC nvcc PATHS /usr/local/cuda/bin DOC "compiler of the CUDA kernels")
if(NOT DUOFLOW_NVCC OR NOT wheel_cudart)
  message(STATUS "no CUDA kernels, a GPU will use ATen's (nvcc in PATH or /usr/local/cuda/bin: ${DUOFLOW_NVCC}; "
    "LibTorch's libcudart: ${wheel_cudart}): install what was not found to have them")
  return()
endif()
list(GET wheel_cudart 0 wheel_cudart)
execute_process(COMMAND "${DUOFLOW_NVCC}" --version OUTPUT_VARIABLE nvcc_version)
string(REGEX MATCH "release ([0-9]+)" nvcc_version "${nvcc_version}")
set(nvcc_major "${CMAKE_MATCH_1}")
if(NOT wheel_cudart MATCHES "\\.so\\.${nvcc_major}$")
  message(STATUS "no CUDA kernels, a GPU will use ATen's (${DUOFLOW_NVCC} is of CUDA ${nvcc_major}, LibTorch has "
    "${wheel_cudart}): name an nvcc of that version with -DDUOFLOW_NVCC=PATH")
  return()
endif()

set(CMAKE_CUDA_COMPILER "${DUOFLOW_NVCC}")
set(CMAKE_CUDA_ARCHITECTURES "80-real;90" CACHE STRING "GPUs that kernels are compiled for: A100, H100 and H200, and newer ones at start")
# LibTorch's libcudart and no other, neither the toolkit's nor a static one: the process then has one runtime, with one
# current device and one last error, and the bundle needs no library more.
set(CMAKE_CUDA_RUNTIME_LIBRARY None)
enable_language(CUDA)
set(CMAKE_CUDA_STANDARD 17)  # CMake 3.25 knows no newer one of nvcc 13
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
set(CMAKE_CUDA_FLAGS_RELEASE "-O3 -DNDEBUG --compress-mode=size")  # three programs of a bundle carry them
set(DUOFLOW_KERNELS ON)
message(STATUS "CUDA kernels: ${DUOFLOW_NVCC}, for ${CMAKE_CUDA_ARCHITECTURES}, with ${wheel_cudart}")

# duoflow_kernels(NAME a.cu ...): a library of kernels. They see no header of LibTorch, which nvcc would take half a minute for.
function(duoflow_kernels name)
  add_library(${name} SHARED ${ARGN})
  target_include_directories(${name} PRIVATE "${CMAKE_SOURCE_DIR}")
  target_compile_options(${name} PRIVATE -Xcompiler=-Wall,-Wextra)
  if(DUOFLOW_WERROR)
    target_compile_options(${name} PRIVATE -Werror=all-warnings -Xcompiler=-Werror)
  endif()
  target_link_libraries(${name} PUBLIC "${wheel_cudart}")
endfunction()
