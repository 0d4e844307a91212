//! What all pointwise losses share: weight, reduction, the empty policy, and the checks of their arguments.

use super::composed;
use super::error::BadArgument;
use super::fused::Fused;
use super::{Element, Plan, has_kernels};
use crate::{EmptyPolicy, Reduction};
use candle_core::{DType, Result, Tensor};

/// The options that every pointwise loss has.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    pub(crate) weight: Option<Tensor>,
    pub(crate) reduction: Reduction,
    pub(crate) on_empty: EmptyPolicy,
}

/// What `Reduction::Mean` divides the sum by. PyTorch's losses differ in this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MeanOver {
    /// The number of elements.
    Elements,
    /// The sum of the weights over the elements (mse and l1).
    Weights,
    /// The size of the first axis (`batchmean` of kl_div).
    Batch,
}

impl Options {
    /// The fused op, on the CPU or on CUDA.
    pub(crate) fn fused<E: Element>(
        &self,
        element: E,
        input: &Tensor,
        target: &Tensor,
        parameter: Option<&Tensor>,
        mean: MeanOver,
    ) -> Result<Tensor> {
        let name = element.name();
        let plan = self.plan(name, input, target, mean)?;
        check_kernels(&element, input)?;
        let parameter = parameter.map(|p| expand(p, input)).transpose()?;
        let weight = self.weight.as_ref().map(|w| expand(w, input)).transpose()?;
        input.apply_op2(target, Fused::new(element, parameter, weight, plan))
    }

