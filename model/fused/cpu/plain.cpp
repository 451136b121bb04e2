#define DUOFLOW_ARITHMETIC plain_arithmetic
#include "model/fused/cpu/arithmetic.inc"
