//! A register-blocked matrix product whose operand rows may lie anywhere: one kernel serves dense layers and convolutions.
//!
//! `c[i][j] = start + sum over terms k of a[a_rows[i] + k.a] * b[k.b + j]`
//!
//! Vectors run along j. A block holds R rows by NV vectors of sums in registers; each k loads NV vectors of `b` and
//! broadcasts R numbers of `a`. With AVX-512 R x NV is 8 x 3: 24 of 32 registers, 24 multiply-adds for 11 loads. With 16
//! registers it is 6 x 2: twelve sums, two vectors, a factor, and one to spare, without which a sum ends up in memory. Sums
//! are taken in the order of k for every element, so the result depends on neither the number of threads nor the position of
//! an element in a block.

use std::mem::MaybeUninit;
use std::ops::Range;

use candle_simd::{Float, Isa, Kernel, Simd, Vector};

/// Depth of a block: three vectors of `b` a row then stay in the first-level cache (36 KiB with AVX-512) while the rows
/// of `a` pass by.
const DEPTH: usize = 192;

/// What the sums start from.
#[derive(Clone, Copy)]
pub(crate) enum Start<'a, F> {
    Zero,
    /// One number a row.
    RowBias(&'a [F]),
    /// One number a column of a run.
    ColumnBias(&'a [F]),
    /// What `c` holds.
    Accumulate,
}

/// Where the sums go.
pub(crate) enum Target<'a, F> {
    /// Numbers that are written over, or with [`Start::Accumulate`] added to.
    Given(&'a mut [F]),
    /// Memory that is not written yet. Afterwards every row holds its columns.
    Fresh(&'a mut [MaybeUninit<F>]),
}

impl<F> Target<'_, F> {
    fn len(&self) -> usize {
        match self {
            Self::Given(numbers) => numbers.len(),
            Self::Fresh(memory) => memory.len(),
        }
    }

    #[inline(always)]
    fn as_mut_ptr(&mut self) -> *mut F {
        match self {
            Self::Given(numbers) => numbers.as_mut_ptr(),
            Self::Fresh(memory) => memory.as_mut_ptr().cast(),
        }
    }
}

/// A term of every sum.
#[derive(Clone, Copy)]
pub(crate) struct Term {
    /// Where its factor lies in a row of `a`.
    pub(crate) a: usize,
    /// Where its row of `b` starts.
    pub(crate) b: usize,
}

impl Term {
    /// As many terms, `a` and `b` elements apart.
    pub(crate) fn multiples(count: usize, a: usize, b: usize) -> Vec<Self> {
        let term = |k| Self { a: k * a, b: k * b };
        (0..count).map(term).collect()
    }
}

/// The columns of `b` and `c`: runs of neighbours. Vectors end with a run.
#[derive(Clone, Copy)]
pub(crate) struct Columns {
    /// Columns of a run.
    pub(crate) count: usize,
    pub(crate) runs: usize,
    /// Elements from the start of a run to that of the next.
    pub(crate) b_step: usize,
    pub(crate) c_step: usize,
}

impl Columns {
    /// One run.
    pub(crate) fn neighbours(count: usize) -> Self {
        Self {
            count,
            runs: 1,
            b_step: 0,
            c_step: 0,
        }
    }
}

/// Some columns of a run.
#[derive(Clone, Copy)]
struct Block {
    /// The first of them, in the run.
    j: usize,
    /// Where it lies in a row of `b` and of `c`.
    b: usize,
    c: usize,
    /// Columns of the last vector.
    tail: usize,
}

/// The operands. [`Product::run`] checks every bound before it computes.
pub(crate) struct Product<'a, F> {
    pub(crate) a: &'a [F],
    pub(crate) a_rows: &'a [usize],
    pub(crate) b: &'a [F],
    pub(crate) terms: &'a [Term],
    pub(crate) columns: Columns,
    pub(crate) c: Target<'a, F>,
    pub(crate) c_stride: usize,
    pub(crate) start: Start<'a, F>,
    /// Negative results become 0; NaN stays.
    pub(crate) relu: bool,
}

