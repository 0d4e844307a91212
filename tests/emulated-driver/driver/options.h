// What the environment asks of the driver. README.md lists the variables.
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

enum class Order { Forward, Reverse, Shuffled };

struct Options {
  Order order = Order::Forward;
  uint32_t seed = 0;
  // Faults become error codes that the program sees, instead of the end of the process.
  bool faults_returned = false;
  // Memory that is still allocated when the process ends is no fault.
  bool leaks_allowed = false;
  FILE* log = nullptr;
  // Kernel libraries that go before those of the driver's own folder.
  std::vector<std::string> kernels;
};

// Reads the environment at the first call.
const Options& options();
