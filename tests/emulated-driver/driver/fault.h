// Faults: what a kernel or a call did wrong, told once and in full.
#pragma once

#include <cuda.h>

#include <string>

// One lock for the whole driver: calls of all host threads run one after another.
struct DriverLock {
  DriverLock();
  ~DriverLock();
};

// Writes a line of the call log, if one is asked for.
void log_call(const char* format, ...) __attribute__((format(printf, 1, 2)));

std::string format(const char* format, ...) __attribute__((format(printf, 1, 2)));

// Reports a fault. Ends the process, unless CUDA_EMU_FAULTS=return: then `code` comes back for the caller to return, and
// `cuGetErrorString(code)` gives the message to the host thread that met it.
CUresult fault(CUresult code, const std::string& message);

// The message of this host thread's last fault with `code`, or null.
const char* fault_message(CUresult code);

// The exit status of a process that ended in a fault.
constexpr int FAULT_STATUS = 97;
