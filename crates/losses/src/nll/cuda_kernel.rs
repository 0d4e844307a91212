//! The CUDA kernels of nll, in `nll.cu`: the passes of `fused.rs` with the targets left on the device.
//!
//! Nothing here waits for the device, but for the error about targets where it was asked for
//! ([`super::Nll::validate_targets`]).

use std::sync::OnceLock;

use candle_core::backend::{BackendDevice, BackendStorage};
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaView};
use candle_core::{
    CudaDevice, CudaStorage, DType, Error, Layout, Result, Shape, Storage, StorageRef, Tensor,
    WithDType, bail,
};
use half::{bf16, f16};

use super::plan::{Plan, TargetOutOfRange};
use crate::Reduction;
use crate::cuda_kernel::{
    Argument, ClassIndices, CudaElement, Ending, Levels, Module, RowTotals, Threads, filled_later,
    index_of_row, ptx,
};
use crate::pointwise::error::BadArgument;

const MODULE: Module = Module {
    name: "candle_losses_nll",
    ptx: ptx::NLL,
};

/// Threads of a block, as the kernels say.
const BLOCK: u32 = 256;

type Operand<'a> = (&'a CudaStorage, &'a Layout);

/// A tensor's storage, locked, and its layout.
type Held<'a> = (StorageRef<'a>, &'a Layout);

/// A call with its targets and weights on the device.
pub(super) struct OnDevice {
    pub(super) plan: Plan,
    targets: Tensor,
    /// In the type that is computed in, contiguous.
    weight: Option<Tensor>,
    /// The totals of a mean, whose second number is the divisor: found by the forward pass.
    totals: OnceLock<Tensor>,
}

/// Calls a generic method with the element type.
macro_rules! by_dtype {
    ($dtype:expr, $self:ident.$method:ident($($argument:expr),*)) => {
        match $dtype {
            DType::F32 => $self.$method::<f32>($($argument),*),
            DType::F64 => $self.$method::<f64>($($argument),*),
            DType::F16 => $self.$method::<f16>($($argument),*),
            DType::BF16 => $self.$method::<bf16>($($argument),*),
            other => Err(Error::UnsupportedDTypeForOp(other, "nll").bt()),
        }
    };
}

impl OnDevice {
    /// # Errors
    /// Where there are more classes than the kernels can count.
    pub(super) fn new(plan: Plan, targets: &Tensor) -> Result<Self> {
        let most = i32::MAX as usize;
        if plan.classes > most {
            return Err(BadArgument {
                loss: "nll",
                argument: "log_probabilities",
                must: format!("have at most {most} classes on CUDA"),
                got: plan.classes.to_string(),
                advice: "check the class axis",
            }
            .into());
        }
        let computed = match plan.dtype {
            DType::F64 => DType::F64,
            _ => DType::F32,
        };
        let weight = plan.options.weight.as_ref().map(|weight| {
            let here = weight.detach().to_device(targets.device())?;
            here.to_dtype(computed)?.contiguous()
        });
        Ok(Self {
            weight: weight.transpose()?,
            targets: targets.clone(),
            totals: OnceLock::new(),
            plan,
        })
    }

    /// -w_y times the picked number of each row that counts, reduced; `over_nothing` is the mean of no rows.
    pub(super) fn pick(
        &self,
        from: Operand<'_>,
        over_nothing: f64,
    ) -> Result<(CudaStorage, Shape)> {
        by_dtype!(from.0.dtype(), self.pick_of(from, over_nothing))
    }

    /// Zeros of the log-probabilities' shape and dtype, contiguous, but for -w_y times the upstream gradient at the target
    /// of each row that counts, divided as the loss is.
    pub(super) fn put(&self, upstream: Operand<'_>) -> Result<CudaStorage> {
        by_dtype!(self.plan.dtype, self.put_of(upstream))
    }

    /// What the sum is divided by where that does not depend on the targets.
    fn known_divisor(&self) -> Option<f64> {
        (self.plan.options.reduction != Reduction::Mean).then_some(1.0)
    }

