//! Launching the kernels that `pointwise.cuh` makes of a loss: the passes of `cpu_kernel.rs` on CUDA.
//!
//! Where every operand is contiguous from an address of whole vectors, or one number for all elements, the loss and its first
//! derivatives take 16 bytes at a time. All else takes an element at a time, from wherever it lies. Sums come in parts, one
//! a block, whose number depends on the number of elements alone, and a second kernel adds them: the same bits from run to run.

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaView};
use candle_core::{CudaDevice, CudaStorage, DType, Layout, Result, Shape};

use super::CudaKernels;
use super::cpu_kernel::Partial;
use crate::cuda_kernel::{Argument, CudaElement, Levels, Module, Threads, filled_later, ptx};

/// Threads of a block, as the kernels say.
const BLOCK: u32 = 256;

/// Parts of a sum at most; a second block adds them.
const PARTS: u32 = 1024;

const TOTAL: Module = Module {
    name: "candle_losses_pointwise_total",
    ptx: ptx::POINTWISE_TOTAL,
};

/// A tensor's memory, seen in the shape of the input.
pub(super) struct Operand<'a> {
    storage: Storage<'a>,
    layout: Layout,
}

enum Storage<'a> {
    Borrowed(&'a CudaStorage),
    Owned(CudaStorage),
}

impl<'a> Operand<'a> {
    pub(super) fn new(storage: &'a CudaStorage, layout: &Layout) -> Self {
        Self {
            storage: Storage::Borrowed(storage),
            layout: layout.clone(),
        }
    }

    /// In another dtype, where it has not that already.
    pub(super) fn of_dtype(
        storage: &'a CudaStorage,
        layout: &Layout,
        dtype: DType,
    ) -> Result<Self> {
        if storage.dtype() == dtype {
            return Ok(Self::new(storage, layout));
        }
        Ok(Self {
            storage: Storage::Owned(storage.to_dtype(layout, dtype)?),
            layout: Layout::contiguous(layout.shape()),
        })
    }

    pub(super) fn broadcast_as(mut self, shape: &Shape) -> Result<Self> {
        self.layout = self.layout.broadcast_as(shape)?;
        Ok(self)
    }

    fn storage(&self) -> &CudaStorage {
        match &self.storage {
            Storage::Borrowed(storage) => storage,
            Storage::Owned(storage) => storage,
        }
    }

    /// The memory from the first element on.
    fn memory<E: CudaElement>(&self) -> Result<CudaView<'_, E>> {
        let slice = self.storage().as_cuda_slice::<E>()?;
        Ok(slice.slice(self.layout.start_offset()..))
    }

    /// Whether all elements are the same one.
    fn is_one(&self) -> bool {
        let mut axes = self.layout.dims().iter().zip(self.layout.stride());
        axes.all(|(&dim, &stride)| dim == 1 || stride == 0)
    }

    /// Whether a thread can load 16 bytes of it at once.
    fn is_vectors(&self) -> bool {
        let bytes = self.storage().dtype().size_in_bytes();
        self.layout.is_contiguous() && (self.layout.start_offset() * bytes).is_multiple_of(16)
    }
}

/// One pass over the elements.
pub(super) struct Pass<'a> {
    pub(super) kernels: CudaKernels,
    pub(super) partial: Partial,
    pub(super) input: Operand<'a>,
    pub(super) target: Operand<'a>,
    pub(super) parameter: Option<Operand<'a>>,
    pub(super) weight: Option<Operand<'a>>,
    /// In the type that is computed in.
    pub(super) upstream: [Option<Operand<'a>>; 2],
    pub(super) scale: f64,
}

/// The type that a pass's results are stored in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stored {
    /// That which is computed in.
    Wide,
    /// The input's.
    Narrow,
}

/// Memory of the operands, in the order of the kernels' parameters. Those from the parameter on may be missing.
struct Memory<'a, E: CudaElement> {
    x: CudaView<'a, E>,
    t: CudaView<'a, E>,
    p: Option<CudaView<'a, E>>,
    w: Option<CudaView<'a, E>>,
    g: Option<CudaView<'a, E::Compute>>,
    k: Option<CudaView<'a, E::Compute>>,
}

