//! The CPU kernels: two register-blocked forward passes, two backward passes that use what pooling leaves out, and
//! the general form of both.

mod by_position;
pub(super) mod channel_lanes;
pub(super) mod column_gradient;
pub(super) mod column_lanes;
mod entries;
pub(super) mod general;
pub(super) mod halving;
pub(super) mod patches;
pub(super) mod sparse_backward;
mod streams;
mod weight_gradient;
