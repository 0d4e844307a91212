//! The plain loss over rows of many adjacent classes: the lanes hold classes.

use std::ops::Range;

use candle_simd::prefetch::prefetch_stream;
use candle_simd::{Element, Float, Simd, Vector};

use super::recipe::{RowGradient, RowSums, RowValue};
use super::{BLOCK, IGNORED, Run, Totals};

/// Vectors in flight in a pass over a row: enough to hide the latency of an addition.
const UNROLL: usize = 4;

/// How far the maximum may outgrow the shift of a sum: exp of so little costs no accuracy, and a moving shift costs time.
const SLACK: f64 = 4.0;

/// Classes of a row whose exponentials are kept for the gradient: 8 KiB of f32, a part of the first cache.
const PART: usize = 2048;

type V<E, S> = <<E as Element>::Compute as Float>::V<S>;

#[inline(always)]
pub(super) fn chunk<E: Element, S: Simd>(s: S, run: &Run<'_, E>, rows: Range<usize>) -> Totals {
    // Rows that fit the first cache keep their exponentials there for the gradient.
    let is_staged = run.recipe.classes <= PART && run.gradient.is_some();
    let staged = if is_staged {
        run.recipe.classes.next_multiple_of(V::<E, S>::LANES)
    } else {
        0
    };
    let mut stage = vec![E::Compute::ZERO; staged];
    let mut totals = Totals::default();
    let mut targets = [0; BLOCK];
    for start in rows.clone().step_by(BLOCK) {
        let block = start..rows.end.min(start + BLOCK);
        run.read_targets(block.clone(), &mut targets);
        for row in block {
            one_row::<E, S>(s, run, row, targets[row - start], &mut stage, &mut totals);
        }
    }
    totals
}

#[inline(always)]
fn one_row<E: Element, S: Simd>(
    s: S,
    run: &Run<'_, E>,
    row: usize,
    target: i64,
    stage: &mut [E::Compute],
    totals: &mut Totals,
) {
    let recipe = &run.recipe;
    let counts = target != IGNORED;
    let upstream = run.upstream(row, counts);
    if !run.reads(counts, &upstream) {
        // SAFETY: chunks do not share rows.
        unsafe { run.outputs.write(row, &RowValue::UNREAD) };
        if let Some((sink, _)) = &run.gradient {
            for c in 0..recipe.classes {
                // SAFETY: the row holds as many adjacent elements as there are classes, and no other chunk writes them.
                unsafe { sink.row(row).add(c).write(E::narrow(E::Compute::ZERO)) };
            }
        }
        return;
    }

    let r = Row::<E, S> {
        s,
        x: run.logits.row(row),
        classes: recipe.classes,
    };
    // Read before the gradient is written: in place, it overwrites the logits.
    // SAFETY: targets that are not ignored are classes, so the element lies in the row.
    let logit = counts.then(|| unsafe { *r.x.add(target as usize) }.widen());
    let mut staged = if stage.is_empty() { None } else { Some(stage) };
    let (max, sum) = match (&mut staged, run.sums) {
        (Some(e), _) => r.stage(e),
        (None, Some(sums)) => (r.max(0..recipe.classes), sums[row]),
        (None, None) => r.max_and_sum(),
    };
    let sums = RowSums {
        max,
        sum,
        log_sum: sum.ln(),
        dense: E::Compute::ZERO,
        dense_shifted: E::Compute::ZERO,
        target: logit.unwrap_or(E::Compute::ZERO),
    };
    let argmax = if run.outputs.argmax.is_some() {
        r.argmax(max)
    } else {
        0
    };
    let value = recipe.value(target, &sums, argmax);
    totals.loss += value.loss.to_f64();
    totals.correct += usize::from(counts && i64::from(argmax) == target);
    // SAFETY: chunks do not share rows.
    unsafe { run.outputs.write(row, &value) };
    if let Some((sink, _)) = &run.gradient {
        let gradient = recipe.gradient(target, &sums, &upstream);
        let out = sink.row(row);
        match &staged {
            Some(e) => r.write_staged(e, gradient.scaled, out),
            None => r.write_gradient(&gradient, max, out),
        }
        if let Some(x) = logit {
            // The same arithmetic as in the lanes, so that the element is rounded to its type once.
            let p =
                E::exp_nonpositive(V::<E, S>::splat(s, x - max)).to_array()[0] * gradient.scaled;
            // SAFETY: the target is a class of the row.
            unsafe { *out.add(target as usize) = E::narrow(p - gradient.at_target) };
        }
    }
}

/// The adjacent logits of a row.
struct Row<E, S> {
    s: S,
    x: *const E,
    classes: usize,
}

/// The maximum and the sum of exponentials of what has been seen of a row.
struct Online<E: Element, S: Simd> {
    /// The maximum in each lane, leaving out NaN: the sum has it.
    max: V<E, S>,
    /// -inf before the first larger element.
    shift: E::Compute,
    /// The lanes of sum exp(x - shift).
    sum: [V<E, S>; UNROLL],
}

