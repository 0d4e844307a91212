//! The custom op: forward keeps the winners, backward hands them the upstream gradient.

use std::sync::OnceLock;

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::backend::BackendStorage;
#[cfg(feature = "cuda")]
use candle_core::cuda_backend::cudarc::driver::CudaSlice;
use candle_core::{CpuStorage, CustomOp3, DType, Error, Layout, Result, Shape, Tensor};
use candle_simd::Isa;

use super::cpu_kernel::channel_lanes::ChannelLanes;
use super::cpu_kernel::column_lanes::ColumnLanes;
use super::cpu_kernel::{column_gradient, general, halving, sparse_backward};
use super::{Geometry, Plan};
use crate::conv2d;
use crate::element::Element;
use crate::tensor_access::{contiguous_slice, with_contiguous};

struct Conv2dReluMaxPool2d {
    geometry: Geometry,
    plan: Plan,
    /// Taken where the op is called, so that a forced instruction set covers backward too.
    isa: Isa,
    /// The index of each result's winner in its window, row-major; the register-blocked kernels leave room between
    /// images.
    winners: OnceLock<Vec<u8>>,
    #[cfg(feature = "cuda")]
    cuda_winners: OnceLock<CudaSlice<u8>>,
}

pub(super) fn apply(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    geometry: Geometry,
    plan: Plan,
) -> Result<Tensor> {
    let op = Conv2dReluMaxPool2d {
        geometry,
        plan,
        isa: Isa::active(),
        winners: OnceLock::new(),
        #[cfg(feature = "cuda")]
        cuda_winners: OnceLock::new(),
    };
    x.contiguous()?
        .apply_op3(&weight.contiguous()?, &bias.contiguous()?, op)
}

/// Which gradients are asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub(super) x: bool,
    pub(super) weight: bool,
    pub(super) bias: bool,
}

/// What backward computes from, row-major.
#[derive(Clone, Copy)]
pub(super) struct Known<'a, F> {
    pub(super) winners: &'a [u8],
    pub(super) x: &'a [F],
    pub(super) weight: &'a [F],
    pub(super) y: &'a [F],
    pub(super) upstream: &'a [F],
}

/// The gradients, row-major; a field that was not asked for is empty.
pub(super) struct Gradients<F> {
    pub(super) x: Vec<F>,
    pub(super) weight: Vec<F>,
    pub(super) bias: Vec<F>,
}

impl Conv2dReluMaxPool2d {
    fn forward<F: Element>(
        &self,
        x: (&CpuStorage, &Layout),
        weight: (&CpuStorage, &Layout),
        bias: (&CpuStorage, &Layout),
    ) -> Result<CpuStorage> {
        let x = contiguous_slice::<F>(x.0, x.1)?;
        let weight = contiguous_slice::<F>(weight.0, weight.1)?;
        let bias = contiguous_slice::<F>(bias.0, bias.1)?;
        let (isa, geometry) = (self.isa, &self.geometry);
        let (y, winners) = match self.plan {
            Plan::ColumnLanes => halving::forward(
                isa,
                geometry,
                x,
                &ColumnLanes::new(isa, geometry, weight, bias),
            ),
            Plan::ChannelLanes => halving::forward(
                isa,
                geometry,
                x,
                &ChannelLanes::new(isa, geometry, weight, bias),
            ),
            Plan::General | Plan::Separate => {
                general::forward(self.isa, &self.geometry, x, weight, bias)
            }
        };
        // Candle runs an op's forward once; were it run again, the winners would be the same.
        let _ = self.winners.set(winners);
        Ok(F::to_cpu_storage_owned(y))
    }

