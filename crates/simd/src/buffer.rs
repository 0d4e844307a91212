//! Output buffers: uninitialised memory that becomes a `Vec`, on huge pages where it is large.
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
