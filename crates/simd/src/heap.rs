//! The C library's heap: whether memory that the process has freed stays with it.

/// Asks the C library to keep memory that this process frees, up to about `bytes` of it, instead of giving it back to the
/// kernel. Returns whether it will: of the C libraries glibc can, and a program with a global allocator of its own does not
/// use it. Threads other than the main one have heaps of at most 64 MiB, and larger buffers of theirs are given back.
///
/// A training step frees what the next one allocates again. glibc gives buffers of megabytes back at once, and the kernel then
/// hands out the same memory zeroed, page by page, with a fault for each: for losses and convolutions that costs about as much
/// as their arithmetic. Call this once, first thing in `main`, with several times what a step allocates. Buffers larger than
/// `bytes` are given back as before; what is kept counts as used by this process. `bytes` above 2 GiB mean 2 GiB.
///
/// The environment can do the same, for programs that cannot be changed:
/// `GLIBC_TUNABLES=glibc.malloc.mmap_threshold=BYTES:glibc.malloc.trim_threshold=BYTES`.
///
/// ```
/// let kept = candle_simd::heap::keep_freed_memory(1 << 30);
/// assert_eq!(kept, cfg!(all(target_os = "linux", target_env = "gnu")));
/// ```
pub fn keep_freed_memory(bytes: usize) -> bool {
    #[cfg(all(target_os = "linux", target_env = "gnu", not(miri)))]
    {
        let bytes = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
        // SAFETY: mallopt takes any numbers, changes how glibc's allocator acts from then on and nothing that it has handed
        // out; it takes the allocator's lock.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, bytes) == 1
                && libc::mallopt(libc::M_TRIM_THRESHOLD, bytes) == 1
        }
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu", not(miri))))]
    {
        let _ = bytes;
        false
    }
}
