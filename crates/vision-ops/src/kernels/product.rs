//! A register-blocked matrix product whose operand rows may lie anywhere: one kernel serves dense layers and convolutions.
//!
//! `c[i][j] = start + sum over terms k of a[a_rows[i] + k.a] * b[k.b + j]`
//!
//! Vectors run along j. A block holds R rows by NV vectors of sums in registers; each k loads NV vectors of `b` and
//! broadcasts R numbers of `a`. The vectors are neighbours, or those of several runs of columns. With AVX-512 R x NV is 6 x 4: 24
//! of 32 registers, 24 multiply-adds for 10 loads. Loads count, even where arithmetic is the limit: a processor that shares a core
//! with another makes some 2.5 operations a cycle, so that 8 x 2 is a sixth slower there. With 16 registers R x NV is 6 x 2: twelve
//! sums, two vectors, a factor, and one to spare, without which a sum ends up in memory. Sums are taken in the order of k for
//! every element, so the result depends on neither the number of threads nor the position of an element in a block.

use std::mem::MaybeUninit;
use std::ops::Range;

use candle_simd::{Float, Isa, Kernel, Simd, Vector};

/// Depth of a block: its vectors of `b` then stay near while the rows of `a` pass by. Four vectors a row would just fill the
/// first-level cache with AVX-512, but rows of a convolution overlap. Depths from 64 to 128 are no faster.
pub(crate) const DEPTH: usize = 192;

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

