//! Prefetches: memory that a loop is about to read, asked for before it gets there.
//!
//! Nothing is read, so no value depends on them. They cost an instruction for each cache line, and nothing where there is no
//! such instruction.

#[cfg(all(target_arch = "x86_64", not(miri)))]
use std::arch::x86_64::{_MM_HINT_T0 as FIRST_LEVEL, _MM_HINT_T1 as SECOND_LEVEL, _mm_prefetch};

#[cfg(not(all(target_arch = "x86_64", not(miri))))]
const FIRST_LEVEL: i32 = 0;
#[cfg(not(all(target_arch = "x86_64", not(miri))))]
const SECOND_LEVEL: i32 = 1;

/// How far ahead [`prefetch_stream`] asks for the second-level cache: four pages of memory, many times what arrives in the time that
/// memory takes to answer.
const FAR_BYTES: usize = 16 << 10;

/// And for the first: what has arrived in the second by then, and is used soon.
const NEAR_BYTES: usize = 2 << 10;

/// Asks for `data` to be brought into the cache, for a loop that reaches it after some hundred instructions: hardware foresees
/// no jump to another page.
#[inline(always)]
pub fn prefetch<T>(data: &[T]) {
    ask_for::<FIRST_LEVEL>(data.as_ptr().cast(), size_of_val(data));
}

/// Asks for what a stream reaches 16 and 2 KiB after the `count` elements at `at`, for a loop that reads each of them once, in order.
/// What lies there may be anything, or no memory at all.
///
/// Hardware follows a stream within a page of memory and starts anew at the next; a core alone then gets half of what memory
/// can give. The lines are asked into the second-level cache, which keeps several times as many on their way as the first, and
/// from there into the first, so that a loop with much arithmetic between its loads does not wait for them either.
#[inline(always)]
pub fn prefetch_stream<T>(at: *const T, count: usize) {
    let (at, bytes) = (at.cast::<u8>(), count * size_of::<T>());
    ask_for::<SECOND_LEVEL>(at.wrapping_add(FAR_BYTES), bytes);
    ask_for::<FIRST_LEVEL>(at.wrapping_add(NEAR_BYTES), bytes);
}

/// Asks for each cache line of `bytes` bytes from `first` on.
#[inline(always)]
fn ask_for<const LEVEL: i32>(first: *const u8, bytes: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        const LINE: usize = 64;
        for line in (0..bytes).step_by(LINE) {
            // SAFETY: every x86-64 machine has SSE, and a prefetch of any address is allowed: it reads nothing and cannot fault.
            unsafe { _mm_prefetch::<LEVEL>(first.wrapping_add(line).cast()) }
        }
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = (first, bytes);
}