impl<E: Element, S: Simd> Online<E, S> {
    #[inline(always)]
    fn add<const N: usize>(&mut self, row: &Row<E, S>, x: [V<E, S>; N]) {
        let low = E::Compute::NEG_INFINITY;
        let mut max = [self.max, row.splat(low)];
        for (k, &x) in x.iter().enumerate() {
            // The operand order leaves out NaN.
            max[k % 2] = x.max(max[k % 2]);
        }
        self.max = max[0].max(max[1]);
        let limit = row.splat(self.shift + E::Compute::from_f64(SLACK));
        if V::<E, S>::mask_bits(limit.lt(self.max)) != 0 {
            self.move_shift(row);
        }
        // A row that is -inf so far adds 0, and its NaN, if any.
        let shift = row.splat(if self.shift > low {
            self.shift
        } else {
            E::Compute::ZERO
        });
        for (k, &x) in x.iter().enumerate() {
            self.sum[k % UNROLL] = self.sum[k % UNROLL] + E::exp_nonpositive(x - shift);
        }
    }

    #[inline(always)]
    fn move_shift(&mut self, row: &Row<E, S>) {
        let max = self.max.reduce_max();
        // Before the first finite logit the sum is 0, or NaN to stay.
        if self.shift > E::Compute::NEG_INFINITY {
            let ratio = row.splat(self.shift - max).exp_nonpositive();
            for sum in &mut self.sum {
                *sum = *sum * ratio;
            }
        }
        self.shift = max;
    }
}

impl<E: Element, S: Simd> Row<E, S> {
    const LANES: usize = V::<E, S>::LANES;

    #[inline(always)]
    fn splat(&self, x: E::Compute) -> V<E, S> {
        V::<E, S>::splat(self.s, x)
    }

    /// Calls `f` with a slot, the first class and the count of each vector of `classes`.
    #[inline(always)]
    fn for_vectors(classes: Range<usize>, mut f: impl FnMut(usize, usize, usize)) {
        let mut c = classes.start;
        let step = UNROLL * Self::LANES;
        while c + step <= classes.end {
            for k in 0..UNROLL {
                f(k, c + k * Self::LANES, Self::LANES);
            }
            c += step;
        }
        while c < classes.end {
            f(0, c, Self::LANES.min(classes.end - c));
            c += Self::LANES;
        }
    }

    /// Asks for what follows the vectors of a turn of [`Self::for_vectors`], once a turn, where the row is first read.
    #[inline(always)]
    fn prefetch(&self, k: usize, c: usize) {
        if k == 0 {
            prefetch_stream(self.x.wrapping_add(c), UNROLL * Self::LANES);
        }
    }

    /// Classes `c..c + n`, and 0 in the lanes behind them.
    #[inline(always)]
    fn load(&self, c: usize, n: usize) -> V<E, S> {
        // SAFETY: c + n is at most the number of classes, and the row has that many adjacent elements.
        unsafe {
            if n == Self::LANES {
                E::load_ptr(self.s, self.x.add(c))
            } else {
                E::load_partial_ptr(self.s, self.x.add(c), n, E::Compute::ZERO)
            }
        }
    }

    /// The vector that ends with class `c + n - 1`: where `n` is not a whole vector, the lanes before the last `n` repeat
    /// earlier classes. A row is at least a vector long, and loading a part of one is slow for half types.
    #[inline(always)]
    fn load_ending(&self, c: usize, n: usize) -> V<E, S> {
        debug_assert!(c + n >= Self::LANES);
        // SAFETY: rows of this form have at least a vector of adjacent elements, and c + n of them or more.
        unsafe { E::load_ptr(self.s, self.x.add(c + n - Self::LANES)) }
    }

    /// `x` in the first `n` lanes, else 0.
    #[inline(always)]
    fn first(&self, n: usize, x: V<E, S>) -> V<E, S> {
        if n == Self::LANES {
            x
        } else {
            x.select(V::<E, S>::first(self.s, n), self.splat(E::Compute::ZERO))
        }
    }

    /// max x of `classes`, leaving out NaN: the sum finds it.
    #[inline(always)]
    fn max(&self, classes: Range<usize>) -> E::Compute {
        let low = self.splat(E::Compute::NEG_INFINITY);
        let mut max = [low; UNROLL];
        Self::for_vectors(
            classes,
            #[inline(always)]
            |k, c, n| {
                self.prefetch(k, c);
                max[k] = self.load_ending(c, n).max(max[k]);
            },
        );
        max[0].max(max[1]).max(max[2].max(max[3])).reduce_max()
    }

