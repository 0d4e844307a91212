//! The custom ops: forward over logits and targets, and its gradient as an op that has a backward of its own.

use std::sync::{Arc, OnceLock};

use candle_core::{
    CpuStorage, CustomOp2, CustomOp3, Error, Layout, Result, Shape, Storage, Tensor,
};

use super::cpu_kernel::{self, Wants};
use super::plan::{Plan, TargetKind};
use super::second_derivative;
use crate::graph::keeps_gradient_graph;

/// What forward keeps for backward and for its caller.
#[derive(Debug)]
pub(super) struct Saved {
    /// sum exp(x' - max x') of each row, where backward will want it.
    pub(super) sums: Option<Tensor>,
    /// What the losses were divided by; 0 for a mean over nothing.
    pub(super) divisor: f64,
    /// The class of the largest logit of each row, where outputs are wanted.
    pub(super) argmax: Option<Vec<u32>>,
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

    pub(super) fn saved(&self) -> Result<&Saved> {
        self.saved
            .get()
            .ok_or_else(|| Error::msg("cross_entropy: backward before forward").bt())
    }
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
        let saved = Saved {
            sums: found
                .sums
                .map(|sums| cpu_tensor(sums, self.plan.geometry.rows())),
            divisor: found.divisor,
            argmax: found.argmax,
            correct: found.correct,
        };
        // Forward runs once for an op; a second run would find the same.
        let _ = self.saved.set(saved);
        Ok((found.values, self.result_shape()))
    }

    fn bwd(
        &self,
        logits: &Tensor,
        target: &Tensor,
        _res: &Tensor,
        upstream: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
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
            Some(second_derivative::gradient_of_probabilities(
                self, logits, target, upstream,
            )?)
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
        let saved = self.forward.saved()?;
        let sums = saved
            .sums
            .as_ref()
            .ok_or_else(|| Error::msg("cross_entropy: forward saved no sums").bt())?;
        let (sums, _) = sums.storage_and_layout();
        let Storage::Cpu(sums) = &*sums else {
            return Err(Error::msg("cross_entropy: the sums of forward are not on the CPU").bt());
        };
        let gradient = cpu_kernel::gradient(
            &self.forward.plan,
            (s1, l1),
            (s2, l2),
            (s3, l3),
            (sums, saved.divisor),
            self.forward.outputs,
        )?;
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
