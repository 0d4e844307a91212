//! Beyond the gradient, one number a row: counted by the allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_losses::CrossEntropy;

/// Counts the bytes in use and their peak.
struct Counting;

static IN_USE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

fn grow(bytes: usize) {
    PEAK.fetch_max(IN_USE.fetch_add(bytes, Relaxed) + bytes, Relaxed);
}

// SAFETY: every call is handed to the system's allocator as it came; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        // SAFETY: the caller's promise is the same.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, p: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promise is the same.
        unsafe { System.dealloc(p, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Tests that count run one after the other.
static TURN: Mutex<()> = Mutex::new(());

/// The peak of bytes in use while `f` runs, beyond those in use before.
fn peak<T>(f: impl FnOnce() -> Result<T>) -> Result<usize> {
    let _turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let before = IN_USE.load(Relaxed);
    PEAK.store(before, Relaxed);
    let result = f()?;
    let peak = PEAK.load(Relaxed) - before;
    drop(result);
    Ok(peak)
}

/// Working space: results of chunks, a table of a few rows for each thread, a tensor's own fields.
const SLACK: usize = 48 << 10;

fn problem(rows: usize, classes: usize) -> Result<(Tensor, Tensor)> {
    let logits = Tensor::zeros((rows, classes), DType::F32, &Device::Cpu)?;
    let targets = Tensor::zeros(rows, DType::U32, &Device::Cpu)?;
    // Starts the threads, which allocate once.
    CrossEntropy::new().value_and_grad(&logits, &targets)?;
    Ok((logits, targets))
}

#[test]
fn cross_entropy_takes_one_number_a_row_beyond_the_gradient() -> Result<()> {
    for (rows, classes) in [(200_000, 10), (20_000, 300), (50, 50_000)] {
        let (logits, targets) = problem(rows, classes)?;
        let row_bytes = rows * size_of::<f32>();
        let gradient_bytes = rows * classes * size_of::<f32>();
        let o = CrossEntropy::new();

        let forward = peak(|| o.forward(&logits, &targets))?;
        assert!(
            forward <= SLACK,
            "{rows} x {classes}: forward alone took {forward}"
        );

        let both = peak(|| o.value_and_grad(&logits, &targets))?;
        assert!(
            both <= gradient_bytes + SLACK,
            "{rows} x {classes}: value_and_grad took {both}"
        );

        let tracked = Var::from_tensor(&logits)?;
        let kept = peak(|| o.forward(&tracked, &targets))?;
        assert!(
            kept <= row_bytes + SLACK,
            "{rows} x {classes}: forward for backward took {kept}"
        );
        assert!(kept >= row_bytes, "the allocator counts");

        let in_place = peak(|| o.value_and_grad_in_place(logits, &targets))?;
        assert!(
            in_place <= SLACK,
            "{rows} x {classes}: in place took {in_place}"
        );
    }
    Ok(())
}
