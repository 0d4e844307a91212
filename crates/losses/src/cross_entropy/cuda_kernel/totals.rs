//! Sums over rows, and the error about a target that is no class.

use candle_core::Result;
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaView};

use super::MODULE;
use super::rows::Rows;
use crate::cross_entropy::composed::of_nothing;
use crate::cross_entropy::error::TargetOutOfRange;
use crate::cross_entropy::plan::TargetKind;
use crate::cuda_kernel::{Argument, CudaElement, Ending, Levels, RowTotals, index_of_row};

/// `divisor`: none is the weight of the rows that count. `loss`: where the reduced loss goes.
pub(super) fn row_totals<E: CudaElement>(
    rows: &Rows<'_, E>,
    losses: Option<&CudaView<'_, E::Compute>>,
    argmax: Option<&CudaSlice<u32>>,
    divisor: Option<f64>,
    loss: Option<&CudaView<'_, E::Compute>>,
) -> Result<RowTotals> {
    let (plan, device) = (rows.plan, rows.device());
    let count = plan.geometry.rows() as u64;
    let target = rows.target_strides();
    let row_dims = plan.geometry.row_shape.iter().zip(&target.rows);
    let levels = Levels::new(row_dims.map(|(&dim, &stride)| (dim, [stride])));
    let uploaded = levels.upload(device)?;
    let mut arguments = vec![Argument::optional(losses), Argument::optional(argmax)];
    arguments.extend(rows.target());
    arguments.push((plan.geometry.classes as u32).into());
    arguments.extend(rows.ignore());
    arguments.extend(levels.arguments(uploaded.as_ref()));
    arguments.extend([Argument::optional(rows.weights), count.into()]);
    let ending = Ending {
        divisor,
        of_nothing: of_nothing(plan.options.on_empty),
        loss,
    };
    RowTotals::of(device, count, &ending, |threads, end| {
        let mut arguments = arguments;
        arguments.extend(end);
        let kernel = format!("cross_entropy_totals_{}", E::Compute::SUFFIX);
        // SAFETY: losses and argmax have a number for each of `count` rows, and the targets' layout was checked against them;
        // weights are read at classes only; each block writes its own 4 of `partial`, or the 4 totals and the loss.
        unsafe { MODULE.launch(device, &kernel, threads, &arguments) }
    })
}

/// Waits for the device and refuses the first target that is no class, where that was asked for.
pub(super) fn validate<E: CudaElement>(rows: &Rows<'_, E>) -> Result<()> {
    let plan = rows.plan;
    if !plan.options.validate_targets || plan.kind == TargetKind::Probabilities {
        return Ok(());
    }
    let Some(row) = row_totals(rows, None, None, None, None)?.first_invalid()? else {
        return Ok(());
    };
    Err(TargetOutOfRange {
        row,
        // Row-major order of the rows is that of the targets.
        value: index_of_row(rows.target.0, rows.target.1, row)?,
        classes: plan.geometry.classes,
    }
    .into())
}
