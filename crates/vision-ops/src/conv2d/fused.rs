//! Convolution as a layer. Backward needs nothing but the arguments.

#[cfg(feature = "cuda")]
use candle_core::{CudaStorage, Tensor};
use candle_core::{Result, Shape};
use candle_simd::Isa;

#[cfg(feature = "cuda")]
use super::cuda_kernel;
use super::{Conv2dGeometry, cpu_kernel};
use crate::element::Element;
use crate::layer_op::{Arguments, Gradients, Known, Layer, Wanted};
#[cfg(feature = "cuda")]
use crate::layer_op::{Backward, CudaArgument, TensorGradients};

pub(crate) struct Conv2d {
    geometry: Conv2dGeometry,
    /// Taken where the op is called, so that a forced instruction set covers backward too.
    isa: Isa,
}

impl Conv2d {
    pub(super) fn new(geometry: Conv2dGeometry) -> Self {
        Self {
            geometry,
            isa: Isa::active(),
        }
    }
}

impl Layer for Conv2d {
    const OP: &'static str = super::OP;

    fn result_shape(&self) -> Shape {
        self.geometry.result_shape()
    }

    fn forward<F: Element>(&self, arguments: Arguments<&[F]>) -> Result<Vec<F>> {
        let Arguments { x, weight, bias } = arguments;
        let (isa, geometry) = (self.isa, &self.geometry);
        Ok(cpu_kernel::forward(isa, geometry, x, weight, bias))
    }

    fn backward<F: Element>(&self, wanted: Wanted, known: Known<'_, F>) -> Result<Gradients<F>> {
        let Known {
            x,
            weight,
            upstream,
            ..
        } = known;
        let (isa, geometry) = (self.isa, &self.geometry);
        Ok(cpu_kernel::backward(
            isa, geometry, wanted, x, weight, upstream,
        ))
    }

    #[cfg(feature = "cuda")]
    fn forward_on_cuda(&self, arguments: Arguments<CudaArgument<'_>>) -> Result<CudaStorage> {
        let Arguments { x, weight, bias } = arguments;
        cuda_kernel::forward(&self.geometry, x, weight, bias)
    }

    #[cfg(feature = "cuda")]
    fn backward_on_cuda(&self, known: Backward<'_>) -> Result<TensorGradients> {
        let geometry = &self.geometry;
        let (Arguments { x, weight, bias }, upstream) = (known.arguments, known.upstream);
        let tracked = |tensor: &Tensor| tensor.track_op();
        Ok([
            tracked(x)
                .then(|| cuda_kernel::backward_input(geometry, weight, upstream))
                .transpose()?,
            tracked(weight)
                .then(|| cuda_kernel::backward_weight(geometry, x, upstream))
                .transpose()?,
            bias.is_some_and(tracked)
                .then(|| cuda_kernel::backward_bias(geometry, upstream))
                .transpose()?,
        ])
    }
}
