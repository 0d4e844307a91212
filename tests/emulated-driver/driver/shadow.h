// Shadow memory: for every byte that kernels share, which threads touched it last.
#pragma once

#include <cstddef>
#include <cstdint>

// One access, small enough to keep several for every element.
struct Access {
  uint32_t block;
  uint16_t thread;           // position in its block
  uint16_t present : 1;      // 0: no access
  uint16_t warp_epoch : 15;  // how many times its warp had synchronised
  uint16_t barrier_epoch;    // how many barriers its block had passed
  uint16_t unused;
  uint32_t where;            // program counter, relative to the kernel's library

  unsigned warp() const { return thread / 32u; }
};

// Accesses of one kind by several threads, of which two are enough if they are as far apart as any were: in different
// blocks, else different warps. Whoever comes later and conflicts with one of the others conflicts with one of these.
struct Accesses {
  Access last, other;
};

// What is known of one element since `stamp`. Of plain writes the last is enough: two unordered ones were a race already.
struct ShadowCell {
  uint32_t stamp;
  Access write;
  Accesses reads, atomics;
};

// Cells for a range of bytes, made when first touched. Stale ones are told by their stamp, so nothing is ever cleared.
//
// One cell stands for `granule` bytes, the size of the elements as accesses show it; an access to less makes all cells
// finer, which forgets what they knew of the running launch.
class Shadow {
 public:
  Shadow() = default;
  ~Shadow() { drop(); }
  Shadow(const Shadow&) = delete;
  Shadow& operator=(const Shadow&) = delete;

  // Makes room for `bytes`.
  void cover(size_t bytes) {
    if (bytes <= bytes_) return;
    drop();
    bytes_ = bytes;
  }

  // The cells of an access, and how many.
  ShadowCell* cells(size_t offset, size_t size, size_t* count) {
    if (!cells_ || ((offset | size) & (granule_ - 1))) map(offset | size);
    *count = size / granule_;
    return cells_ + offset / granule_;
  }

 private:
  void map(size_t multiple);
  void drop();
  size_t mapped_bytes() const;
  size_t bytes_ = 0, granule_ = 4;
  ShadowCell* cells_ = nullptr;
};
