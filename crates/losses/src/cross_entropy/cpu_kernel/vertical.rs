//! The plain loss over rows of few classes, or of classes that are not adjacent: the lanes hold rows.
//!
//! A block of as many rows as there are lanes is brought into a table of classes x lanes, which stays in cache, so the
//! passes need no reduction across lanes and even the logarithm serves a row in each lane. Packed rows are turned into the
//! table, and back, in registers.

use std::ops::Range;

use candle_simd::{Element, Float, MAX_LANES, Simd, Vector};

use super::layout::{Sink, Source};
use super::{BLOCK, IGNORED, PerRow, Run, Totals};

/// What a chunk's blocks share.
struct Buffers<F> {
    /// Classes x lanes, in whole blocks of lanes x lanes.
    table: Vec<F>,
    /// Packed rows as many as there are lanes, and room for a vector behind them.
    flat: Vec<F>,
    /// Lanes x lanes.
    block: Vec<F>,
}

impl<F: Float> Buffers<F> {
    fn new(classes: usize, lanes: usize) -> Self {
        Self {
            table: vec![F::ZERO; classes.next_multiple_of(lanes) * lanes],
            flat: vec![F::ZERO; (classes + 1) * lanes],
            block: vec![F::ZERO; lanes * lanes],
        }
    }
}

/// Whether blocks of lanes x lanes are turned in registers: not where most of one would be none of the classes.
fn turns(classes: usize, lanes: usize) -> bool {
    2 * classes >= lanes
}

type V<E, S> = <<E as Element>::Compute as Float>::V<S>;

/// A number for each lane.
type Lanes<F> = [F; MAX_LANES];

#[inline(always)]
pub(super) fn chunk<E: Element, S: Simd>(s: S, run: &Run<'_, E>, rows: Range<usize>) -> Totals {
    let lanes = V::<E, S>::LANES;
    let mut buffers = Buffers::new(run.recipe.classes, lanes);
    let mut losses = [0.0; MAX_LANES];
    let mut correct = 0;
    let mut targets = [0; BLOCK];
    for start in rows.clone().step_by(BLOCK) {
        let block = start..rows.end.min(start + BLOCK);
        run.read_targets(block.clone(), &mut targets);
        for first in block.clone().step_by(lanes) {
            let part = first..block.end.min(first + lanes);
            let targets = &targets[first - start..part.end - start];
            correct += one_block::<E, S>(s, run, part, targets, &mut buffers, &mut losses);
        }
    }
    Totals {
        loss: losses.iter().sum(),
        correct,
    }
}

/// Whether the rows lie beside each other in memory, so that a vector of one class is one load.
#[inline(always)]
fn adjacent(rows: &Range<usize>, offset: impl Fn(usize) -> usize) -> bool {
    let first = offset(rows.start);
    rows.clone()
        .enumerate()
        .all(|(i, row)| offset(row) == first + i)
}

