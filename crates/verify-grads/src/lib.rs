//! The proof that the workspace's gradients are right: a catalogue of gradient checks and golden values of PyTorch.
//!
//! A [`Case`] checks one thing and says how far off it was. [`catalogue()`] has every loss with every option, the vision
//! ops, every parameter of LeNet-5, and negative controls; [`golden`] compares with recorded PyTorch values. [`cli`] is
//! the command `verify-grads`.
#![deny(missing_docs)]

pub mod case;
pub mod catalogue;
pub mod cli;
pub mod device;
pub mod golden;
mod kept_graphs;
pub mod report;

pub use case::{Case, Outcome};
pub use catalogue::catalogue;
pub use report::{CaseResult, Status, Summary};
