// Loading kernel libraries and finding source lines in them.
#include "kernel_library.h"

#include <dirent.h>
#include <dlfcn.h>
#include <link.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "fault.h"
#include "options.h"

namespace {

// The library that is being loaded, to which its registrations belong.
KernelLibrary* loading = nullptr;

// The range of the loaded object that holds `inside`.
void find_range(KernelLibrary* library, uintptr_t inside) {
  struct Search {
    KernelLibrary* library;
    uintptr_t inside;
  } search{library, inside};
  dl_iterate_phdr(
      [](dl_phdr_info* object, size_t, void* data) {
        auto* search = static_cast<Search*>(data);
        uintptr_t begin = UINTPTR_MAX, end = 0;
        for (int i = 0; i < object->dlpi_phnum; i++) {
          const auto& segment = object->dlpi_phdr[i];
          if (segment.p_type != PT_LOAD) continue;
          begin = std::min<uintptr_t>(begin, object->dlpi_addr + segment.p_vaddr);
          end = std::max<uintptr_t>(end, object->dlpi_addr + segment.p_vaddr + segment.p_memsz);
        }
        if (search->inside < begin || search->inside >= end) return 0;
        search->library->begin = begin;
        search->library->end = end;
        return 1;
      },
      &search);
}

void load(const std::string& path, std::vector<KernelLibrary*>& into) {
  auto* library = new KernelLibrary;
  library->path = path;
  loading = library;
  // Local: kernel sources define functions of the same names.
  void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  loading = nullptr;
  if (!handle || library->kernels.empty()) {
    fprintf(stderr, "emulated CUDA: %s: %s\n", path.c_str(), handle ? "holds no kernel" : dlerror());
    fflush(nullptr);
    _exit(2);
  }
  library->checked = dlsym(handle, "cuda_emu_checked_build") != nullptr;
  find_range(library, reinterpret_cast<uintptr_t>(library->kernels.begin()->second));
  log_call("loaded %s: %zu kernels%s", path.c_str(), library->kernels.size(), library->checked ? ", checked" : "");
  into.push_back(library);
}

std::vector<KernelLibrary*> load_all() {
  std::vector<KernelLibrary*> libraries;
  for (const std::string& path : options().kernels) load(path, libraries);
  Dl_info driver{};
  dladdr(reinterpret_cast<void*>(&load_all), &driver);
  std::string folder = driver.dli_fname;
  folder = folder.substr(0, folder.rfind('/') + 1) + "kernels";
  std::vector<std::string> names;
  if (DIR* listing = opendir(folder.c_str())) {
    while (dirent* entry = readdir(listing)) {
      const std::string name = entry->d_name;
      if (name.size() > 3 && !name.compare(name.size() - 3, 3, ".so")) names.push_back(name);
    }
    closedir(listing);
  }
  std::sort(names.begin(), names.end());
  for (const std::string& name : names) load(folder + "/" + name, libraries);
  return libraries;
}

bool read_line(FILE* from, std::string& into) {
  char buffer[2048];
  if (!fgets(buffer, sizeof buffer, from)) return false;
  into = buffer;
  into.erase(into.find_last_not_of('\n') + 1);
  return true;
}

std::string quoted(const std::string& text) {
  std::string quoted = "'";
  for (char c : text) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

}  // namespace

const std::vector<KernelLibrary*>& kernel_libraries() {
  static const auto* libraries = new std::vector<KernelLibrary*>(load_all());
  return *libraries;
}

extern "C" void cuda_emu_register(const EmulatedKernel* kernel) {
  if (loading) loading->kernels[kernel->name] = kernel;
}

extern "C" void cuda_emu_shared_section(char* begin, char* end, const uint64_t* map_begin, const uint64_t* map_end) {
  if (!loading || begin == end) return;
  loading->shared_begin = begin;
  loading->shared_end = end;
  loading->shared_map = map_begin;
  loading->shared_map_end = map_end;
}

extern "C" void cuda_emu_shared_guards(char* begin, char* end) {
  // nvcc calls no constructor of what is shared. On the host the first thread to come would call it, once in the life of the
  // process, and would note that in a variable that no thread of a GPU has: to the race checker, a stray write.
  memset(begin, 1, end - begin);
}

std::string source_line(const KernelLibrary& library, uintptr_t address) {
  const unsigned long offset = address - library.begin;
  // binutils is there wherever the library could be compiled. The innermost of inlined calls comes first.
  const std::string command = format("addr2line -f -C -i -e %s %#lx 2>/dev/null", quoted(library.path).c_str(), offset);
  std::string function, line;
  if (FILE* pipe = popen(command.c_str(), "r")) {
    std::string next_function, next_line;
    while (read_line(pipe, next_function) && read_line(pipe, next_line)) {
      // `__ldg` and the like are of no interest, their caller is.
      const bool ours = line.find("/emulated-driver/device/") != std::string::npos;
      if (!line.empty() && !ours) continue;
      function = next_function;
      line = next_line;
    }
    pclose(pipe);
  }
  if (const size_t note = line.find(" (discriminator"); note != std::string::npos) line.erase(note);
  if (line.empty() || line[0] == '?') return format("%s+%#lx", library.path.c_str(), offset);
  return line + " (" + function + ")";
}
