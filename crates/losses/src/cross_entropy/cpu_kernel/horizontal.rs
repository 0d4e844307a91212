//! Rows of many adjacent classes: the lanes hold classes.

use std::ops::Range;

use candle_simd::{Element, Float, Simd, Vector};

use super::recipe::{
    RowGradient, RowSums, RowValue, dense_coefficient, slope, transform, transform_one,
};
use super::{BLOCK, IGNORED, Recipe, Run, Target, Totals};

/// Vectors in flight in a pass over a row: enough to hide the latency of an addition.
const UNROLL: usize = 4;

type V<E, S> = <<E as Element>::Compute as Float>::V<S>;

/// A row and what its passes need.
struct Row<'a, E: Element, S> {
    s: S,
    recipe: &'a Recipe<'a, E::Compute>,
    x: *const E,
    /// The row of probabilities, where there are any.
    probabilities: Option<*const E>,
}

#[inline(always)]
pub(super) fn chunk<const PLAIN: bool, E: Element, S: Simd>(
    s: S,
    run: &Run<'_, E>,
    rows: Range<usize>,
) -> Totals {
    let mut totals = Totals::default();
    let mut targets = [0; BLOCK];
    for start in rows.clone().step_by(BLOCK) {
        let block = start..rows.end.min(start + BLOCK);
        run.read_targets(block.clone(), &mut targets);
        for row in block {
            one_row::<PLAIN, E, S>(s, run, row, targets[row - start], &mut totals);
        }
    }
    totals
}

#[inline(always)]
fn one_row<const PLAIN: bool, E: Element, S: Simd>(
    s: S,
    run: &Run<'_, E>,
    row: usize,
    target: i64,
    totals: &mut Totals,
) {
    let recipe = &run.recipe;
    let counts = target != IGNORED;
    let upstream = run.upstream(row, counts);
    if !run.reads(counts, &upstream) {
        // SAFETY: chunks do not share rows.
        unsafe { run.outputs.write(row, &RowValue::UNREAD) };
        if let Some((sink, _)) = &run.gradient {
            let zero = E::narrow(E::Compute::ZERO);
            // SAFETY: the row holds as many adjacent elements as there are classes, and no other chunk writes them.
            unsafe { std::slice::from_raw_parts_mut(sink.row(row), recipe.classes) }.fill(zero);
        }
        return;
    }

    let x = run.logits.row(row);
    let probabilities = match &run.target {
        Target::Indices(_) => None,
        Target::Probabilities(source) => Some(source.row(row)),
    };
    let r = Row::<E, S> {
        s,
        recipe,
        x,
        probabilities,
    };
    let target_logit = if counts && !recipe.probabilities {
        // SAFETY: targets that are not ignored are classes, so the element lies in the row.
        Some(unsafe { *x.add(target as usize) })
    } else {
        None
    };
    let max = r.max::<PLAIN>();
    let target_transformed = target_logit.map_or(E::Compute::ZERO, |x| {
        transform_one::<PLAIN, E, S>(s, recipe, x)
    });
    let mut sums = match run.sums {
        Some(sums) if !recipe.probabilities => RowSums {
            max,
            sum: sums[row],
            log_sum: E::Compute::ZERO,
            dense: E::Compute::ZERO,
            dense_shifted: E::Compute::ZERO,
            target: target_transformed,
        },
        _ => r.sums::<PLAIN>(max, target_transformed),
    };
    sums.log_sum = sums.sum.ln();
    if !recipe.probabilities && recipe.is_dense() {
        sums.dense = recipe.uniform * recipe.weight_sum;
    }
    let argmax = if run.outputs.argmax.is_some() {
        r.argmax::<PLAIN>(max)
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
        let at_target = target_logit.map(|x| (target as usize, x));
        r.write_gradient::<PLAIN>(&gradient, max, at_target, sink.row(row));
    }
}

