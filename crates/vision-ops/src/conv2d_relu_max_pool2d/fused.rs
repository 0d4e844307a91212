//! The three ops as one layer: forward keeps the winners, backward hands them the upstream gradient.

use std::sync::OnceLock;

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
#[cfg(feature = "cuda")]
use candle_core::cuda_backend::cudarc::driver::CudaSlice;
use candle_core::{Error, Result, Shape, Tensor};
use candle_simd::Isa;

use super::cpu_kernel::channel_lanes::ChannelLanes;
use super::cpu_kernel::column_lanes::ColumnLanes;
use super::cpu_kernel::{column_gradient, general, halving, sparse_backward};
use super::{Geometry, Plan};
use crate::conv2d;
use crate::element::Element;
use crate::error::backward_too_early;
#[cfg(feature = "cuda")]
use crate::layer_op::CudaArgument;
use crate::layer_op::{self, Backward, Layer};
use crate::tensor_access::with_contiguous;

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
    let layer = Conv2dReluMaxPool2d {
        geometry,
        plan,
        isa: Isa::active(),
        winners: OnceLock::new(),
        #[cfg(feature = "cuda")]
        cuda_winners: OnceLock::new(),
    };
    layer_op::apply(layer, x, weight, Some(bias))
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
    fn gradients<F: Element>(&self, wanted: Wanted, known: Known<'_, F>) -> Gradients<F> {
        match self.plan {
            Plan::ColumnLanes if !wanted.x => {
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

fn no_bias() -> Error {
    Error::Msg(format!("{}: expected a bias, got none", super::OP))
}

impl Layer for Conv2dReluMaxPool2d {
    const OP: &'static str = super::OP;

    fn result_shape(&self) -> Shape {
        self.geometry.result_shape()
    }

    fn forward<F: Element>(&self, x: &[F], weight: &[F], bias: Option<&[F]>) -> Result<Vec<F>> {
        let bias = bias.ok_or_else(no_bias)?;
        let (isa, geometry) = (self.isa, &self.geometry);
        let (y, winners) = match self.plan {
            Plan::ColumnLanes => {
                let kernel = ColumnLanes::new(isa, geometry, weight, bias);
                halving::forward(isa, geometry, x, &kernel)
            }
            Plan::ChannelLanes => {
                let kernel = ChannelLanes::new(isa, geometry, weight, bias);
                halving::forward(isa, geometry, x, &kernel)
            }
            Plan::General | Plan::Separate => general::forward(isa, geometry, x, weight, bias),
        };
        // Candle runs an op's forward once; were it run again, the winners would be the same.
        let _ = self.winners.set(winners);
        Ok(y)
    }

    fn backward<F: Element>(&self, known: Backward<'_>) -> Result<layer_op::Gradients> {
        let Backward { x, weight, .. } = known;
        let bias = known.bias.ok_or_else(no_bias)?;
        let winners = self
            .winners
            .get()
            .ok_or_else(|| backward_too_early(super::OP))?;
        let wanted = Wanted {
            x: x.track_op(),
            weight: weight.track_op(),
            bias: bias.track_op(),
        };
        let gradients = with_contiguous::<F, _>(x, |x| {
            with_contiguous::<F, _>(weight, |weight| {
                with_contiguous::<F, _>(known.result, |y| {
                    with_contiguous::<F, _>(known.upstream, |upstream| {
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

    #[cfg(feature = "cuda")]
    fn forward_on_cuda(
        &self,
        x: CudaArgument<'_>,
        weight: CudaArgument<'_>,
        bias: Option<CudaArgument<'_>>,
    ) -> Result<CudaStorage> {
        let bias = bias.ok_or_else(no_bias)?;
        let (y, winners) = super::cuda_kernel::forward(&self.geometry, x, weight, bias)?;
        let _ = self.cuda_winners.set(winners);
        Ok(y)
    }

    #[cfg(feature = "cuda")]
    fn backward_on_cuda(&self, known: Backward<'_>) -> Result<layer_op::Gradients> {
        let winners = self
            .cuda_winners
            .get()
            .ok_or_else(|| backward_too_early(super::OP))?;
        let arguments = [known.x, known.weight, known.bias.ok_or_else(no_bias)?];
        let (result, upstream) = (known.result, known.upstream);
        super::cuda_kernel::backward(&self.geometry, winners, arguments, result, upstream)
    }
}
