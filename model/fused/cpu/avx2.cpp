#define DUOFLOW_ARITHMETIC avx2_arithmetic
#include "model/fused/cpu/arithmetic.inc"
