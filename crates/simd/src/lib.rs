//! SIMD for Candle custom ops: an instruction set chosen once at run time, vector types over it, and what a CPU
//! kernel needs beside them.
//!
//! A kernel is written once, generic over a [`Simd`] token, and [`Isa::dispatch`] runs it with the widest
//! instruction set the machine has. Holding a token proves that the machine has the instructions, so everything on
//! vectors is safe; only pointers are not.
//!
//! ```
//! use candle_simd::{Isa, Kernel, Simd, Vector};
//!
//! struct Sum<'a>(&'a [f32]);
//! impl Kernel for Sum<'_> {
//!     type Output = f32;
//!     #[inline(always)]
//!     fn run<S: Simd>(self, s: S) -> f32 {
//!         let mut chunks = self.0.chunks_exact(S::F32::LANES);
//!         let mut sum = S::F32::splat(s, 0.0);
//!         for chunk in &mut chunks {
//!             sum = sum + S::F32::load(s, chunk);
//!         }
//!         sum = sum + S::F32::load_partial(s, chunks.remainder(), 0.0);
//!         sum.reduce_add()
//!     }
//! }
//! let ones = [1.0; 37];
//! assert_eq!(Isa::active().dispatch(Sum(&ones)), 37.0);
//! ```
//!
//! Two rules keep a kernel fast: everything between [`Kernel::run`] and the intrinsics is `#[inline(always)]`, closures
//! included, because only code inlined into the dispatch trampoline is compiled for the wide instruction set; and
//! threads are started outside, [`parallel`] first and `dispatch` in each chunk.
//!
//! | [`Isa`] | needs | `f32` lanes | `f64` lanes |
//! |---|---|---|---|
//! | `Avx512` | avx512f, bw, dq, vl, fma, f16c, popcnt | 16 | 8 |
//! | `Avx2` | avx2, fma, f16c, popcnt | 8 | 4 |
//! | `Portable` | nothing | 8 | 4 |
//!
//! Elsewhere the portable code is compiled for what the target guarantees: on aarch64 its arrays become NEON vectors with
//! fused multiply-add.
//!
//! The environment variable `CANDLE_SIMD=avx512|avx2|portable` asks for a narrower one.

#![deny(missing_docs)]

pub mod buffer;
mod element;
pub mod heap;
mod isa;
mod math;
pub mod parallel;
mod portable;
pub mod prefetch;
mod vector;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use element::Element;
pub use isa::{Isa, Kernel, with_isa};
pub use vector::{Float, LaneNumbers, MAX_LANES, Simd, Vector};

#[cfg(test)]
mod tests;
