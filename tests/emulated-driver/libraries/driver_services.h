// What the emulated driver does for the libraries beside it.
#pragma once

#include <stddef.h>

extern "C" {
void cuda_emu_log(const char* text);
// Whether an operand lies in one live allocation; reports a fault if not.
int cuda_emu_check_range(const char* call, const char* what, const void* pointer, size_t bytes);
}
