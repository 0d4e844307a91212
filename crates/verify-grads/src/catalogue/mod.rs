//! The catalogue: every loss with every option, the vision ops, the whole LeNet-5, and negative controls.

mod controls;
mod cross_entropy;
mod cross_entropy_agreement;
mod form;
mod inputs;
mod lenet;
mod nll;
mod pointwise;
mod vision;

use crate::case::Case;
use candle_core::DType;
use candle_losses::Reduction;

/// The dtypes of the losses.
const FLOATS: [DType; 4] = [DType::F64, DType::F32, DType::F16, DType::BF16];

/// The reductions and their names.
const REDUCTIONS: [(&str, Reduction); 3] = [
    ("mean", Reduction::Mean),
    ("sum", Reduction::Sum),
    ("none", Reduction::None),
];

/// All cases of the catalogue, in a fixed order, with unique names.
#[must_use]
pub fn catalogue() -> Vec<Case> {
    let mut cases = cross_entropy::cases();
    cases.extend(cross_entropy_agreement::cases());
    cases.extend(nll::cases());
    cases.extend(pointwise::cases());
    cases.extend(vision::cases());
    cases.extend(lenet::cases());
    cases.extend(controls::cases());
    cases
}
