//! Rows of few classes, or of classes that are not adjacent: the lanes hold rows.
//!
//! A block of as many rows as there are lanes is brought into a table of classes x lanes, which stays in cache, so the
//! passes need no reduction across lanes.

use std::ops::Range;

use candle_simd::{Element, Float, MAX_LANES, Simd, Vector};

use super::layout::{Sink, Source};
use super::recipe::{
    RowGradient, RowSums, RowUpstream, RowValue, dense_coefficient, slope, transform,
};
use super::{BLOCK, IGNORED, Recipe, Run, Target, Totals};

type V<E, S> = <<E as Element>::Compute as Float>::V<S>;

/// The tables of a block.
struct Tables<F> {
    /// x', later the gradient: classes x lanes.
    x: Vec<F>,
    /// Probabilities, where there are any: classes x lanes.
    t: Vec<F>,
}

#[inline(always)]
pub(super) fn chunk<const PLAIN: bool, E: Element, S: Simd>(
    s: S,
    run: &Run<'_, E>,
    rows: Range<usize>,
) -> Totals {
    let lanes = V::<E, S>::LANES;
    let cells = run.recipe.classes * lanes;
    let mut tables = Tables {
        x: vec![E::Compute::ZERO; cells],
        t: vec![E::Compute::ZERO; if run.recipe.probabilities { cells } else { 0 }],
    };
    let mut totals = Totals::default();
    let mut targets = [0; BLOCK];
    for start in rows.clone().step_by(BLOCK) {
        let block = start..rows.end.min(start + BLOCK);
        run.read_targets(block.clone(), &mut targets);
        for first in block.clone().step_by(lanes) {
            let part = first..block.end.min(first + lanes);
            let targets = &targets[first - start..part.end - start];
            one_block::<PLAIN, E, S>(s, run, part, targets, &mut tables, &mut totals);
        }
    }
    totals
}

/// Whether the rows lie beside each other in memory, so that a vector of one class is one load.
#[inline(always)]
fn adjacent(offset: impl Fn(usize) -> usize, rows: &Range<usize>) -> bool {
    let first = offset(rows.start);
    rows.clone()
        .enumerate()
        .all(|(i, row)| offset(row) == first + i)
}

/// Brings rows into a table of classes x lanes.
#[inline(always)]
fn gather<E: Element, S: Simd>(
    s: S,
    source: &Source<'_, E>,
    rows: &Range<usize>,
    table: &mut [E::Compute],
) {
    let (classes, stride) = (source.matrix.classes, source.matrix.class_stride);
    let lanes = V::<E, S>::LANES;
    let n = rows.len();
    if adjacent(|row| source.matrix.rows.offset(row), rows) {
        let first = source.row(rows.start);
        for (c, cells) in table.chunks_exact_mut(lanes).enumerate() {
            // SAFETY: the n rows are adjacent, so their class c lies in n adjacent elements.
            let x = unsafe {
                let p = first.add(c * stride);
                if n == lanes {
                    E::load_ptr(s, p)
                } else {
                    E::load_partial_ptr(s, p, n, E::Compute::ZERO)
                }
            };
            x.store(cells);
        }
    } else {
        for (lane, row) in rows.clone().enumerate() {
            let first = source.row(row);
            for c in 0..classes {
                // SAFETY: class c of the row lies at c strides from its first.
                table[c * lanes + lane] = unsafe { *first.add(c * stride) }.widen();
            }
        }
    }
}

/// Brings a table of classes x lanes out to rows.
#[inline(always)]
fn scatter<E: Element, S: Simd>(
    s: S,
    sink: &Sink<'_, E>,
    rows: &Range<usize>,
    table: &[E::Compute],
) {
    let (classes, stride) = (sink.matrix.classes, sink.matrix.class_stride);
    let lanes = V::<E, S>::LANES;
    let n = rows.len();
    if adjacent(|row| sink.matrix.rows.offset(row), rows) {
        let first = sink.row(rows.start);
        for (c, cells) in table.chunks_exact(lanes).enumerate() {
            let x = V::<E, S>::load(s, cells);
            // SAFETY: the n rows are adjacent, so their class c lies in n adjacent elements, which no other chunk writes.
            unsafe {
                let p = first.add(c * stride);
                if n == lanes {
                    E::store_ptr(s, x, p)
                } else {
                    E::store_partial_ptr(s, x, p, n)
                }
            }
        }
    } else {
        for (lane, row) in rows.clone().enumerate() {
            let first = sink.row(row);
            for c in 0..classes {
                // SAFETY: class c of the row lies at c strides from its first, and no other chunk writes the row.
                unsafe { *first.add(c * stride) = E::narrow(table[c * lanes + lane]) };
            }
        }
    }
}

/// The coefficients that class `c` has beside the target's.
#[inline(always)]
fn dense_of<E: Element, S: Simd>(
    s: S,
    recipe: &Recipe<'_, E::Compute>,
    t: &[E::Compute],
    c: usize,
) -> V<E, S> {
    let lanes = V::<E, S>::LANES;
    let probability = if recipe.probabilities {
        Some(V::<E, S>::load(s, &t[c * lanes..(c + 1) * lanes]))
    } else {
        None
    };
    let weight = match recipe.weights {
        Some(weights) => Some(V::<E, S>::splat(s, weights[c])),
        None => None,
    };
    dense_coefficient(recipe, probability, weight, s)
}

