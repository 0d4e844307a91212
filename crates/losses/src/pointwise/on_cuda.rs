//! The passes of the custom ops on CUDA: the twin of `fused.rs`'s on the CPU.

use std::ops::Deref;

use candle_core::backend::{BackendDevice, BackendStorage};
use candle_core::{
    CpuStorage, CudaStorage, DType, Error, Layout, Result, Shape, Storage, Tensor, WithDType, bail,
};
use half::{bf16, f16};

use super::cpu_kernel::Partial;
use super::cuda_kernel::{Operand, Pass, Stored};
use super::fused::{Form, Loss};
use crate::cuda_kernel::CudaElement;

type Operands<'a> = (&'a CudaStorage, &'a Layout);

pub(super) fn cuda(storage: &Storage) -> Result<&CudaStorage> {
    match storage {
        Storage::Cuda(storage) => Ok(storage),
        _ => bail!("a constant of a loss on a CUDA device must be on that device"),
    }
}

impl Loss {
    /// One pass over input and target, times weight and `upstream`.
    pub(super) fn run_on_cuda(
        &self,
        partial: Partial,
        form: Form,
        input: Operands<'_>,
        target: Operands<'_>,
        upstream: &[Operands<'_>],
    ) -> Result<(CudaStorage, Shape)> {
        match input.0.dtype() {
            DType::F32 => self.pass_on_cuda::<f32>(partial, form, input, target, upstream),
            DType::F64 => self.pass_on_cuda::<f64>(partial, form, input, target, upstream),
            DType::F16 => self.pass_on_cuda::<f16>(partial, form, input, target, upstream),
            DType::BF16 => self.pass_on_cuda::<bf16>(partial, form, input, target, upstream),
            _ => bail!(
                "{}: input must be f32, f64, f16 or bf16",
                self.element.name()
            ),
        }
    }

    fn pass_on_cuda<E: CudaElement>(
        &self,
        partial: Partial,
        form: Form,
        input: Operands<'_>,
        target: Operands<'_>,
        upstream: &[Operands<'_>],
    ) -> Result<(CudaStorage, Shape)> {
        let shape = input.1.shape();
        let computed = E::Compute::DTYPE;
        let reduced = self.plan.reduced && matches!(form, Form::Loss);
        if self.plan.divisor == 0.0 {
            return self.over_nothing::<E>(partial, reduced, input.0.device(), shape);
        }
        let parameter = self.parameter.as_ref().map(Tensor::storage_and_layout);
        let weight = self.weight.as_ref().map(Tensor::storage_and_layout);
        // An upstream gradient is one number where the loss is reduced, else one for each element.
        let mut factors = upstream.iter().map(|(storage, layout)| {
            Operand::of_dtype(storage, layout, computed)?.broadcast_as(shape)
        });
        let pass = Pass {
            kernels: self.element.cuda_kernels().ok_or_else(|| {
                Error::msg(format!(
                    "{}: the loss names no CUDA kernels",
                    self.element.name()
                ))
                .bt()
            })?,
            partial,
            input: Operand::new(input.0, input.1),
            target: Operand::new(target.0, target.1),
            parameter: held_operand(&parameter)?,
            weight: held_operand(&weight)?,
            upstream: [factors.next().transpose()?, factors.next().transpose()?],
            scale: if reduced {
                1.0
            } else {
                1.0 / self.plan.divisor
            },
        };
        Ok(match form {
            Form::Loss if reduced => (pass.sum::<E>(self.plan.divisor)?, Shape::from(())),
            Form::Loss => (pass.map::<E>(Stored::Wide)?, shape.clone()),
            Form::Gradient => (pass.map::<E>(Stored::Narrow)?, shape.clone()),
        })
    }

    /// Nothing to take the mean of: the policy's value, and no gradient at all.
    fn over_nothing<E: CudaElement>(
        &self,
        partial: Partial,
        reduced: bool,
        device: &candle_core::CudaDevice,
        shape: &Shape,
    ) -> Result<(CudaStorage, Shape)> {
        if !reduced {
            // CUDA refuses to allocate nothing.
            let room = Shape::from(shape.elem_count().max(1));
            return Ok((device.zeros_impl(&room, E::DTYPE)?, shape.clone()));
        }
        let value = match partial {
            Partial::Value => self.plan.on_empty_value(),
            _ => 0.0,
        };
        let value = match E::Compute::DTYPE {
            DType::F64 => CpuStorage::F64(vec![value]),
            _ => CpuStorage::F32(vec![value as f32]),
        };
        Ok((device.storage_from_cpu_storage(&value)?, Shape::from(())))
    }
}

/// A constant of the loss, already in the input's shape.
fn held_operand<'a>(
    held: &'a Option<(impl Deref<Target = Storage>, &Layout)>,
) -> Result<Option<Operand<'a>>> {
    held.as_ref()
        .map(|(storage, layout)| Ok(Operand::new(cuda(storage)?, layout)))
        .transpose()
}
