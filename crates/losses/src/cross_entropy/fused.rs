//! The custom ops: forward over logits and targets, and its gradient as an op that has a backward of its own.

use std::sync::{Arc, OnceLock};

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{
    CpuStorage, CustomOp2, CustomOp3, Error, Layout, Result, Shape, Storage, Tensor,
};

use super::cpu_kernel::{self, Wants};
#[cfg(feature = "cuda")]
use super::cuda_kernel;
use super::plan::{Plan, TargetKind};
use super::second_derivative;
use crate::graph::{check_gradient_fits, keeps_gradient_graph};

/// What the losses are divided by; 0 for a mean over nothing.
#[derive(Clone, Debug)]
pub(super) enum Divisor {
    Known(f64),
    /// Found by the device and not waited for: the second of 4 f64.
    #[cfg(feature = "cuda")]
    OnDevice(Tensor),
}

impl Divisor {
    /// Waits for the device where it found the divisor.
    pub(super) fn value(&self) -> Result<f64> {
        match self {
            Self::Known(divisor) => Ok(*divisor),
            #[cfg(feature = "cuda")]
            Self::OnDevice(totals) => totals.get(1)?.to_scalar(),
        }
    }
}

/// What forward keeps for backward and for its caller.
#[derive(Debug)]
pub(super) struct Saved {
    /// What the kernel keeps of each row for backward, where it will come: sum exp(x' - max x'); on CUDA the maximum too.
    pub(super) kept: Option<Tensor>,
    pub(super) divisor: Divisor,
    /// The class of the largest logit of each row, where outputs are wanted.
    pub(super) argmax: Option<Tensor>,
    /// Rows that count and whose argmax is the target.
    pub(super) correct: usize,
}

/// The forward op. Its result is the loss, or with outputs a vector: the loss (one number or one a row), the lse of
/// each row, the log-probability of the target of each row.
#[derive(Clone, Debug)]
pub(super) struct CrossEntropyOp {
    pub(super) plan: Arc<Plan>,
    pub(super) outputs: bool,
    /// Whether backward may come.
    pub(super) tracked: bool,
    pub(super) saved: Arc<OnceLock<Saved>>,
}

impl CrossEntropyOp {
    pub(super) fn new(plan: Plan, logits: &Tensor, target: &Tensor, outputs: bool) -> Self {
        Self {
            plan: Arc::new(plan),
            outputs,
            tracked: logits.track_op() || target.track_op(),
            saved: Arc::default(),
        }
    }

    fn result_shape(&self) -> Shape {
        if !self.outputs {
            return self.plan.loss_shape().into();
        }
        let losses: usize = self.plan.loss_shape().iter().product();
        (losses + 2 * self.plan.geometry.rows()).into()
    }

    /// By a kernel where there is one and nobody differentiates the gradient, else in tensor operations.
    fn gradient_of_probabilities(
        &self,
        logits: &Tensor,
        probabilities: &Tensor,
        upstream: &Tensor,
    ) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        if logits.device().is_cuda() && !keeps_gradient_graph() {
            return cuda_kernel::gradient_of_probabilities(self, logits, probabilities, upstream);
        }
        second_derivative::gradient_of_probabilities(self, logits, probabilities, upstream)
    }

    pub(super) fn saved(&self) -> Result<&Saved> {
        self.saved
            .get()
            .ok_or_else(|| Error::msg("cross_entropy: backward before forward").bt())
    }

    /// What forward kept for backward.
    pub(super) fn kept(&self) -> Result<(&Tensor, &Divisor)> {
        let saved = self.saved()?;
        match &saved.kept {
            Some(kept) => Ok((kept, &saved.divisor)),
            None => Err(Error::msg("cross_entropy: forward kept nothing for backward").bt()),
        }
    }
}

/// What forward kept lies on another device than the logits.
pub(super) fn not_here() -> Error {
    Error::msg("cross_entropy: what forward kept is not on the device of the logits").bt()
}

