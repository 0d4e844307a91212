//! The CPU kernel of cross entropy: one family for every option, dtype and layout.
//!
//! A row takes two passes forward (its maximum, then the sum of exp(x' - max)) and one more for the gradient, while it is
//! in cache. The plain loss (index targets, no smoothing, scale or cap) has two forms: rows of many adjacent classes
//! fill the lanes with classes (`horizontal`), others with rows (`vertical`). Everything else goes through a row in
//! the compute type (`general`). Rows are cut into chunks by the size of the problem alone and sums over rows are taken in
//! order, so the bits do not depend on the number of threads.

mod call;
mod general;
mod horizontal;
mod layout;
mod recipe;
mod targets;
mod vertical;

use std::ops::Range;

use candle_simd::parallel::{self, Disjoint};
use candle_simd::{Element, Float, Isa, Kernel, Simd};

pub(super) use call::{Wants, forward, gradient, value_and_grad, value_and_grad_in_place};

use candle_core::Result;
use layout::{Matrix, Rows, Sink, Source};
use recipe::Recipe;
use recipe::{RowUpstream, RowValue};
use targets::Indices;
use targets::{BLOCK, IGNORED};

/// From this many classes on the lanes are filled with the classes of a row.
const HORIZONTAL_FROM: usize = 48;

/// How the lanes are filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// With the classes of a row, options and layout of any kind.
    General,
    /// With the adjacent classes of a row; plain options.
    Horizontal,
    /// With rows; plain options.
    Vertical,
}

/// What the rows are compared with.
#[derive(Clone, Debug)]
enum Target<'a, E> {
    Indices(Indices<'a>),
    Probabilities(Source<'a, E>),
}

/// A number for each row.
#[derive(Clone, Debug)]
enum PerRow<'a, F> {
    All(F),
    Rows(&'a [F], Rows),
}

impl<F: Float> PerRow<'_, F> {
    #[inline(always)]
    fn at(&self, row: usize) -> F {
        match self {
            Self::All(x) => *x,
            Self::Rows(data, rows) => data[rows.offset(row)],
        }
    }
}

/// The upstream gradients of what forward returns.
#[derive(Clone, Debug)]
struct Upstream<'a, F> {
    loss: PerRow<'a, F>,
    /// What the losses were divided by.
    divisor: F,
    lse: PerRow<'a, F>,
    target_log_prob: PerRow<'a, F>,
}

/// Where results of single rows go, those that are wanted.
#[derive(Clone, Debug)]
struct RowOutputs<'a, F> {
    losses: Option<Disjoint<'a, F>>,
    /// Sums of exp(x' - max x'), which backward takes as [`Run::sums`].
    sums: Option<Disjoint<'a, F>>,
    lse: Option<Disjoint<'a, F>>,
    target_log_prob: Option<Disjoint<'a, F>>,
    argmax: Option<Disjoint<'a, u32>>,
}

impl<F> RowOutputs<'_, F> {
    fn none() -> Self {
        Self {
            losses: None,
            sums: None,
            lse: None,
            target_log_prob: None,
            argmax: None,
        }
    }

    /// Whether rows that do not count have results too.
    fn wants_every_row(&self) -> bool {
        self.lse.is_some() || self.argmax.is_some()
    }

    /// # Safety
    /// No other thread writes this row.
    #[inline(always)]
    unsafe fn write(&self, row: usize, value: &RowValue<F>)
    where
        F: Float,
    {
        let put = |out: &Option<Disjoint<'_, F>>, x: F| {
            if let Some(out) = out {
                // SAFETY: the caller vouches for the row.
                unsafe { out.part(row..row + 1)[0] = x };
            }
        };
        put(&self.losses, value.loss);
        put(&self.sums, value.sum);
        put(&self.lse, value.lse);
        put(&self.target_log_prob, value.target_log_prob);
        if let Some(argmax) = &self.argmax {
            // SAFETY: the caller vouches for the row.
            unsafe { argmax.part(row..row + 1)[0] = value.argmax };
        }
    }
}

