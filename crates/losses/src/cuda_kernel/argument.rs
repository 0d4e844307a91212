//! Arguments of a launch, with the types that the device sees.

use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaView, LaunchArgs, PushKernelArg};

/// The type of a kernel's parameter, as PTX tells it: integers by size alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A pointer, or an integer of 64 bits: PTX passes both as `.u64`.
    Bits64,
    /// An integer of 32 bits.
    Bits32,
    F32,
    F64,
}

/// Device memory that a kernel gets a pointer to.
pub(crate) trait Memory {
    /// Appends the address.
    fn push<'a>(&'a self, builder: &mut LaunchArgs<'a>);
}

impl<T> Memory for CudaSlice<T> {
    fn push<'a>(&'a self, builder: &mut LaunchArgs<'a>) {
        builder.arg(self);
    }
}

impl<T> Memory for CudaView<'_, T> {
    fn push<'a>(&'a self, builder: &mut LaunchArgs<'a>) {
        builder.arg(self);
    }
}

/// One argument of a launch.
#[derive(Clone, Copy)]
pub(crate) enum Argument<'a> {
    Pointer(&'a dyn Memory),
    /// A pointer to nothing, for what the kernel need not write or has not got.
    Null,
    U32(u32),
    U64(u64),
    I64(i64),
    F32(f32),
    F64(f64),
}

/// The address of [`Argument::Null`].
static NOWHERE: u64 = 0;

impl<'a> Argument<'a> {
    /// A pointer to memory, or null.
    pub(crate) fn optional<M: Memory>(memory: Option<&'a M>) -> Self {
        memory.map_or(Self::Null, |memory| Self::Pointer(memory))
    }

    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Pointer(_) | Self::Null | Self::U64(_) | Self::I64(_) => Kind::Bits64,
            Self::U32(_) => Kind::Bits32,
            Self::F32(_) => Kind::F32,
            Self::F64(_) => Kind::F64,
        }
    }

    pub(super) fn push(&'a self, builder: &mut LaunchArgs<'a>) {
        match self {
            Self::Pointer(memory) => memory.push(builder),
            Self::Null => {
                builder.arg(&NOWHERE);
            }
            Self::U32(x) => {
                builder.arg(x);
            }
            Self::U64(x) => {
                builder.arg(x);
            }
            Self::I64(x) => {
                builder.arg(x);
            }
            Self::F32(x) => {
                builder.arg(x);
            }
            Self::F64(x) => {
                builder.arg(x);
            }
        }
    }
}

impl<'a, T> From<&'a CudaSlice<T>> for Argument<'a> {
    fn from(memory: &'a CudaSlice<T>) -> Self {
        Self::Pointer(memory)
    }
}

impl<'a, 'b: 'a, T> From<&'a CudaView<'b, T>> for Argument<'a> {
    fn from(memory: &'a CudaView<'b, T>) -> Self {
        Self::Pointer(memory)
    }
}

impl From<u32> for Argument<'_> {
    fn from(x: u32) -> Self {
        Self::U32(x)
    }
}

impl From<u64> for Argument<'_> {
    fn from(x: u64) -> Self {
        Self::U64(x)
    }
}

impl From<i64> for Argument<'_> {
    fn from(x: i64) -> Self {
        Self::I64(x)
    }
}

impl From<f32> for Argument<'_> {
    fn from(x: f32) -> Self {
        Self::F32(x)
    }
}

impl From<f64> for Argument<'_> {
    fn from(x: f64) -> Self {
        Self::F64(x)
    }
}
