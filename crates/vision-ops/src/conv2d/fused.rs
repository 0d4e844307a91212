//! Convolution as a layer. Backward needs nothing but the arguments.

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{Result, Shape, Tensor};
use candle_simd::Isa;

#[cfg(feature = "cuda")]
use super::cuda_kernel;
use super::{Conv2dGeometry, cpu_kernel};
use crate::element::Element;
#[cfg(feature = "cuda")]
use crate::layer_op::CudaArgument;
use crate::layer_op::{self, Backward, Gradients, Layer};
use crate::tensor_access::with_contiguous;

struct Conv2d {
    geometry: Conv2dGeometry,
    /// Taken where the op is called, so that a forced instruction set covers backward too.
    isa: Isa,
}

pub(super) fn apply(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    geometry: Conv2dGeometry,
) -> Result<Tensor> {
    let layer = Conv2d {
        geometry,
        isa: Isa::active(),
    };
    layer_op::apply(layer, x, weight, bias)
}

impl Layer for Conv2d {
    const OP: &'static str = super::OP;

    fn result_shape(&self) -> Shape {
        self.geometry.result_shape()
    }

    fn forward<F: Element>(&self, x: &[F], weight: &[F], bias: Option<&[F]>) -> Result<Vec<F>> {
        Ok(cpu_kernel::forward(
            self.isa,
            &self.geometry,
            x,
            weight,
            bias,
        ))
    }

    fn backward<F: Element>(&self, known: Backward<'_>) -> Result<Gradients> {
        let Backward { x, weight, .. } = known;
        let bias = known.bias.filter(|bias| bias.track_op());
        with_contiguous::<F, _>(known.upstream, |upstream| {
            let mut grads = [None, None, None];
            if x.track_op() {
                let grad = with_contiguous::<F, _>(weight, |weight| {
                    cpu_kernel::backward_input(self.isa, &self.geometry, weight, upstream)
                })?;
                grads[0] = Some(Tensor::from_vec(grad, x.shape(), x.device())?);
            }
            if weight.track_op() || bias.is_some() {
                let (weight_grad, bias_grad) = with_contiguous::<F, _>(x, |x| {
                    cpu_kernel::backward_weight(self.isa, &self.geometry, x, upstream)
                })?;
                if weight.track_op() {
                    grads[1] = Some(Tensor::from_vec(weight_grad, weight.shape(), x.device())?);
                }
                if let Some(bias) = bias {
                    grads[2] = Some(Tensor::from_vec(bias_grad, bias.shape(), x.device())?);
                }
            }
            Ok(grads)
        })?
    }

    #[cfg(feature = "cuda")]
    fn forward_on_cuda(
        &self,
        x: CudaArgument<'_>,
        weight: CudaArgument<'_>,
        bias: Option<CudaArgument<'_>>,
    ) -> Result<CudaStorage> {
        cuda_kernel::forward(&self.geometry, x, weight, bias)
    }

    #[cfg(feature = "cuda")]
    fn backward_on_cuda(&self, known: Backward<'_>) -> Result<Gradients> {
        let geometry = &self.geometry;
        let Backward {
            x,
            weight,
            bias,
            upstream,
            ..
        } = known;
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
