//! The three ops as one layer: forward keeps the winners, backward hands them the upstream gradient.

use std::sync::OnceLock;

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
#[cfg(feature = "cuda")]
use candle_core::cuda_backend::cudarc::driver::CudaSlice;
use candle_core::{Error, Result, Shape};
use candle_simd::Isa;

use super::cpu_kernel::channel_lanes::ChannelLanes;
use super::cpu_kernel::column_lanes::ColumnLanes;
use super::cpu_kernel::{column_gradient, general, halving, sparse_backward};
use super::{Geometry, Plan};
use crate::conv2d;
use crate::element::Element;
use crate::error::backward_too_early;
use crate::layer_op::{self, Arguments, Gradients, Layer, Wanted};
#[cfg(feature = "cuda")]
use crate::layer_op::{Backward, CudaArgument, TensorGradients};

pub(crate) struct Conv2dReluMaxPool2d {
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

/// What backward computes from, the winners among it; row-major.
#[derive(Clone, Copy)]
pub(super) struct Known<'a, F> {
    pub(super) winners: &'a [u8],
    pub(super) x: &'a [F],
    pub(super) weight: &'a [F],
    pub(super) y: &'a [F],
    pub(super) upstream: &'a [F],
}

impl Conv2dReluMaxPool2d {
    /// `plan` is one that computes in one op.
    pub(super) fn new(geometry: Geometry, plan: Plan) -> Self {
        Self {
            geometry,
            plan,
            isa: Isa::active(),
            winners: OnceLock::new(),
            #[cfg(feature = "cuda")]
            cuda_winners: OnceLock::new(),
        }
    }

    fn gradients<F: Element>(&self, wanted: Wanted, known: Known<'_, F>) -> Gradients<F> {
        match self.plan {
            // With 16 registers it holds too few sums at once, and lists of winners take half its time.
            Plan::ColumnLanes if !wanted.x && self.isa == Isa::Avx512 => {
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
                conv2d::backward(self.isa, &self.geometry.conv, wanted, x, weight, &map)
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

    fn forward<F: Element>(&self, arguments: Arguments<&[F]>) -> Result<Vec<F>> {
        let Arguments { x, weight, bias } = arguments;
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

    fn backward<F: Element>(
        &self,
        wanted: Wanted,
        known: layer_op::Known<'_, F>,
    ) -> Result<Gradients<F>> {
        let winners = self
            .winners
            .get()
            .ok_or_else(|| backward_too_early(super::OP))?;
        Ok(self.gradients(
            wanted,
            Known {
                winners,
                x: known.x,
                weight: known.weight,
                y: known.result,
                upstream: known.upstream,
            },
        ))
    }

    #[cfg(feature = "cuda")]
    fn forward_on_cuda(&self, arguments: Arguments<CudaArgument<'_>>) -> Result<CudaStorage> {
        let Arguments { x, weight, bias } = arguments;
        let bias = bias.ok_or_else(no_bias)?;
        let (y, winners) = super::cuda_kernel::forward(&self.geometry, x, weight, bias)?;
        let _ = self.cuda_winners.set(winners);
        Ok(y)
    }

    #[cfg(feature = "cuda")]
    fn backward_on_cuda(&self, known: Backward<'_>) -> Result<TensorGradients> {
        let winners = self
            .cuda_winners
            .get()
            .ok_or_else(|| backward_too_early(super::OP))?;
        let Arguments { x, weight, bias } = known.arguments;
        let arguments = [x, weight, bias.ok_or_else(no_bias)?];
        let (result, upstream) = (known.result, known.upstream);
        super::cuda_kernel::backward(&self.geometry, winners, arguments, result, upstream)
    }
}