/// The same columns of some neighbouring runs.
#[derive(Clone, Copy)]
struct Block {
    /// The first of them, in a run.
    j: usize,
    /// Where that of the first run lies in a row of `b` and of `c`.
    b: usize,
    c: usize,
    /// Columns of the last vector of a run.
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
        let Columns {
            count,
            runs,
            b_step,
            c_step,
        } = self.columns;
        // Runs of one or two vectors go together as far as the sums of a block reach. Single vectors that are not whole do not:
        // four masked rows of `b` at a time leave no registers for the sums.
        let most = match count.div_ceil(lanes) {
            1 if count < lanes => 1,
            vectors => (vectors_at_once(S::ISA) / vectors).max(1),
        };
        let mut run = 0;
        while run < runs {
            let mut together = most;
            while run + together > runs {
                together /= 2;
            }
            let mut j = 0;
            while j < count {
                let left = count - j;
                let vectors = vectors_of_block(S::ISA, left.div_ceil(lanes));
                let block = Block {
                    j,
                    b: run * b_step + j,
                    c: run * c_step + j,
                    tail: (left - (vectors - 1) * lanes).min(lanes),
                };
                let k = k.clone();
                // SAFETY: `run` above checked the bounds of all rows and columns.
                unsafe {
                    if S::ISA == Isa::Avx512 {
                        match (together, vectors) {
                            (4, _) => self.columns_block::<S, 4, 1, false>(s, k, block),
                            (2, 1) => self.columns_block::<S, 2, 1, false>(s, k, block),
                            (2, _) => self.runs_block::<S, 2, 2>(s, k, block),
                            (_, 1) => self.runs_block::<S, 1, 1>(s, k, block),
                            (_, 2) => self.runs_block::<S, 1, 2>(s, k, block),
                            (_, 3) => self.runs_block::<S, 1, 3>(s, k, block),
                            _ => self.runs_block::<S, 1, 4>(s, k, block),
                        }
                    } else {
                        match (together, vectors) {
                            (2, _) => self.columns_block::<S, 2, 1, false>(s, k, block),
                            (_, 1) => self.runs_block::<S, 1, 1>(s, k, block),
                            _ => self.runs_block::<S, 1, 2>(s, k, block),
                        }
                    }
                }
                j += vectors * lanes;
            }
            run += together;
        }
    }

    /// # Safety
    /// As [`Self::columns_block`].
    #[inline(always)]
    unsafe fn runs_block<S: Simd, const RUNS: usize, const NV: usize>(
        &mut self,
        s: S,
        k: Range<usize>,
        block: Block,
    ) {
        // SAFETY: the caller vouches for it.
        unsafe {
            if block.tail == F::V::<S>::LANES {
                self.columns_block::<S, RUNS, NV, false>(s, k, block);
            } else {
                self.columns_block::<S, RUNS, NV, true>(s, k, block);
            }
        }
    }

    /// All rows of a block of NV vectors of each of RUNS runs, for the depth range `k`; `PARTIAL` says that the last vector of
    /// a run has only `tail` columns.
    ///
    /// # Safety
    /// The operands hold the rows and columns that are named.
    #[inline(always)]
    unsafe fn columns_block<S: Simd, const RUNS: usize, const NV: usize, const PARTIAL: bool>(
        &mut self,
        s: S,
        k: Range<usize>,
        block: Block,
    ) {
        let rows = self.a_rows.len();
        let mut i = 0;
        // SAFETY: i + R <= rows in every call, and the caller vouches for the columns.
        unsafe {
            if S::ISA == Isa::Avx512 && RUNS * NV < 4 {
                while i + 8 <= rows {
                    self.block::<S, 8, RUNS, NV, PARTIAL>(s, k.clone(), i, block);
                    i += 8;
                }
            } else {
                // The last eight go as four and four: two rows would wait for the latency of their few sums.
                while i + 6 <= rows && i + 8 != rows {
                    self.block::<S, 6, RUNS, NV, PARTIAL>(s, k.clone(), i, block);
                    i += 6;
                }
            }
            while i + 4 <= rows {
                self.block::<S, 4, RUNS, NV, PARTIAL>(s, k.clone(), i, block);
                i += 4;
            }
            if i + 2 <= rows {
                self.block::<S, 2, RUNS, NV, PARTIAL>(s, k.clone(), i, block);
                i += 2;
            }
            if i < rows {
                self.block::<S, 1, RUNS, NV, PARTIAL>(s, k.clone(), i, block);
            }
        }
    }

    /// For the depth range `k`, R rows from `i` on of a block of NV vectors of each of RUNS runs.
    ///
    /// # Safety
    /// As [`Self::columns_block`], and i + R is at most the number of rows.
    #[inline(always)]
    unsafe fn block<
        S: Simd,
        const R: usize,
        const RUNS: usize,
        const NV: usize,
        const PARTIAL: bool,
    >(
        &mut self,
        s: S,
        k: Range<usize>,
        i: usize,
        Block { j, b, c, tail }: Block,
    ) {
        let lanes = F::V::<S>::LANES;
        let Columns { b_step, c_step, .. } = self.columns;
        let zero = F::V::<S>::splat(s, F::ZERO);
        let load = |p: *const F, step: usize| {
            let mut vectors = [[zero; NV]; RUNS];
            for (run, vectors) in vectors.iter_mut().enumerate() {
                for (v, vector) in vectors.iter_mut().enumerate() {
                    // SAFETY: the callers of this closure pass rows that reach to column (NV - 1) * lanes + tail of the block in
                    // RUNS runs.
                    unsafe {
                        let p = p.add(run * step + v * lanes);
                        *vector = if PARTIAL && v == NV - 1 {
                            F::V::<S>::load_partial_ptr(s, p, tail, F::ZERO)
                        } else {
                            F::V::<S>::load_ptr(s, p)
                        };
                    }
                }
            }
            vectors
        };
        let mut sums = [[[zero; NV]; RUNS]; R];
        // SAFETY: row i + r of `c` and of `a` for r < R, every term's row of `b`, and the columns of the block lie in their slices,
        // as the caller vouches.
        unsafe {
            let c = self.c.as_mut_ptr().add(i * self.c_stride + c);
            match self.start {
                Start::Zero => {}
                Start::RowBias(bias) => {
                    for (r, row) in sums.iter_mut().enumerate() {
                        let bias = F::V::<S>::splat(s, *bias.get_unchecked(i + r));
                        *row = [[bias; NV]; RUNS];
                    }
                }
                Start::ColumnBias(bias) => sums = [load(bias.as_ptr().add(j), 0); R],
                Start::Accumulate => {
                    for (r, row) in sums.iter_mut().enumerate() {
                        *row = load(c.add(r * self.c_stride), c_step);
                    }
                }
            }
            let mut a = [self.a.as_ptr(); R];
            for (r, a) in a.iter_mut().enumerate() {
                *a = a.add(*self.a_rows.get_unchecked(i + r));
            }
            let b = self.b.as_ptr().add(b);
            for term in self.terms.get_unchecked(k.clone()) {
                let vectors = load(b.add(term.b), b_step);
                for r in 0..R {
                    let factor = F::V::<S>::splat(s, *a[r].add(term.a));
                    for run in 0..RUNS {
                        for v in 0..NV {
                            sums[r][run][v] = factor.mul_add(vectors[run][v], sums[r][run][v]);
                        }
                    }
                }
            }
            let last = k.end == self.terms.len();
            for (r, row) in sums.iter().enumerate() {
                for (run, vectors) in row.iter().enumerate() {
                    for (v, &sum) in vectors.iter().enumerate() {
                        // `max` returns its argument where either is NaN, so NaN stays.
                        let sum = if last && self.relu {
                            zero.max(sum)
                        } else {
                            sum
                        };
                        let p = c.add(r * self.c_stride + run * c_step + v * lanes);
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
}

/// Vectors of sums a row of a block.
const fn vectors_at_once(isa: Isa) -> usize {
    match isa {
        Isa::Avx512 => 4,
        _ => 2,
    }
}

/// How many of a run's `left` vectors the next block takes. One alone would wait for the latency of its few sums.
const fn vectors_of_block(isa: Isa, left: usize) -> usize {
    match (isa, left) {
        (Isa::Avx512, 5 | 6) => 3,
        (Isa::Avx512, _) if left >= 4 => 4,
        (Isa::Avx512, _) => left,
        (_, 1) => 1,
        _ => 2,
    }
}