    /// Weight and reduction as tensor ops, for the composed forms. `elementwise` has the input's shape.
    pub(crate) fn reduce(
        &self,
        name: &'static str,
        input: &Tensor,
        target: &Tensor,
        mean: MeanOver,
        elementwise: impl FnOnce(&Tensor, &Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let plan = self.plan(name, input, target, mean)?;
        let (x, t) = (composed::widen(input)?, composed::widen(target)?);
        let loss = if input.elem_count() == 0 {
            // candle's ops return an empty argument as it is, and the other one would get no gradient.
            let both = Tensor::cat(&[x.flatten_all()?, t.flatten_all()?], 0)?;
            both.reshape(input.shape())?
        } else {
            elementwise(&x, &t)?
        };
        let loss = match &self.weight {
            Some(weight) => loss.mul(&composed::widen(&expand(weight, input)?)?)?,
            None => loss,
        };
        if !plan.reduced {
            return Ok(loss);
        }
        // A sum over nothing would leave no path for the (empty or zero) gradient.
        if plan.divisor == 0.0 {
            let zero = loss.zeros_like()?;
            return loss
                .broadcast_mul(&zero)?
                .sum_all()?
                .affine(1.0, plan.on_empty_value());
        }
        loss.sum_all()?.affine(1.0 / plan.divisor, 0.0)
    }

    /// Checks everything that can be wrong before any work is done.
    fn plan(
        &self,
        name: &'static str,
        input: &Tensor,
        target: &Tensor,
        mean: MeanOver,
    ) -> Result<Plan> {
        check_tensors(name, input, target)?;
        if let Some(weight) = &self.weight {
            check_broadcast(name, "weight", weight, input)?;
        }
        let divisor = match (self.reduction, mean) {
            (Reduction::Sum | Reduction::None, _) => 1.0,
            (Reduction::Mean, MeanOver::Batch) => match input.dims() {
                [batch, ..] => *batch as f64,
                [] => {
                    let error = BadArgument {
                        loss: name,
                        argument: "input",
                        must: "have a batch axis for the batch mean".to_owned(),
                        got: "a tensor of rank 0".to_owned(),
                        advice: "use another reduction or `unsqueeze(0)`",
                    };
                    return Err(error.into());
                }
            },
            (Reduction::Mean, MeanOver::Weights) => match &self.weight {
                Some(weight) => total(weight, input)?,
                None => input.elem_count() as f64,
            },
            (Reduction::Mean, MeanOver::Elements) => input.elem_count() as f64,
        };
        // A batch of rows without elements is as empty as no batch.
        let divisor = if self.reduction == Reduction::Mean && input.elem_count() == 0 {
            0.0
        } else {
            divisor
        };
        Ok(Plan {
            reduced: self.reduction != Reduction::None,
            divisor,
            on_empty: self.on_empty,
        })
    }
}

/// The fused op needs the input on the CPU, or on CUDA and kernels there.
fn check_kernels(element: &impl Element, input: &Tensor) -> std::result::Result<(), BadArgument> {
    let device = input.device();
    if device.is_cpu() || (has_kernels(device) && element.cuda_kernels().is_some()) {
        return Ok(());
    }
    let (must, advice) = if has_kernels(device) {
        (
            "be on the CPU: the loss names no CUDA kernels",
            "move it with `to_device`, or write the formula in CUDA too and name it in `Pointwise::cuda_kernels`",
        )
    } else {
        (
            "be on the CPU: the fused op has no kernel for this device in this build",
            "move it with `to_device`, build candle-losses with the feature `cuda` for a CUDA device, or write the loss with tensor ops",
        )
    };
    Err(BadArgument {
        loss: element.name(),
        argument: "input",
        must: must.to_owned(),
        got: format!("{:?}", device.location()),
        advice,
    })
}

/// Input and target must be float tensors of one shape, dtype and device.
fn check_tensors(
    loss: &'static str,
    input: &Tensor,
    target: &Tensor,
) -> std::result::Result<(), BadArgument> {
    let bad = |argument, must: String, got: String, advice| {
        Err(BadArgument {
            loss,
            argument,
            must,
            got,
            advice,
        })
    };
    if !matches!(
        input.dtype(),
        DType::F32 | DType::F64 | DType::F16 | DType::BF16
    ) {
        let advice = "convert it with `to_dtype`";
        return bad(
            "input",
            "be f32, f64, f16 or bf16".to_owned(),
            input.dtype().as_str().to_owned(),
            advice,
        );
    }
    if target.shape() != input.shape() {
        let must = format!("have the input's shape {:?}", input.dims());
        let advice = "nothing is broadcast in silence: use `broadcast_as` where that is meant";
        return bad("target", must, format!("{:?}", target.dims()), advice);
    }
    if target.dtype() != input.dtype() {
        let must = format!("have the input's dtype {}", input.dtype().as_str());
        let advice = "convert it with `to_dtype`";
        return bad("target", must, target.dtype().as_str().to_owned(), advice);
    }
    check_device(loss, "target", target, input)
}

fn check_device(
    loss: &'static str,
    argument: &'static str,
    tensor: &Tensor,
    input: &Tensor,
) -> std::result::Result<(), BadArgument> {
    if tensor.device().same_device(input.device()) {
        return Ok(());
    }
    Err(BadArgument {
        loss,
        argument,
        must: format!("be on the input's device {:?}", input.device().location()),
        got: format!("{:?}", tensor.device().location()),
        advice: "move it with `to_device`",
    })
}

/// A weight or parameter must have the input's dtype and device and a shape that broadcasts to the input's.
pub(crate) fn check_broadcast(
    loss: &'static str,
    argument: &'static str,
    tensor: &Tensor,
    input: &Tensor,
) -> std::result::Result<(), BadArgument> {
    if tensor.layout().broadcast_as(input.shape()).is_err() {
        return Err(BadArgument {
            loss,
            argument,
            must: format!("broadcast to the input's shape {:?}", input.dims()),
            got: format!("{:?}", tensor.dims()),
            advice: "axes are matched from the last one, each of equal size or 1",
        });
    }
    if tensor.dtype() != input.dtype() {
        return Err(BadArgument {
            loss,
            argument,
            must: format!("have the input's dtype {}", input.dtype().as_str()),
            got: tensor.dtype().as_str().to_owned(),
            advice: "convert it with `to_dtype`",
        });
    }
    check_device(loss, argument, tensor, input)
}

/// A constant of the loss, seen in the input's shape: no copy, no gradient.
pub(crate) fn expand(constant: &Tensor, input: &Tensor) -> Result<Tensor> {
    constant.detach().broadcast_as(input.shape())
}

/// Sum of the weights over the input's elements.
fn total(weight: &Tensor, input: &Tensor) -> Result<f64> {
    if weight.elem_count() == 0 {
        return Ok(0.0);
    }
    // Metal has no f64.
    let sum = if !weight.device().is_metal() {
        weight.to_dtype(DType::F64)?.sum_all()?.to_scalar::<f64>()?
    } else {
        f64::from(weight.to_dtype(DType::F32)?.sum_all()?.to_scalar::<f32>()?)
    };
    // Broadcasting repeats every weight equally often.
    Ok(sum * (input.elem_count() / weight.elem_count()) as f64)
}

/// The setters that every pointwise loss has, over its field `options`.
macro_rules! common_options {
    ($weight:literal) => {
        #[doc = $weight]
        ///
        /// A constant with the input's dtype and a shape that broadcasts to the input's; it receives no gradient.
        pub fn weight(mut self, weight: candle_core::Tensor) -> Self {
            self.options.weight = Some(weight);
            self
        }

        /// How the elements' losses are put together. Default: [`Reduction::Mean`](crate::Reduction::Mean).
        pub fn reduction(mut self, reduction: crate::Reduction) -> Self {
            self.options.reduction = reduction;
            self
        }

        /// What the mean over nothing is. Default: NaN, as in PyTorch. The gradient is 0 either way.
        pub fn on_empty(mut self, on_empty: crate::EmptyPolicy) -> Self {
            self.options.on_empty = on_empty;
            self
        }
    };
}
pub(crate) use common_options;