pub(super) fn forward(plan: Plan, logits: &Tensor, target: &Tensor) -> Result<Tensor> {
    let op = CrossEntropyOp::new(plan, logits, target, false);
    logits.apply_op2(target, op)
}

/// A tensor on the CPU over fresh storage.
pub(super) fn cpu_tensor(storage: CpuStorage, shape: impl Into<Shape>) -> Tensor {
    Tensor::from_storage(
        Storage::Cpu(storage),
        shape,
        candle_core::op::BackpropOp::none(),
        false,
    )
}

impl CustomOp2 for CrossEntropyOp {
    fn name(&self) -> &'static str {
        "cross_entropy"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let wants = Wants {
            sums: self.tracked,
            outputs: self.outputs,
        };
        let found = cpu_kernel::forward(&self.plan, (s1, l1), (s2, l2), wants)?;
        let rows = self.plan.geometry.rows();
        let saved = Saved {
            kept: found.sums.map(|sums| cpu_tensor(sums, rows)),
            divisor: Divisor::Known(found.divisor),
            argmax: found
                .argmax
                .map(|argmax| cpu_tensor(CpuStorage::U32(argmax), rows)),
            correct: found.correct,
        };
        // Forward runs once for an op; a second run would find the same.
        let _ = self.saved.set(saved);
        Ok((found.values, self.result_shape()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        s1: &CudaStorage,
        l1: &Layout,
        s2: &CudaStorage,
        l2: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let wants = Wants {
            sums: self.tracked,
            outputs: self.outputs,
        };
        let (values, saved) = cuda_kernel::forward(&self.plan, (s1, l1), (s2, l2), wants)?;
        // As on the CPU.
        let _ = self.saved.set(saved);
        Ok((values, self.result_shape()))
    }

    fn bwd(
        &self,
        logits: &Tensor,
        target: &Tensor,
        _res: &Tensor,
        upstream: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        check_gradient_fits("cross_entropy", "logits", logits)?;
        check_gradient_fits("cross_entropy", "target", target)?;
        let of_logits = if logits.track_op() {
            let op = GradientOp {
                forward: self.clone(),
            };
            Some(if keeps_gradient_graph() {
                logits.apply_op3(target, upstream, op)?
            } else {
                logits.apply_op3_no_bwd(target, upstream, &op)?
            })
        } else {
            None
        };
        let of_target = if self.plan.kind == TargetKind::Probabilities && target.track_op() {
            Some(self.gradient_of_probabilities(logits, target, upstream)?)
        } else {
            None
        };
        Ok((of_logits, of_target))
    }
}

/// The gradient with respect to the logits, as a function of logits, target and upstream gradient.
#[derive(Clone, Debug)]
pub(super) struct GradientOp {
    pub(super) forward: CrossEntropyOp,
}

impl CustomOp3 for GradientOp {
    fn name(&self) -> &'static str {
        "cross_entropy_gradient"
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
        let (kept, divisor) = self.forward.kept()?;
        let (kept, _) = kept.storage_and_layout();
        let Storage::Cpu(sums) = &*kept else {
            return Err(not_here());
        };
        let gradient = cpu_kernel::gradient(
            &self.forward.plan,
            (s1, l1),
            (s2, l2),
            (s3, l3),
            (sums, divisor.value()?),
            self.forward.outputs,
        )?;
        Ok((gradient, l1.shape().clone()))
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
        let gradient = cuda_kernel::gradient(&self.forward, (s1, l1), (s2, l2), (s3, l3))?;
        Ok((gradient, l1.shape().clone()))
    }

    fn bwd(
        &self,
        logits: &Tensor,
        target: &Tensor,
        upstream: &Tensor,
        _res: &Tensor,
        direction: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        second_derivative::backward(&self.forward, logits, target, upstream, direction)
    }
}
