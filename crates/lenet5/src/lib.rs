//! lenet5.