impl<F: Float> Product<'_, F> {
    /// Computes `c` with the given instruction set.
    ///
    /// # Panics
    /// When an operand is shorter than its rows say. The callers in this crate size them.
    pub(crate) fn run(self, isa: Isa) {
        let (rows, columns) = (self.a_rows.len(), self.columns);
        if rows == 0 || columns.count == 0 || columns.runs == 0 {
            return;
        }
        let reach = |step: usize| (columns.runs - 1) * step + columns.count;
        if !self.terms.is_empty() {
            let last_row = self.a_rows.iter().copied().max().unwrap_or(0);
            let last = self
                .terms
                .iter()
                .fold(Term { a: 0, b: 0 }, |last, term| Term {
                    a: last.a.max(term.a),
                    b: last.b.max(term.b),
                });
            assert!(last_row + last.a < self.a.len());
            assert!(last.b + reach(columns.b_step) <= self.b.len());
        }
        assert!((rows - 1) * self.c_stride + reach(columns.c_step) <= self.c.len());
        match self.start {
            Start::RowBias(bias) => assert!(bias.len() >= rows),
            Start::ColumnBias(bias) => assert!(bias.len() >= columns.count),
            Start::Accumulate => assert!(matches!(self.c, Target::Given(_))),
            Start::Zero => {}
        }
        isa.dispatch(self);
    }
}

impl<F: Float> Kernel for Product<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let depth = self.terms.len();
        let mut k = 0..DEPTH.min(depth);
        loop {
            self.depth_block(s, k.clone());
            if k.end >= depth {
                return;
            }
            // The sums so far wait in `c`, all of it written by now, which changes no bit of them.
            self.start = Start::Accumulate;
            k = k.end..depth.min(k.end + DEPTH);
        }
    }
}

impl<F: Float> Product<'_, F> {
    /// Adds the products of the depth range `k` to every element.
    #[inline(always)]
    fn depth_block<S: Simd>(&mut self, s: S, k: Range<usize>) {
        let lanes = F::V::<S>::LANES;
        let columns = self.columns;
        for run in 0..columns.runs {
            let mut j = 0;
            while j < columns.count {
                let left = columns.count - j;
                // Four vectors go as two and two: one alone would wait for the latency of its few sums.
                let vectors = match left.div_ceil(lanes) {
                    1 => 1,
                    2 | 4 => 2,
                    _ if S::ISA != Isa::Avx512 => 2,
                    _ => 3,
                };
                let tail = (left - (vectors - 1) * lanes).min(lanes);
                let block = Block {
                    j,
                    b: run * columns.b_step + j,
                    c: run * columns.c_step + j,
                    tail,
                };
                let k = k.clone();
                // SAFETY: `run` above checked the bounds of all rows and columns.
                unsafe {
                    match (vectors, tail == lanes) {
                        (1, true) => self.columns_block::<S, 1, false>(s, k, block),
                        (1, false) => self.columns_block::<S, 1, true>(s, k, block),
                        (2, true) => self.columns_block::<S, 2, false>(s, k, block),
                        (2, false) => self.columns_block::<S, 2, true>(s, k, block),
                        (_, true) => self.columns_block::<S, 3, false>(s, k, block),
                        (_, false) => self.columns_block::<S, 3, true>(s, k, block),
                    }
                }
                j += vectors * lanes;
            }
        }
    }
}

