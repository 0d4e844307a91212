//! How many numbers a vector of an instruction set holds, for code that lays out memory before it dispatches.

use candle_simd::{Float, Isa, Kernel, Simd, Vector};

/// Lanes of an instruction set.
pub(crate) fn lanes<F: Float>(isa: Isa) -> usize {
    struct Lanes<F>(std::marker::PhantomData<F>);
    impl<F: Float> Kernel for Lanes<F> {
        type Output = usize;
        #[inline(always)]
        fn run<S: Simd>(self, _: S) -> usize {
            F::V::<S>::LANES
        }
    }
    isa.dispatch(Lanes::<F>(std::marker::PhantomData))
}
