//! verify-grads.
