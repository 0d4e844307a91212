//! The loops of every pointwise loss on the CPU: one block of elements at a time, in a fixed order.
//!
//! ```text
//! out_i = scale * h(x_i, t_i, p_i) * a_i * b_i ...      h: the loss or one of its derivatives
//! sum   = sum_i of the same                              a, b: weight and upstream gradients
//! ```
//!
//! A sum takes the elements of a block in 16 lanes, adds lanes and then blocks in f64, pairwise. Lanes and blocks
//! depend on the number of elements only, so the bits are the same for any number of threads and any vector width.

use super::operand::{BLOCK, Operand, Real};
use super::{Dual, Element, Float};
use candle_core::Result;
use candle_simd::buffer::Uninit;
use candle_simd::{Isa, Kernel, Simd};
use half::{bf16, f16};
use rayon::prelude::*;
use std::mem::MaybeUninit;

/// Blocks that one thread takes at a time; fewer than two such tasks are not worth waking a thread for.
const TASK_BLOCKS: usize = 16;
const TASK: usize = BLOCK * TASK_BLOCKS;

/// What to evaluate: the loss, or one of its partial derivatives with respect to input and target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Partial {
    Value,
    Input,
    Target,
    InputInput,
    InputTarget,
    TargetTarget,
}

/// A stored element type: what it is computed in and how a result is rounded to it, once.
pub(super) trait Stored: Copy + Send + Sync + Default + 'static {
    type Compute: Real + Stored<Compute = Self::Compute>;
    fn round(value: Self::Compute) -> Self;
}

impl Stored for f32 {
    type Compute = f32;
    #[inline(always)]
    fn round(value: f32) -> Self {
        value
    }
}

impl Stored for f64 {
    type Compute = f64;
    #[inline(always)]
    fn round(value: f64) -> Self {
        value
    }
}

impl Stored for f16 {
    type Compute = f32;
    #[inline(always)]
    fn round(value: f32) -> Self {
        f16::from_f32(value)
    }
}

impl Stored for bf16 {
    type Compute = f32;
    #[inline(always)]
    fn round(value: f32) -> Self {
        bf16::from_f32(value)
    }
}

/// An [`Element`] with its formulas compiled for both types, so that all code around the loops is compiled once.
pub(super) trait Compiled: Send + Sync {
    fn name(&self) -> &'static str;
    #[cfg(feature = "cuda")]
    fn cuda_kernels(&self) -> Option<super::CudaKernels>;
    fn evaluate_f32(&self, isa: Isa, partial: Partial, block: Block<'_, f32>);
    fn evaluate_f64(&self, isa: Isa, partial: Partial, block: Block<'_, f64>);
}

impl<E: Element> Compiled for E {
    fn name(&self) -> &'static str {
        Element::name(self)
    }
    #[cfg(feature = "cuda")]
    fn cuda_kernels(&self) -> Option<super::CudaKernels> {
        Element::cuda_kernels(self)
    }
    fn evaluate_f32(&self, isa: Isa, partial: Partial, block: Block<'_, f32>) {
        evaluate(self, isa, partial, block);
    }
    fn evaluate_f64(&self, isa: Isa, partial: Partial, block: Block<'_, f64>) {
        evaluate(self, isa, partial, block);
    }
}

/// The operands of one block, all of one length.
pub(super) struct Block<'a, F> {
    x: &'a [F],
    t: &'a [F],
    p: &'a [F],
    y: &'a mut [F],
}

/// One pass over the elements.
pub(super) struct Pass<'a> {
    pub(super) element: &'a dyn Compiled,
    pub(super) partial: Partial,
    pub(super) isa: Isa,
    pub(super) input: Operand<'a>,
    pub(super) target: Operand<'a>,
    /// The loss's own per-element parameter; 1 where there is none.
    pub(super) parameter: Option<Operand<'a>>,
    /// What each result is multiplied with.
    pub(super) factors: Vec<Operand<'a>>,
    pub(super) scale: f64,
    pub(super) len: usize,
}

/// Room for one block of each operand.
struct Scratch<F> {
    x: [F; BLOCK],
    t: [F; BLOCK],
    p: [F; BLOCK],
    y: [F; BLOCK],
}

impl<F: Real> Scratch<F> {
    fn new() -> Self {
        let zeros = [F::of(0.0); BLOCK];
        Self {
            x: zeros,
            t: zeros,
            p: [F::of(1.0); BLOCK],
            y: zeros,
        }
    }
}

