//! Every option, any layout: row by row, through a row of the compute type in cache.
//!
//! The logits of a row are transformed once on the way in, the gradient is rounded once on the way out, and the passes
//! between see whole vectors only: the row is padded with -inf, whose exponential is 0, and coefficients of 0.

use std::ops::Range;

use candle_simd::prefetch::prefetch_stream;
use candle_simd::{Element, Float, Simd, Vector};

use super::layout::{Sink, Source};
use super::recipe::{Recipe, RowGradient, RowSums, RowValue, slope, transform};
use super::{BLOCK, IGNORED, Run, Target, Totals};

type V<E, S> = <<E as Element>::Compute as Float>::V<S>;

/// A row in the compute type, padded to whole vectors.
struct Scratch<F> {
    /// x', later the gradient.
    x: Vec<F>,
    /// The coefficients that classes have beside the target's; empty where there are none.
    q: Vec<F>,
}

#[inline(always)]
pub(super) fn chunk<E: Element, S: Simd>(s: S, run: &Run<'_, E>, rows: Range<usize>) -> Totals {
    let padded = run.recipe.classes.next_multiple_of(V::<E, S>::LANES);
    let mut scratch = Scratch {
        x: vec![E::Compute::NEG_INFINITY; padded],
        q: vec![E::Compute::ZERO; if run.recipe.is_dense() { padded } else { 0 }],
    };
    let mut totals = Totals::default();
    let mut targets = [0; BLOCK];
    for start in rows.clone().step_by(BLOCK) {
        let block = start..rows.end.min(start + BLOCK);
        run.read_targets(block.clone(), &mut targets);
        for row in block {
            one_row(s, run, row, targets[row - start], &mut scratch, &mut totals);
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
    scratch: &mut Scratch<E::Compute>,
    totals: &mut Totals,
) {
    let recipe = &run.recipe;
    let counts = target != IGNORED;
    let upstream = run.upstream(row, counts);
    if !run.reads(counts, &upstream) {
        // SAFETY: chunks do not share rows.
        unsafe { run.outputs.write(row, &RowValue::UNREAD) };
        if let Some((sink, _)) = &run.gradient {
            scratch.x[..recipe.classes].fill(E::Compute::ZERO);
            scatter::<E, S>(s, sink, row, &scratch.x);
        }
        return;
    }
    gather::<E, S>(s, &run.logits, row, &mut scratch.x);
    scratch.x[recipe.classes..].fill(E::Compute::NEG_INFINITY);
    match &run.target {
        Target::Probabilities(source) => gather::<E, S>(s, source, row, &mut scratch.q),
        Target::Indices(_) => scratch.q.fill(E::Compute::ZERO),
    }
    let max = enter::<E, S>(s, recipe, scratch);
    let sums = sums::<E, S>(s, recipe, scratch, max, target);
    let argmax = if run.outputs.argmax.is_some() {
        scratch.x.iter().position(|&x| x == max).unwrap_or(0) as u32
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
        leave::<E, S>(s, recipe, scratch, max, target, &gradient);
        scatter::<E, S>(s, sink, row, &scratch.x);
    }
}

/// Brings a row into the compute type.
#[inline(always)]
fn gather<E: Element, S: Simd>(s: S, source: &Source<'_, E>, row: usize, out: &mut [E::Compute]) {
    let (classes, stride) = (source.matrix.classes, source.matrix.class_stride);
    let first = source.row(row);
    let lanes = V::<E, S>::LANES;
    /// Vectors whose successors are asked for together: a cache line or more of any type.
    const AT_ONCE: usize = 4;
    if stride == 1 {
        for (i, out) in out.chunks_exact_mut(lanes).enumerate() {
            let c = i * lanes;
            if i.is_multiple_of(AT_ONCE) {
                prefetch_stream(first.wrapping_add(c), AT_ONCE * lanes);
            }
            // SAFETY: classes from c on, at most a vector of them, are adjacent elements of the row.
            let x = unsafe {
                if c + lanes <= classes {
                    E::load_ptr(s, first.add(c))
                } else {
                    E::load_partial_ptr(s, first.add(c), classes - c, E::Compute::ZERO)
                }
            };
            x.store(out);
        }
    } else {
        for (c, out) in out[..classes].iter_mut().enumerate() {
            // SAFETY: class c of the row lies at c strides from its first.
            *out = unsafe { *first.add(c * stride) }.widen();
        }
    }
}

/// Rounds a row on its way out.
#[inline(always)]
fn scatter<E: Element, S: Simd>(s: S, sink: &Sink<'_, E>, row: usize, data: &[E::Compute]) {
    let (classes, stride) = (sink.matrix.classes, sink.matrix.class_stride);
    let first = sink.row(row);
    let lanes = V::<E, S>::LANES;
    if stride == 1 {
        for (i, data) in data.chunks_exact(lanes).enumerate() {
            let c = i * lanes;
            let x = V::<E, S>::load(s, data);
            // SAFETY: classes from c on, at most a vector of them, are adjacent elements of the row, which no other
            // chunk writes.
            unsafe {
                if c + lanes <= classes {
                    E::store_ptr(s, x, first.add(c));
                } else {
                    E::store_partial_ptr(s, x, first.add(c), classes - c);
                }
            }
        }
    } else {
        for (c, &x) in data[..classes].iter().enumerate() {
            // SAFETY: class c of the row lies at c strides from its first, and no other chunk writes the row.
            unsafe { *first.add(c * stride) = E::narrow(x) };
        }
    }
}

/// Transforms the logits, makes probabilities coefficients, and returns max x', leaving out NaN: the sum finds it.
#[inline(always)]
fn enter<E: Element, S: Simd>(
    s: S,
    recipe: &Recipe<'_, E::Compute>,
    scratch: &mut Scratch<E::Compute>,
) -> E::Compute {
    let lanes = V::<E, S>::LANES;
    let low = V::<E, S>::splat(s, E::Compute::NEG_INFINITY);
    let mut max = low;
    for (i, x) in scratch.x.chunks_exact_mut(lanes).enumerate() {
        let v = transform(recipe, V::<E, S>::load(s, x));
        // A negative scale or a cap would give the padding another value.
        let inside = V::<E, S>::first(s, lanes.min(recipe.classes - i * lanes));
        let v = v.select(inside, low);
        v.store(x);
        max = v.max(max);
    }
    let (hard, uniform) = (
        V::<E, S>::splat(s, recipe.hard),
        V::<E, S>::splat(s, recipe.uniform),
    );
    let zero = V::<E, S>::splat(s, E::Compute::ZERO);
    for (i, q) in scratch.q.chunks_exact_mut(lanes).enumerate() {
        let n = lanes.min(recipe.classes - i * lanes);
        let mut v = uniform;
        if recipe.probabilities {
            v = V::<E, S>::load(s, q).mul_add(hard, uniform);
        }
        if let Some(weights) = recipe.weights {
            v = v * V::<E, S>::load_partial(
                s,
                &weights[i * lanes..i * lanes + n],
                E::Compute::ZERO,
            );
        }
        v.select(V::<E, S>::first(s, n), zero).store(q);
    }
    max.reduce_max()
}

#[inline(always)]
fn sums<E: Element, S: Simd>(
    s: S,
    recipe: &Recipe<'_, E::Compute>,
    scratch: &Scratch<E::Compute>,
    max: E::Compute,
    target: i64,
) -> RowSums<E::Compute> {
    let lanes = V::<E, S>::LANES;
    let zero = V::<E, S>::splat(s, E::Compute::ZERO);
    let shift = V::<E, S>::splat(s, max);
    let (mut sum, mut dense, mut dense_shifted) = (zero, zero, zero);
    for (i, x) in scratch.x.chunks_exact(lanes).enumerate() {
        let shifted = V::<E, S>::load(s, x) - shift;
        sum = sum + shifted.exp_nonpositive();
        if !scratch.q.is_empty() {
            let q = V::<E, S>::load(s, &scratch.q[i * lanes..]);
            dense = dense + q;
            // A coefficient of 0 contributes 0, also where x' is -inf.
            dense_shifted = dense_shifted + zero.select(q.eq(zero), q * shifted);
        }
    }
    let sum = sum.reduce_add();
    RowSums {
        max,
        sum,
        log_sum: sum.ln(),
        dense: dense.reduce_add(),
        dense_shifted: dense_shifted.reduce_add(),
        target: if target == IGNORED || recipe.probabilities {
            E::Compute::ZERO
        } else {
            scratch.x[target as usize]
        },
    }
}

/// Makes the row of x' a row of the gradient.
#[inline(always)]
fn leave<E: Element, S: Simd>(
    s: S,
    recipe: &Recipe<'_, E::Compute>,
    scratch: &mut Scratch<E::Compute>,
    max: E::Compute,
    target: i64,
    gradient: &RowGradient<E::Compute>,
) {
    let lanes = V::<E, S>::LANES;
    let shift = V::<E, S>::splat(s, max);
    let (scaled, loss) = (
        V::<E, S>::splat(s, gradient.scaled),
        V::<E, S>::splat(s, gradient.loss),
    );
    let at_target = if target == IGNORED || recipe.probabilities {
        None
    } else {
        let x = V::<E, S>::splat(s, scratch.x[target as usize]);
        Some((V::<E, S>::splat(s, gradient.at_target) * slope(recipe, x)).to_array()[0])
    };
    for (i, x) in scratch.x.chunks_exact_mut(lanes).enumerate() {
        let v = V::<E, S>::load(s, x);
        let mut p = (v - shift).exp_nonpositive() * scaled;
        if !scratch.q.is_empty() {
            p = V::<E, S>::load(s, &scratch.q[i * lanes..]).neg_mul_add(loss, p);
        }
        (p * slope(recipe, v)).store(x);
    }
    if let Some(x) = at_target {
        let cell = &mut scratch.x[target as usize];
        *cell = *cell - x;
    }
}
