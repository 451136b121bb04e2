#define DUOFLOW_ARITHMETIC avx512_arithmetic
#include "model/fused/cpu/arithmetic.inc"
