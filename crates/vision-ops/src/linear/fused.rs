//! The dense layer as a layer op. Backward reads from the result what relu cut off.

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{Result, Shape};
use candle_simd::Isa;

use super::{Sizes, cpu_kernel};
use crate::element::Element;
use crate::kernels::scratch::Scratch;
use crate::layer_op::{Arguments, Gradients, Known, Layer, Wanted};
#[cfg(feature = "cuda")]
use crate::layer_op::{Backward, CudaArgument, TensorGradients};

pub(crate) struct Linear {
    sizes: Sizes,
    relu: bool,
    /// Shape of the result.
    result: Shape,
    /// Taken where the op is called, so that a forced instruction set covers backward too.
    isa: Isa,
}

impl Linear {
    pub(super) fn new(sizes: Sizes, relu: bool, result: Shape) -> Self {
        Self {
            sizes,
            relu,
            result,
            isa: Isa::active(),
        }
    }
}

impl Layer for Linear {
    const OP: &'static str = super::OP;

    fn result_shape(&self) -> Shape {
        self.result.clone()
    }

    fn forward<F: Element>(&self, arguments: Arguments<&[F]>) -> Result<Vec<F>> {
        let Arguments { x, weight, bias } = arguments;
        let (isa, sizes) = (self.isa, self.sizes);
        Ok(cpu_kernel::forward(isa, sizes, x, weight, bias, self.relu))
    }

    fn backward<F: Element>(&self, wanted: Wanted, known: Known<'_, F>) -> Result<Gradients<F>> {
        let (isa, sizes) = (self.isa, self.sizes);
        let mut masked = Scratch::dirty(if self.relu { known.upstream.len() } else { 0 });
        let upstream = match self.relu {
            true => {
                cpu_kernel::through_relu(known.result, known.upstream, &mut masked);
                &*masked
            }
            false => known.upstream,
        };
        let x = || cpu_kernel::backward_input(isa, sizes, known.weight, upstream);
        let weight = || cpu_kernel::backward_weight(isa, sizes, known.x, upstream);
        let bias = || cpu_kernel::backward_bias(sizes.outputs, upstream);
        Ok(Gradients {
            x: wanted.x.then(x).unwrap_or_default(),
            weight: wanted.weight.then(weight).unwrap_or_default(),
            bias: wanted.bias.then(bias).unwrap_or_default(),
        })
    }

    #[cfg(feature = "cuda")]
    fn forward_on_cuda(&self, arguments: Arguments<CudaArgument<'_>>) -> Result<CudaStorage> {
        let Arguments { x, weight, bias } = arguments;
        super::cuda_kernel::forward(self.sizes, x, weight, bias, self.relu)
    }

    #[cfg(feature = "cuda")]
    fn backward_on_cuda(&self, known: Backward<'_>) -> Result<TensorGradients> {
        let Arguments { x, weight, bias } = known.arguments;
        let relu = self.relu.then_some(known.result);
        super::cuda_kernel::backward(self.sizes, x, weight, bias, relu, known.upstream)
    }
}