    /// max x and sum exp(x - max), from one load of each element. The sum is kept for a shift near the maximum so far,
    /// which moves only where the maximum has outgrown it by [`SLACK`]: seldom after the first group of vectors.
    #[inline(always)]
    fn max_and_sum(&self) -> (E::Compute, E::Compute) {
        let (zero, low) = (E::Compute::ZERO, E::Compute::NEG_INFINITY);
        let mut found = Online::<E, S> {
            max: self.splat(low),
            shift: low,
            sum: [self.splat(zero); UNROLL],
        };
        let mut c = self.add_groups::<8>(0, &mut found);
        c = self.add_groups::<4>(c, &mut found);
        c = self.add_groups::<2>(c, &mut found);
        c = self.add_groups::<1>(c, &mut found);
        if c < self.classes {
            let n = self.classes - c;
            let repeated = V::<E, S>::first(self.s, Self::LANES - n);
            let x = self.splat(low).select(repeated, self.load_ending(c, n));
            found.add(self, [x]);
        }
        let [a, b, c, d] = found.sum;
        let sum = ((a + b) + (c + d)).reduce_add();
        let max = found.max.reduce_max();
        if max > found.shift {
            let ratio = self.splat(found.shift - max).exp_nonpositive();
            (max, sum * ratio.to_array()[0])
        } else {
            (max, sum)
        }
    }

    /// Adds groups of `N` vectors from class `c` on while the row has them, and returns the class behind.
    #[inline(always)]
    fn add_groups<const N: usize>(&self, mut c: usize, found: &mut Online<E, S>) -> usize {
        while c + N * Self::LANES <= self.classes {
            prefetch_stream(self.x.wrapping_add(c), N * Self::LANES);
            let x: [_; N] = std::array::from_fn(
                #[inline(always)]
                |k| self.load(c + k * Self::LANES, Self::LANES),
            );
            found.add(self, x);
            c += N * Self::LANES;
        }
        c
    }

    /// The first class whose x is the maximum; 0 where all are NaN.
    #[inline(always)]
    fn argmax(&self, max: E::Compute) -> u32 {
        let wanted = self.splat(max);
        let mut c = 0;
        while c < self.classes {
            let n = Self::LANES.min(self.classes - c);
            let hits = self.load(c, n).eq(wanted) & V::<E, S>::first(self.s, n);
            let hits = V::<E, S>::mask_bits(hits);
            if hits != 0 {
                return c as u32 + hits.trailing_zeros();
            }
            c += n;
        }
        0
    }

    /// As [`Self::max_and_sum`] of a row that is one part, with exp(x - max) left in `e`, in the compute type.
    #[inline(always)]
    fn stage(&self, e: &mut [E::Compute]) -> (E::Compute, E::Compute) {
        let (zero, low) = (
            self.splat(E::Compute::ZERO),
            self.splat(E::Compute::NEG_INFINITY),
        );
        let mut max = [low; UNROLL];
        Self::for_vectors(
            0..self.classes,
            #[inline(always)]
            |k, c, n| {
                self.prefetch(k, c);
                let x = self.load_ending(c, n);
                x.store(&mut e[c + n - Self::LANES..c + n]);
                max[k] = x.max(max[k]);
            },
        );
        let max = max[0].max(max[1]).max(max[2].max(max[3])).reduce_max();
        let shift = self.splat(max);
        let mut sum = [zero; UNROLL];
        Self::for_vectors(
            0..self.classes,
            #[inline(always)]
            |k, c, n| {
                let cells = &mut e[c..c + Self::LANES];
                let x = E::exp_nonpositive(V::<E, S>::load(self.s, cells) - shift);
                x.store(cells);
                sum[k] = sum[k] + self.first(n, x);
            },
        );
        (max, ((sum[0] + sum[1]) + (sum[2] + sum[3])).reduce_add())
    }

    /// The gradient but for the target's part, of what [`Self::stage`] left.
    #[inline(always)]
    fn write_staged(&self, e: &[E::Compute], scaled: E::Compute, out: *mut E) {
        let scaled = self.splat(scaled);
        Self::for_vectors(
            0..self.classes,
            #[inline(always)]
            |_, c, n| {
                // The last vector writes some elements again rather than be a part of one.
                let first = c + n - Self::LANES;
                let p = V::<E, S>::load(self.s, &e[first..c + n]) * scaled;
                // SAFETY: as in `write_gradient`.
                unsafe { self.store(p, first, Self::LANES, out) };
            },
        );
    }

    /// The gradient but for the target's part.
    #[inline(always)]
    fn write_gradient(&self, gradient: &RowGradient<E::Compute>, max: E::Compute, out: *mut E) {
        let (shift, scaled) = (self.splat(max), self.splat(gradient.scaled));
        Self::for_vectors(
            0..self.classes,
            #[inline(always)]
            |_, c, n| {
                let p = E::exp_nonpositive(self.load(c, n) - shift) * scaled;
                // SAFETY: c + n is at most the number of classes, and the row of the sink has that many adjacent
                // elements, which no other chunk writes.
                unsafe { self.store(p, c, n, out) };
            },
        );
    }

    /// # Safety
    /// `out` is valid for writing elements `c..c + n`.
    #[inline(always)]
    unsafe fn store(&self, x: V<E, S>, c: usize, n: usize, out: *mut E) {
        // SAFETY: the caller vouches for the elements.
        unsafe {
            if n == Self::LANES {
                E::store_ptr(self.s, x, out.add(c));
            } else {
                E::store_partial_ptr(self.s, x, out.add(c), n);
            }
        }
    }
}
