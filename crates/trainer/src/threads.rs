//! `--threads N`: the size of the one CPU pool that kernels, Candle's matrix products and data preparation share; and how its
//! threads wait for each other within a step.
//!
//! A thread of the pool that finds no work goes to sleep after some ten microseconds, and waking it takes 30 to 50: as much as
//! the optimizer's whole update, several times a step. Within a step ([`awake`]) threads poll for work instead.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::errors::{Result, TrainerError};

/// The largest accepted number of threads; more is a typing error.
pub const MAX_THREADS: usize = 1024;

/// Sets up the pool with the calling thread as one of its workers, and returns the number of threads.
///
/// The caller takes part instead of handing work over and sleeping: a step has some twenty short parallel sections, and waking
/// a sleeping thread for each would cost as much as the work. Without `threads`, rayon's default holds (`RAYON_NUM_THREADS`, else
/// the cores).
///
/// # Errors
/// When the pool cannot be started, for example because it exists already with another size.
pub fn init(threads: Option<usize>) -> Result<usize> {
    let mut builder = rayon::ThreadPoolBuilder::new().use_current_thread();
    if let Some(threads) = threads {
        builder = builder.num_threads(threads);
    }
    builder
        .build_global()
        .map_err(|error| TrainerError::Run(format!("cannot start the pool of threads: {error}")))?;
    Ok(rayon::current_num_threads())
}

/// Runs `f` while so many threads of the pool, this one among them, do not sleep: where they have no work, they poll for it.
///
/// For sections of milliseconds with work for all of them most of the time; polling takes a processor as work does.
pub fn awake<R>(threads: usize, f: impl FnOnce() -> R) -> R {
    let others = threads.min(rayon::current_num_threads()).saturating_sub(1);
    let caller = rayon::current_thread_index();
    let over = AtomicBool::new(false);
    rayon::in_place_scope(|scope| {
        let _over = OnDrop(|| over.store(true, Ordering::Release));
        for _ in 0..others {
            scope.spawn(|_| {
                // This thread takes such a job only where it waits for others itself, and then it must not wait for its own end.
                if rayon::current_thread_index() != caller {
                    work_until(|| over.load(Ordering::Acquire));
                }
            });
        }
        f()
    })
}

/// `f` of every item, in their order: the first here, the others by whichever threads of the pool have no work. The caller does
/// not sleep until the last is done.
pub fn side_by_side<T: Send, R: Send>(items: Vec<T>, f: impl Fn(T) -> R + Sync) -> Vec<R> {
    let mut results: Vec<Option<R>> = items.iter().map(|_| None).collect();
    let left = AtomicUsize::new(items.len());
    let run = |item, result: &mut Option<R>| {
        // Also where `f` panics, or the caller would wait for ever.
        let _done = OnDrop(|| {
            left.fetch_sub(1, Ordering::Release);
        });
        *result = Some(f(item));
    };
    rayon::in_place_scope(|scope| {
        let run = &run;
        let mut work = items.into_iter().zip(&mut results);
        let first = work.next();
        for (item, result) in work {
            scope.spawn(move |_| run(item, result));
        }
        if let Some((item, result)) = first {
            run(item, result);
        }
        work_until(|| left.load(Ordering::Acquire) == 0);
    });
    // The scope has passed on a panic, so that every item has a result.
    results.into_iter().flatten().collect()
}

/// Takes whatever work the pool has until `over`, without sleeping. On a thread that is not of the pool it waits.
fn work_until(over: impl Fn() -> bool) {
    /// Rounds without work before other processes get their turn: some ten microseconds, far less than they would run.
    const PATIENCE: usize = 256;
    let mut idle = 0;
    while !over() {
        match rayon::yield_now() {
            Some(rayon::Yield::Executed) => idle = 0,
            _ if idle < PATIENCE => {
                idle += 1;
                std::hint::spin_loop();
            }
            _ => std::thread::yield_now(),
        }
    }
}

/// Calls a function at the end of a scope, however it is left.
struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_stand_in_the_order_of_the_items() {
        for count in [0, 1, 2, 17] {
            let results = awake(2, || {
                side_by_side((0..count).collect(), |item: usize| item * item)
            });
            assert_eq!(
                results,
                (0..count).map(|item| item * item).collect::<Vec<_>>()
            );
        }
    }

    #[test]
    fn items_that_need_each_other_run_at_the_same_time() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build();
        let arrived = AtomicUsize::new(0);
        let meet = |_: usize| {
            arrived.fetch_add(1, Ordering::AcqRel);
            while arrived.load(Ordering::Acquire) < 2 {
                std::thread::yield_now();
            }
        };
        let met =
            pool.map(|pool| pool.install(|| awake(2, || side_by_side(vec![0, 1], meet).len())));
        assert_eq!(met.ok(), Some(2));
    }

    #[test]
    fn threads_that_stay_awake_take_the_work_of_ops_within() {
        use rayon::prelude::*;
        let sum = awake(4, || {
            side_by_side(vec![1u64, 2, 3], |item| {
                (0..1000u64).into_par_iter().map(|n| n * item).sum::<u64>()
            })
        });
        assert_eq!(sum, [499_500, 999_000, 1_498_500]);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_nobody_waits_for_ever() {
        for culprit in [0, 1] {
            let result = std::panic::catch_unwind(|| {
                awake(2, || {
                    side_by_side(vec![0, 1], |item| assert_ne!(item, culprit))
                })
            });
            assert!(result.is_err());
        }
    }

    #[test]
    fn one_thread_does_everything_itself() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build();
        let results = pool
            .map(|pool| pool.install(|| awake(2, || side_by_side(vec![1, 2, 3], |item| -item))));
        assert_eq!(results.ok(), Some(vec![-1, -2, -3]));
    }
}
