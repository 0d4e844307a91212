//! What tensors hold: [`Element`] loads any of the four float types into compute lanes and rounds results back once.

use half::{bf16, f16};

use crate::vector::{Float, MAX_LANES, Simd, Vector};

/// A float type of tensors, and the type that kernels compute in for it: `f32` for `f16` and `bf16`, else itself.
pub trait Element: Copy + Default + Send + Sync + 'static {
    /// The type that kernels compute in.
    type Compute: Float;

    /// Exact.
    fn widen(self) -> Self::Compute;
    /// Rounded to nearest, ties to even.
    fn narrow(x: Self::Compute) -> Self;

    /// Loads and widens as many elements as there are compute lanes.
    ///
    /// # Safety
    /// `p` is valid for reading them.
    unsafe fn load_ptr<S: Simd>(s: S, p: *const Self) -> <Self::Compute as Float>::V<S>;

    /// Loads and widens `n` elements and puts `fill`, rounded to this type, into the other lanes.
    ///
    /// # Safety
    /// `n` is at most the number of compute lanes and `p` is valid for reading `n` elements.
    #[inline(always)]
    unsafe fn load_partial_ptr<S: Simd>(
        s: S,
        p: *const Self,
        n: usize,
        fill: Self::Compute,
    ) -> <Self::Compute as Float>::V<S> {
        let mut data = [Self::narrow(fill); MAX_LANES];
        // SAFETY: the caller vouches for n elements at `p`; the array holds as many as any vector has lanes.
        unsafe {
            std::ptr::copy_nonoverlapping(p, data.as_mut_ptr(), n);
            Self::load_ptr(s, data.as_ptr())
        }
    }

    /// Rounds the lanes once and stores as many elements.
    ///
    /// # Safety
    /// `p` is valid for writing them.
    unsafe fn store_ptr<S: Simd>(s: S, v: <Self::Compute as Float>::V<S>, p: *mut Self);

    /// Rounds and stores the first `n` lanes.
    ///
    /// # Safety
    /// `n` is at most the number of compute lanes and `p` is valid for writing `n` elements.
    #[inline(always)]
    unsafe fn store_partial_ptr<S: Simd>(
        s: S,
        v: <Self::Compute as Float>::V<S>,
        p: *mut Self,
        n: usize,
    ) {
        let mut narrow = [Self::default(); MAX_LANES];
        // SAFETY: the array holds as many elements as any vector has lanes; the caller vouches for n at `p`.
        unsafe {
            Self::store_ptr(s, v, narrow.as_mut_ptr());
            std::ptr::copy_nonoverlapping(narrow.as_ptr(), p, n);
        }
    }

    /// [`Vector::exp_nonpositive`], as accurate as elements of this type deserve.
    fn exp_nonpositive<S: Simd>(
        x: <Self::Compute as Float>::V<S>,
    ) -> <Self::Compute as Float>::V<S>;
}

macro_rules! compute_element {
    ($t:ty) => {
        impl Element for $t {
            type Compute = $t;
            #[inline(always)]
            fn widen(self) -> $t {
                self
            }
            #[inline(always)]
            fn narrow(x: $t) -> $t {
                x
            }
            #[inline(always)]
            unsafe fn load_ptr<S: Simd>(s: S, p: *const $t) -> <$t as Float>::V<S> {
                // SAFETY: the caller's promise is the same.
                unsafe { Vector::load_ptr(s, p) }
            }
            #[inline(always)]
            fn exp_nonpositive<S: Simd>(x: <$t as Float>::V<S>) -> <$t as Float>::V<S> {
                x.exp_nonpositive()
            }
            #[inline(always)]
            unsafe fn load_partial_ptr<S: Simd>(
                s: S,
                p: *const $t,
                n: usize,
                fill: $t,
            ) -> <$t as Float>::V<S> {
                // SAFETY: the caller's promise is the same.
                unsafe { Vector::load_partial_ptr(s, p, n, fill) }
            }
            #[inline(always)]
            unsafe fn store_ptr<S: Simd>(_: S, v: <$t as Float>::V<S>, p: *mut $t) {
                // SAFETY: the caller's promise is the same.
                unsafe { v.store_ptr(p) }
            }
            #[inline(always)]
            unsafe fn store_partial_ptr<S: Simd>(
                _: S,
                v: <$t as Float>::V<S>,
                p: *mut $t,
                n: usize,
            ) {
                // SAFETY: the caller's promise is the same.
                unsafe { v.store_partial_ptr(p, n) }
            }
        }
    };
}
compute_element!(f32);
compute_element!(f64);

macro_rules! half_element {
    ($t:ty, $load:ident, $store:ident) => {
        impl Element for $t {
            type Compute = f32;
            #[inline(always)]
            fn widen(self) -> f32 {
                self.to_f32()
            }
            #[inline(always)]
            fn narrow(x: f32) -> $t {
                <$t>::from_f32(x)
            }
            #[inline(always)]
            unsafe fn load_ptr<S: Simd>(s: S, p: *const $t) -> S::F32 {
                // SAFETY: the caller's promise is the same.
                unsafe { s.$load(p) }
            }
            #[inline(always)]
            fn exp_nonpositive<S: Simd>(x: S::F32) -> S::F32 {
                x.exp_nonpositive_for_half()
            }
            #[inline(always)]
            unsafe fn store_ptr<S: Simd>(s: S, v: S::F32, p: *mut $t) {
                // SAFETY: the caller's promise is the same.
                unsafe { s.$store(v, p) }
            }
        }
    };
}
half_element!(f16, load_f16, store_f16);
half_element!(bf16, load_bf16, store_bf16);
