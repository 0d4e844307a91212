//! Loss and gradient in one pass, outside Candle's graph.

use std::sync::OnceLock;

use candle_core::{CpuStorage, InplaceOp2, Layout, Result, Storage, Tensor};

use super::cpu_kernel;
#[cfg(feature = "cuda")]
use super::cuda_kernel;
use super::error::bad;
use super::fused::{CrossEntropyOp, GradientOp, cpu_tensor};
use super::plan::Plan;

/// Loss, and the gradient as a tensor of its own.
pub(super) fn fresh(plan: Plan, logits: &Tensor, target: &Tensor) -> Result<(Tensor, Tensor)> {
    let (logits_storage, logits_layout) = logits.storage_and_layout();
    let (target_storage, target_layout) = target.storage_and_layout();
    if let (Storage::Cpu(x), Storage::Cpu(t)) = (&*logits_storage, &*target_storage) {
        let (loss, gradient) =
            cpu_kernel::value_and_grad(&plan, (x, logits_layout), (t, target_layout))?;
        return Ok((
            cpu_tensor(loss, plan.loss_shape()),
            cpu_tensor(gradient, logits.shape()),
        ));
    }
    #[cfg(feature = "cuda")]
    if let (Storage::Cuda(x), Storage::Cuda(t)) = (&*logits_storage, &*target_storage) {
        let (loss, gradient) =
            cuda_kernel::value_and_grad(&plan, (x, logits_layout), (t, target_layout))?;
        return Ok((
            cuda_kernel::tensor(loss, plan.loss_shape()),
            cuda_kernel::tensor(gradient, logits.shape()),
        ));
    }
    drop((logits_storage, target_storage));
    through_ops(plan, logits, target)
}

/// The two ops one after the other, for devices without a kernel for both at once.
fn through_ops(plan: Plan, logits: &Tensor, target: &Tensor) -> Result<(Tensor, Tensor)> {
    let mut forward = CrossEntropyOp::new(plan, logits, target, false);
    forward.tracked = true;
    let loss = logits.apply_op2_no_bwd(target, &forward)?;
    let upstream = loss.ones_like()?;
    let gradient = logits.apply_op3_no_bwd(target, &upstream, &GradientOp { forward })?;
    Ok((loss, gradient))
}

/// Loss, and the gradient over the logits.
pub(super) fn in_place(plan: Plan, logits: Tensor, target: &Tensor) -> Result<(Tensor, Tensor)> {
    if logits.track_op() {
        return Err(bad(
            "logits",
            "be neither a variable nor part of a graph to be overwritten",
            "a tracked tensor",
            "detach them if nothing reads their values afterwards, or use value_and_grad",
        ));
    }
    if logits.layout().has_internal_overlap() {
        return Err(bad(
            "logits",
            "have an element of their own for each index to be overwritten",
            format!("strides {:?}", logits.stride()),
            "make them contiguous, or use value_and_grad",
        ));
    }
    let op = InPlaceOp {
        plan,
        loss: OnceLock::new(),
    };
    logits.inplace_op2(target, &op)?;
    let loss = op
        .loss
        .into_inner()
        .ok_or_else(|| candle_core::Error::msg("cross_entropy: no loss came back").bt())?;
    Ok((loss, logits))
}

struct InPlaceOp {
    plan: Plan,
    loss: OnceLock<Tensor>,
}

impl InplaceOp2 for InPlaceOp {
    fn name(&self) -> &'static str {
        "cross_entropy_in_place"
    }

    fn cpu_fwd(
        &self,
        s1: &mut CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<()> {
        let loss = cpu_kernel::value_and_grad_in_place(&self.plan, (s1, l1), (s2, l2))?;
        // The op runs once.
        let _ = self.loss.set(cpu_tensor(loss, self.plan.loss_shape()));
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        s1: &mut candle_core::CudaStorage,
        l1: &Layout,
        s2: &candle_core::CudaStorage,
        l2: &Layout,
    ) -> Result<()> {
        let loss = cuda_kernel::value_and_grad_in_place(&self.plan, (s1, l1), (s2, l2))?;
        let _ = self
            .loss
            .set(cuda_kernel::tensor(loss, self.plan.loss_shape()));
        Ok(())
    }
}
