//! `--threads N`: the size of the one CPU pool that kernels, Candle's matrix products and data preparation share; and how its
//! threads wait for each other within a step.
//!
//! A thread of the pool that finds no work goes to sleep after some ten microseconds, and waking it takes 30 to 50: as much as
//! the optimizer's whole update, several times a step. The threads of [`side_by_side`] poll for work instead.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

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

/// How long a thread polls for work before it goes to sleep: the sections of a step follow each other much sooner, unless another
/// process takes a processor away.
const PATIENCE: Duration = Duration::from_micros(500);

/// `f` of every item, in their order: the first here, the others by whichever threads of the pool have no work. A thread that took
/// one stays awake for what comes after them.
pub fn side_by_side<T: Send, R: Send>(items: Vec<T>, f: impl Fn(T) -> R + Sync) -> Vec<R> {
    let mut results: Vec<Option<R>> = items.iter().map(|_| None).collect();
    let left = AtomicUsize::new(items.len());
    let run = |item, result: &mut Option<R>| {
        // Also where `f` panics: nobody needs to stay awake for it.
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
            scope.spawn(move |_| {
                run(item, result);
                stay_awake();
            });
        }
        if let Some((item, result)) = first {
            run(item, result);
        }
        work_until(|| left.load(Ordering::Acquire) == 0);
    });
    // The scope has waited for all, and passed on a panic, so that every item has a result.
    results.into_iter().flatten().collect()
}

thread_local! {
    /// Whether this thread is in a job of [`stay_awake`].
    static STAYS_AWAKE: Cell<bool> = const { Cell::new(false) };
}

/// Gives this thread a job that ends when there was no other for [`PATIENCE`].
fn stay_awake() {
    if STAYS_AWAKE.get() {
        return;
    }
    let here = rayon::current_thread_index();
    rayon::spawn(move || {
        // Another thread may have taken it, which has a reason to be awake already.
        if rayon::current_thread_index() == here && !STAYS_AWAKE.replace(true) {
            let _over = OnDrop(|| STAYS_AWAKE.set(false));
            work_until(|| false);
        }
    });
}

/// Takes whatever work the pool has until `over`, or until there was none for [`PATIENCE`]: never for good, since this thread may
/// have left work that others wait for to come here.
fn work_until(over: impl Fn() -> bool) {
    /// Rounds without work before other processes get their turn.
    const SPINS: usize = 256;
    let (mut rounds, mut since) = (0, Instant::now());
    while !over() {
        match rayon::yield_now() {
            Some(rayon::Yield::Executed) => (rounds, since) = (0, Instant::now()),
            _ if since.elapsed() > PATIENCE => return,
            _ if rounds < SPINS => {
                rounds += 1;
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
            let results = side_by_side((0..count).collect(), |item: usize| item * item);
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
        let met = pool.map(|pool| pool.install(|| side_by_side(vec![0, 1], meet).len()));
        assert_eq!(met.ok(), Some(2));
    }

    #[test]
    fn threads_that_stay_awake_take_the_work_of_ops_within() {
        use rayon::prelude::*;
        let sum = side_by_side(vec![1u64, 2, 3], |item| {
            (0..1000u64).into_par_iter().map(|n| n * item).sum::<u64>()
        });
        assert_eq!(sum, [499_500, 999_000, 1_498_500]);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_nobody_waits_for_ever() {
        for culprit in [0, 1] {
            let result = std::panic::catch_unwind(|| {
                side_by_side(vec![0, 1], |item| assert_ne!(item, culprit))
            });
            assert!(result.is_err());
        }
    }

    #[test]
    fn sections_within_sections_come_to_an_end() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build();
        let nested = |outer: u64| {
            side_by_side((0..4u64).collect(), |inner| {
                let (a, b) = rayon::join(|| outer * inner, || 1);
                a + b
            })
        };
        let sums = pool.map(|pool| pool.install(|| side_by_side((0..40).collect(), nested)));
        let expected = (0..40).map(|outer| (0..4).map(|inner| outer * inner + 1).collect());
        assert_eq!(sums.ok(), Some(expected.collect::<Vec<Vec<_>>>()));
    }

    #[test]
    fn one_thread_does_everything_itself() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build();
        let results = pool.map(|pool| pool.install(|| side_by_side(vec![1, 2, 3], |item| -item)));
        assert_eq!(results.ok(), Some(vec![-1, -2, -3]));
    }
}
