//! Output buffers: uninitialised memory that becomes a `Vec`, prepared so that writing it faults as little as can be.
//!
//! A fresh buffer of many megabytes costs more in page faults than in arithmetic: at 4 KiB a page, 250 MB take 64,000
//! faults. Large buffers ask the kernel for 2 MiB pages, which costs nothing where it declines.
//!
//! Memory that the allocator hands out again may be worse than fresh. Zeros that were only read (Candle's backward pass adds
//! each gradient to such) are mapped to the kernel's one page of zeros; a write replaces that page and interrupts every
//! other processor that runs a thread of the program, page by page. Giving all of them back at once avoids it.

use std::mem::MaybeUninit;

/// Memory for `len` elements that are not written yet.
#[derive(Debug)]
pub struct Uninit<T>(Vec<T>);

impl<T: Copy> Uninit<T> {
    /// Allocates room for `len` elements.
    pub fn new(len: usize) -> Self {
        let mut data = Vec::<T>::with_capacity(len);
        pages::prepare(data.spare_capacity_mut());
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
mod pages {
    use std::fs::File;
    use std::mem::MaybeUninit;
    use std::ops::Range;
    use std::os::unix::fs::FileExt;
    use std::sync::LazyLock;

    /// Buffers from this size on ask for huge pages.
    const HUGE_FROM_BYTES: usize = 4 << 20;

    /// Buffers from this size on are looked at: a look takes two microseconds, replacing a page of zeros about five.
    const LOOK_FROM_BYTES: usize = 512 << 10;

    /// Pages that are looked at.
    const SAMPLES: usize = 4;

    /// What the kernel says of each page of this process, a word of 64 bits each
    /// (<https://docs.kernel.org/admin-guide/mm/pagemap.html>).
    static PAGEMAP: LazyLock<Option<File>> =
        LazyLock::new(|| File::open("/proc/self/pagemap").ok());

    /// Advises the kernel of a buffer that is about to be written.
    pub(super) fn prepare<T>(memory: &mut [MaybeUninit<T>]) {
        let bytes = size_of_val(memory);
        if bytes < LOOK_FROM_BYTES {
            return;
        }
        let page = page_size();
        let start = memory.as_mut_ptr() as usize;
        let whole_pages = start.next_multiple_of(page)..(start + bytes) / page * page;
        // SAFETY: the range is whole pages inside memory that this buffer owns, and nothing in it is written yet, so nothing
        // is lost with its content. The results are ignored because the advice is only a wish.
        let advise = |advice| unsafe {
            let start = whole_pages.start as *mut libc::c_void;
            libc::madvise(start, whole_pages.len(), advice);
        };
        if shows_page_of_zeros(&whole_pages) {
            advise(libc::MADV_DONTNEED);
        }
        if bytes >= HUGE_FROM_BYTES {
            advise(libc::MADV_HUGEPAGE);
        }
    }

    pub(super) fn page_size() -> usize {
        // SAFETY: a question about a constant of the system.
        let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        usize::try_from(size).unwrap_or(4096).max(1)
    }

    /// Whether any of a few pages spread over the range is mapped, but not as a page of this process alone.
    ///
    /// False where the kernel does not tell.
    pub(super) fn shows_page_of_zeros(whole_pages: &Range<usize>) -> bool {
        const PRESENT: u64 = 1 << 63;
        const EXCLUSIVE: u64 = 1 << 56;
        let Some(pagemap) = PAGEMAP.as_ref() else {
            return false;
        };
        let page = page_size();
        let (first, count) = (whole_pages.start / page, whole_pages.len() / page);
        (0..SAMPLES).any(|sample| {
            let mut word = [0; size_of::<u64>()];
            let at = (first + sample * count / SAMPLES) * word.len();
            let read = pagemap.read_exact_at(&mut word, at as u64);
            read.is_ok() && u64::from_ne_bytes(word) & (PRESENT | EXCLUSIVE) == PRESENT
        })
    }
}

#[cfg(not(all(target_os = "linux", not(miri))))]
mod pages {
    pub(super) fn prepare<T>(_: &mut [std::mem::MaybeUninit<T>]) {}
}

#[cfg(all(test, target_os = "linux", not(miri)))]
mod tests {
    use super::pages::{page_size, shows_page_of_zeros};

    #[test]
    fn a_page_of_zeros_shows_where_memory_was_read_and_not_where_it_was_written_or_never_touched() {
        let len = 64 * page_size();
        // SAFETY: a new private mapping that nothing else refers to; all accesses below are within `len`.
        let memory = unsafe {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            libc::mmap(std::ptr::null_mut(), len, access, kind, -1, 0).cast::<u8>()
        };
        assert_ne!(memory, libc::MAP_FAILED.cast());
        let range = memory as usize..memory as usize + len;
        // Where the kernel does not tell, the answer is always no.
        let told = std::fs::File::open("/proc/self/pagemap").is_ok();
        assert!(!shows_page_of_zeros(&range), "never touched");
        for at in (0..len).step_by(page_size()) {
            // SAFETY: as above.
            assert_eq!(unsafe { memory.add(at).read_volatile() }, 0);
        }
        assert_eq!(shows_page_of_zeros(&range), told, "read");
        for at in (0..len).step_by(page_size()) {
            // SAFETY: as above.
            unsafe { memory.add(at).write_volatile(1) };
        }
        assert!(!shows_page_of_zeros(&range), "written");
        // SAFETY: the mapping made above, which is not used any more.
        assert_eq!(unsafe { libc::munmap(memory.cast(), len) }, 0);
    }
}