/// One run over all rows.
#[derive(Clone, Debug)]
struct Run<'a, E: Element> {
    recipe: Recipe<'a, E::Compute>,
    rows: usize,
    logits: Source<'a, E>,
    target: Target<'a, E>,
    /// The sums that forward saved; without them they are taken again.
    sums: Option<&'a [E::Compute]>,
    outputs: RowOutputs<'a, E::Compute>,
    gradient: Option<(Sink<'a, E>, Upstream<'a, E::Compute>)>,
}

/// Sums over rows.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Totals {
    loss: f64,
    correct: usize,
}

/// Checks the targets and returns the sum of the weights of the rows that count: for the mean.
fn total_weight<E>(
    target: &Target<'_, E>,
    rows: usize,
    classes: usize,
    weights: Option<&[f64]>,
) -> Result<f64> {
    match target {
        Target::Indices(indices) => indices.total_weight(rows, classes, weights),
        Target::Probabilities(_) => Ok(rows as f64),
    }
}

impl<E: Element> Run<'_, E> {
    /// Runs the kernel over all rows. The targets have been checked by [`total_weight`].
    fn execute(&self) -> Totals {
        let isa = Isa::active();
        let chunks = parallel::map_rows(self.rows, self.recipe.classes, |rows| {
            isa.dispatch(Chunk { run: self, rows })
        });
        chunks
            .into_iter()
            .fold(Totals::default(), |sum, chunk| Totals {
                loss: sum.loss + chunk.loss,
                correct: sum.correct + chunk.correct,
            })
    }

    /// The one place that chooses how the lanes are filled.
    fn shape(&self) -> Shape {
        let adjacent = |matrix: &Matrix| matrix.class_stride == 1;
        if !self.recipe.is_plain() {
            Shape::General
        } else if self.recipe.classes >= HORIZONTAL_FROM
            && adjacent(self.logits.matrix)
            && self
                .gradient
                .as_ref()
                .is_none_or(|(sink, _)| adjacent(sink.matrix))
        {
            Shape::Horizontal
        } else {
            Shape::Vertical
        }
    }

    /// The targets of at most [`BLOCK`] rows; 0 for probabilities, where they are not used.
    #[inline(always)]
    fn read_targets(&self, rows: Range<usize>, out: &mut [i64; BLOCK]) {
        match &self.target {
            Target::Indices(indices) => indices.read(rows, out),
            Target::Probabilities(_) => out.fill(0),
        }
    }

    /// The upstream gradients of a row, divided; 0 for the loss of a row that does not count.
    #[inline(always)]
    fn upstream(&self, row: usize, counts: bool) -> RowUpstream<E::Compute> {
        let Some((_, upstream)) = &self.gradient else {
            return RowUpstream::ZERO;
        };
        if counts {
            RowUpstream {
                loss: upstream.loss.at(row) / upstream.divisor,
                lse: upstream.lse.at(row),
                target_log_prob: upstream.target_log_prob.at(row),
            }
        } else {
            RowUpstream {
                lse: upstream.lse.at(row),
                ..RowUpstream::ZERO
            }
        }
    }

    /// Whether the logits of a row are read at all: not those of a row that does not count, whatever they hold.
    #[inline(always)]
    fn reads(&self, counts: bool, upstream: &RowUpstream<E::Compute>) -> bool {
        counts || self.outputs.wants_every_row() || upstream.lse != E::Compute::ZERO
    }
}

struct Chunk<'a, 'b, E: Element> {
    run: &'a Run<'b, E>,
    rows: Range<usize>,
}

impl<E: Element> Kernel for Chunk<'_, '_, E> {
    type Output = Totals;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Totals {
        match self.run.shape() {
            Shape::General => general::chunk(s, self.run, self.rows),
            Shape::Horizontal => horizontal::chunk(s, self.run, self.rows),
            Shape::Vertical => vertical::chunk(s, self.run, self.rows),
        }
    }
}
