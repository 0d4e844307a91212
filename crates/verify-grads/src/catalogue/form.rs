//! The two forms of a loss, and how each is checked.

use crate::case::{Case, Outcome};
use candle_core::{DType, Result, Tensor};
use candle_gradcheck::GradCheck;

/// What a case looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// The gradient of the fused loss.
    Fused,
    /// The gradient of the loss out of tensor ops.
    Composed,
    /// The gradient of the fused loss's gradient.
    SecondOrder,
}

impl Form {
    /// Both forms in first order.
    pub(super) const FIRST_ORDER: [Self; 2] = [Self::Fused, Self::Composed];

    /// What there is to check in `dtype`. The second order computes what the first does in the same types, so f64 and the type
    /// that models train in are enough.
    pub(super) fn all(dtype: DType) -> impl Iterator<Item = Self> {
        let second = matches!(dtype, DType::F64 | DType::F32);
        Self::FIRST_ORDER
            .into_iter()
            .chain(second.then_some(Self::SecondOrder))
    }

    /// Its part of a case's name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Fused => "fused",
            Self::Composed => "composed",
            Self::SecondOrder => "second_order",
        }
    }

    /// Whether the fused loss is to be called.
    pub(super) fn is_fused(self) -> bool {
        self != Self::Composed
    }

    /// Checks `loss` in the order of this form.
    pub(super) fn check<F>(self, check: GradCheck, loss: F, inputs: &[Tensor]) -> Result<Outcome>
    where
        F: Fn(&[Tensor]) -> Result<Tensor>,
    {
        let report = match self {
            Self::Fused | Self::Composed => check.check(loss, inputs)?,
            Self::SecondOrder => check.check_second_order(loss, inputs)?,
        };
        Ok(report.into())
    }

    /// Marks a case of this form as one that needs Candle to keep the graphs of gradients, if it does.
    pub(super) fn mark(self, case: Case) -> Case {
        match self {
            Self::Fused | Self::Composed => case,
            Self::SecondOrder => case.keeping_graphs(),
        }
    }
}