impl<F: Float> Product<'_, F> {
    /// All rows of a block of NV vectors, for the depth range `k`; `PARTIAL` says that the last vector has only `tail` columns.
    ///
    /// # Safety
    /// The operands hold the rows and columns that are named.
    #[inline(always)]
    unsafe fn columns_block<S: Simd, const NV: usize, const PARTIAL: bool>(
        &mut self,
        s: S,
        k: Range<usize>,
        block: Block,
    ) {
        let rows = self.a_rows.len();
        let mut i = 0;
        // SAFETY: i + R <= rows in every call, and the caller vouches for the columns.
        unsafe {
            if S::ISA == Isa::Avx512 {
                while i + 8 <= rows {
                    self.block::<S, 8, NV, PARTIAL>(s, k.clone(), i, block);
                    i += 8;
                }
            } else {
                // The last eight go as four and four, for the same reason as vectors do.
                while i + 6 <= rows && i + 8 != rows {
                    self.block::<S, 6, NV, PARTIAL>(s, k.clone(), i, block);
                    i += 6;
                }
            }
            while i + 4 <= rows {
                self.block::<S, 4, NV, PARTIAL>(s, k.clone(), i, block);
                i += 4;
            }
            if i + 2 <= rows {
                self.block::<S, 2, NV, PARTIAL>(s, k.clone(), i, block);
                i += 2;
            }
            if i < rows {
                self.block::<S, 1, NV, PARTIAL>(s, k.clone(), i, block);
            }
        }
    }

    /// For the depth range `k`, R rows from `i` on of a block of NV vectors.
    ///
    /// # Safety
    /// As [`Self::columns_block`], and i + R is at most the number of rows.
    #[inline(always)]
    unsafe fn block<S: Simd, const R: usize, const NV: usize, const PARTIAL: bool>(
        &mut self,
        s: S,
        k: Range<usize>,
        i: usize,
        Block { j, b, c, tail }: Block,
    ) {
        let lanes = F::V::<S>::LANES;
        let zero = F::V::<S>::splat(s, F::ZERO);
        let load = |p: *const F, v: usize| {
            // SAFETY: the callers of this closure pass rows that reach to column (NV - 1) * lanes + tail of the block.
            unsafe {
                if PARTIAL && v == NV - 1 {
                    F::V::<S>::load_partial_ptr(s, p.add(v * lanes), tail, F::ZERO)
                } else {
                    F::V::<S>::load_ptr(s, p.add(v * lanes))
                }
            }
        };
        let mut sums = [[zero; NV]; R];
        // SAFETY: row i + r of `c` and of `a` for r < R, every term's row of `b`, and the columns of the block lie in their slices,
        // as the caller vouches.
        unsafe {
            let c = self.c.as_mut_ptr().add(i * self.c_stride + c);
            match self.start {
                Start::Zero => {}
                Start::RowBias(bias) => {
                    for (r, row) in sums.iter_mut().enumerate() {
                        *row = [F::V::<S>::splat(s, *bias.get_unchecked(i + r)); NV];
                    }
                }
                Start::ColumnBias(bias) => {
                    for v in 0..NV {
                        let bias = load(bias.as_ptr().add(j), v);
                        for row in &mut sums {
                            row[v] = bias;
                        }
                    }
                }
                Start::Accumulate => {
                    for (r, row) in sums.iter_mut().enumerate() {
                        for (v, sum) in row.iter_mut().enumerate() {
                            *sum = load(c.add(r * self.c_stride), v);
                        }
                    }
                }
            }
            let mut a = [self.a.as_ptr(); R];
            for (r, a) in a.iter_mut().enumerate() {
                *a = a.add(*self.a_rows.get_unchecked(i + r));
            }
            let b = self.b.as_ptr().add(b);
            for term in self.terms.get_unchecked(k.clone()) {
                let mut vectors = [zero; NV];
                for (v, vector) in vectors.iter_mut().enumerate() {
                    *vector = load(b.add(term.b), v);
                }
                for r in 0..R {
                    let factor = F::V::<S>::splat(s, *a[r].add(term.a));
                    for v in 0..NV {
                        sums[r][v] = factor.mul_add(vectors[v], sums[r][v]);
                    }
                }
            }
            let last = k.end == self.terms.len();
            for (r, row) in sums.iter().enumerate() {
                for (v, &sum) in row.iter().enumerate() {
                    // `max` returns its argument where either is NaN, so NaN stays.
                    let sum = if last && self.relu {
                        zero.max(sum)
                    } else {
                        sum
                    };
                    let p = c.add(r * self.c_stride + v * lanes);
                    if PARTIAL && v == NV - 1 {
                        sum.store_partial_ptr(p, tail);
                    } else {
                        sum.store_ptr(p);
                    }
                }
            }
        }
    }
}
