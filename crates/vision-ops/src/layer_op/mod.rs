//! Layers as custom ops of Candle: what all ops of `x`, `weight` and `bias` have in common.
//!
//! A [`Layer`] computes on slices of one float type and on CUDA; [`apply`] makes arguments contiguous, chooses the float type and
//! gives gradients back to Candle's graph. [`join`] does the same for a layer whose `x` or result is hidden from the graph.

mod hidden;

use std::sync::Arc;

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, CustomOp3, DType, Error, Layout, Result, Shape, Tensor};

use crate::element::Element;
use crate::tensor_access::{contiguous_slice, cpu_slice};
pub(crate) use hidden::Activation;
use hidden::Hidden;

/// `x`, `weight` and `bias` in one form.
#[derive(Clone, Copy)]
pub(crate) struct Arguments<T> {
    pub(crate) x: T,
    pub(crate) weight: T,
    pub(crate) bias: Option<T>,
}

/// A storage on the GPU and where a tensor lies in it.
#[cfg(feature = "cuda")]
pub(crate) type CudaArgument<'a> = (&'a CudaStorage, &'a Layout);

/// Which gradients are asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) x: bool,
    pub(crate) weight: bool,
    pub(crate) bias: bool,
}

/// What backward computes from, row-major.
#[derive(Clone, Copy)]
pub(crate) struct Known<'a, F> {
    pub(crate) x: &'a [F],
    pub(crate) weight: &'a [F],
    pub(crate) result: &'a [F],
    pub(crate) upstream: &'a [F],
}

/// The gradients, row-major; one that was not asked for may be empty.
pub(crate) struct Gradients<F> {
    pub(crate) x: Vec<F>,
    pub(crate) weight: Vec<F>,
    pub(crate) bias: Vec<F>,
}

/// What backward computes from, as tensors.
#[derive(Clone, Copy)]
pub(crate) struct Backward<'a> {
    pub(crate) arguments: Arguments<&'a Tensor>,
    pub(crate) result: &'a Tensor,
    pub(crate) upstream: &'a Tensor,
}

/// The gradients of `x`, `weight` and `bias`, each where the argument tracks one.
pub(crate) type TensorGradients = [Option<Tensor>; 3];

/// A layer with its sizes and options. Arguments are contiguous, and of the shapes that it was made for.
pub(crate) trait Layer: Send + Sync {
    /// The name of the op.
    const OP: &'static str;

    fn result_shape(&self) -> Shape;

    /// The result, row-major.
    fn forward<F: Element>(&self, arguments: Arguments<&[F]>) -> Result<Vec<F>>;

    fn backward<F: Element>(&self, wanted: Wanted, known: Known<'_, F>) -> Result<Gradients<F>>;

    #[cfg(feature = "cuda")]
    fn forward_on_cuda(&self, arguments: Arguments<CudaArgument<'_>>) -> Result<CudaStorage>;

    #[cfg(feature = "cuda")]
    fn backward_on_cuda(&self, known: Backward<'_>) -> Result<TensorGradients>;
}

/// Applies a layer to arguments that have been checked.
pub(crate) fn apply<L: Layer + 'static>(
    layer: L,
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
) -> Result<Tensor> {
    let x = Activation::visible(x);
    Ok(join(layer, &x, weight, bias, false)?.into_tensor())
}

/// Applies a layer, on the CPU where an activation is hidden, and hides the result if the next layer alone will see it.
pub(crate) fn join<L: Layer + 'static>(
    layer: L,
    x: &Activation,
    weight: &Tensor,
    bias: Option<&Tensor>,
    hide: bool,
) -> Result<Activation> {
    let result = hide.then(Arc::<Hidden>::default);
    let op = LayerOp {
        layer,
        x: x.hidden.clone(),
        result: result.clone(),
    };
    let (x, weight) = (x.node.contiguous()?, weight.contiguous()?);
    let node = match bias {
        Some(bias) => x.apply_op3(&weight, &bias.contiguous()?, op)?,
        None => x.apply_op2(&weight, op)?,
    };
    Ok(Activation {
        node,
        hidden: result,
    })
}

struct LayerOp<L> {
    layer: L,
    /// Where `x` comes from and its gradient goes to, if not through the graph.
    x: Option<Arc<Hidden>>,
    /// Where the result goes to and its gradient comes from, if not through the graph.
    result: Option<Arc<Hidden>>,
}

type Argument<'a> = (&'a CpuStorage, &'a Layout);

impl<L: Layer> LayerOp<L> {
    fn forward(&self, arguments: Arguments<Argument<'_>>) -> Result<(CpuStorage, Shape)> {
        let storage = match arguments.weight.0.dtype() {
            DType::F32 => self.forward_in::<f32>(arguments)?,
            DType::F64 => self.forward_in::<f64>(arguments)?,
            other => return Err(Error::UnsupportedDTypeForOp(other, L::OP).bt()),
        };
        Ok(match &self.result {
            Some(hidden) => {
                hidden.set(storage);
                Hidden::stand_in()
            }
            None => (storage, self.layer.result_shape()),
        })
    }

