#![doc = include_str!("../README.md")]
#![deny(missing_docs)]

mod analytic;
mod check;
mod compare;
mod error;
mod judge;
mod layouts;
mod numeric;
mod options;
mod protocol;
mod random;
mod report;
mod second_order;

pub use error::{Failure, GradCheckError, SetupError};
pub use layouts::InputLayout;
pub use options::{GradCheck, Mode, Tolerance};
pub use report::{Element, InputReport, Report};
pub use second_order::second_order_is_available;
