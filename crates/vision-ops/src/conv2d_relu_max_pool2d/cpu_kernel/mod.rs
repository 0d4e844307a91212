//! The CPU kernels: two register-blocked forward passes, one sparse backward pass, and the general form of both.

pub(super) mod channel_lanes;
pub(super) mod column_lanes;
pub(super) mod general;
pub(super) mod halving;
pub(super) mod patches;
pub(super) mod sparse_backward;
