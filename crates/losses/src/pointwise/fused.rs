//! The custom ops: the loss, its gradient, and the gradient's gradient, all over one pass of the CPU kernel.

use super::cpu_kernel::{Compiled, Partial, Pass, Stored};
use super::operand::{Operand, Real};
use super::{Element, Float, Plan};
use crate::graph::{check_gradient_fits, keeps_gradient_graph};
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Storage, Tensor, bail};
use candle_simd::Isa;
use half::{bf16, f16};
use std::sync::Arc;

/// A loss with its constants.
pub(super) struct Loss {
    pub(super) element: Box<dyn Compiled>,
    /// Both are seen in the input's shape and track no gradient.
    pub(super) parameter: Option<Tensor>,
    pub(super) weight: Option<Tensor>,
    pub(super) plan: Plan,
}

/// The form that a pass's results take.
#[derive(Clone, Copy)]
pub(super) enum Form {
    /// Reduced as the loss is, in the type it is computed in.
    Loss,
    /// One value per element, in the input's dtype, divided as the loss is.
    Gradient,
}

type Operands<'a> = (&'a CpuStorage, &'a Layout);

impl Loss {
    /// One pass over input and target, times weight and `upstream`.
    fn run(
        &self,
        partial: Partial,
        form: Form,
        input: Operands<'_>,
        target: Operands<'_>,
        upstream: &[Operands<'_>],
    ) -> Result<(CpuStorage, Shape)> {
        match input.0 {
            CpuStorage::F32(_) => {
                self.pass::<f32>(partial, form, input, target, upstream, CpuStorage::F32)
            }
            CpuStorage::F64(_) => {
                self.pass::<f64>(partial, form, input, target, upstream, CpuStorage::F64)
            }
            CpuStorage::F16(_) => {
                self.pass::<f16>(partial, form, input, target, upstream, CpuStorage::F16)
            }
            CpuStorage::BF16(_) => {
                self.pass::<bf16>(partial, form, input, target, upstream, CpuStorage::BF16)
            }
            _ => bail!(
                "{}: input must be f32, f64, f16 or bf16",
                self.element.name()
            ),
        }
    }

    fn pass<T: Stored>(
        &self,
        partial: Partial,
        form: Form,
        input: Operands<'_>,
        target: Operands<'_>,
        upstream: &[Operands<'_>],
        wrap: impl FnOnce(Vec<T>) -> CpuStorage,
    ) -> Result<(CpuStorage, Shape)> {
        let shape = input.1.shape();
        let reduced = self.plan.reduced && matches!(form, Form::Loss);
        if self.plan.divisor == 0.0 {
            // Nothing to take the mean of: the policy's value, and no gradient at all.
            return Ok(if reduced {
                let value = match partial {
                    Partial::Value => self.plan.on_empty_value(),
                    _ => 0.0,
                };
                (
                    T::Compute::storage(vec![T::Compute::of(value)]),
                    Shape::from(()),
                )
            } else {
                (wrap(vec![T::default(); shape.elem_count()]), shape.clone())
            });
        }
        let parameter = self.parameter.as_ref().map(Tensor::storage_and_layout);
        let weight = self.weight.as_ref().map(Tensor::storage_and_layout);
        // An upstream gradient is one number where the loss is reduced, else one for each element.
        let upstream: Vec<(&CpuStorage, Layout)> = (upstream.iter())
            .map(|(storage, layout)| Ok((*storage, layout.broadcast_as(shape)?)))
            .collect::<Result<_>>()?;
        let mut factors: Vec<Operand<'_>> =
            upstream.iter().map(|(s, l)| Operand::new(s, l)).collect();
        if let Some((storage, layout)) = &weight {
            factors.push(Operand::new(cpu(storage)?, layout));
        }
        let parameter = match &parameter {
            Some((storage, layout)) => Some(Operand::new(cpu(storage)?, layout)),
            None => None,
        };
        let pass = Pass {
            element: &*self.element,
            partial,
            isa: Isa::active(),
            input: Operand::new(input.0, input.1),
            target: Operand::new(target.0, target.1),
            parameter,
            factors,
            scale: if reduced {
                1.0
            } else {
                1.0 / self.plan.divisor
            },
            len: shape.elem_count(),
        }
        .fold_scalars()?;
        Ok(match form {
            Form::Loss if reduced => {
                let value = pass.sum::<T::Compute>() / self.plan.divisor;
                (
                    T::Compute::storage(vec![T::Compute::of(value)]),
                    Shape::from(()),
                )
            }
            Form::Loss => (T::Compute::storage(pass.map::<T::Compute>()), shape.clone()),
            Form::Gradient => (wrap(pass.map::<T>()), shape.clone()),
        })
    }
}

fn cpu(storage: &Storage) -> Result<&CpuStorage> {
    match storage {
        Storage::Cpu(storage) => Ok(storage),
        _ => bail!("a constant of a loss on the CPU must be on the CPU"),
    }
}

/// The loss as an op of input and target.
pub(super) struct Fused(Arc<Loss>);

impl Fused {
    pub(super) fn new(
        element: impl Element,
        parameter: Option<Tensor>,
        weight: Option<Tensor>,
        plan: Plan,
    ) -> Self {
        Self(Arc::new(Loss {
            element: Box::new(element),
            parameter,
            weight,
            plan,
        }))
    }

    /// The gradient by input or target as an op of its own.
    pub(super) fn gradient(&self, partial: Partial) -> Gradient {
        Gradient {
            loss: self.0.clone(),
            partial,
        }
    }
}

impl CustomOp2 for Fused {
    fn name(&self) -> &'static str {
        self.0.element.name()
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.0
            .run(Partial::Value, Form::Loss, (s1, l1), (s2, l2), &[])
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        s1: &CudaStorage,
        l1: &Layout,
        s2: &CudaStorage,
        l2: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.0
            .run_on_cuda(Partial::Value, Form::Loss, (s1, l1), (s2, l2), &[])
    }

    fn bwd(
        &self,
        input: &Tensor,
        target: &Tensor,
        _loss: &Tensor,
        upstream: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        check_gradient_fits(self.name(), "input", input)?;
        check_gradient_fits(self.name(), "target", target)?;
        let gradient = |by: &Tensor, partial| {
            // candle allocates and adds for each gradient it is given: none for what tracks none.
            by.track_op()
                .then(|| {
                    let op = self.gradient(partial);
                    if keeps_gradient_graph() {
                        input.apply_op3(target, upstream, op)
                    } else {
                        input.apply_op3_no_bwd(target, upstream, &op)
                    }
                })
                .transpose()
        };
        Ok((
            gradient(input, Partial::Input)?,
            gradient(target, Partial::Target)?,
        ))
    }
}

/// `upstream * weight * (a first derivative) / divisor`, an op of input, target and upstream.
pub(super) struct Gradient {
    loss: Arc<Loss>,
    partial: Partial,
}

impl CustomOp3 for Gradient {
    fn name(&self) -> &'static str {
        self.loss.element.name()
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.loss.run(
            self.partial,
            Form::Gradient,
            (s1, l1),
            (s2, l2),
            &[(s3, l3)],
        )
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        s1: &CudaStorage,
        l1: &Layout,
        s2: &CudaStorage,
        l2: &Layout,
        s3: &CudaStorage,
        l3: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.loss.run_on_cuda(
            self.partial,
            Form::Gradient,
            (s1, l1),
            (s2, l2),
            &[(s3, l3)],
        )
    }