impl<E: CudaElement> Memory<'_, E> {
    fn arguments(&self) -> Vec<Argument<'_>> {
        vec![
            (&self.x).into(),
            (&self.t).into(),
            Argument::optional(self.p.as_ref()),
            Argument::optional(self.w.as_ref()),
            Argument::optional(self.g.as_ref()),
            Argument::optional(self.k.as_ref()),
        ]
    }
}

impl Pass<'_> {
    /// The operands in the order of `Place` in `pointwise.cuh`.
    fn operands(&self) -> [Option<&Operand<'_>>; 6] {
        let [g, k] = &self.upstream;
        [
            Some(&self.input),
            Some(&self.target),
            self.parameter.as_ref(),
            self.weight.as_ref(),
            g.as_ref(),
            k.as_ref(),
        ]
    }

    fn memory<E: CudaElement>(&self) -> Result<Memory<'_, E>> {
        fn of<'a, E: CudaElement>(
            operand: &'a Option<Operand<'_>>,
        ) -> Result<Option<CudaView<'a, E>>> {
            operand.as_ref().map(Operand::memory).transpose()
        }
        let [g, k] = &self.upstream;
        Ok(Memory {
            x: self.input.memory()?,
            t: self.target.memory()?,
            p: of(&self.parameter)?,
            w: of(&self.weight)?,
            g: of(g)?,
            k: of(k)?,
        })
    }

    fn device(&self) -> &CudaDevice {
        self.input.storage().device()
    }

    fn count(&self) -> usize {
        self.input.layout.shape().elem_count()
    }

    fn module(&self) -> Module {
        Module {
            name: self.kernels.module,
            ptx: self.kernels.ptx,
        }
    }

    /// Whether each thread may take vectors.
    fn in_vectors(&self) -> bool {
        let first = matches!(
            self.partial,
            Partial::Value | Partial::Input | Partial::Target
        );
        let mut operands = self.operands().into_iter().flatten();
        first && operands.all(|operand| operand.is_one() || operand.is_vectors())
    }

    /// A bit for each operand that is one number.
    fn ones(&self) -> u32 {
        let one = |operand: Option<&Operand<'_>>| operand.is_some_and(Operand::is_one);
        let bits = self.operands().into_iter().enumerate();
        bits.fold(0, |ones, (place, operand)| {
            ones | u32::from(one(operand)) << place
        })
    }

    fn levels(&self) -> Levels<6> {
        let operands = self.operands();
        let dims = self.input.layout.dims();
        Levels::new(dims.iter().enumerate().map(|(axis, &dim)| {
            let stride =
                |operand: Option<&Operand<'_>>| operand.map_or(0, |o| o.layout.stride()[axis]);
            (dim, operands.map(stride))
        }))
    }

    fn constants<'c>(&self) -> [Argument<'c>; 4] {
        self.kernels.constants.map(Argument::F64)
    }

    /// Every element's result.
    pub(super) fn map<E: CudaElement>(&self, stored: Stored) -> Result<CudaStorage> {
        match stored {
            Stored::Wide => self.map_into::<E, E::Compute>(|wide| [wide.into(), Argument::Null]),
            Stored::Narrow => self.map_into::<E, E>(|narrow| [Argument::Null, narrow.into()]),
        }
    }

    fn map_into<E: CudaElement, O: CudaElement>(
        &self,
        outputs: for<'o> fn(&'o CudaSlice<O>) -> [Argument<'o>; 2],
    ) -> Result<CudaStorage> {
        let (device, count) = (self.device(), self.count());
        let out = filled_later::<O>(device, count)?;
        let memory = self.memory::<E>()?;
        let mut arguments = memory.arguments();
        arguments.extend(outputs(&out));
        arguments.extend(self.constants());
        let ending: [Argument<'_>; 3] = [
            (self.partial as u32).into(),
            self.scale.into(),
            (count as u64).into(),
        ];
        let (prefix, suffix) = (self.kernels.prefix, E::SUFFIX);
        if self.in_vectors() {
            arguments.push(self.ones().into());
            arguments.extend(ending);
            let threads = Threads::covering(count as u64, elements_a_block::<E>(), BLOCK);
            let kernel = format!("{prefix}_map_{suffix}");
            // SAFETY: `map` of `pointwise.cuh`: every operand has `count` elements from its first on, or is one number, and
            // the kernel writes `count` of `out`.
            unsafe { self.module().launch(device, &kernel, threads, &arguments)? };
        } else {
            let levels = self.levels();
            let uploaded = levels.upload(device)?;
            arguments.extend(levels.arguments(uploaded.as_ref()));
            arguments.extend(ending);
            let threads = Threads::covering(count as u64, u64::from(BLOCK), BLOCK);
            let kernel = format!("{prefix}_strided_map_{suffix}");
            // SAFETY: `strided_map` of `pointwise.cuh`: the levels are those of the operands' layouts, which candle keeps
            // within their memory, and the kernel writes `count` of `out`.
            unsafe { self.module().launch(device, &kernel, threads, &arguments)? };
        }
        Ok(CudaStorage::wrap_cuda_slice(out, device.clone()))
    }

    /// The sum of every element's result over `divisor`, one number; no tensor of them is made.
    pub(super) fn sum<E: CudaElement>(&self, divisor: f64) -> Result<CudaStorage> {
        let (device, count) = (self.device(), self.count());
        let vectors = self.partial == Partial::Value && self.in_vectors();
        let each = match vectors {
            true => elements_a_block::<E>(),
            false => u64::from(BLOCK),
        };
        let mut threads = Threads::covering(count as u64, each, BLOCK);
        threads.blocks = threads.blocks.min(PARTS);
        let parts = filled_later::<f64>(device, threads.blocks as usize)?;
        let memory = self.memory::<E>()?;
        let mut arguments = memory.arguments();
        arguments.push((&parts).into());
        arguments.extend(self.constants());
        let (prefix, suffix) = (self.kernels.prefix, E::SUFFIX);
        if vectors {
            arguments.extend([Argument::U32(self.ones()), Argument::U64(count as u64)]);
            let kernel = format!("{prefix}_sum_{suffix}");
            // SAFETY: `sum` of `pointwise.cuh`: operands as in `map`; each block writes its part.
            unsafe { self.module().launch(device, &kernel, threads, &arguments)? };
        } else {
            let levels = self.levels();
            let uploaded = levels.upload(device)?;
            arguments.extend(levels.arguments(uploaded.as_ref()));
            arguments.extend([
                Argument::U32(self.partial as u32),
                Argument::U64(count as u64),
            ]);
            let kernel = format!("{prefix}_strided_sum_{suffix}");
            // SAFETY: `strided_sum` of `pointwise.cuh`: operands as in `strided_map`; each block writes its part.
            unsafe { self.module().launch(device, &kernel, threads, &arguments)? };
        }
        let loss = filled_later::<E::Compute>(device, 1)?;
        let arguments = [
            (&parts).into(),
            (&loss).into(),
            threads.blocks.into(),
            (divisor / self.scale).into(),
        ];
        let kernel = format!("pointwise_total_{}", E::Compute::SUFFIX);
        let threads = Threads {
            blocks: 1,
            per_block: BLOCK,
        };
        // SAFETY: `pointwise_total(const double* parts, R* loss, uint32_t count, double divisor)` reads every part and writes one
        // number.
        unsafe { TOTAL.launch(device, &kernel, threads, &arguments)? };
        Ok(CudaStorage::wrap_cuda_slice(loss, device.clone()))
    }
}

/// Elements that a block takes at a time in vectors.
fn elements_a_block<E: CudaElement>() -> u64 {
    u64::from(BLOCK) * 16 / std::mem::size_of::<E>() as u64
}