impl Pass<'_> {
    /// Takes factors that are one number for all elements out of the loop.
    pub(super) fn fold_scalars(mut self) -> Result<Self> {
        let mut kept = Vec::with_capacity(self.factors.len());
        for factor in self.factors {
            match factor.scalar()? {
                Some(value) => self.scale *= value,
                None => kept.push(factor),
            }
        }
        self.factors = kept;
        Ok(self)
    }

    /// Every element's result.
    pub(super) fn map<T: Stored>(&self) -> Vec<T> {
        let mut buffer = Uninit::new(self.len);
        let out = &mut buffer.as_uninit()[..self.len];
        let scale = T::Compute::of(self.scale);
        let task = |(task, out): (usize, &mut [MaybeUninit<T>])| {
            let mut scratch = Scratch::new();
            for (i, out) in out.chunks_mut(BLOCK).enumerate() {
                let y = self.block::<T::Compute>(task * TASK + i * BLOCK, out.len(), &mut scratch);
                // Every element of `out` must be written.
                assert_eq!(y.len(), out.len());
                for (out, &y) in out.iter_mut().zip(y) {
                    out.write(T::round(y * scale));
                }
            }
        };
        if self.len < 2 * TASK {
            out.chunks_mut(TASK).enumerate().for_each(task);
        } else {
            out.par_chunks_mut(TASK).enumerate().for_each(task);
        }
        // SAFETY: the tasks' chunks cover the first `len` elements, the blocks cover each chunk, and the assertion
        // above makes the inner loop cover each block.
        unsafe { buffer.assume_init(self.len) }
    }

    /// The sum of every element's result; no tensor of them is made.
    pub(super) fn sum<F: Real>(&self) -> f64 {
        let mut sums = vec![0f64; self.len.div_ceil(BLOCK)];
        let task = |(task, sums): (usize, &mut [f64])| {
            let mut scratch = Scratch::new();
            for (i, sum) in sums.iter_mut().enumerate() {
                let start = task * TASK + i * BLOCK;
                *sum = lane_sum(self.block::<F>(start, BLOCK.min(self.len - start), &mut scratch));
            }
        };
        if self.len < 2 * TASK {
            sums.chunks_mut(TASK_BLOCKS).enumerate().for_each(task);
        } else {
            sums.par_chunks_mut(TASK_BLOCKS).enumerate().for_each(task);
        }
        pairwise_sum(&sums) * self.scale
    }

    /// The results of one block, without the scale.
    #[inline(always)]
    fn block<'s, F: Real>(&self, start: usize, len: usize, scratch: &'s mut Scratch<F>) -> &'s [F] {
        let y = &mut scratch.y[..len];
        let x = self.input.block(start, &mut scratch.x[..len]);
        let t = self.target.block(start, &mut scratch.t[..len]);
        let p = match &self.parameter {
            Some(parameter) => parameter.block(start, &mut scratch.p[..len]),
            None => &scratch.p[..len],
        };
        F::evaluate(self.element, self.isa, self.partial, Block { x, t, p, y });
        for factor in &self.factors {
            // The input has been used up: its room serves the factors.
            for (y, &factor) in y.iter_mut().zip(factor.block(start, &mut scratch.x[..len])) {
                *y = *y * factor;
            }
        }
        y
    }
}

/// A loop over a block. A macro, because a closure cannot be marked for inlining, and a call in the loop would keep it
/// from becoming vector code.
macro_rules! each {
    ($block:expr, |$x:ident, $t:ident, $p:ident| $value:expr) => {{
        let Block { x, t, p, y } = $block;
        for (((y, &$x), &$t), &$p) in y.iter_mut().zip(x).zip(t).zip(p) {
            *y = $value;
        }
    }};
}

/// The choice of derivative stands outside the loops, so that each loop is straight code.
fn evaluate<E: Element, F: Real>(e: &E, isa: Isa, partial: Partial, block: Block<'_, F>) {
    let (var, con) = (Dual::variable, Dual::constant);
    match partial {
        Partial::Value | Partial::Input | Partial::Target => isa.dispatch(First {
            element: e,
            partial,
            block,
        }),
        // Second derivatives are too rare to be compiled for every instruction set.
        Partial::InputInput => each!(block, |x, t, p| e.derivative(var(x), con(t), con(p)).slope),
        Partial::InputTarget => each!(block, |x, t, p| e.derivative(con(x), var(t), con(p)).slope),
        Partial::TargetTarget => {
            each!(block, |x, t, p| e
                .target_derivative(con(x), var(t), con(p))
                .slope);
        }
    }
}

/// The loss and its first derivatives: plain loops, which the compiler turns into vector code of the instruction set.
struct First<'a, E, F> {
    element: &'a E,
    partial: Partial,
    block: Block<'a, F>,
}

impl<E: Element, F: Real> Kernel for First<'_, E, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let e = self.element;
        match self.partial {
            Partial::Value => each!(self.block, |x, t, p| e.value(x, t, p)),
            Partial::Input => each!(self.block, |x, t, p| e.derivative(x, t, p)),
            _ => each!(self.block, |x, t, p| e.target_derivative(x, t, p)),
        }
    }
}

const LANES: usize = 16;

#[inline(always)]
fn lane_sum<F: Real>(values: &[F]) -> f64 {
    let mut lanes = [F::of(0.0); LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane = *lane + value;
        }
    }
    for (lane, &value) in lanes.iter_mut().zip(rest) {
        *lane = *lane + value;
    }
    let mut sums = lanes.map(F::to_f64);
    for distance in [8, 4, 2, 1] {
        for lane in 0..distance {
            sums[lane] += sums[lane + distance];
        }
    }
    sums[0]
}

fn pairwise_sum(values: &[f64]) -> f64 {
    match values {
        [] => 0.0,
        [one] => *one,
        _ => {
            let (left, right) = values.split_at(values.len().div_ceil(2));
            pairwise_sum(left) + pairwise_sum(right)
        }
    }
}
