//! Temporaries that a thread keeps from call to call, so that an op neither allocates nor faults pages in again.

use std::any::Any;
use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

use candle_simd::Float;

thread_local! {
    static POOL: RefCell<Vec<Box<dyn Any>>> = const { RefCell::new(Vec::new()) };
}

/// A thread keeps at most this many buffers.
const KEPT: usize = 16;

/// Larger buffers are given back to the allocator, so that one huge call does not hold its memory for ever.
const KEPT_BYTES: usize = 8 << 20;

/// Buffers start on a cache line: a vector of 64 bytes that straddles two costs twice the time.
const ALIGNMENT: usize = 64;

/// Elements that a buffer needs beside its own, for [`aligned_start`] to skip.
pub(super) const fn slack<F>() -> usize {
    ALIGNMENT / size_of::<F>()
}

/// How many elements to skip from `at` to a cache line, at most [`slack`]. Where an address cannot be aligned, which only an
/// interpreter says, none.
pub(super) fn aligned_start<F>(at: *const F) -> usize {
    match at.align_offset(ALIGNMENT) {
        offset if offset <= slack::<F>() => offset,
        _ => 0,
    }
}

/// A buffer from the thread's pool; it goes back there when dropped.
pub(crate) struct Scratch<F: Float> {
    data: Vec<F>,
    /// The first aligned element.
    start: usize,
    len: usize,
}

impl<F: Float> Scratch<F> {
    /// `len` elements that hold some finite or non-finite numbers of earlier calls: write before reading.
    pub(crate) fn dirty(len: usize) -> Self {
        let with_room = len + slack::<F>();
        let kept = POOL.with_borrow_mut(|pool| {
            // The smallest that is large enough, else the largest of this type.
            let fit = |buffer: &Box<dyn Any>| buffer.downcast_ref::<Vec<F>>().map(Vec::len);
            let (best, _) = pool
                .iter()
                .enumerate()
                .filter_map(|(index, buffer)| Some((index, fit(buffer)?)))
                .min_by_key(|&(_, have)| {
                    if have >= with_room {
                        have
                    } else {
                        usize::MAX - have
                    }
                })?;
            pool.swap_remove(best).downcast::<Vec<F>>().ok()
        });
        let mut data = kept.map_or_else(Vec::new, |kept| *kept);
        if data.len() < with_room {
            data = vec![F::ZERO; with_room.next_multiple_of(1024)];
        }
        let start = aligned_start(data.as_ptr());
        Self { data, start, len }
    }

    /// `len` zeros, written. Sums that are added to belong here: those of `vec!` may be mapped to the kernel's page of zeros, which
    /// the first addition then replaces page by page (see [`candle_simd::buffer`]).
    pub(crate) fn zeroed(len: usize) -> Self {
        let mut scratch = Self::dirty(len);
        scratch.fill(F::ZERO);
        scratch
    }
}

impl<F: Float> Deref for Scratch<F> {
    type Target = [F];
    fn deref(&self) -> &[F] {
        &self.data[self.start..][..self.len]
    }
}

impl<F: Float> DerefMut for Scratch<F> {
    fn deref_mut(&mut self) -> &mut [F] {
        &mut self.data[self.start..][..self.len]
    }
}

impl<F: Float> Drop for Scratch<F> {
    fn drop(&mut self) {
        let data = std::mem::take(&mut self.data);
        if size_of_val(data.as_slice()) > KEPT_BYTES {
            return;
        }
        // The pool is gone while the thread ends; then the buffer is simply freed.
        let _ = POOL.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            if pool.len() < KEPT {
                pool.push(Box::new(data));
            }
        });
    }
}