/// Brings rows into a table of classes x lanes; packed rows through `flat`, in whole vectors.
#[inline(always)]
fn gather<E: Element, S: Simd>(
    s: S,
    source: &Source<'_, E>,
    rows: &Range<usize>,
    buffers: &mut Buffers<E::Compute>,
) {
    let classes = source.matrix.classes;
    let Buffers { table, flat, .. } = buffers;
    let table = &mut table[..];
    let stride = source.matrix.class_stride;
    let lanes = V::<E, S>::LANES;
    let n = rows.len();
    if adjacent(rows, |row| source.matrix.rows.offset(row)) {
        let first = source.row(rows.start);
        for (c, cells) in table.chunks_exact_mut(lanes).take(classes).enumerate() {
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
    } else if source.matrix.is_packed() {
        let first = source.row(rows.start);
        let cells = n * classes;
        for (i, out) in flat
            .chunks_mut(lanes)
            .enumerate()
            .take(cells.div_ceil(lanes))
        {
            let done = i * lanes;
            // SAFETY: the n rows of a packed matrix are as many adjacent elements as they have cells.
            let x = unsafe {
                let p = first.add(done);
                if cells - done >= lanes {
                    E::load_ptr(s, p)
                } else {
                    E::load_partial_ptr(s, p, cells - done, E::Compute::ZERO)
                }
            };
            x.store(out);
        }
        if turns(classes, lanes) {
            assert!(flat.len() >= (classes + 1) * lanes);
            for (c, block) in table.chunks_exact_mut(lanes * lanes).enumerate() {
                // SAFETY: `flat` holds as many rows as lanes and a vector behind them, so that there is a vector from class
                // c * lanes of each on; the block has room for as many.
                unsafe {
                    let from = flat.as_ptr().add(c * lanes);
                    V::<E, S>::transpose_ptr(s, from, classes, block.as_mut_ptr(), lanes);
                }
            }
            return;
        }
        for (lane, row) in flat.chunks_exact(classes).take(n).enumerate() {
            for (cells, &x) in table.chunks_exact_mut(lanes).zip(row) {
                cells[lane] = x;
            }
        }
    } else {
        for (lane, row) in rows.clone().enumerate() {
            let first = source.row(row);
            for (c, cells) in table.chunks_exact_mut(lanes).take(classes).enumerate() {
                // SAFETY: class c of the row lies at c strides from its first.
                cells[lane] = unsafe { *first.add(c * stride) }.widen();
            }
        }
    }
}

/// Rounds a table of classes x lanes on its way out to rows.
#[inline(always)]
fn scatter<E: Element, S: Simd>(
    s: S,
    sink: &Sink<'_, E>,
    rows: &Range<usize>,
    buffers: &mut Buffers<E::Compute>,
) {
    let classes = sink.matrix.classes;
    let Buffers { table, flat, block } = buffers;
    let table = &table[..];
    let stride = sink.matrix.class_stride;
    let lanes = V::<E, S>::LANES;
    let n = rows.len();
    if adjacent(rows, |row| sink.matrix.rows.offset(row)) {
        let first = sink.row(rows.start);
        for (c, cells) in table.chunks_exact(lanes).take(classes).enumerate() {
            let x = V::<E, S>::load(s, cells);
            // SAFETY: the n rows are adjacent, so their class c lies in n adjacent elements, which no other chunk
            // writes.
            unsafe {
                let p = first.add(c * stride);
                if n == lanes {
                    E::store_ptr(s, x, p)
                } else {
                    E::store_partial_ptr(s, x, p, n)
                }
            }
        }
    } else if sink.matrix.is_packed() {
        if turns(classes, lanes) {
            assert!(block.len() >= lanes * lanes);
            // What is none of the last classes reaches into the next row, whose own are written after it.
            for (c, cells) in table.chunks_exact(lanes * lanes).enumerate().rev() {
                // SAFETY: both are blocks of lanes x lanes, and do not overlap.
                unsafe {
                    let to = block.as_mut_ptr();
                    V::<E, S>::transpose_ptr(s, cells.as_ptr(), lanes, to, lanes);
                }
                for (lane, row) in block.chunks_exact(lanes).take(n).enumerate() {
                    V::<E, S>::load(s, row).store(&mut flat[lane * classes + c * lanes..]);
                }
            }
        } else {
            for (lane, row) in flat.chunks_exact_mut(classes).take(n).enumerate() {
                for (cells, x) in table.chunks_exact(lanes).zip(row) {
                    *x = cells[lane];
                }
            }
        }
        let first = sink.row(rows.start);
        let cells = n * classes;
        for (i, data) in flat.chunks(lanes).enumerate().take(cells.div_ceil(lanes)) {
            let done = i * lanes;
            let x = V::<E, S>::load(s, data);
            // SAFETY: the n rows of a packed matrix are as many adjacent elements as they have cells, which no other
            // chunk writes.
            unsafe {
                let p = first.add(done);
                if cells - done >= lanes {
                    E::store_ptr(s, x, p);
                } else {
                    E::store_partial_ptr(s, x, p, cells - done);
                }
            }
        }
    } else {
        for (lane, row) in rows.clone().enumerate() {
            let first = sink.row(row);
            for (c, cells) in table.chunks_exact(lanes).take(classes).enumerate() {
                // SAFETY: class c of the row lies at c strides from its first, and no other chunk writes the row.
                unsafe { *first.add(c * stride) = E::narrow(cells[lane]) };
            }
        }
    }
}

/// A number of each row in its lane; 0 behind the last row.
#[inline(always)]
fn per_lane<F: Float>(numbers: &PerRow<'_, F>, rows: &Range<usize>) -> Lanes<F> {
    let mut out = [F::ZERO; MAX_LANES];
    for (out, row) in out.iter_mut().zip(rows.clone()) {
        *out = numbers.at(row);
    }
    out
}

#[inline(always)]
fn one_block<E: Element, S: Simd>(
    s: S,
    run: &Run<'_, E>,
    rows: Range<usize>,
    targets: &[i64],
    buffers: &mut Buffers<E::Compute>,
    losses: &mut [f64; MAX_LANES],
) -> usize {
    let recipe = &run.recipe;
    let lanes = V::<E, S>::LANES;
    let zero = V::<E, S>::splat(s, E::Compute::ZERO);
    let one = V::<E, S>::splat(s, E::Compute::ONE);
    gather::<E, S>(s, &run.logits, &rows, buffers);
    let table = &mut buffers.table[..recipe.classes * lanes];

    // max x, leaving out NaN: the sum finds it.
    let mut max = V::<E, S>::splat(s, E::Compute::NEG_INFINITY);
    for cells in table.chunks_exact(lanes) {
        max = V::<E, S>::load(s, cells).max(max);
    }
    let mut logit = [E::Compute::ZERO; MAX_LANES];
    let mut coefficient = [E::Compute::ZERO; MAX_LANES];
    let mut counts = [E::Compute::ZERO; MAX_LANES];
    for (lane, &target) in targets.iter().enumerate() {
        if target != IGNORED {
            logit[lane] = table[target as usize * lanes + lane];
            coefficient[lane] = recipe.hard_coefficient(target);
            counts[lane] = E::Compute::ONE;
        }
    }
    let mut correct = 0;
    if let Some(out) = &run.outputs.argmax {
        let max = max.to_array();
        for (lane, (row, &target)) in rows.clone().zip(targets).enumerate() {
            let column = table[lane..].iter().step_by(lanes);
            let argmax = column
                .enumerate()
                .find(|(_, x)| **x == max[lane])
                .map_or(0, |(c, _)| c);
            correct += usize::from(target == argmax as i64);
            // SAFETY: chunks do not share rows.
            unsafe { out.part(row..row + 1)[0] = argmax as u32 };
        }
    }

    let mut sum = zero;
    for cells in table.chunks_exact_mut(lanes) {
        let e = E::exp_nonpositive(V::<E, S>::load(s, cells) - max);
        sum = sum + e;
        e.store(cells);
    }
    let log_sum = sum.ln();
    let lse = max + log_sum;
    let counts = V::<E, S>::load(s, &counts).eq(one);
    let coefficient = V::<E, S>::load(s, &coefficient);
    let z_loss = V::<E, S>::splat(s, recipe.z_loss);

    // The formulas are those of `Recipe::value` and `Recipe::gradient`, a row a lane.
    let log_prob = (V::<E, S>::load(s, &logit) - max) - log_sum;
    let nothing = coefficient.eq(zero) & sum.eq(sum);
    let mut loss = zero.select(nothing, -(coefficient * log_prob));
    if recipe.z_loss != E::Compute::ZERO {
        loss = loss + z_loss * lse * lse;
    }
    let loss = loss.select(counts, zero);
    for (total, loss) in losses.iter_mut().zip(loss.to_array()) {
        *total += loss.to_f64();
    }
    for (out, value) in [
        (&run.outputs.losses, loss),
        (&run.outputs.sums, sum),
        (&run.outputs.lse, lse),
        (&run.outputs.target_log_prob, log_prob.select(counts, zero)),
    ] {
        if let Some(out) = out {
            // SAFETY: chunks do not share rows.
            value.store_partial(unsafe { out.part(rows.clone()) });
        }
    }

    let Some((sink, upstream)) = &run.gradient else {
        return correct;
    };
    let of_lse = V::<E, S>::load(s, &per_lane(&upstream.lse, &rows));
    let of_log_prob =
        V::<E, S>::load(s, &per_lane(&upstream.target_log_prob, &rows)).select(counts, zero);
    let of_loss = V::<E, S>::load(s, &per_lane(&upstream.loss, &rows))
        / V::<E, S>::splat(s, upstream.divisor);
    let of_loss = of_loss.select(counts, zero);
    let mut factor = coefficient;
    if recipe.z_loss != E::Compute::ZERO {
        factor = factor + (z_loss + z_loss) * lse;
    }
    let scaled = (of_loss * factor + of_lse - of_log_prob) / sum;
    let at_target = (of_loss * coefficient - of_log_prob).to_array();
    // A row without upstream gradient that does not count has gradient 0, whatever it holds.
    let read = counts | !of_lse.eq(zero);
    for cells in table.chunks_exact_mut(lanes) {
        (V::<E, S>::load(s, cells) * scaled)
            .select(read, zero)
            .store(cells);
    }
    for (lane, &target) in targets.iter().enumerate() {
        if target != IGNORED {
            let cell = &mut table[target as usize * lanes + lane];
            *cell = *cell - at_target[lane];
        }
    }
    scatter::<E, S>(s, sink, &rows, buffers);
    correct
}
