//! Max pooling as a custom op: forward keeps the winners, backward gives them the upstream gradient.

use std::sync::OnceLock;

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, DType, Error, Layout, Result, Shape, Tensor};
use half::{bf16, f16};

use super::PoolGeometry;
use super::cpu_kernel::{self, PoolElement, WindowIndex};
#[cfg(feature = "cuda")]
use crate::cuda_kernel::OnDevice;
use crate::error::backward_too_early;
use crate::tensor_access::with_contiguous;

/// The winner of each window, in row-major order of the result, as an index inside the window.
enum Winners {
    U8(Vec<u8>),
    U16(Vec<u16>),
    U32(Vec<u32>),
}

struct MaxPool2d {
    geometry: PoolGeometry,
    /// Filled by forward when `x` tracks a gradient.
    winners: OnceLock<Winners>,
    #[cfg(feature = "cuda")]
    cuda_winners: OnceLock<super::cuda_kernel::Winners>,
    keep_winners: bool,
}

pub(super) fn apply(x: &Tensor, geometry: PoolGeometry) -> Result<Tensor> {
    x.apply_op1(MaxPool2d {
        geometry,
        winners: OnceLock::new(),
        #[cfg(feature = "cuda")]
        cuda_winners: OnceLock::new(),
        keep_winners: x.track_op(),
    })
}

impl MaxPool2d {
    fn forward<T: PoolElement>(&self, x: &[T], layout: &Layout) -> Result<CpuStorage> {
        if !self.keep_winners {
            let (values, _) = cpu_kernel::forward::<T, ()>(x, layout, &self.geometry)?;
            return Ok(T::to_cpu_storage_owned(values));
        }
        let (values, winners) = match self.geometry.window() {
            0..=0x100 => self.forward_keeping(x, layout, Winners::U8)?,
            0x101..=0x1_0000 => self.forward_keeping(x, layout, Winners::U16)?,
            _ => self.forward_keeping(x, layout, Winners::U32)?,
        };
        // Candle runs an op's forward once; were it run again, the winners would be the same.
        let _ = self.winners.set(winners);
        Ok(T::to_cpu_storage_owned(values))
    }

    fn forward_keeping<T: PoolElement, I: WindowIndex>(
        &self,
        x: &[T],
        layout: &Layout,
        wrap: fn(Vec<I>) -> Winners,
    ) -> Result<(Vec<T>, Winners)> {
        let (values, winners) = cpu_kernel::forward::<T, I>(x, layout, &self.geometry)?;
        Ok((values, wrap(winners)))
    }

    fn backward<T: PoolElement>(&self, x: &Tensor, upstream: &Tensor) -> Result<Tensor> {
        let winners = self
            .winners
            .get()
            .ok_or_else(|| backward_too_early(super::OP))?;
        let grad: Vec<T> = with_contiguous(upstream, |upstream| match winners {
            Winners::U8(winners) => cpu_kernel::backward(upstream, winners, &self.geometry),
            Winners::U16(winners) => cpu_kernel::backward(upstream, winners, &self.geometry),
            Winners::U32(winners) => cpu_kernel::backward(upstream, winners, &self.geometry),
        })?;
        Tensor::from_vec(grad, x.shape(), x.device())
    }

    #[cfg(feature = "cuda")]
    fn cuda_backward(&self, x: &Tensor, upstream: &Tensor) -> Result<Tensor> {
        use super::cuda_kernel::backward;
        let winners = self
            .cuda_winners
            .get()
            .ok_or_else(|| backward_too_early(super::OP))?;
        OnDevice::new(super::OP, |upstream: (&CudaStorage, &Layout)| {
            let grad = backward(upstream.0, upstream.1, winners, &self.geometry)?;
            Ok((grad, x.shape().clone()))
        })
        .of(&upstream.contiguous()?)
    }

    fn result_shape(&self, layout: &Layout) -> Result<Shape> {
        let (batch, channels, _, _) = layout.shape().dims4()?;
        let (rows, columns) = self.geometry.output;
        Ok(Shape::from((batch, channels, rows, columns)))
    }
}

impl CustomOp1 for MaxPool2d {
    fn name(&self) -> &'static str {
        super::OP
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let result = match storage {
            CpuStorage::F32(x) => self.forward(x, layout)?,
            CpuStorage::F64(x) => self.forward(x, layout)?,
            CpuStorage::F16(x) => self.forward(x, layout)?,
            CpuStorage::BF16(x) => self.forward(x, layout)?,
            other => return Err(Error::UnsupportedDTypeForOp(other.dtype(), self.name()).bt()),
        };
        Ok((result, self.result_shape(layout)?))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let (values, winners) =
            super::cuda_kernel::forward(x, layout, &self.geometry, self.keep_winners)?;
        if let Some(winners) = winners {
            let _ = self.cuda_winners.set(winners);
        }
        Ok((values, self.result_shape(layout)?))
    }

    fn bwd(&self, x: &Tensor, _result: &Tensor, upstream: &Tensor) -> Result<Option<Tensor>> {
        if !x.track_op() {
            return Ok(None);
        }
        #[cfg(feature = "cuda")]
        if x.device().is_cuda() {
            return self.cuda_backward(x, upstream).map(Some);
        }
        let grad = match x.dtype() {
            DType::F32 => self.backward::<f32>(x, upstream)?,
            DType::F64 => self.backward::<f64>(x, upstream)?,
            DType::F16 => self.backward::<f16>(x, upstream)?,
            DType::BF16 => self.backward::<bf16>(x, upstream)?,
            other => return Err(Error::UnsupportedDTypeForOp(other, self.name()).bt()),
        };
        Ok(Some(grad))
    }
}
