// Modules, functions and launches.
//
// A module is PTX text. Nothing of it is executed: its entries say which kernels there are and what their parameters
// weigh, and a kernel library with the same kernels runs in its place. That both come from the same source is checked by
// parameter sizes.
#include <cuda.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cstring>
#include <string>
#include <unordered_map>
#include <vector>

#include "fault.h"
#include "kernel_library.h"
#include "memory.h"
#include "scheduler.h"

namespace {

constexpr unsigned MAX_THREADS = 1024;
constexpr size_t DEFAULT_DYNAMIC_SHARED = 48 << 10;
constexpr int MAX_DYNAMIC_SHARED = 227 << 10;  // sm_90, after an opt-in by cuFuncSetAttribute

struct Module;

struct Function {
  std::string name;
  std::vector<size_t> parameter_sizes;
  const Module* module;
  const EmulatedKernel* kernel = nullptr;
  size_t max_dynamic_shared = DEFAULT_DYNAMIC_SHARED;
};

struct Module {
  const KernelLibrary* library = nullptr;
  // Stable addresses: a CUfunction points at its entry.
  std::unordered_map<std::string, Function> functions;
};

// The size of one `.param .u64 .ptr .align 1 kernel_param_0` or `.param .align 8 .b8 kernel_param_1[24]`.
size_t parameter_size(const std::string& declaration) {
  static const struct {
    const char* type;
    size_t size;
  } TYPES[] = {{".b8", 1},  {".u8", 1},  {".s8", 1},  {".b16", 2}, {".u16", 2}, {".s16", 2}, {".f16", 2},  {".bf16", 2},
               {".b32", 4}, {".u32", 4}, {".s32", 4}, {".f32", 4}, {".b64", 8}, {".u64", 8}, {".s64", 8}, {".f64", 8}};
  size_t element = 0;
  for (size_t word = 0; word < declaration.size();) {
    size_t end = declaration.find_first_of(" \t\n", word);
    if (end == std::string::npos) end = declaration.size();
    for (const auto& known : TYPES)
      if (declaration.compare(word, end - word, known.type) == 0) element = known.size;
    word = end + 1;
  }
  const size_t bracket = declaration.find('[');
  return bracket == std::string::npos ? element : element * strtoul(declaration.c_str() + bracket + 1, nullptr, 10);
}

// Reads every `.entry name(parameters)` of PTX text.
void parse_entries(const std::string& ptx, Module& module) {
  static const char ENTRY[] = ".entry ";
  for (size_t at = ptx.find(ENTRY); at != std::string::npos; at = ptx.find(ENTRY, at)) {
    at += sizeof ENTRY - 1;
    const size_t name_end = ptx.find_first_of(" \t\n({", at);
    if (name_end == std::string::npos) break;
    Function function;
    function.name = ptx.substr(at, name_end - at);
    function.module = &module;
    const size_t open = ptx.find_first_of("({", name_end);
    if (open != std::string::npos && ptx[open] == '(') {
      const size_t close = ptx.find(')', open);
      for (size_t begin = open + 1; begin < close;) {
        const size_t end = std::min(ptx.find(',', begin), close);
        const std::string declaration = ptx.substr(begin, end - begin);
        if (declaration.find(".param") != std::string::npos)
          function.parameter_sizes.push_back(parameter_size(declaration));
        begin = end + 1;
      }
    }
    module.functions.emplace(function.name, function);
    at = name_end;
  }
}

// The first library that has every kernel of the module.
const KernelLibrary* library_for(const Module& module) {
  for (const KernelLibrary* library : kernel_libraries()) {
    bool all = true;
    for (const auto& [name, function] : module.functions) all = all && library->kernels.count(name);
    if (all) return library;
  }
  return nullptr;
}

std::string list_sizes(const size_t* sizes, size_t count) {
  std::string text;
  for (size_t i = 0; i < count; i++) text += format("%s%zu", i ? " " : "", sizes[i]);
  return text;
}

// Whether memory of this process can be read there.
bool readable(const void* address, size_t size) {
  char buffer[256];
  iovec local{buffer, std::min(size, sizeof buffer)}, remote{const_cast<void*>(address), std::min(size, sizeof buffer)};
  return process_vm_readv(getpid(), &local, 1, &remote, 1, 0) == (ssize_t)local.iov_len;
}

CUresult check_arguments(const Function& function, void** parameters) {
  const EmulatedKernel& kernel = *function.kernel;
  if (kernel.parameter_count && !readable(parameters, kernel.parameter_count * sizeof(void*)))
    return fault(CUDA_ERROR_INVALID_VALUE, format("launch of %s: fewer arguments than the %zu of its signature",
                                                  kernel.name, kernel.parameter_count));
  for (size_t i = 0; i < kernel.parameter_count; i++) {
    // The launch passes no count, so a missing argument shows only where what lies behind the list is no address.
    if (!readable(parameters[i], kernel.sizes[i]))
      return fault(CUDA_ERROR_INVALID_VALUE, format("launch of %s: argument %zu of %zu is missing, or no address of an argument",
                                                    kernel.name, i, kernel.parameter_count));
    if (!kernel.is_pointer[i]) continue;
    uintptr_t address;
    memcpy(&address, parameters[i], sizeof address);
    if (address && !find_allocation(address, 1))
      return fault(CUDA_ERROR_ILLEGAL_ADDRESS,
                   format("launch of %s: argument %zu, a pointer, is %#zx, which lies in no live allocation (%s)", kernel.name,
                          i, (size_t)address, describe_address(address)));
  }
  return CUDA_SUCCESS;
}

}  // namespace

