// Reporting faults, the call log and the driver's lock.
#include "fault.h"

#include <unistd.h>

#include <cstdarg>
#include <cstdio>
#include <mutex>

#include "options.h"

namespace {

std::recursive_mutex& driver_mutex() {
  static auto* mutex = new std::recursive_mutex;
  return *mutex;
}

thread_local CUresult last_code = CUDA_SUCCESS;
thread_local char last_message[4096];

std::string vformat(const char* format, va_list arguments) {
  char buffer[4096];
  vsnprintf(buffer, sizeof buffer, format, arguments);
  return buffer;
}

}  // namespace

DriverLock::DriverLock() { driver_mutex().lock(); }
DriverLock::~DriverLock() { driver_mutex().unlock(); }

void log_call(const char* format, ...) {
  FILE* log = options().log;
  if (!log) return;
  va_list arguments;
  va_start(arguments, format);
  vfprintf(log, format, arguments);
  va_end(arguments);
  fputc('\n', log);
  fflush(log);
}

std::string format(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  std::string text = vformat(format, arguments);
  va_end(arguments);
  return text;
}

CUresult fault(CUresult code, const std::string& message) {
  fprintf(stderr, "emulated CUDA: fault: %s\n", message.c_str());
  fflush(stderr);
  log_call("fault: %s", message.c_str());
  // Not exit(): nothing may catch this, neither a test harness nor a destructor.
  if (!options().faults_returned) _exit(FAULT_STATUS);
  last_code = code;
  snprintf(last_message, sizeof last_message, "emulated CUDA: %s", message.c_str());
  return code;
}

const char* fault_message(CUresult code) { return code != CUDA_SUCCESS && code == last_code ? last_message : nullptr; }

// Called by the weak definitions that the build makes for every function that is not emulated.
extern "C" int cuda_emu_missing(const char* function) {
  fprintf(stderr, "emulated CUDA: %s is not emulated\n", function);
  return CUDA_ERROR_NOT_SUPPORTED;
}
