//! What the CPU kernels share: a matrix product, transposition, padding, sums in a fixed order, temporaries, and the lanes of an
//! instruction set.

pub(crate) mod lanes;
pub(crate) mod pad;
pub(crate) mod partial_sums;
pub(crate) mod product;
pub(crate) mod scratch;
pub(crate) mod turn;