    fn forward_in<F: Element>(&self, arguments: Arguments<Argument<'_>>) -> Result<CpuStorage> {
        let Arguments { x, weight, bias } = arguments;
        let y = self.layer.forward(Arguments {
            x: hidden_or(values(&self.x, L::OP)?, || contiguous_slice(x.0, x.1))?,
            weight: contiguous_slice(weight.0, weight.1)?,
            bias: bias.map(|(s, l)| contiguous_slice(s, l)).transpose()?,
        })?;
        Ok(F::to_cpu_storage_owned(y))
    }

    #[cfg(feature = "cuda")]
    fn forward_on_cuda(
        &self,
        arguments: Arguments<CudaArgument<'_>>,
    ) -> Result<(CudaStorage, Shape)> {
        let y = self.layer.forward_on_cuda(arguments)?;
        Ok((y, self.layer.result_shape()))
    }

    fn backward(&self, known: Backward<'_>) -> Result<TensorGradients> {
        #[cfg(feature = "cuda")]
        if known.upstream.device().is_cuda() {
            return self.layer.backward_on_cuda(known);
        }
        match known.arguments.weight.dtype() {
            DType::F32 => self.backward_in::<f32>(known),
            DType::F64 => self.backward_in::<f64>(known),
            other => Err(Error::UnsupportedDTypeForOp(other, L::OP).bt()),
        }
    }

    fn backward_in<F: Element>(&self, known: Backward<'_>) -> Result<TensorGradients> {
        let Arguments { x, weight, bias } = known.arguments;
        let wanted = Wanted {
            x: x.track_op(),
            weight: weight.track_op(),
            bias: bias.is_some_and(Tensor::track_op),
        };
        let take = |hidden: &Arc<Hidden>| hidden.take(L::OP, known.upstream);
        let hidden_upstream = self.result.as_ref().map(take).transpose()?;
        let upstream = known.upstream.contiguous()?;
        let gradients = {
            let tensors = [x, weight, known.result, &upstream];
            let stored = tensors.map(Tensor::storage_and_layout);
            let [x, weight, result, upstream] =
                stored.each_ref().map(|(s, l)| move || cpu_slice(s, l));
            let known = Known {
                x: hidden_or(values(&self.x, L::OP)?, x)?,
                weight: weight()?,
                result: hidden_or(values(&self.result, L::OP)?, result)?,
                upstream: hidden_or(hidden_upstream.as_ref(), upstream)?,
            };
            self.layer.backward::<F>(wanted, known)?
        };
        let tensor = |wanted: bool, gradient: Vec<F>, like: &Tensor| {
            wanted
                .then(|| Tensor::from_vec(gradient, like.shape(), like.device()))
                .transpose()
        };
        Ok([
            match &self.x {
                Some(hidden) if wanted.x => Some(hidden.leave(gradients.x)?),
                Some(_) => None,
                None => tensor(wanted.x, gradients.x, x)?,
            },
            tensor(wanted.weight, gradients.weight, weight)?,
            match bias {
                Some(bias) => tensor(wanted.bias, gradients.bias, bias)?,
                None => None,
            },
        ])
    }
}

/// What a hidden activation holds, where there is one.
fn values<'a>(hidden: &'a Option<Arc<Hidden>>, op: &str) -> Result<Option<&'a CpuStorage>> {
    hidden.as_ref().map(|hidden| hidden.values(op)).transpose()
}

/// The elements that are hidden, or else those that the graph knows.
fn hidden_or<'a, F: Element>(
    hidden: Option<&'a CpuStorage>,
    visible: impl FnOnce() -> Result<&'a [F]>,
) -> Result<&'a [F]> {
    match hidden {
        Some(hidden) => hidden.as_slice(),
        None => visible(),
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
        self.forward(Arguments {
            x: (x, x_layout),
            weight: (weight, weight_layout),
            bias: None,
        })
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        x_layout: &Layout,
        weight: &CudaStorage,
        weight_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.forward_on_cuda(Arguments {
            x: (x, x_layout),
            weight: (weight, weight_layout),
            bias: None,
        })
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        result: &Tensor,
        upstream: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let [x, weight, _] = self.backward(Backward {
            arguments: Arguments {
                x,
                weight,
                bias: None,
            },
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
        self.forward(Arguments {
            x: (x, x_layout),
            weight: (weight, weight_layout),
            bias: Some((bias, bias_layout)),
        })
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
        self.forward_on_cuda(Arguments {
            x: (x, x_layout),
            weight: (weight, weight_layout),
            bias: Some((bias, bias_layout)),
        })
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
            arguments: Arguments {
                x,
                weight,
                bias: Some(bias),
            },
            result,
            upstream,
        })?;
        Ok((x, weight, bias))
    }
}
