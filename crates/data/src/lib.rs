//! fashion-mnist.
