//! The custom ops. The loss picks one number of each row; its gradient puts one number into each row. Each is the
//! other's backward pass, so derivatives of any order work.

use super::counted::Counted;
#[cfg(feature = "cuda")]
use super::cuda_kernel::OnDevice;
use super::plan::Plan;
use crate::graph::{check_gradient_fits, keeps_gradient_graph};
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};
use half::{bf16, f16};
use std::sync::Arc;

/// A call with its targets, where its tensors are.
#[derive(Clone)]
pub(super) enum Call {
    Host(Arc<Counted>),
    #[cfg(feature = "cuda")]
    Device(Arc<OnDevice>),
}

impl Call {
    /// # Errors
    /// Where a target is neither a class nor ignored. On CUDA the targets are not read yet.
    pub(super) fn new(plan: Plan, targets: &Tensor) -> Result<Self> {
        #[cfg(feature = "cuda")]
        if targets.device().is_cuda() {
            return Ok(Self::Device(Arc::new(OnDevice::new(plan, targets)?)));
        }
        Ok(Self::Host(Arc::new(Counted::new(plan, targets)?)))
    }

    fn plan(&self) -> &Plan {
        match self {
            Self::Host(counted) => &counted.plan,
            #[cfg(feature = "cuda")]
            Self::Device(call) => &call.plan,
        }
    }

    fn on_host(&self) -> Result<&Counted> {
        match self {
            Self::Host(counted) => Ok(counted),
            #[cfg(feature = "cuda")]
            Self::Device(_) => bail!("nll: a gradient on the CPU of a loss on CUDA"),
        }
    }

    #[cfg(feature = "cuda")]
    fn on_device(&self) -> Result<&OnDevice> {
        match self {
            Self::Device(call) => Ok(call),
            Self::Host(_) => bail!("nll: a gradient on CUDA of a loss on the CPU"),
        }
    }
}

/// -w_y times the picked number of each row that counts, reduced.
pub(super) struct Pick {
    call: Call,
    /// The result if there is nothing to take the mean of.
    over_nothing: f64,
}

impl Pick {
    pub(super) fn loss(call: Call) -> Self {
        Self {
            over_nothing: call.plan().on_empty_value(),
            call,
        }
    }
}

/// Zeros but for -w_y times the upstream gradient at the picked place of each row that counts.
pub(super) struct Put(pub(super) Call);

/// Where the elements lie, in row-major order, those at 0 of the `without` axis only.
fn offsets(layout: &Layout, without: Option<usize>) -> Vec<usize> {
    let mut offsets = vec![layout.start_offset()];
    for (axis, (&dim, &stride)) in layout.dims().iter().zip(layout.stride()).enumerate() {
        if Some(axis) != without {
            offsets = (offsets.iter())
                .flat_map(|&start| (0..dim).map(move |i| start + i * stride))
                .collect();
        }
    }
    offsets
}

impl Counted {
    /// The place and the factor of each row, in order; no place where the row does not count.
    fn places(&self, layout: &Layout) -> impl Iterator<Item = Option<(usize, f64)>> {
        let stride = layout.stride()[self.plan.class_axis];
        (offsets(layout, Some(self.plan.class_axis))
            .into_iter()
            .zip(&self.classes))
        .map(move |(start, class)| class.map(|class| (start + class * stride, -self.weight(class))))
    }

    fn pick<T: Copy, F: Copy>(
        &self,
        values: &[T],
        layout: &Layout,
        over_nothing: f64,
        to_f64: impl Fn(T) -> f64,
        narrow: impl Fn(f64) -> F,
    ) -> (Vec<F>, Shape) {
        let rows = self.places(layout).map(|place| {
            // An ignored row is 0 whatever it holds.
            place.map_or(0.0, |(at, factor)| factor * to_f64(values[at]))
        });
        if !self.plan.reduced {
            return (rows.map(narrow).collect(), self.plan.rows.clone());
        }
        let value = if self.divisor == 0.0 {
            over_nothing
        } else {
            rows.sum::<f64>() / self.divisor
        };
        (vec![narrow(value)], Shape::from(()))
    }