    fn pick_of<E: CudaElement>(
        &self,
        from: Operand<'_>,
        over_nothing: f64,
    ) -> Result<(CudaStorage, Shape)> {
        let (plan, device) = (&self.plan, from.0.device());
        let divisor = self.known_divisor();
        let wrap = |slice| CudaStorage::wrap_cuda_slice(slice, device.clone());
        let shape = match plan.reduced {
            true => Shape::from(()),
            false => plan.rows.clone(),
        };
        if plan.rows.elem_count() == 0 {
            let loss = divisor.map_or(over_nothing, |_| 0.0);
            // One number also where there are no losses: CUDA allocates no 0 bytes.
            let loss = device.clone_htod(&[E::Compute::from_f64(loss)])?;
            return Ok((wrap(loss), shape));
        }
        let targets = self.targets.storage_and_layout();
        let weight = self.weight.as_ref().map(Tensor::storage_and_layout);
        let rows = Rows::<E>::new(plan, device, &targets, weight.as_ref())?;
        let mut ending = Ending {
            divisor,
            of_nothing: over_nothing,
            loss: None,
        };
        if !plan.reduced {
            if plan.options.validate_targets {
                rows.refuse_invalid(&rows.sum(from, &ending)?)?;
            }
            return Ok((wrap(rows.losses(from)?), shape));
        }
        let loss = filled_later::<E::Compute>(device, 1)?;
        let view = loss.slice(..);
        ending.loss = Some(&view);
        let totals = rows.sum(from, &ending)?;
        if plan.options.validate_targets {
            rows.refuse_invalid(&totals)?;
        }
        // A later pass, which a derivative of the gradient makes, would find the same.
        let _ = self.totals.set(totals.into_tensor());
        Ok((wrap(loss), shape))
    }

    fn put_of<E: CudaElement>(&self, upstream: Operand<'_>) -> Result<CudaStorage> {
        let (plan, device) = (&self.plan, upstream.0.device());
        // At least one: CUDA allocates no 0 bytes.
        let room = Shape::from(plan.shape.elem_count().max(1));
        let gradient = device.zeros_impl(&room, E::DTYPE)?;
        if plan.rows.elem_count() > 0 {
            let totals = match self.known_divisor() {
                Some(_) => None,
                None => Some(
                    self.totals
                        .get()
                        .map(Tensor::storage_and_layout)
                        .ok_or_else(|| Error::msg("nll: backward before forward").bt())?,
                ),
            };
            let totals = totals.as_ref().map(|totals| memory(totals)).transpose()?;
            let targets = self.targets.storage_and_layout();
            let weight = self.weight.as_ref().map(Tensor::storage_and_layout);
            let rows = Rows::<E>::new(plan, device, &targets, weight.as_ref())?;
            rows.put(upstream, totals.as_ref(), gradient.as_cuda_slice::<E>()?)?;
        }
        Ok(gradient)
    }
}

fn operand<'a>((storage, layout): &'a Held<'_>) -> Result<Operand<'a>> {
    match &**storage {
        Storage::Cuda(storage) => Ok((storage, *layout)),
        _ => bail!("nll: a tensor of the call is not on the device"),
    }
}

/// The memory of a tensor from its first element on.
fn memory<'a, T: CudaElement>(held: &'a Held<'_>) -> Result<CudaView<'a, T>> {
    view(operand(held)?)
}

fn view<'a, T: CudaElement>((storage, layout): Operand<'a>) -> Result<CudaView<'a, T>> {
    Ok(storage.as_cuda_slice::<T>()?.slice(layout.start_offset()..))
}

/// The rows of a call.
struct Rows<'a, E: CudaElement> {
    plan: &'a Plan,
    device: &'a CudaDevice,
    targets: Operand<'a>,
    indices: ClassIndices<'a>,
    weight: Option<CudaView<'a, E::Compute>>,
}

impl<'a, E: CudaElement> Rows<'a, E> {
    fn new(
        plan: &'a Plan,
        device: &'a CudaDevice,
        targets: &'a Held<'_>,
        weight: Option<&'a Held<'_>>,
    ) -> Result<Self> {
        let (storage, layout) = operand(targets)?;
        let indices = ClassIndices::new(storage, layout.start_offset())
            .ok_or_else(|| Error::UnsupportedDTypeForOp(storage.dtype(), "nll").bt())?;
        Ok(Self {
            plan,
            device,
            targets: (storage, layout),
            indices,
            weight: weight.map(|weight| memory(weight)).transpose()?,
        })
    }

    fn count(&self) -> u64 {
        self.plan.rows.elem_count() as u64
    }

    /// From row to row of a tensor with a class axis.
    fn strides(&self, with_classes: &Layout) -> Vec<usize> {
        let mut strides = with_classes.stride().to_vec();
        strides.remove(self.plan.class_axis);
        strides
    }

    fn levels<const N: usize>(&self, strides: [&[usize]; N]) -> Levels<N> {
        let dims = self.plan.rows.dims().iter().enumerate();
        Levels::new(dims.map(|(axis, &dim)| (dim, strides.map(|strides| strides[axis]))))
    }

