//! What a loss says about its CUDA kernels.

use candle_core::Device;

/// The CUDA kernels of a loss, compiled from the same formula written once more in C++.
///
/// A formula in Rust cannot run on a GPU by itself. Its twin is a `.cu` with a struct of the same three functions, of which only
/// `value` is needed, and a line that stamps the kernels for every dtype, layout and derivative:
///
/// ```cuda
/// #include "pointwise/pointwise.cuh"
///
/// struct LogCosh : Formula<LogCosh> {
///   template <class F>
///   POINTWISE_INLINE F value(F x, F t) const {
///     const F d = (x - t).abs();
///     return d + (F::of(-2.0) * d).exp().ln_1p() - F::of(0.6931471805599453);
///   }
/// };
/// POINTWISE_KERNELS(log_cosh, LogCosh)
/// ```
///
/// `F` has the functions of [`Float`](super::Float) under the same names. The build script of the crate that holds the `.cu`
/// compiles it with `cudaforge`; cargo tells it in `DEP_CANDLE_LOSSES_INCLUDE` where the header lies, if candle-losses is a
/// direct dependency with the feature `cuda`:
///
/// ```text
/// cudaforge::KernelBuilder::new()
///     .source_files(["src/log_cosh.cu"])
///     .include_path(std::env::var("DEP_CANDLE_LOSSES_INCLUDE")?)
///     .arg("-std=c++17")
///     .build_ptx()?
///     .write(out.join("ptx.rs"))?;
/// ```
///
/// Then the loss names them:
///
/// ```
/// use candle_losses::pointwise::CudaKernels;
/// use candle_losses::{Float, Pointwise};
///
/// struct LogCosh;
///
/// impl Pointwise for LogCosh {
///     fn value<F: Float>(&self, x: F, t: F) -> F {
///         let d = (x - t).abs();
///         d + (F::of(-2.0) * d).exp().ln_1p() - F::of(std::f64::consts::LN_2)
///     }
///     fn cuda_kernels(&self) -> Option<CudaKernels> {
///         # const PTX: &str = "";
///         Some(CudaKernels::new("my_crate_log_cosh", PTX, "log_cosh"))
///     }
/// }
/// ```
///
/// The crate's tests should compare the two: nothing else holds the formulas together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CudaKernels {
    #[cfg_attr(not(feature = "cuda"), allow(dead_code))]
    pub(super) module: &'static str,
    #[cfg_attr(not(feature = "cuda"), allow(dead_code))]
    pub(super) ptx: &'static str,
    #[cfg_attr(not(feature = "cuda"), allow(dead_code))]
    pub(super) prefix: &'static str,
    #[cfg_attr(not(feature = "cuda"), allow(dead_code))]
    pub(super) constants: [f64; 4],
}

impl CudaKernels {
    /// Kernels by the name that `POINTWISE_KERNELS` was given, and the PTX that they are in.
    ///
    /// `module` is a name for that PTX which no other has in the process: Candle keeps loaded modules by it.
    pub const fn new(module: &'static str, ptx: &'static str, name: &'static str) -> Self {
        Self {
            module,
            ptx,
            prefix: name,
            constants: [0.0; 4],
        }
    }

    /// The numbers that the struct in the `.cu` gets, such as a delta, if it can be made from them: by
    /// `__device__ explicit Name(Constants constants)`, which reads `constants.at[0]` to `constants.at[3]`. Those that are not
    /// given are 0.
    ///
    /// # Panics
    ///
    /// At compile time where it is called there: if there are more than four.
    pub const fn constants<const N: usize>(mut self, constants: [f64; N]) -> Self {
        const { assert!(N <= 4, "a pointwise loss has at most four constants") };
        let mut i = 0;
        while i < N {
            self.constants[i] = constants[i];
            i += 1;
        }
        self
    }
}

/// Whether the losses of this crate run fused on this device; elsewhere they are composed of tensor ops.
pub(crate) fn has_kernels(device: &Device) -> bool {
    device.is_cpu() || (cfg!(feature = "cuda") && device.is_cuda())
}
