//! The dense layer as a custom op. Backward reads from the result what relu cut off.

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, CustomOp3, DType, Error, Layout, Result, Shape, Tensor};
use candle_simd::Isa;

use super::{Sizes, cpu_kernel};
use crate::element::Element;
use crate::kernels::scratch::Scratch;
use crate::tensor_access::{contiguous_slice, with_contiguous};

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
    let op = Linear {
        sizes,
        relu,
        result,
        isa: Isa::active(),
    };
    let (x, weight) = (x.contiguous()?, weight.contiguous()?);
    match bias {
        Some(bias) => x.apply_op3(&weight, &bias.contiguous()?, op),
        None => x.apply_op2(&weight, op),
    }
}

type Argument<'a> = (&'a CpuStorage, &'a Layout);

impl Linear {
    fn forward(
        &self,
        x: Argument<'_>,
        weight: Argument<'_>,
        bias: Option<Argument<'_>>,
    ) -> Result<(CpuStorage, Shape)> {
        let storage = match x.0.dtype() {
            DType::F32 => self.forward_in::<f32>(x, weight, bias)?,
            DType::F64 => self.forward_in::<f64>(x, weight, bias)?,
            other => return Err(Error::UnsupportedDTypeForOp(other, super::OP).bt()),
        };
        Ok((storage, self.result.clone()))
    }

    #[cfg(feature = "cuda")]
    fn forward_on_cuda(
        &self,
        x: (&CudaStorage, &Layout),
        weight: (&CudaStorage, &Layout),
        bias: Option<(&CudaStorage, &Layout)>,
    ) -> Result<(CudaStorage, Shape)> {
        let y = super::cuda_kernel::forward(self.sizes, x, weight, bias, self.relu)?;
        Ok((y, self.result.clone()))
    }

    fn forward_in<F: Element>(
        &self,
        x: Argument<'_>,
        weight: Argument<'_>,
        bias: Option<Argument<'_>>,
    ) -> Result<CpuStorage> {
        let bias = bias.map(|(s, l)| contiguous_slice::<F>(s, l)).transpose()?;
        let y = cpu_kernel::forward(
            self.isa,
            self.sizes,
            contiguous_slice::<F>(x.0, x.1)?,
            contiguous_slice::<F>(weight.0, weight.1)?,
            bias,
            self.relu,
        );
        Ok(F::to_cpu_storage_owned(y))
    }

    fn backward(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: Option<&Tensor>,
        result: &Tensor,
        upstream: &Tensor,
    ) -> Result<[Option<Tensor>; 3]> {
        #[cfg(feature = "cuda")]
        if x.device().is_cuda() {
            let relu = self.relu.then_some(result);
            return super::cuda_kernel::backward(self.sizes, x, weight, bias, relu, upstream);
        }
        match x.dtype() {
            DType::F32 => self.backward_in::<f32>(x, weight, bias, result, upstream),
            DType::F64 => self.backward_in::<f64>(x, weight, bias, result, upstream),
            other => Err(Error::UnsupportedDTypeForOp(other, super::OP).bt()),
        }
    }

    fn backward_in<F: Element>(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: Option<&Tensor>,
        result: &Tensor,
        upstream: &Tensor,
    ) -> Result<[Option<Tensor>; 3]> {
        with_contiguous::<F, _>(upstream, |upstream| {
            if !self.relu {
                return self.gradients::<F>(x, weight, bias, upstream);
            }
            let mut masked = Scratch::dirty(upstream.len());
            with_contiguous::<F, _>(result, |result| {
                cpu_kernel::through_relu(result, upstream, &mut masked);
            })?;
            self.gradients::<F>(x, weight, bias, &masked)
        })?
    }

    fn gradients<F: Element>(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: Option<&Tensor>,
        upstream: &[F],
    ) -> Result<[Option<Tensor>; 3]> {
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
        if let Some(bias) = bias.filter(|bias| bias.track_op()) {
            let grad = cpu_kernel::backward_bias(self.sizes.outputs, upstream);
            grads[2] = Some(Tensor::from_vec(grad, bias.shape(), x.device())?);
        }
        Ok(grads)
    }
}

impl CustomOp2 for Linear {
    fn name(&self) -> &'static str {
        super::OP
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.forward((x, x_layout), (weight, weight_layout), None)
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        x_layout: &Layout,
        weight: &CudaStorage,
        weight_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.forward_on_cuda((x, x_layout), (weight, weight_layout), None)
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        result: &Tensor,
        upstream: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let [x, weight, _] = self.backward(x, weight, None, result, upstream)?;
        Ok((x, weight))
    }
}

impl CustomOp3 for Linear {
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
        self.forward(
            (x, x_layout),
            (weight, weight_layout),
            Some((bias, bias_layout)),
        )
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
        self.forward_on_cuda(
            (x, x_layout),
            (weight, weight_layout),
            Some((bias, bias_layout)),
        )
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        result: &Tensor,
        upstream: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [x, weight, bias] = self.backward(x, weight, Some(bias), result, upstream)?;
        Ok((x, weight, bias))
    }
}
