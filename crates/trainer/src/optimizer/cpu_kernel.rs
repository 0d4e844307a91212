//! The fused Adam update on the CPU: one pass over weights, gradient and moments.
//!
//! Every element is computed alone and without fused multiply-add, so the instruction set and the split among threads do not
//! show in the bits.

use std::ops::Range;
use std::sync::Mutex;

use candle_core::{
    CpuStorage, InplaceOp2, Layout, Result, Shape, Storage, Tensor, WithDType, bail,
};
use candle_simd::{Float, Isa, Kernel, Simd};
use rayon::prelude::*;

use super::{Coefficients, Moments, Parameters, Rounded, Update, spans};

/// Elements of a thread's share, at least: fewer would not pay for handing them over.
const LEAST: usize = 4 * 1024;

/// A float type that the kernel computes in.
pub(super) trait Real: Float + WithDType {
    fn sqrt(self) -> Self;

    /// The values of a storage of this type.
    fn slice_mut(storage: &mut CpuStorage) -> Option<&mut [Self]>;
}

macro_rules! real {
    ($t:ident, $variant:ident) => {
        impl Real for $t {
            #[inline(always)]
            fn sqrt(self) -> Self {
                self.sqrt()
            }

            fn slice_mut(storage: &mut CpuStorage) -> Option<&mut [Self]> {
                match storage {
                    CpuStorage::$variant(values) => Some(values),
                    _ => None,
                }
            }
        }
    };
}
real!(f32, F32);
real!(f64, F64);

/// The moments of all parameters, one after the other.
pub(super) struct FlatMoments<T> {
    first: Vec<T>,
    second: Vec<T>,
    ranges: Vec<Range<usize>>,
}

impl<T: Real> FlatMoments<T> {
    pub(super) fn zeros(parameters: &Parameters) -> Self {
        let mut end = 0;
        let ranges = parameters
            .iter()
            .map(|(_, var)| {
                let start = end;
                end += var.elem_count();
                start..end
            })
            .collect();
        Self {
            first: vec![Float::ZERO; end],
            second: vec![Float::ZERO; end],
            ranges,
        }
    }
}

impl<T: Real> Moments for FlatMoments<T> {
    fn fill(&mut self, saved: &[(Tensor, Tensor)]) -> Result<()> {
        for (range, (m, v)) in self.ranges.iter().zip(saved) {
            self.first[range.clone()].copy_from_slice(&m.flatten_all()?.to_vec1::<T>()?);
            self.second[range.clone()].copy_from_slice(&v.flatten_all()?.to_vec1::<T>()?);
        }
        Ok(())
    }

    fn tensors(&self, parameters: &Parameters) -> Result<Vec<(Tensor, Tensor)>> {
        let tensor =
            |flat: &[T], shape: &Shape| Tensor::from_slice(flat, shape, &candle_core::Device::Cpu);
        self.ranges
            .iter()
            .zip(parameters)
            .map(|(range, (_, var))| {
                Ok((
                    tensor(&self.first[range.clone()], var.shape())?,
                    tensor(&self.second[range.clone()], var.shape())?,
                ))
            })
            .collect()
    }

    /// One parameter after the other, each cut into a share for every thread: a thread then meets the same weights and moments
    /// in each step, in its own cache.
    fn update(&mut self, updates: &[Update<'_>], coefficients: Coefficients) -> Result<()> {
        let (mut first, mut second) = (&mut self.first[..], &mut self.second[..]);
        for (update, range) in updates.iter().zip(&self.ranges) {
            let (m, v);
            (m, first) = first.split_at_mut(range.len());
            (v, second) = second.split_at_mut(range.len());
            let op = AdamUpdate {
                moments: Mutex::new((m, v)),
                rest: &update.rest,
                coefficients,
            };
            update.var.inplace_op2(&update.gradient, &op)?;
        }
        Ok(())
    }
}

/// Candle's way to write into a variable: the op that updates it in place from its gradient.
struct AdamUpdate<'a, T> {
    // The op is called through a shared reference; nothing ever contends for the lock.
    moments: Mutex<(&'a mut [T], &'a mut [T])>,
    /// Gradients to add to that which Candle passes.
    rest: &'a [Tensor],
    coefficients: Coefficients,
}