    /// What every kernel takes first.
    fn arguments<'s, const N: usize>(
        &'s self,
        class_stride: usize,
        levels: &Levels<N>,
        uploaded: Option<&'s CudaSlice<u64>>,
    ) -> Vec<Argument<'s>> {
        let ignore = self.plan.options.ignore_index;
        let mut arguments = vec![
            self.indices.memory(),
            self.indices.code(),
            (self.plan.classes as u32).into(),
            u32::from(ignore.is_some()).into(),
            ignore.unwrap_or(0).into(),
            Argument::optional(self.weight.as_ref()),
            self.count().into(),
            (class_stride as u64).into(),
        ];
        arguments.extend(levels.arguments(uploaded));
        arguments
    }

    /// The loss of each row.
    fn losses(&self, from: Operand<'_>) -> Result<CudaSlice<E::Compute>> {
        let levels = self.levels([&self.strides(from.1), self.targets.1.stride()]);
        let uploaded = levels.upload(self.device)?;
        let x = view::<E>(from)?;
        let losses = filled_later::<E::Compute>(self.device, self.plan.rows.elem_count())?;
        let class_stride = from.1.stride()[self.plan.class_axis];
        let mut arguments = self.arguments(class_stride, &levels, uploaded.as_ref());
        arguments.extend([Argument::from(&x), (&losses).into()]);
        // SAFETY: the plan checked that `from` has a row of classes for each target, and Candle keeps both layouts within their
        // memory; a target's value is used as an index only after the kernel found it a class, of which there is a weight;
        // `losses` has a number for each row, and a thread writes those of its own rows.
        unsafe { self.launch("nll_each", self.threads(), &arguments)? };
        Ok(losses)
    }

    /// The totals of all rows, and the reduced loss.
    fn sum(&self, from: Operand<'_>, ending: &Ending<'_, E::Compute>) -> Result<RowTotals> {
        let levels = self.levels([&self.strides(from.1), self.targets.1.stride()]);
        let uploaded = levels.upload(self.device)?;
        let x = view::<E>(from)?;
        let class_stride = from.1.stride()[self.plan.class_axis];
        let mut arguments = self.arguments(class_stride, &levels, uploaded.as_ref());
        arguments.push((&x).into());
        RowTotals::of(self.device, self.count(), ending, |threads, end| {
            let mut arguments = arguments;
            arguments.extend(end);
            // SAFETY: reads as in `losses`; a block writes its own 4 of `partial`, or the 4 totals and the loss.
            unsafe { self.launch("nll_sum", threads, &arguments) }
        })
    }

    /// Writes the gradient of the rows that count into zeros of the log-probabilities' shape.
    fn put(
        &self,
        upstream: Operand<'_>,
        totals: Option<&CudaView<'_, f64>>,
        gradient: &CudaSlice<E>,
    ) -> Result<()> {
        let layout = Layout::contiguous(&self.plan.shape);
        // Of a reduced loss the upstream gradient is one number for all rows.
        let of_rows = upstream.1.broadcast_as(&self.plan.rows)?;
        let levels = self.levels([
            &self.strides(&layout),
            self.targets.1.stride(),
            of_rows.stride(),
        ]);
        let uploaded = levels.upload(self.device)?;
        let upstream = view::<E::Compute>((upstream.0, &of_rows))?;
        let class_stride = layout.stride()[self.plan.class_axis];
        let mut arguments = self.arguments(class_stride, &levels, uploaded.as_ref());
        arguments.extend([
            (&upstream).into(),
            Argument::optional(totals),
            gradient.into(),
        ]);
        // SAFETY: targets and weights as in `losses`; the upstream gradient was broadcast to the rows; the gradient has the
        // shape of the log-probabilities, and a thread writes to its own rows, at classes; `totals` has 4 numbers.
        unsafe { self.launch("nll_put", self.threads(), &arguments) }
    }

    /// Waits for the device.
    ///
    /// # Errors
    /// Where a target is neither a class nor ignored: the first.
    fn refuse_invalid(&self, totals: &RowTotals) -> Result<()> {
        let Some(row) = totals.first_invalid()? else {
            return Ok(());
        };
        Err(TargetOutOfRange {
            row,
            value: index_of_row(self.targets.0, self.targets.1, row)?,
            classes: self.plan.classes,
        }
        .into())
    }

    /// A row each.
    fn threads(&self) -> Threads {
        Threads::covering(self.count(), u64::from(BLOCK), BLOCK)
    }

    /// # Safety
    /// As for [`Module::launch`].
    unsafe fn launch(
        &self,
        kernel: &str,
        threads: Threads,
        arguments: &[Argument<'_>],
    ) -> Result<()> {
        let kernel = format!("{kernel}_{}", E::SUFFIX);
        // SAFETY: the caller vouches for it.
        unsafe { MODULE.launch(self.device, &kernel, threads, arguments) }
    }
}