impl<E: Element, S: Simd> Row<'_, E, S> {
    const LANES: usize = V::<E, S>::LANES;

    #[inline(always)]
    fn splat(&self, x: E::Compute) -> V<E, S> {
        V::<E, S>::splat(self.s, x)
    }

    /// Calls `f` with a slot, the first class and the count of each vector. The plain passes are unrolled over `UNROLL`
    /// slots; the others have so much in a step that it would only make the code long.
    #[inline(always)]
    fn for_vectors<const PLAIN: bool>(&self, mut f: impl FnMut(usize, usize, usize)) {
        let n = self.recipe.classes;
        let mut c = 0;
        if PLAIN {
            let step = UNROLL * Self::LANES;
            while c + step <= n {
                for k in 0..UNROLL {
                    f(k, c + k * Self::LANES, Self::LANES);
                }
                c += step;
            }
        }
        while c < n {
            f(0, c, Self::LANES.min(n - c));
            c += Self::LANES;
        }
    }

    /// Classes `c..c + n` of the row at `p`.
    #[inline(always)]
    fn load(&self, p: *const E, c: usize, n: usize) -> V<E, S> {
        // SAFETY: c + n is at most the number of classes, and the row has that many adjacent elements.
        unsafe {
            if n == Self::LANES {
                E::load_ptr(self.s, p.add(c))
            } else {
                E::load_partial_ptr(self.s, p.add(c), n, E::Compute::ZERO)
            }
        }
    }

    #[inline(always)]
    fn transformed<const PLAIN: bool>(&self, c: usize, n: usize) -> V<E, S> {
        transform::<PLAIN, _>(self.recipe, self.load(self.x, c, n))
    }

    /// `x` in the first `n` lanes, else `other`.
    #[inline(always)]
    fn first(&self, n: usize, x: V<E, S>, other: V<E, S>) -> V<E, S> {
        if n == Self::LANES {
            x
        } else {
            x.select(V::<E, S>::first(self.s, n), other)
        }
    }

    /// max x', leaving out NaN: the sum finds it.
    #[inline(always)]
    fn max<const PLAIN: bool>(&self) -> E::Compute {
        let low = self.splat(E::Compute::NEG_INFINITY);
        let mut max = [low; UNROLL];
        self.for_vectors::<PLAIN>(
            #[inline(always)]
            |k, c, n| {
                max[k] = self
                    .first(n, self.transformed::<PLAIN>(c, n), low)
                    .max(max[k])
            },
        );
        max[0].max(max[1]).max(max[2].max(max[3])).reduce_max()
    }

    #[inline(always)]
    fn sums<const PLAIN: bool>(&self, max: E::Compute, target: E::Compute) -> RowSums<E::Compute> {
        let zero = self.splat(E::Compute::ZERO);
        let shift = self.splat(max);
        let mut sum = [zero; UNROLL];
        let mut dense = [zero; UNROLL];
        let mut dense_shifted = [zero; UNROLL];
        if PLAIN || !self.recipe.is_dense() {
            self.for_vectors::<PLAIN>(
                #[inline(always)]
                |k, c, n| {
                    let e = (self.transformed::<PLAIN>(c, n) - shift).exp();
                    sum[k] = sum[k] + self.first(n, e, zero);
                },
            );
        } else {
            self.for_vectors::<PLAIN>(
                #[inline(always)]
                |k, c, n| {
                    let shifted = self.transformed::<PLAIN>(c, n) - shift;
                    sum[k] = sum[k] + self.first(n, shifted.exp(), zero);
                    let q = self.first(n, self.dense(c, n), zero);
                    dense[k] = dense[k] + q;
                    dense_shifted[k] = dense_shifted[k] + zero.select(q.eq(zero), q * shifted);
                },
            );
        }
        let total = |v: [V<E, S>; UNROLL]| ((v[0] + v[1]) + (v[2] + v[3])).reduce_add();
        RowSums {
            max,
            sum: total(sum),
            log_sum: E::Compute::ZERO,
            dense: total(dense),
            dense_shifted: total(dense_shifted),
            target,
        }
    }

    /// The coefficients that classes `c..c + n` have beside the target's.
    #[inline(always)]
    fn dense(&self, c: usize, n: usize) -> V<E, S> {
        let probability = self.probabilities.map(
            #[inline(always)]
            |p| self.load(p, c, n),
        );
        let weight = self.recipe.weights.map(
            #[inline(always)]
            |w| V::<E, S>::load_partial(self.s, &w[c..c + n], E::Compute::ZERO),
        );
        dense_coefficient(self.recipe, probability, weight, self.s)
    }

    /// The first class whose x' is the maximum; 0 where all are NaN.
    #[inline(always)]
    fn argmax<const PLAIN: bool>(&self, max: E::Compute) -> u32 {
        let wanted = self.splat(max);
        let mut found = None;
        let mut c = 0;
        while c < self.recipe.classes && found.is_none() {
            let n = Self::LANES.min(self.recipe.classes - c);
            let hits = V::<E, S>::mask_bits(
                self.transformed::<PLAIN>(c, n).eq(wanted) & V::<E, S>::first(self.s, n),
            );
            found = (hits != 0).then(|| c as u32 + hits.trailing_zeros());
            c += n;
        }
        found.unwrap_or(0)
    }

    /// The gradient at x' but for the target's part; `q` is the coefficient beside the target's.
    #[inline(always)]
    fn gradient_at<const PLAIN: bool>(
        &self,
        gradient: &RowGradient<E::Compute>,
        max: E::Compute,
        x: V<E, S>,
        q: Option<V<E, S>>,
    ) -> V<E, S> {
        let p = (x - self.splat(max)).exp() * self.splat(gradient.scaled);
        if PLAIN {
            return p;
        }
        let p = match q {
            Some(q) => q.neg_mul_add(self.splat(gradient.loss), p),
            None => p,
        };
        p * slope(self.recipe, x)
    }

    #[inline(always)]
    fn write_gradient<const PLAIN: bool>(
        &self,
        gradient: &RowGradient<E::Compute>,
        max: E::Compute,
        at_target: Option<(usize, E)>,
        out: *mut E,
    ) {
        let is_dense = !PLAIN && self.recipe.is_dense();
        // The target's element first: in place, the pass overwrites what it is made of.
        let target = at_target.map(|(class, x)| {
            let x = transform::<PLAIN, _>(self.recipe, self.splat(x.widen()));
            let q = is_dense.then(|| self.splat(self.dense(class, 1).to_array()[0]));
            let minus = if PLAIN {
                self.splat(gradient.at_target)
            } else {
                self.splat(gradient.at_target) * slope(self.recipe, x)
            };
            (
                class,
                (self.gradient_at::<PLAIN>(gradient, max, x, q) - minus).to_array()[0],
            )
        });
        self.for_vectors::<PLAIN>(
            #[inline(always)]
            |_, c, n| {
                let q = if is_dense {
                    Some(self.dense(c, n))
                } else {
                    None
                };
                let v =
                    self.gradient_at::<PLAIN>(gradient, max, self.transformed::<PLAIN>(c, n), q);
                // SAFETY: c + n is at most the number of classes, and the row of the sink has that many adjacent
                // elements, which no other chunk writes.
                unsafe {
                    if n == Self::LANES {
                        E::store_ptr(self.s, v, out.add(c));
                    } else {
                        E::store_partial_ptr(self.s, v, out.add(c), n);
                    }
                }
            },
        );
        if let Some((class, x)) = target {
            // SAFETY: the target is a class of the row.
            unsafe { *out.add(class) = E::narrow(x) };
        }
    }
}