#[inline(always)]
fn one_block<const PLAIN: bool, E: Element, S: Simd>(
    s: S,
    run: &Run<'_, E>,
    rows: Range<usize>,
    targets: &[i64],
    tables: &mut Tables<E::Compute>,
    totals: &mut Totals,
) {
    let recipe = &run.recipe;
    let lanes = V::<E, S>::LANES;
    let zero = V::<E, S>::splat(s, E::Compute::ZERO);
    gather::<E, S>(s, &run.logits, &rows, &mut tables.x);
    if let Target::Probabilities(source) = &run.target {
        gather::<E, S>(s, source, &rows, &mut tables.t);
    }

    // max x', leaving out NaN: the sum finds it.
    let mut max = V::<E, S>::splat(s, E::Compute::NEG_INFINITY);
    for cells in tables.x.chunks_exact_mut(lanes) {
        let x = transform::<PLAIN, _>(recipe, V::<E, S>::load(s, cells));
        max = x.max(max);
        if !PLAIN {
            x.store(cells);
        }
    }
    let is_dense = !PLAIN && recipe.is_dense();
    let (mut sum, mut dense, mut dense_shifted) = (zero, zero, zero);
    for (c, cells) in tables.x.chunks_exact(lanes).enumerate() {
        let shifted = V::<E, S>::load(s, cells) - max;
        sum = sum + shifted.exp();
        if is_dense {
            let q = dense_of::<E, S>(s, recipe, &tables.t, c);
            dense = dense + q;
            dense_shifted = dense_shifted + zero.select(q.eq(zero), q * shifted);
        }
    }
    let log_sum = sum.ln().to_array();
    let (max_of, sum, dense, dense_shifted) = (
        max.to_array(),
        sum.to_array(),
        dense.to_array(),
        dense_shifted.to_array(),
    );

    let mut gradients = [RowGradient {
        scaled: E::Compute::ZERO,
        loss: E::Compute::ZERO,
        at_target: E::Compute::ZERO,
    }; MAX_LANES];
    let mut unread = [false; MAX_LANES];
    for (lane, (row, &target)) in rows.clone().zip(targets).enumerate() {
        let counts = target != IGNORED;
        let upstream: RowUpstream<E::Compute> = run.upstream(row, counts);
        if !run.reads(counts, &upstream) {
            unread[lane] = true;
            // SAFETY: chunks do not share rows.
            unsafe { run.outputs.write(row, &RowValue::UNREAD) };
            continue;
        }
        let hit = if counts && !recipe.probabilities {
            tables.x[target as usize * lanes + lane]
        } else {
            E::Compute::ZERO
        };
        let sums = RowSums {
            max: max_of[lane],
            sum: sum[lane],
            log_sum: log_sum[lane],
            dense: if recipe.probabilities {
                dense[lane]
            } else {
                recipe.uniform * recipe.weight_sum
            },
            dense_shifted: dense_shifted[lane],
            target: hit,
        };
        let argmax = if run.outputs.argmax.is_some() {
            let column = tables.x[lane..].iter().step_by(lanes);
            column
                .enumerate()
                .find(|(_, x)| **x == sums.max)
                .map_or(0, |(c, _)| c as u32)
        } else {
            0
        };
        let value = recipe.value(target, &sums, argmax);
        totals.loss += value.loss.to_f64();
        totals.correct += usize::from(counts && i64::from(argmax) == target);
        // SAFETY: chunks do not share rows.
        unsafe { run.outputs.write(row, &value) };
        if run.gradient.is_some() {
            gradients[lane] = recipe.gradient(target, &sums, &upstream);
        }
    }

    let Some((sink, _)) = &run.gradient else {
        return;
    };
    let scaled = V::<E, S>::load(s, &gradients.map(|g| g.scaled));
    let loss = V::<E, S>::load(s, &gradients.map(|g| g.loss));
    // The target's part is added to the table, so that each element is rounded to its type once.
    let mut corrections = [E::Compute::ZERO; MAX_LANES];
    for (lane, &target) in targets.iter().enumerate() {
        if target != IGNORED && !recipe.probabilities && !unread[lane] {
            corrections[lane] = if PLAIN {
                gradients[lane].at_target
            } else {
                let x = V::<E, S>::splat(s, tables.x[target as usize * lanes + lane]);
                gradients[lane].at_target * slope(recipe, x).to_array()[0]
            };
        }
    }
    for c in 0..recipe.classes {
        let cells = &mut tables.x[c * lanes..(c + 1) * lanes];
        let x = V::<E, S>::load(s, cells);
        let mut p = (x - max).exp() * scaled;
        if !PLAIN {
            if is_dense {
                p = dense_of::<E, S>(s, recipe, &tables.t, c).neg_mul_add(loss, p);
            }
            p = p * slope(recipe, x);
        }
        p.store(cells);
    }
    for (lane, &target) in targets.iter().enumerate() {
        if unread[lane] {
            tables.x[lane..]
                .iter_mut()
                .step_by(lanes)
                .for_each(|x| *x = E::Compute::ZERO);
        } else if target != IGNORED && !recipe.probabilities {
            let cell = &mut tables.x[target as usize * lanes + lane];
            *cell = *cell - corrections[lane];
        }
    }
    scatter::<E, S>(s, sink, &rows, &tables.x);
}
