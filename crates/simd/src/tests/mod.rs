//! Every operation on every instruction set of this machine, against scalar code of the standard library.

mod foundation;
mod half_types;
mod lanes;
mod math;
mod moves;

use crate::{Float, Isa, Kernel, Simd, Vector};

/// Applies a vector function to all of `data`, the tail through a partial vector.
pub(crate) fn map<T: Float>(isa: Isa, data: &[T], op: impl UnaryOp) -> Vec<T> {
    struct Map<'a, T, O>(&'a [T], O);
    impl<T: Float, O: UnaryOp> Kernel for Map<'_, T, O> {
        type Output = Vec<T>;
        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> Vec<T> {
            let mut out = vec![T::ZERO; self.0.len()];
            let lanes = T::V::<S>::LANES;
            for (x, y) in self.0.chunks(lanes).zip(out.chunks_mut(lanes)) {
                let v = T::V::<S>::load_partial(s, x, T::ONE);
                self.1.apply(v).store_partial(y);
            }
            out
        }
    }
    isa.dispatch(Map(data, op))
}

/// A function of a vector of any type.
pub(crate) trait UnaryOp {
    fn apply<V: Vector>(&self, x: V) -> V;
}

/// Names a [`UnaryOp`] for an expression.
macro_rules! unary {
    ($name:ident, $x:ident => $e:expr) => {
        pub(crate) struct $name;
        impl crate::tests::UnaryOp for $name {
            #[inline(always)]
            fn apply<V: crate::Vector>(&self, $x: V) -> V {
                $e
            }
        }
    };
}
pub(crate) use unary;
