// Reading the environment.
#include "options.h"

#include <unistd.h>

#include <cstdlib>
#include <cstring>

namespace {

[[noreturn]] void refuse(const char* variable, const char* value, const char* expected) {
  fprintf(stderr, "emulated CUDA: %s is '%s'; expected %s\n", variable, value, expected);
  // Not exit(): what runs at exit asks for the options.
  _exit(2);
}

Options read() {
  Options read;
  if (const char* order = getenv("CUDA_EMU_ORDER")) {
    char* end = nullptr;
    if (!strcmp(order, "forward") || !*order) {
      read.order = Order::Forward;
    } else if (!strcmp(order, "reverse")) {
      read.order = Order::Reverse;
    } else if (!strncmp(order, "shuffle:", 8) && order[8] && (read.seed = strtoul(order + 8, &end, 10), !*end)) {
      read.order = Order::Shuffled;
    } else {
      refuse("CUDA_EMU_ORDER", order, "forward, reverse or shuffle:SEED");
    }
  }
  if (const char* faults = getenv("CUDA_EMU_FAULTS")) {
    if (!strcmp(faults, "return")) read.faults_returned = true;
    else if (*faults && strcmp(faults, "abort")) refuse("CUDA_EMU_FAULTS", faults, "abort or return");
  }
  if (const char* leaks = getenv("CUDA_EMU_LEAKS")) {
    if (!strcmp(leaks, "allow")) read.leaks_allowed = true;
    else if (*leaks && strcmp(leaks, "forbid")) refuse("CUDA_EMU_LEAKS", leaks, "forbid or allow");
  }
  if (const char* log = getenv("CUDA_EMU_LOG"); log && *log) {
    read.log = strcmp(log, "-") ? fopen(log, "w") : stderr;
    if (!read.log) refuse("CUDA_EMU_LOG", log, "- or a file that can be written");
  }
  if (const char* kernels = getenv("CUDA_EMU_KERNELS")) {
    std::string rest = kernels;
    while (!rest.empty()) {
      const size_t end = rest.find(':');
      if (end != 0) read.kernels.push_back(rest.substr(0, end));
      rest = end == std::string::npos ? "" : rest.substr(end + 1);
    }
  }
  return read;
}

}  // namespace

const Options& options() {
  static const Options* instance = new Options(read());
  return *instance;
}
