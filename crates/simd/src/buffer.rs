//! Memory on its way: output buffers that become a `Vec`, on huge pages where they are large, and prefetches.
//!
//! A fresh buffer of many megabytes costs more in page faults than in arithmetic: at 4 KiB a page, 250 MB take 64,000
//! faults. Large buffers ask the kernel for 2 MiB pages, which costs nothing where it declines.

use std::mem::MaybeUninit;

/// Buffers from this size on ask for huge pages.
const HUGE_FROM_BYTES: usize = 4 << 20;

/// Memory for `len` elements that are not written yet.
#[derive(Debug)]
pub struct Uninit<T>(Vec<T>);

impl<T: Copy> Uninit<T> {
    /// Allocates room for `len` elements.
    pub fn new(len: usize) -> Self {
        let mut data = Vec::<T>::with_capacity(len);
        ask_for_huge_pages(data.spare_capacity_mut());
        Self(data)
    }

    /// The elements, to be written.
    pub fn as_uninit(&mut self) -> &mut [MaybeUninit<T>] {
        self.0.spare_capacity_mut()
    }

    /// Makes the first `len` elements a `Vec`.
    ///
    /// # Safety
    /// All of the first `len` elements have been written, and `len` is at most what [`Self::new`] was given.
    pub unsafe fn assume_init(mut self, len: usize) -> Vec<T> {
        // SAFETY: the caller vouches for it.
        unsafe { self.0.set_len(len) };
        self.0
    }
}

#[cfg(all(target_os = "linux", not(miri)))]
fn ask_for_huge_pages<T>(memory: &mut [MaybeUninit<T>]) {
    const PAGE: usize = 4096;
    let bytes = size_of_val(memory);
    if bytes < HUGE_FROM_BYTES {
        return;
    }
    let start = memory.as_mut_ptr() as usize;
    let first = start.next_multiple_of(PAGE);
    let last = (start + bytes) / PAGE * PAGE;
    // SAFETY: the range is whole pages inside memory that this buffer owns, and the advice changes no content. The
    // result is ignored because the advice is only a wish.
    unsafe {
        libc::madvise(
            first as *mut libc::c_void,
            last - first,
            libc::MADV_HUGEPAGE,
        );
    }
}

#[cfg(not(all(target_os = "linux", not(miri))))]
fn ask_for_huge_pages<T>(_: &mut [MaybeUninit<T>]) {
    let _ = HUGE_FROM_BYTES;
}

/// Orders streaming stores of this thread before what follows; see [`crate::Vector::stream_ptr`].
#[inline(always)]
pub fn stream_fence() {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: every x86-64 machine has SSE, and a fence touches no memory.
    unsafe {
        std::arch::x86_64::_mm_sfence()
    }
}

/// Asks for `data` to be brought into the cache, for a loop that reaches it after some hundred instructions: hardware foresees
/// no jump to another page. Costs an instruction for each cache line, and nothing where there is no such instruction.
#[inline(always)]
pub fn prefetch<T>(data: &[T]) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        const LINE: usize = 64;
        let first = data.as_ptr().cast::<i8>();
        for at in (0..size_of_val(data)).step_by(LINE) {
            // SAFETY: every x86-64 machine has SSE; the address lies in `data`, and a prefetch reads nothing anyway.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(first.add(at)) }
        }
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = data;
}

/// How far ahead [`prefetch_stream`] asks: two pages of memory, many times what arrives in the time that memory takes to answer.
const AHEAD_BYTES: usize = 8 << 10;

/// Asks for what a stream reaches 8 KiB after the `count` elements at `at`, for a loop that reads each of them once, in order.
///
/// Hardware follows a stream within a page of memory and starts anew at the next; a core alone then gets half of what memory
/// can give. The lines are asked into the second-level cache, which keeps several times as many on their way as the first.
/// Nothing is read, so what lies there may be anything, or no memory at all. Costs an instruction for each cache line.
#[inline(always)]
pub fn prefetch_stream<T>(at: *const T, count: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        const LINE: usize = 64;
        let ahead = at.cast::<i8>().wrapping_add(AHEAD_BYTES);
        for line in (0..count * size_of::<T>()).step_by(LINE) {
            // SAFETY: every x86-64 machine has SSE, and a prefetch of any address is allowed: it reads nothing and cannot fault.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(ahead.wrapping_add(line)) }
        }
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = (at, count, AHEAD_BYTES);
}
