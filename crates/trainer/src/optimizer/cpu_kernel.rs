//! The fused Adam update on the CPU: one pass over weights, gradient and moments.
//!
//! Every element is computed alone and without fused multiply-add, so the instruction set and the split among threads do not
//! show in the bits.

use std::ops::Range;
use std::sync::Mutex;

use candle_core::{CpuStorage, InplaceOp2, Layout, Result, Shape, Tensor, Var, WithDType, bail};
use candle_simd::{Float, Isa, Kernel, Simd};
use rayon::prelude::*;

use super::{Coefficients, Parameters};

/// Elements a thread takes at a time: large enough to pay for handing it over.
const CHUNK: usize = 12 * 1024;

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

    /// Copies moments whose shapes and dtype the caller has checked.
    pub(super) fn fill(&mut self, moments: &[(Tensor, Tensor)]) -> Result<()> {
        for (range, (m, v)) in self.ranges.iter().zip(moments) {
            self.first[range.clone()].copy_from_slice(&m.flatten_all()?.to_vec1::<T>()?);
            self.second[range.clone()].copy_from_slice(&v.flatten_all()?.to_vec1::<T>()?);
        }
        Ok(())
    }

    pub(super) fn tensors(&self, parameters: &Parameters) -> Result<Vec<(Tensor, Tensor)>> {
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

    /// Updates the parameter number `index` and its moments.
    pub(super) fn update(
        &mut self,
        index: usize,
        var: &Var,
        grad: &Tensor,
        coefficients: Coefficients,
    ) -> Result<()> {
        let range = self.ranges[index].clone();
        let op = AdamUpdate {
            moments: Mutex::new((&mut self.first[range.clone()], &mut self.second[range])),
            coefficients,
        };
        var.inplace_op2(&grad.contiguous()?, &op)
    }
}

/// Candle's way to write into a variable: the op that updates it in place from its gradient.
struct AdamUpdate<'a, T> {
    // The op is called through a shared reference; nothing ever contends for the lock.
    moments: Mutex<(&'a mut [T], &'a mut [T])>,
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
        let (Some((w0, w1)), Some((g0, g1))) = (
            weights_layout.contiguous_offsets(),
            grad_layout.contiguous_offsets(),
        ) else {
            bail!("adam: parameter and gradient must be contiguous");
        };
        let grad = &grad.as_slice::<T>()?[g0..g1];
        let Some(weights) = T::slice_mut(weights).and_then(|all| all.get_mut(w0..w1)) else {
            bail!("adam: expected a parameter of dtype {:?}", T::DTYPE);
        };
        let mut moments = self.moments.lock().map_err(candle_core::Error::msg)?;
        let (first, second) = &mut *moments;
        if [grad.len(), first.len(), second.len()] != [weights.len(); 3] {
            bail!(
                "adam: parameter, gradient and moments must have the same number of elements, got {}, {}, {} and {}",
                weights.len(),
                grad.len(),
                first.len(),
                second.len()
            );
        }
        let isa = Isa::active();
        let coefficients = Rounded::new(self.coefficients);
        weights
            .par_chunks_mut(CHUNK)
            .zip(grad.par_chunks(CHUNK))
            .zip(
                first
                    .par_chunks_mut(CHUNK)
                    .zip(second.par_chunks_mut(CHUNK)),
            )
            .for_each(|((weights, grad), (first, second))| {
                isa.dispatch(UpdateKernel {
                    weights,
                    grad,
                    first,
                    second,
                    coefficients,
                });
            });
        Ok(())
    }
}

/// The coefficients in the type of the parameters.
#[derive(Clone, Copy)]
struct Rounded<T> {
    one_minus_beta1: T,
    beta2: T,
    one_minus_beta2: T,
    sqrt_bias_correction2: T,
    eps: T,
    minus_step_size: T,
}

impl<T: Real> Rounded<T> {
    fn new(c: Coefficients) -> Self {
        let round = <T as Float>::from_f64;
        Self {
            one_minus_beta1: round(c.one_minus_beta1),
            beta2: round(c.beta2),
            one_minus_beta2: round(c.one_minus_beta2),
            sqrt_bias_correction2: round(c.sqrt_bias_correction2),
            eps: round(c.eps),
            minus_step_size: round(-c.step_size),
        }
    }
}

struct UpdateKernel<'a, T> {
    weights: &'a mut [T],
    grad: &'a [T],
    first: &'a mut [T],
    second: &'a mut [T],
    coefficients: Rounded<T>,
}

impl<T: Real> Kernel for UpdateKernel<'_, T> {
    type Output = ();

    /// A plain loop: inlined into the dispatcher it is vectorised for the chosen instruction set.
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let c = self.coefficients;
        let moments = self.first.iter_mut().zip(self.second.iter_mut());
        for ((w, &g), (m, v)) in self.weights.iter_mut().zip(self.grad).zip(moments) {
            *m = *m + c.one_minus_beta1 * (g - *m);
            *v = *v * c.beta2 + c.one_minus_beta2 * g * g;
            let denominator = Real::sqrt(*v) / c.sqrt_bias_correction2 + c.eps;
            *w += c.minus_step_size * *m / denominator;
        }
    }
}
