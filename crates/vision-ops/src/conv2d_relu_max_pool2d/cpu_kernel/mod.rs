//! The CPU kernels: two register-blocked forward passes, one sparse backward pass, and the general form of both.

mod by_position;
pub(super) mod channel_lanes;
pub(super) mod column_lanes;
mod entries;
pub(super) mod general;
pub(super) mod halving;
pub(super) mod patches;
pub(super) mod sparse_backward;
mod weight_gradient;
