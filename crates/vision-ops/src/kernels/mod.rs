//! What the CPU kernels of several ops share: a matrix product, transposition, and temporaries.

pub(crate) mod product;
pub(crate) mod scratch;
pub(crate) mod turn;
