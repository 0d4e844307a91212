//! Convolution as a custom op. Backward needs nothing but the arguments.

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, CustomOp3, DType, Error, Layout, Result, Shape, Tensor};
use candle_simd::Isa;

#[cfg(feature = "cuda")]
use super::cuda_kernel;
use super::{Conv2dGeometry, cpu_kernel};
use crate::element::Element;
use crate::tensor_access::{contiguous_slice, with_contiguous};

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
    let op = Conv2d {
        geometry,
        isa: Isa::active(),
    };
    let (x, weight) = (x.contiguous()?, weight.contiguous()?);
    match bias {
        Some(bias) => x.apply_op3(&weight, &bias.contiguous()?, op),
        None => x.apply_op2(&weight, op),
    }
}

type Argument<'a> = (&'a CpuStorage, &'a Layout);

impl Conv2d {
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
        Ok((storage, self.geometry.result_shape()))
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
            &self.geometry,
            contiguous_slice::<F>(x.0, x.1)?,
            contiguous_slice::<F>(weight.0, weight.1)?,
            bias,
        );
        Ok(F::to_cpu_storage_owned(y))
    }

    fn backward(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: Option<&Tensor>,
        upstream: &Tensor,
    ) -> Result<[Option<Tensor>; 3]> {
        #[cfg(feature = "cuda")]
        if x.device().is_cuda() {
            return self.backward_on_cuda(x, weight, bias, upstream);
        }
        match x.dtype() {
            DType::F32 => self.backward_in::<f32>(x, weight, bias, upstream),
            DType::F64 => self.backward_in::<f64>(x, weight, bias, upstream),
            other => Err(Error::UnsupportedDTypeForOp(other, super::OP).bt()),
        }
    }

    fn backward_in<F: Element>(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: Option<&Tensor>,
        upstream: &Tensor,
    ) -> Result<[Option<Tensor>; 3]> {
        let bias = bias.filter(|bias| bias.track_op());
        with_contiguous::<F, _>(upstream, |upstream| {
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
}

#[cfg(feature = "cuda")]
impl Conv2d {
    fn forward_on_cuda(
        &self,
        x: (&CudaStorage, &Layout),
        weight: (&CudaStorage, &Layout),
        bias: Option<(&CudaStorage, &Layout)>,
    ) -> Result<(CudaStorage, Shape)> {
        let y = cuda_kernel::forward(&self.geometry, x, weight, bias)?;
        Ok((y, self.geometry.result_shape()))
    }

    fn backward_on_cuda(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: Option<&Tensor>,
        upstream: &Tensor,
    ) -> Result<[Option<Tensor>; 3]> {
        let geometry = &self.geometry;
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

impl CustomOp2 for Conv2d {
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
        _result: &Tensor,
        upstream: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let [x, weight, _] = self.backward(x, weight, None, upstream)?;
        Ok((x, weight))
    }
}

impl CustomOp3 for Conv2d {
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
        _result: &Tensor,
        upstream: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [x, weight, bias] = self.backward(x, weight, Some(bias), upstream)?;
        Ok((x, weight, bias))
    }
}
