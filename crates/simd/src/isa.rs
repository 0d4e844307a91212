//! The instruction set: detected once, lowered by `CANDLE_SIMD` or a test hook, and the only way to a [`Simd`] token.

use std::cell::Cell;
use std::sync::OnceLock;

use crate::portable::Portable;
use crate::vector::Simd;
#[cfg(target_arch = "x86_64")]
use crate::x86::{Avx2, Avx512};

/// A computation written once for every instruction set; see the crate's example.
pub trait Kernel {
    /// What [`Self::run`] returns.
    type Output;

    /// The computation. Implementations are `#[inline(always)]`, as is all they call on vectors.
    fn run<S: Simd>(self, s: S) -> Self::Output;
}

/// An instruction set, narrowest first.
///
/// A value is a wish, not a proof: [`Self::dispatch`] lowers it to what the machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Isa {
    /// Plain Rust on arrays, for any machine; the compiler vectorises it with what the target guarantees.
    Portable,
    /// AVX2 with FMA, F16C and POPCNT.
    Avx2,
    /// AVX-512 F, BW, DQ and VL with FMA, F16C and POPCNT.
    Avx512,
}

thread_local! {
    static FORCED: Cell<Option<Isa>> = const { Cell::new(None) };
}

impl Isa {
    pub(crate) const ALL: [Self; 3] = [Self::Portable, Self::Avx2, Self::Avx512];

    /// The widest instruction set that the machine has. Detected on the first call.
    #[inline]
    pub fn best() -> Self {
        static BEST: OnceLock<Isa> = OnceLock::new();
        *BEST.get_or_init(Self::detect)
    }

    #[cfg(target_arch = "x86_64")]
    fn detect() -> Self {
        let avx2 = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c")
            && is_x86_feature_detected!("popcnt");
        let avx512 = avx2
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        match (avx512, avx2) {
            (true, _) => Self::Avx512,
            (false, true) => Self::Avx2,
            (false, false) => Self::Portable,
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn detect() -> Self {
        Self::Portable
    }

    /// The instruction set that ops started on this thread use: the one a surrounding [`with_isa`] asks for, else the
    /// one `CANDLE_SIMD` asks for, else [`Self::best`]. An op reads it once and passes it to its worker threads.
    #[inline]
    pub fn active() -> Self {
        static CONFIGURED: OnceLock<Isa> = OnceLock::new();
        FORCED.get().unwrap_or_else(|| {
            *CONFIGURED
                .get_or_init(|| Self::configured(std::env::var("CANDLE_SIMD").ok().as_deref()))
        })
    }

    /// What the setting of `CANDLE_SIMD` asks for on this machine. A name that is unknown or asks for more than the
    /// machine has is reported as a warning and the best is used.
    pub(crate) fn configured(setting: Option<&str>) -> Self {
        let best = Self::best();
        let Some(setting) = setting.filter(|s| !s.is_empty()) else {
            return best;
        };
        match Self::from_name(setting) {
            Some(isa) if isa <= best => isa,
            Some(isa) => {
                tracing::warn!(
                    "CANDLE_SIMD asks for {}, which this machine lacks; using {}",
                    isa.name(),
                    best.name()
                );
                best
            }
            None => {
                tracing::warn!(
                    "CANDLE_SIMD is {setting:?}; expected avx512, avx2 or portable; using {}",
                    best.name()
                );
                best
            }
        }
    }

    /// The instruction sets that this machine has, narrowest first. For tests that run on each.
    pub fn available() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|&isa| isa <= Self::best())
    }

    /// The name as `CANDLE_SIMD` spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|isa| isa.name().eq_ignore_ascii_case(name))
    }

    /// Runs `kernel` with this instruction set, or with the machine's best where that is narrower.
    #[inline]
    pub fn dispatch<K: Kernel>(self, kernel: K) -> K::Output {
        match self.min(Self::best()) {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `best` is AVX-512 only where every feature the trampoline enables was detected.
            Self::Avx512 => unsafe { run_avx512(kernel) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `best` is at least AVX2 only where every feature the trampoline enables was detected.
            Self::Avx2 => unsafe { run_avx2(kernel) },
            _ => run_portable(kernel),
        }
    }
}

/// Runs `f` with [`Isa::active`] lowered to `isa` on this thread; with the machine's best where `isa` asks for more.
///
/// The ops of this workspace read [`Isa::active`] on the thread that calls them and hand it to their workers, so the
/// whole op runs with `isa`. The former state comes back when `f` returns or panics.
pub fn with_isa<T>(isa: Isa, f: impl FnOnce() -> T) -> T {
    struct Restore(Option<Isa>);
    impl Drop for Restore {
        fn drop(&mut self) {
            FORCED.set(self.0);
        }
    }
    let _restore = Restore(FORCED.replace(Some(isa.min(Isa::best()))));
    f()
}

/// A function of its own, as the trampolines below are, so that each caller of `dispatch` shares one copy.
#[inline(never)]
fn run_portable<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Portable::new())
}

/// # Safety
/// The machine has the features named below.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,popcnt")]
unsafe fn run_avx512<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: the caller vouches for the features.
    kernel.run(unsafe { Avx512::new() })
}

/// # Safety
/// The machine has the features named below.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c,popcnt")]
unsafe fn run_avx2<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: the caller vouches for the features.
    kernel.run(unsafe { Avx2::new() })
}
