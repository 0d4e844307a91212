//! Sums over rows, in two stages of a fixed order; `row_totals.cuh` is the counterpart on the device.

use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaView};
use candle_core::op::BackpropOp;
use candle_core::{CudaDevice, CudaStorage, Result, Storage, Tensor};

use super::{Argument, CudaElement, Module, Threads, filled_later, ptx};

const MODULE: Module = Module {
    name: "candle_losses_row_totals",
    ptx: ptx::ROW_TOTALS,
};

/// The threads of a block; the `.cuh` says so too.
const THREADS: u32 = 256;

/// Rows that a block takes before there are more blocks, up to [`BLOCKS`].
const ROWS_PER_BLOCK: u64 = 4096;

const BLOCKS: u32 = 1024;

/// How the sums end.
pub(crate) struct Ending<'a, A> {
    /// What the sum of the losses is divided by; none is the weight of the rows that count.
    pub(crate) divisor: Option<f64>,
    /// The reduced loss where that is 0.
    pub(crate) of_nothing: f64,
    /// Where the reduced loss goes.
    pub(crate) loss: Option<&'a CudaView<'a, A>>,
}

/// On the device: the sum of the losses, what it is divided by, the number correct and the first row whose target is no
/// class, infinity if there is none.
pub(crate) struct RowTotals {
    numbers: CudaSlice<f64>,
    device: CudaDevice,
}

impl RowTotals {
    /// `first` launches the kernel of the first stage, whose last arguments are those that it is given:
    /// `partial, by_weight, divisor, of_nothing, loss, totals`.
    pub(crate) fn of<A: CudaElement>(
        device: &CudaDevice,
        rows: u64,
        ending: &Ending<'_, A>,
        first: impl FnOnce(Threads, [Argument<'_>; 6]) -> Result<()>,
    ) -> Result<Self> {
        let mut threads = Threads::covering(rows, ROWS_PER_BLOCK, THREADS);
        threads.blocks = threads.blocks.min(BLOCKS);
        let partial = filled_later::<f64>(device, 4 * threads.blocks as usize)?;
        let numbers = filled_later::<f64>(device, 4)?;
        let by_weight = u32::from(ending.divisor.is_none()).into();
        let divisor = ending.divisor.unwrap_or(1.0).into();
        let of_nothing = ending.of_nothing.into();
        let loss = Argument::optional(ending.loss);
        let end = [
            (&partial).into(),
            by_weight,
            divisor,
            of_nothing,
            loss,
            (&numbers).into(),
        ];
        first(threads, end)?;
        if threads.blocks > 1 {
            let arguments = [
                (&partial).into(),
                threads.blocks.into(),
                by_weight,
                divisor,
                of_nothing,
                loss,
                (&numbers).into(),
            ];
            let one = Threads {
                blocks: 1,
                per_block: THREADS,
            };
            let kernel = format!("row_totals_{}", A::SUFFIX);
            // SAFETY: `partial` has 4 numbers of each block, written by the launch before on the same stream; the kernel writes
            // 4 totals and one loss.
            unsafe { MODULE.launch(device, &kernel, one, &arguments)? };
        }
        Ok(Self {
            numbers,
            device: device.clone(),
        })
    }

    pub(crate) fn memory(&self) -> CudaView<'_, f64> {
        self.numbers.slice(..)
    }

    /// Waits for the device.
    fn read(&self) -> Result<Vec<f64>> {
        self.device.clone_dtoh(&self.numbers)
    }

    /// Waits for the device.
    pub(crate) fn correct(&self) -> Result<usize> {
        Ok(self.read()?[2] as usize)
    }

    /// Waits for the device.
    pub(crate) fn first_invalid(&self) -> Result<Option<usize>> {
        let row = self.read()?[3];
        Ok(row.is_finite().then_some(row as usize))
    }

    /// The four numbers.
    pub(crate) fn into_tensor(self) -> Tensor {
        let storage = CudaStorage::wrap_cuda_slice(self.numbers, self.device);
        Tensor::from_storage(Storage::Cuda(storage), 4, BackpropOp::none(), false)
    }
}