impl<T: Real> InplaceOp2 for AdamUpdate<'_, T> {
    fn name(&self) -> &'static str {
        "adam"
    }

    fn cpu_fwd(
        &self,
        weights: &mut CpuStorage,
        weights_layout: &Layout,
        grad: &CpuStorage,
        grad_layout: &Layout,
    ) -> Result<()> {
        let ((w0, w1), (g0, g1)) = spans(weights_layout, grad_layout)?;
        let mut grads = vec![&grad.as_slice::<T>()?[g0..g1]];
        let guards: Vec<_> = self.rest.iter().map(Tensor::storage_and_layout).collect();
        for (storage, layout) in &guards {
            let (Storage::Cpu(storage), Some((start, end))) =
                (&**storage, layout.contiguous_offsets())
            else {
                bail!("adam: every gradient must be contiguous and lie on the CPU");
            };
            grads.push(&storage.as_slice::<T>()?[start..end]);
        }
        let Some(weights) = T::slice_mut(weights).and_then(|all| all.get_mut(w0..w1)) else {
            bail!("adam: expected a parameter of dtype {:?}", T::DTYPE);
        };
        let mut moments = self.moments.lock().map_err(candle_core::Error::msg)?;
        let (first, second) = &mut *moments;
        let counts = |grads: &[&[T]]| grads.iter().map(|grad| grad.len()).collect::<Vec<_>>();
        if [first.len(), second.len()] != [weights.len(); 2]
            || grads.iter().any(|grad| grad.len() != weights.len())
        {
            bail!(
                "adam: parameter, gradients and moments must have the same number of elements, got {}, {:?}, {} and {}",
                weights.len(),
                counts(&grads),
                first.len(),
                second.len()
            );
        }
        let isa = Isa::active();
        let coefficients = Rounded::new(self.coefficients);
        let share = weights.len().div_ceil(rayon::current_num_threads());
        let share = share.max(LEAST);
        weights
            .par_chunks_mut(share)
            .zip(
                first
                    .par_chunks_mut(share)
                    .zip(second.par_chunks_mut(share)),
            )
            .enumerate()
            .for_each(|(n, (weights, (first, second)))| {
                isa.dispatch(UpdateKernel {
                    weights,
                    grads: &grads,
                    offset: n * share,
                    first,
                    second,
                    coefficients,
                });
            });
        Ok(())
    }
}

/// Elements whose gradients are added up before they are used.
const BLOCK: usize = 256;

struct UpdateKernel<'a, T> {
    weights: &'a mut [T],
    /// Of the whole parameter, one for each part of the batch.
    grads: &'a [&'a [T]],
    /// Where the weights start in it.
    offset: usize,
    first: &'a mut [T],
    second: &'a mut [T],
    coefficients: Rounded<T>,
}

impl<T: Real> Kernel for UpdateKernel<'_, T> {
    type Output = ();

    /// Plain loops: inlined into the dispatcher they are vectorised for the chosen instruction set.
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let c = self.coefficients;
        let kept = |moment: T| {
            // NaN is kept.
            if moment < c.smallest_moment && moment > -c.smallest_moment {
                <T as Float>::ZERO
            } else {
                moment
            }
        };
        let mut sums = [<T as Float>::ZERO; BLOCK];
        let blocks = self
            .weights
            .chunks_mut(BLOCK)
            .zip(self.first.chunks_mut(BLOCK))
            .zip(self.second.chunks_mut(BLOCK));
        for (((weights, first), second), start) in blocks.zip((self.offset..).step_by(BLOCK)) {
            let sums = &mut sums[..weights.len()];
            for (part, grad) in self.grads.iter().enumerate() {
                let grad = &grad[start..start + sums.len()];
                if part == 0 {
                    sums.copy_from_slice(grad);
                } else {
                    for (sum, &g) in sums.iter_mut().zip(grad) {
                        *sum += g;
                    }
                }
            }
            let moments = first.iter_mut().zip(second);
            for ((w, &g), (m, v)) in weights.iter_mut().zip(&*sums).zip(moments) {
                *m = kept(*m + c.one_minus_beta1 * (g - *m));
                *v = kept(*v * c.beta2 + c.one_minus_beta2 * g * g);
                let denominator = Real::sqrt(*v) / c.sqrt_bias_correction2 + c.eps;
                *w += c.minus_step_size * *m / denominator;
            }
        }
    }
}
