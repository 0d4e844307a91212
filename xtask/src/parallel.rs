//! Doing several things at a time, one on each processor.

use crate::exit::Failure;
use std::num::NonZero;
use std::sync::Mutex;
use std::thread;

/// How many things are done at a time.
pub(crate) fn processors() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

/// Does `work` for each item, as many at a time as there are processors, and returns the results in order.
///
/// Items are begun in order, and none after the first failure: what runs then is waited for. The failure of the first item, in
/// their order, is returned.
pub(crate) fn in_parallel<T: Send, R: Send>(
    items: Vec<T>,
    work: impl Fn(T) -> Result<R, Failure> + Sync,
) -> Result<Vec<R>, Failure> {
    let threads = processors().min(items.len());
    let queue = Mutex::new(items.into_iter().enumerate());
    let done = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().ok().and_then(|mut queue| queue.next());
                    let Some((index, item)) = next else { break };
                    let result = work(item);
                    if result.is_err()
                        && let Ok(mut queue) = queue.lock()
                    {
                        // Nothing is left to begin.
                        queue.by_ref().for_each(drop);
                    }
                    if let Ok(mut done) = done.lock() {
                        done.push((index, result));
                    }
                }
            });
        }
    });
    // A thread that panics has ended the scope with a panic, so no lock is poisoned here.
    let mut done = done
        .into_inner()
        .unwrap_or_else(|poison| poison.into_inner());
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_items() {
        let items: Vec<_> = (0..100).collect();
        let squares = in_parallel(items.clone(), |item| Ok(item * item)).unwrap();
        assert_eq!(squares, items.iter().map(|i| i * i).collect::<Vec<_>>());
    }

    #[test]
    fn nothing_is_begun_after_a_failure() {
        let begun = Mutex::new(0);
        let items: Vec<_> = (0..10_000).collect();
        let result = in_parallel(items, |item| {
            *begun.lock().unwrap() += 1;
            if item == 0 {
                return Err(Failure::check("the first"));
            }
            thread::sleep(std::time::Duration::from_millis(1));
            Ok(())
        });
        assert!(result.is_err());
        assert!(*begun.lock().unwrap() < 10_000);
    }
}
