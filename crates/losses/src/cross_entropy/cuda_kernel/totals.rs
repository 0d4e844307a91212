//! Sums over rows, in two stages of a fixed order.

use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaView};
use candle_core::op::BackpropOp;
use candle_core::{CudaDevice, CudaStorage, Result, Storage, Tensor};

use super::MODULE;
use super::rows::Rows;
use crate::cross_entropy::composed::of_nothing;
use crate::cuda_kernel::{Argument, CudaElement, Levels, Threads, filled_later};

/// The threads of a block; the `.cu` says so too.
const THREADS: u32 = 256;

/// Rows that a block takes before there are more blocks, up to [`BLOCKS`].
const ROWS_PER_BLOCK: u64 = 4096;

const BLOCKS: u32 = 1024;

/// On the device: the sum of the losses, what it is divided by, the number correct and the first row whose target is no
/// class, infinity if there is none.
pub(super) struct Totals {
    numbers: CudaSlice<f64>,
    device: CudaDevice,
}

impl Totals {
    /// `divisor`: none is the weight of the rows that count. `loss`: where the reduced loss goes.
    pub(super) fn of<E: CudaElement>(
        rows: &Rows<'_, E>,
        losses: Option<&CudaView<'_, E::Compute>>,
        argmax: Option<&CudaSlice<u32>>,
        divisor: Option<f64>,
        loss: Option<&CudaView<'_, E::Compute>>,
    ) -> Result<Self> {
        let (plan, device) = (rows.plan, rows.device());
        let count = plan.geometry.rows() as u64;
        let mut threads = Threads::covering(count, ROWS_PER_BLOCK, THREADS);
        threads.blocks = threads.blocks.min(BLOCKS);
        let partial = filled_later::<f64>(device, 4 * threads.blocks as usize)?;
        let numbers = filled_later::<f64>(device, 4)?;
        let target = rows.target_strides();
        let levels = Levels::new(
            plan.geometry
                .row_shape
                .iter()
                .zip(&target.rows)
                .map(|(&dim, &stride)| (dim, [stride])),
        );
        let uploaded = levels.upload(device)?;
        let ending = [
            u32::from(divisor.is_none()).into(),
            divisor.unwrap_or(1.0).into(),
            of_nothing(plan.options.on_empty).into(),
            Argument::optional(loss),
            (&numbers).into(),
        ];
        let mut arguments = vec![Argument::optional(losses), Argument::optional(argmax)];
        arguments.extend([rows.target_memory(), rows.target_code().into()]);
        arguments.push((plan.geometry.classes as u32).into());
        arguments.extend(rows.ignore());
        arguments.extend(levels.arguments(uploaded.as_ref()));
        arguments.extend([
            Argument::optional(rows.weights),
            count.into(),
            (&partial).into(),
        ]);
        arguments.extend(ending);
        let suffix = E::Compute::SUFFIX;
        // SAFETY: losses and argmax have a number for each of `count` rows, and the targets' layout was checked against them;
        // weights are read at classes only; each block writes its own 4 of `partial`, or the 4 totals and the loss.
        unsafe {
            MODULE.launch(
                device,
                &format!("cross_entropy_totals_{suffix}"),
                threads,
                &arguments,
            )?;
        }
        if threads.blocks > 1 {
            let mut arguments = vec![(&partial).into(), threads.blocks.into()];
            arguments.extend(ending);
            let one = Threads {
                blocks: 1,
                per_block: THREADS,
            };
            // SAFETY: `partial` has 4 numbers of each block, written by the launch before on the same stream.
            unsafe {
                MODULE.launch(
                    device,
                    &format!("cross_entropy_conclude_{suffix}"),
                    one,
                    &arguments,
                )?;
            }
        }
        Ok(Self {
            numbers,
            device: device.clone(),
        })
    }

    pub(super) fn memory(&self) -> CudaView<'_, f64> {
        self.numbers.slice(..)
    }

    /// Waits for the device.
    fn read(&self) -> Result<Vec<f64>> {
        self.device.clone_dtoh(&self.numbers)
    }

    pub(super) fn correct(&self) -> Result<usize> {
        Ok(self.read()?[2] as usize)
    }

    pub(super) fn first_invalid(&self) -> Result<Option<usize>> {
        let row = self.read()?[3];
        Ok(row.is_finite().then_some(row as usize))
    }

    pub(super) fn into_tensor(self) -> Tensor {
        let storage = CudaStorage::wrap_cuda_slice(self.numbers, self.device);
        Tensor::from_storage(Storage::Cuda(storage), 4, BackpropOp::none(), false)
    }
}