extern "C" {

CUresult cuModuleLoadData(CUmodule* module, const void* image) {
  DriverLock lock;
  auto* loaded = new Module;
  parse_entries(static_cast<const char*>(image), *loaded);
  log_call("cuModuleLoadData(%zu entries)", loaded->functions.size());
  if (loaded->functions.empty()) {
    delete loaded;
    return fault(CUDA_ERROR_INVALID_PTX, "the module has no entry; only PTX text is understood");
  }
  loaded->library = library_for(*loaded);
  if (loaded->library) log_call("  executed by %s", loaded->library->path.c_str());
  *module = reinterpret_cast<CUmodule>(loaded);
  return CUDA_SUCCESS;
}

CUresult cuModuleUnload(CUmodule module) {
  DriverLock lock;
  log_call("cuModuleUnload");
  delete reinterpret_cast<Module*>(module);
  return CUDA_SUCCESS;
}

CUresult cuModuleGetFunction(CUfunction* function, CUmodule module, const char* name) {
  DriverLock lock;
  log_call("cuModuleGetFunction(%s)", name);
  auto* loaded = reinterpret_cast<Module*>(module);
  const auto found = loaded->functions.find(name);
  if (found == loaded->functions.end()) return CUDA_ERROR_NOT_FOUND;
  Function& entry = found->second;
  if (!loaded->library)
    return fault(CUDA_ERROR_NOT_SUPPORTED,
                 format("no kernel library has every kernel of the module that holds %s (%zu kernels); was its .cu given to the "
                        "build, in the version that the PTX was made of?", name, loaded->functions.size()));
  entry.kernel = loaded->library->kernels.at(name);
  const EmulatedKernel& kernel = *entry.kernel;
  const std::vector<size_t> compiled(kernel.sizes, kernel.sizes + kernel.parameter_count);
  if (compiled != entry.parameter_sizes)
    return fault(CUDA_ERROR_INVALID_IMAGE,
                 format("kernel %s: the parameters of the PTX take %s bytes, those of %s take %s", name,
                        list_sizes(entry.parameter_sizes.data(), entry.parameter_sizes.size()).c_str(),
                        loaded->library->path.c_str(), list_sizes(kernel.sizes, kernel.parameter_count).c_str()));
  *function = reinterpret_cast<CUfunction>(&entry);
  return CUDA_SUCCESS;
}

CUresult cuFuncSetAttribute(CUfunction function, CUfunction_attribute attribute, int value) {
  DriverLock lock;
  auto* entry = reinterpret_cast<Function*>(function);
  log_call("cuFuncSetAttribute(%s, %d, %d)", entry->name.c_str(), (int)attribute, value);
  if (attribute == CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES) {
    if (value < 0 || value > MAX_DYNAMIC_SHARED) return CUDA_ERROR_INVALID_VALUE;
    entry->max_dynamic_shared = value;
  }
  return CUDA_SUCCESS;
}

CUresult cuLaunchKernel(CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                        unsigned block_y, unsigned block_z, unsigned shared_bytes, CUstream, void** parameters, void**) {
  DriverLock lock;
  const auto& entry = *reinterpret_cast<Function*>(function);
  log_call("cuLaunchKernel(%s, grid %u %u %u, block %u %u %u, shared %u)", entry.name.c_str(), grid_x, grid_y, grid_z, block_x,
           block_y, block_z, shared_bytes);
  const char* name = entry.name.c_str();
  if (!grid_x || !grid_y || !grid_z || grid_x > 0x7fffffffu || grid_y > 65535 || grid_z > 65535)
    return fault(CUDA_ERROR_INVALID_VALUE, format("launch of %s: grid (%u,%u,%u); each is at least 1, x at most 2^31 - 1, y and z at "
                                                  "most 65535", name, grid_x, grid_y, grid_z));
  if (!block_x || !block_y || !block_z || block_x > MAX_THREADS || block_y > MAX_THREADS || block_z > 64 ||
      (uint64_t)block_x * block_y * block_z > MAX_THREADS)
    return fault(CUDA_ERROR_INVALID_VALUE, format("launch of %s: block (%u,%u,%u); each is at least 1, z at most 64, and their product "
                                                  "at most %u", name, block_x, block_y, block_z, MAX_THREADS));
  const KernelLibrary& library = *entry.module->library;
  if (shared_bytes > entry.max_dynamic_shared)
    return fault(CUDA_ERROR_INVALID_VALUE, format("launch of %s: %u bytes of dynamic shared memory; at most %zu unless "
                                                  "cuFuncSetAttribute asks for more", name, shared_bytes, entry.max_dynamic_shared));
  if (CUresult wrong = check_arguments(entry, parameters)) return wrong;
  return run({&library, entry.kernel, parameters, {grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, shared_bytes});
}

}  // extern "C"
