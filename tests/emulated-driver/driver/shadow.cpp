// Mapping shadow memory.
#include "shadow.h"

#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>

void Shadow::map(size_t multiple) {
  drop();
  while (multiple & (granule_ - 1)) granule_ /= 2;
  // Pages that no kernel touches cost nothing, and fresh ones are zero: no access, stamp 0.
  void* memory = mmap(nullptr, mapped_bytes(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    perror("emulated CUDA: cannot map shadow memory");
    abort();
  }
  cells_ = static_cast<ShadowCell*>(memory);
}

void Shadow::drop() {
  if (cells_) munmap(cells_, mapped_bytes());
  cells_ = nullptr;
}

size_t Shadow::mapped_bytes() const { return (bytes_ + granule_ - 1) / granule_ * sizeof(ShadowCell); }
