//! candle-losses.

mod binary_cross_entropy;
pub mod composed;
mod cross_entropy;
mod focal;
mod graph;
mod huber;
mod kl_div;
mod l1;
mod mse;
mod nll;
pub mod pointwise;
mod poisson_nll;
mod reduction;
mod smooth_l1;
mod soft_margin;

pub use binary_cross_entropy::{BinaryCrossEntropyWithLogits, binary_cross_entropy_with_logits};
pub use cross_entropy::{CrossEntropy, CrossEntropyOutput, TargetOutOfRange, cross_entropy};
pub use focal::{Focal, focal};
pub use huber::{Huber, huber};
pub use kl_div::{KlDiv, kl_div};
pub use l1::{L1, l1};
pub use mse::{Mse, mse};
pub use nll::{Nll, nll};
pub use pointwise::{Dual, Float, Pointwise, PointwiseLoss};
pub use poisson_nll::{PoissonNll, poisson_nll};
pub use reduction::{EmptyPolicy, Reduction};
pub use smooth_l1::{SmoothL1, smooth_l1};
pub use soft_margin::{SoftMargin, soft_margin};
