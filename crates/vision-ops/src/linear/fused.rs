//! The dense layer as a layer op. Backward reads from the result what relu cut off.

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{Result, Shape, Tensor};
use candle_simd::Isa;

use super::{Sizes, cpu_kernel};
use crate::element::Element;
use crate::kernels::scratch::Scratch;
#[cfg(feature = "cuda")]
use crate::layer_op::CudaArgument;
use crate::layer_op::{self, Backward, Gradients, Layer};
use crate::tensor_access::with_contiguous;

struct Linear {
    sizes: Sizes,
    relu: bool,
    /// Shape of the result.
    result: Shape,
    /// Taken where the op is called, so that a forced instruction set covers backward too.
    isa: Isa,
}

pub(super) fn apply(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    relu: bool,
    sizes: Sizes,
    result: Shape,
) -> Result<Tensor> {
    let layer = Linear {
        sizes,
        relu,
        result,
        isa: Isa::active(),
    };
    layer_op::apply(layer, x, weight, bias)
}

impl Linear {
    /// The gradients from that of what relu was applied to.
    fn gradients<F: Element>(&self, known: Backward<'_>, upstream: &[F]) -> Result<Gradients> {
        let Backward { x, weight, .. } = known;
        let mut grads = [None, None, None];
        if x.track_op() {
            let grad = with_contiguous::<F, _>(weight, |weight| {
                cpu_kernel::backward_input(self.isa, self.sizes, weight, upstream)
            })?;
            grads[0] = Some(Tensor::from_vec(grad, x.shape(), x.device())?);
        }
        if weight.track_op() {
            let grad = with_contiguous::<F, _>(x, |x| {
                cpu_kernel::backward_weight(self.isa, self.sizes, x, upstream)
            })?;
            grads[1] = Some(Tensor::from_vec(grad, weight.shape(), x.device())?);
        }
        if let Some(bias) = known.bias.filter(|bias| bias.track_op()) {
            let grad = cpu_kernel::backward_bias(self.sizes.outputs, upstream);
            grads[2] = Some(Tensor::from_vec(grad, bias.shape(), x.device())?);
        }
        Ok(grads)
    }
}

impl Layer for Linear {
    const OP: &'static str = super::OP;

    fn result_shape(&self) -> Shape {
        self.result.clone()
    }

    fn forward<F: Element>(&self, x: &[F], weight: &[F], bias: Option<&[F]>) -> Result<Vec<F>> {
        let (isa, sizes) = (self.isa, self.sizes);
        Ok(cpu_kernel::forward(isa, sizes, x, weight, bias, self.relu))
    }

    fn backward<F: Element>(&self, known: Backward<'_>) -> Result<Gradients> {
        with_contiguous::<F, _>(known.upstream, |upstream| {
            if !self.relu {
                return self.gradients(known, upstream);
            }
            let mut masked = Scratch::dirty(upstream.len());
            with_contiguous::<F, _>(known.result, |result| {
                cpu_kernel::through_relu(result, upstream, &mut masked);
            })?;
            self.gradients::<F>(known, &masked)
        })?
    }

    #[cfg(feature = "cuda")]
    fn forward_on_cuda(
        &self,
        x: CudaArgument<'_>,
        weight: CudaArgument<'_>,
        bias: Option<CudaArgument<'_>>,
    ) -> Result<CudaStorage> {
        super::cuda_kernel::forward(self.sizes, x, weight, bias, self.relu)
    }

    #[cfg(feature = "cuda")]
    fn backward_on_cuda(&self, known: Backward<'_>) -> Result<Gradients> {
        let Backward {
            x,
            weight,
            bias,
            result,
            upstream,
        } = known;
        let relu = self.relu.then_some(result);
        super::cuda_kernel::backward(self.sizes, x, weight, bias, relu, upstream)
    }
}
