//! The rows that count, read on the host.

use super::plan::{Plan, TargetOutOfRange};
use crate::Reduction;
use candle_core::{DType, Device, Result, Tensor};

/// A call with its targets and weights.
#[derive(Debug)]
pub(super) struct Counted {
    pub(super) plan: Plan,
    /// The class of each row, in the targets' row-major order; none where the row does not count.
    pub(super) classes: Vec<Option<usize>>,
    /// The class weights.
    weight: Option<Vec<f64>>,
    /// What the sum is divided by; 0 for the mean over nothing.
    pub(super) divisor: f64,
}

impl Counted {
    /// # Errors
    /// Where a target is neither a class nor ignored.
    pub(super) fn new(plan: Plan, targets: &Tensor) -> Result<Self> {
        let targets = targets.to_device(&Device::Cpu)?.to_dtype(DType::I64)?;
        let targets = targets.flatten_all()?.to_vec1::<i64>()?;
        let classes: Vec<Option<usize>> = (targets.into_iter().enumerate())
            .map(|(row, value)| {
                if plan.options.ignore_index == Some(value) {
                    return Ok(None);
                }
                match usize::try_from(value) {
                    Ok(class) if class < plan.classes => Ok(Some(class)),
                    _ => Err(TargetOutOfRange {
                        row,
                        value,
                        classes: plan.classes,
                    }
                    .into()),
                }
            })
            .collect::<Result<_>>()?;
        let weight = match &plan.options.weight {
            Some(weight) => {
                let wide = weight.to_device(&Device::Cpu)?;
                Some(wide.to_dtype(DType::F64)?.to_vec1::<f64>()?)
            }
            None => None,
        };
        let counted = classes.iter().flatten();
        let divisor = match (plan.options.reduction, &weight) {
            (Reduction::Sum | Reduction::None, _) => 1.0,
            (Reduction::Mean, None) => counted.count() as f64,
            (Reduction::Mean, Some(weight)) => counted.map(|&class| weight[class]).sum(),
        };
        Ok(Self {
            plan,
            classes,
            weight,
            divisor,
        })
    }

    /// The weight of a row that counts.
    pub(super) fn weight(&self, class: usize) -> f64 {
        self.weight.as_ref().map_or(1.0, |weight| weight[class])
    }
}