    fn backward<F: Element>(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        result: &Tensor,
        upstream: &Tensor,
    ) -> Result<[Option<Tensor>; 3]> {
        let winners = self.winners.get().ok_or_else(too_early)?;
        let wanted = Wanted {
            x: x.track_op(),
            weight: weight.track_op(),
            bias: bias.track_op(),
        };
        let gradients = with_contiguous::<F, _>(x, |x| {
            with_contiguous::<F, _>(weight, |weight| {
                with_contiguous::<F, _>(result, |y| {
                    with_contiguous::<F, _>(upstream, |upstream| {
                        self.gradients(
                            wanted,
                            Known {
                                winners,
                                x,
                                weight,
                                y,
                                upstream,
                            },
                        )
                    })
                })
            })
        })????;
        let tensor = |wanted: bool, grad: Vec<F>, like: &Tensor| {
            wanted
                .then(|| Tensor::from_vec(grad, like.shape(), like.device()))
                .transpose()
        };
        Ok([
            tensor(wanted.x, gradients.x, x)?,
            tensor(wanted.weight, gradients.weight, weight)?,
            tensor(wanted.bias, gradients.bias, bias)?,
        ])
    }

    fn gradients<F: Element>(&self, wanted: Wanted, known: Known<'_, F>) -> Gradients<F> {
        match self.plan {
            Plan::ColumnLanes
                if !wanted.x && column_gradient::fits::<F>(self.isa, &self.geometry) =>
            {
                column_gradient::backward(self.isa, &self.geometry, known)
            }
            Plan::ColumnLanes | Plan::ChannelLanes => {
                sparse_backward::backward(self.isa, &self.geometry, wanted, known)
            }
            Plan::General | Plan::Separate => {
                let Known {
                    winners,
                    x,
                    weight,
                    y,
                    upstream,
                } = known;
                let map = general::spread(&self.geometry, winners, y, upstream);
                let conv = &self.geometry.conv;
                let x_grad = match wanted.x {
                    true => conv2d::backward_input(self.isa, conv, weight, &map),
                    false => Vec::new(),
                };
                let (weight, bias) = match wanted.weight || wanted.bias {
                    true => conv2d::backward_weight(self.isa, conv, x, &map),
                    false => (Vec::new(), Vec::new()),
                };
                Gradients {
                    x: x_grad,
                    weight,
                    bias,
                }
            }
        }
    }
}

fn too_early() -> Error {
    Error::Msg(format!("{}: backward was called before forward", super::OP))
}

impl CustomOp3 for Conv2dReluMaxPool2d {
    fn name(&self) -> &'static str {
        super::OP
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, weight, bias) = ((x, x_layout), (weight, weight_layout), (bias, bias_layout));
        let storage = match x.0.dtype() {
            DType::F32 => self.forward::<f32>(x, weight, bias)?,
            DType::F64 => self.forward::<f64>(x, weight, bias)?,
            other => return Err(Error::UnsupportedDTypeForOp(other, super::OP).bt()),
        };
        Ok((storage, self.geometry.result_shape()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        x_layout: &Layout,
        weight: &CudaStorage,
        weight_layout: &Layout,
        bias: &CudaStorage,
        bias_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let (x, weight, bias) = ((x, x_layout), (weight, weight_layout), (bias, bias_layout));
        let (y, winners) = super::cuda_kernel::forward(&self.geometry, x, weight, bias)?;
        let _ = self.cuda_winners.set(winners);
        Ok((y, self.geometry.result_shape()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        result: &Tensor,
        upstream: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        #[cfg(feature = "cuda")]
        if x.device().is_cuda() {
            let winners = self.cuda_winners.get().ok_or_else(too_early)?;
            let arguments = [x, weight, bias];
            let [x, weight, bias] =
                super::cuda_kernel::backward(&self.geometry, winners, arguments, result, upstream)?;
            return Ok((x, weight, bias));
        }
        let [x, weight, bias] = match x.dtype() {
            DType::F32 => self.backward::<f32>(x, weight, bias, result, upstream)?,
            DType::F64 => self.backward::<f64>(x, weight, bias, result, upstream)?,
            other => return Err(Error::UnsupportedDTypeForOp(other, super::OP).bt()),
        };
        Ok((x, weight, bias))
    }
}
