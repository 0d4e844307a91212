//! Layers as custom ops of Candle: what all ops of `x`, `weight` and `bias` have in common.
//!
//! A [`Layer`] computes on slices of one float type and on CUDA; [`apply`] checks dtypes, makes arguments contiguous and gives
//! gradients back to Candle's graph.

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, CustomOp3, DType, Error, Layout, Result, Shape, Tensor};

use crate::element::Element;
use crate::tensor_access::contiguous_slice;

/// The gradients of `x`, `weight` and `bias`, each where it is wanted.
pub(crate) type Gradients = [Option<Tensor>; 3];

/// A storage on the GPU and where a tensor lies in it.
#[cfg(feature = "cuda")]
pub(crate) type CudaArgument<'a> = (&'a CudaStorage, &'a Layout);

/// What backward computes from.
#[derive(Clone, Copy)]
pub(crate) struct Backward<'a> {
    pub(crate) x: &'a Tensor,
    pub(crate) weight: &'a Tensor,
    pub(crate) bias: Option<&'a Tensor>,
    pub(crate) result: &'a Tensor,
    pub(crate) upstream: &'a Tensor,
}

/// A layer with its sizes and options. Arguments are contiguous, and of the shapes that it was made for.
pub(crate) trait Layer: Send + Sync {
    /// The name of the op.
    const OP: &'static str;

    fn result_shape(&self) -> Shape;

    /// The result, row-major.
    fn forward<F: Element>(&self, x: &[F], weight: &[F], bias: Option<&[F]>) -> Result<Vec<F>>;

    /// The gradients of those arguments that track one.
    fn backward<F: Element>(&self, known: Backward<'_>) -> Result<Gradients>;

    #[cfg(feature = "cuda")]
    fn forward_on_cuda(
        &self,
        x: CudaArgument<'_>,
        weight: CudaArgument<'_>,
        bias: Option<CudaArgument<'_>>,
    ) -> Result<CudaStorage>;

    #[cfg(feature = "cuda")]
    fn backward_on_cuda(&self, known: Backward<'_>) -> Result<Gradients>;
}

/// Applies a layer to arguments that have been checked.
pub(crate) fn apply<L: Layer + 'static>(
    layer: L,
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
) -> Result<Tensor> {
    let (x, weight) = (x.contiguous()?, weight.contiguous()?);
    match bias {
        Some(bias) => x.apply_op3(&weight, &bias.contiguous()?, LayerOp(layer)),
        None => x.apply_op2(&weight, LayerOp(layer)),
    }
}

struct LayerOp<L>(L);

type Argument<'a> = (&'a CpuStorage, &'a Layout);

impl<L: Layer> LayerOp<L> {
    fn forward(
        &self,
        x: Argument<'_>,
        weight: Argument<'_>,
        bias: Option<Argument<'_>>,
    ) -> Result<(CpuStorage, Shape)> {
        let storage = match x.0.dtype() {
            DType::F32 => self.forward_in::<f32>(x, weight, bias)?,
            DType::F64 => self.forward_in::<f64>(x, weight, bias)?,
            other => return Err(Error::UnsupportedDTypeForOp(other, L::OP).bt()),
        };
        Ok((storage, self.0.result_shape()))
    }

    fn forward_in<F: Element>(
        &self,
        x: Argument<'_>,
        weight: Argument<'_>,
        bias: Option<Argument<'_>>,
    ) -> Result<CpuStorage> {
        let y = self.0.forward(
            contiguous_slice::<F>(x.0, x.1)?,
            contiguous_slice::<F>(weight.0, weight.1)?,
            bias.map(|(s, l)| contiguous_slice::<F>(s, l)).transpose()?,
        )?;
        Ok(F::to_cpu_storage_owned(y))
    }

    #[cfg(feature = "cuda")]
    fn forward_on_cuda(
        &self,
        x: CudaArgument<'_>,
        weight: CudaArgument<'_>,
        bias: Option<CudaArgument<'_>>,
    ) -> Result<(CudaStorage, Shape)> {
        let y = self.0.forward_on_cuda(x, weight, bias)?;
        Ok((y, self.0.result_shape()))
    }

    fn backward(&self, known: Backward<'_>) -> Result<Gradients> {
        #[cfg(feature = "cuda")]
        if known.x.device().is_cuda() {
            return self.0.backward_on_cuda(known);
        }
        match known.x.dtype() {
            DType::F32 => self.0.backward::<f32>(known),
            DType::F64 => self.0.backward::<f64>(known),
            other => Err(Error::UnsupportedDTypeForOp(other, L::OP).bt()),
        }
    }
}

impl<L: Layer> CustomOp2 for LayerOp<L> {
    fn name(&self) -> &'static str {
        L::OP
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
        let [x, weight, _] = self.backward(Backward {
            x,
            weight,
            bias: None,
            result,
            upstream,
        })?;
        Ok((x, weight))
    }
}

impl<L: Layer> CustomOp3 for LayerOp<L> {
    fn name(&self) -> &'static str {
        L::OP
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
        let bias = Some((bias, bias_layout));
        self.forward((x, x_layout), (weight, weight_layout), bias)
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
        let bias = Some((bias, bias_layout));
        self.forward_on_cuda((x, x_layout), (weight, weight_layout), bias)
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        result: &Tensor,
        upstream: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [x, weight, bias] = self.backward(Backward {
            x,
            weight,
            bias: Some(bias),
            result,
            upstream,
        })?;
        Ok((x, weight, bias))
    }
}