    fn put<T: Copy>(&self, upstream: &[f64], zero: T, narrow: impl Fn(f64) -> T) -> Vec<T> {
        let mut gradient = vec![zero; self.plan.shape.elem_count()];
        if self.divisor == 0.0 {
            return gradient;
        }
        let layout = Layout::contiguous(&self.plan.shape);
        for (row, place) in self.places(&layout).enumerate() {
            if let Some((at, factor)) = place {
                let upstream = if self.plan.reduced {
                    upstream[0]
                } else {
                    upstream[row]
                };
                gradient[at] = narrow(factor * upstream / self.divisor);
            }
        }
        gradient
    }
}

impl CustomOp1 for Pick {
    fn name(&self) -> &'static str {
        "nll"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, nothing) = (self.call.on_host()?, self.over_nothing);
        let f32s = |(values, shape)| (CpuStorage::F32(values), shape);
        Ok(match storage {
            CpuStorage::F32(v) => f32s(rows.pick(v, layout, nothing, f64::from, |v| v as f32)),
            CpuStorage::F16(v) => f32s(rows.pick(v, layout, nothing, f16::to_f64, |v| v as f32)),
            CpuStorage::BF16(v) => f32s(rows.pick(v, layout, nothing, bf16::to_f64, |v| v as f32)),
            CpuStorage::F64(v) => {
                let (values, shape) = rows.pick(v, layout, nothing, |v| v, |v| v);
                (CpuStorage::F64(values), shape)
            }
            _ => bail!("nll: log_probabilities must be f32, f64, f16 or bf16"),
        })
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, storage: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let call = self.call.on_device()?;
        call.pick((storage, layout), self.over_nothing)
    }

    fn bwd(&self, input: &Tensor, _loss: &Tensor, upstream: &Tensor) -> Result<Option<Tensor>> {
        check_gradient_fits("nll", "log_probabilities", input)?;
        let op = Put(self.call.clone());
        if keeps_gradient_graph() {
            upstream.apply_op1(op).map(Some)
        } else {
            upstream.apply_op1_no_bwd(&op).map(Some)
        }
    }
}

impl CustomOp1 for Put {
    fn name(&self) -> &'static str {
        "nll-gradient"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        use candle_core::DType;
        let indices = offsets(layout, None).into_iter();
        let upstream: Vec<f64> = match storage {
            CpuStorage::F32(values) => indices.map(|i| f64::from(values[i])).collect(),
            CpuStorage::F64(values) => indices.map(|i| values[i]).collect(),
            _ => bail!("nll: the upstream gradient must be f32 or f64"),
        };
        let rows = self.0.on_host()?;
        let gradient = match rows.plan.dtype {
            DType::F32 => CpuStorage::F32(rows.put(&upstream, 0.0, |v| v as f32)),
            DType::F64 => CpuStorage::F64(rows.put(&upstream, 0.0, |v| v)),
            DType::F16 => CpuStorage::F16(rows.put(&upstream, f16::ZERO, f16::from_f64)),
            DType::BF16 => CpuStorage::BF16(rows.put(&upstream, bf16::ZERO, bf16::from_f64)),
            _ => bail!("nll: log_probabilities must be f32, f64, f16 or bf16"),
        };
        Ok((gradient, rows.plan.shape.clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, storage: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let call = self.0.on_device()?;
        Ok((call.put((storage, layout))?, call.plan.shape.clone()))
    }

    fn bwd(&self, _arg: &Tensor, _gradient: &Tensor, upstream: &Tensor) -> Result<Option<Tensor>> {
        // The gradient of a mean over nothing is 0, and so is what it passes on.
        let op = Pick {
            call: self.0.clone(),
            over_nothing: 0.0,
        };
        upstream.apply_op1(op).map(Some)
    }
}
