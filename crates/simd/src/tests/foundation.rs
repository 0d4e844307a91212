//! The choice of the instruction set, the parallel loop and the buffers.

use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;

use crate::parallel::{Disjoint, chunk_rows, for_rows, map_rows};
use crate::prefetch::{prefetch, prefetch_stream};
use crate::{Isa, buffer, with_isa};

#[test]
fn a_setting_lowers_but_never_raises() {
    let best = Isa::best();
    assert_eq!(Isa::configured(None), best);
    assert_eq!(Isa::configured(Some("")), best);
    assert_eq!(Isa::configured(Some("portable")), Isa::Portable);
    assert_eq!(Isa::configured(Some("PORTABLE")), Isa::Portable);
    assert_eq!(
        Isa::configured(Some("avx1024")),
        best,
        "an unknown name falls back"
    );
    for isa in Isa::ALL {
        assert_eq!(Isa::configured(Some(isa.name())), isa.min(best));
    }
}

#[test]
fn the_hook_is_undone_even_by_a_panic() {
    let before = Isa::active();
    with_isa(Isa::Portable, || {
        assert_eq!(Isa::active(), Isa::Portable);
        with_isa(Isa::Avx512, || assert_eq!(Isa::active(), Isa::best()));
        assert_eq!(Isa::active(), Isa::Portable);
    });
    let caught = std::panic::catch_unwind(|| with_isa(Isa::Portable, || panic!("planned")));
    assert!(caught.is_err());
    assert_eq!(Isa::active(), before);
}

#[test]
fn a_dispatched_kernel_gets_the_token_it_asked_for() {
    struct Which;
    impl crate::Kernel for Which {
        type Output = Isa;
        fn run<S: crate::Simd>(self, _: S) -> Isa {
            S::ISA
        }
    }
    for isa in Isa::available() {
        assert_eq!(isa.dispatch(Which), isa);
    }
    assert_eq!(Isa::Avx512.dispatch(Which), Isa::best());
}

#[test]
fn buffers_hold_what_was_written() {
    // Long enough for huge pages, but not where an interpreter runs the test.
    for len in [0, 1, 1000, if cfg!(miri) { 2000 } else { 3 << 20 }] {
        let mut memory = buffer::Uninit::<u32>::new(len);
        for (i, x) in memory.as_uninit().iter_mut().take(len).enumerate() {
            x.write(i as u32);
        }
        // SAFETY: the loop wrote the first len elements.
        let data = unsafe { memory.assume_init(len) };
        assert_eq!(data.len(), len);
        assert!(data.iter().enumerate().all(|(i, &x)| x == i as u32));
    }
}

#[test]
fn a_stream_may_be_asked_for_past_its_end_and_anywhere() {
    let data = [1.0f32; 5];
    prefetch_stream(data.as_ptr(), data.len());
    prefetch_stream(data.as_ptr_range().end, 1_000);
    prefetch_stream(std::ptr::null::<u8>(), 64);
    prefetch_stream(std::ptr::without_provenance::<u64>(usize::MAX - 7), 64);
    prefetch(&data[5..]);
    assert_eq!(data, [1.0; 5]);
}

#[test]
fn no_rows_call_nothing() {
    for_rows(0, 10, |_| panic!("called"));
}

#[test]
fn a_sum_over_chunks_has_the_same_bits_for_any_number_of_threads() {
    let sum = || -> f32 {
        map_rows(100_000, 10, |rows| {
            rows.map(|i| (i as f32).sin()).sum::<f32>()
        })
        .into_iter()
        .sum()
    };
    let with_threads = |n| {
        rayon::ThreadPoolBuilder::new()
            .num_threads(n)
            .build()
            .unwrap()
            .install(sum)
    };
    let one = with_threads(1);
    for n in [2, 3, 8] {
        assert_eq!(one.to_bits(), with_threads(n).to_bits());
    }
}

proptest! {
    #[test]
    fn chunks_cover_every_row_once_and_in_order(rows in 0usize..5000, work in 0usize..100_000) {
        let calls = AtomicUsize::new(0);
        let mut marks = vec![0u8; rows];
        let out = Disjoint::new(&mut marks);
        let ranges = map_rows(rows, work, |range| {
            calls.fetch_add(1, Ordering::Relaxed);
            // SAFETY: chunks do not overlap, which this test shows by counting.
            for x in unsafe { out.part(range.clone()) } {
                *x += 1;
            }
            range
        });
        prop_assert_eq!(ranges.len(), rows.div_ceil(chunk_rows(work)));
        prop_assert!(ranges.windows(2).all(|w| w[0].end == w[1].start));
        prop_assert!(marks.iter().all(|&x| x == 1));
    }
}
