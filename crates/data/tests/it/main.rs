//! The crate's integration tests, one binary.
//!
//! Tests on the real data find it or fetch it; where it is not to be had they fail and say why.

mod batching;
mod fetching;
mod malformed;
mod properties;
mod real_data;
mod resizing;
mod searching;
mod support;