    fn bwd(
        &self,
        input: &Tensor,
        target: &Tensor,
        upstream: &Tensor,
        _gradient: &Tensor,
        upstream2: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (by_input, by_target) = match self.partial {
            Partial::Target => (Partial::InputTarget, Partial::TargetTarget),
            _ => (Partial::InputInput, Partial::InputTarget),
        };
        let second = |by: &Tensor, partial, form, upstream: Option<&Tensor>| {
            by.track_op()
                .then(|| {
                    let op = Second {
                        loss: self.loss.clone(),
                        partial,
                        form,
                        upstream: upstream.map(Tensor::detach),
                    };
                    input.apply_op3(target, upstream2, op)
                })
                .transpose()
        };
        Ok((
            second(input, by_input, Form::Gradient, Some(upstream))?,
            second(target, by_target, Form::Gradient, Some(upstream))?,
            // The gradient is linear in the upstream: what multiplies it, summed where the upstream is one number.
            second(upstream, self.partial, Form::Loss, None)?,
        ))
    }
}

/// The gradient's gradient, an op of input, target and the gradient's upstream.
struct Second {
    loss: Arc<Loss>,
    partial: Partial,
    form: Form,
    upstream: Option<Tensor>,
}

impl CustomOp3 for Second {
    fn name(&self) -> &'static str {
        self.loss.element.name()
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let upstream = self.upstream.as_ref().map(Tensor::storage_and_layout);
        let mut factors = vec![(s3, l3)];
        if let Some((storage, layout)) = &upstream {
            factors.push((cpu(storage)?, layout));
        }
        self.loss
            .run(self.partial, self.form, (s1, l1), (s2, l2), &factors)
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        s1: &CudaStorage,
        l1: &Layout,
        s2: &CudaStorage,
        l2: &Layout,
        s3: &CudaStorage,
        l3: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let upstream = self.upstream.as_ref().map(Tensor::storage_and_layout);
        let mut factors = vec![(s3, l3)];
        if let Some((storage, layout)) = &upstream {
            factors.push((super::on_cuda::cuda(storage)?, layout));
        }
        self.loss
            .run_on_cuda(self.partial, self.form, (s1, l1), (s2, l2), &factors)
    }

    fn bwd(
        &self,
        _input: &Tensor,
        _target: &Tensor,
        _upstream2: &Tensor,
        _second: &Tensor,
        _upstream3: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        bail!(
            "{}: third derivatives are not supported by the fused op; use its composed form",
            self.name()
        )
    }
}
