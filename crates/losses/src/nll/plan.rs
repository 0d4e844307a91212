//! The arguments of a call, checked, and the rows that count.

use super::Nll;
use crate::pointwise::error::BadArgument;
use crate::{EmptyPolicy, Reduction};
use candle_core::{DType, Error, Result, Shape, Tensor};

/// A target that names no class.
#[derive(Debug, thiserror::Error)]
#[error(
    "nll: target of row {row} must be a class, 0 to {}, got {value} with {classes} classes; \
     correct it or name it as ignore_index",
    classes - 1
)]
struct TargetOutOfRange {
    row: usize,
    value: i64,
    classes: usize,
}

/// What a call comes down to.
#[derive(Debug)]
pub(super) struct Plan {
    /// The log-probabilities' shape, and the class axis in it.
    pub(super) shape: Shape,
    pub(super) class_axis: usize,
    pub(super) dtype: DType,
    /// The targets' shape: that of the loss without reduction.
    pub(super) rows: Shape,
    /// The class of each row, in the targets' row-major order; none where the row does not count.
    pub(super) classes: Vec<Option<usize>>,
    /// The class weights.
    pub(super) weight: Option<Vec<f64>>,
    pub(super) reduced: bool,
    /// What the sum is divided by; 0 for the mean over nothing.
    pub(super) divisor: f64,
    on_empty: EmptyPolicy,
}

impl Plan {
    pub(super) fn new(options: &Nll, input: &Tensor, targets: &Tensor) -> Result<Self> {
        let classes = check(options, input, targets)?;
        let class_axis = usize::from(input.rank() > 1);
        let targets_i64 = targets.to_dtype(DType::I64)?.flatten_all()?;
        let classes: Vec<Option<usize>> = (targets_i64.to_vec1::<i64>()?.into_iter().enumerate())
            .map(|(row, value)| {
                if options.ignore_index == Some(value) {
                    return Ok(None);
                }
                match usize::try_from(value) {
                    Ok(class) if class < classes => Ok(Some(class)),
                    _ => Err(Error::wrap(TargetOutOfRange {
                        row,
                        value,
                        classes,
                    })),
                }
            })
            .collect::<Result<_>>()?;
        let weight = match &options.weight {
            Some(weight) => {
                let wide = weight.to_device(&candle_core::Device::Cpu)?;
                Some(wide.to_dtype(DType::F64)?.to_vec1::<f64>()?)
            }
            None => None,
        };
        let counted = classes.iter().flatten();
        let divisor = match (options.reduction, &weight) {
            (Reduction::Sum | Reduction::None, _) => 1.0,
            (Reduction::Mean, None) => counted.count() as f64,
            (Reduction::Mean, Some(weight)) => counted.map(|&class| weight[class]).sum(),
        };
        Ok(Self {
            shape: input.shape().clone(),
            class_axis,
            dtype: input.dtype(),
            rows: targets.shape().clone(),
            classes,
            weight,
            reduced: options.reduction != Reduction::None,
            divisor,
            on_empty: options.on_empty,
        })
    }

    /// The weight of a row that counts.
    pub(super) fn weight(&self, class: usize) -> f64 {
        self.weight.as_ref().map_or(1.0, |weight| weight[class])
    }

    pub(super) fn on_empty_value(&self) -> f64 {
        match self.on_empty {
            EmptyPolicy::Nan => f64::NAN,
            EmptyPolicy::Zero => 0.0,
        }
    }
}

/// Checks the tensors and returns the number of classes.
fn check(options: &Nll, input: &Tensor, targets: &Tensor) -> Result<usize> {
    let bad = |argument, must: String, got: String, advice| {
        Err(BadArgument {
            loss: "nll",
            argument,
            must,
            got,
            advice,
        }
        .into())
    };
    let dims = input.dims();
    let (classes, rows) = match dims {
        [] => {
            let must = "have a class axis: (C), (N, C) or (N, C, d1, ...)".to_owned();
            return bad(
                "log_probabilities",
                must,
                "rank 0".to_owned(),
                "add an axis of classes",
            );
        }
        [classes] => (*classes, vec![]),
        [batch, classes, rest @ ..] => (*classes, [&[*batch], rest].concat()),
    };
    let convert = "convert it with `to_dtype`";
    if !matches!(
        input.dtype(),
        DType::F32 | DType::F64 | DType::F16 | DType::BF16
    ) {
        let must = "be f32, f64, f16 or bf16".to_owned();
        return bad(
            "log_probabilities",
            must,
            input.dtype().as_str().to_owned(),
            convert,
        );
    }
    if targets.dims() != rows {
        let must = format!("have shape {rows:?} for log_probabilities of shape {dims:?}");
        let advice = "the class axis is axis 1, or axis 0 of a single row";
        return bad("targets", must, format!("{:?}", targets.dims()), advice);
    }
    use DType::{I16, I32, I64, U8, U32};
    if !matches!(targets.dtype(), U8 | U32 | I16 | I32 | I64) {
        let must = "be class indices of dtype u8, u32, i16, i32 or i64".to_owned();
        return bad(
            "targets",
            must,
            targets.dtype().as_str().to_owned(),
            convert,
        );
    }
    if !targets.device().same_device(input.device()) {
        let must = format!(
            "be on the device of log_probabilities, {:?}",
            input.device().location()
        );
        let got = format!("{:?}", targets.device().location());
        return bad("targets", must, got, "move it with `to_device`");
    }
    if classes == 0 && !rows.contains(&0) {
        let must = "have at least one class".to_owned();
        return bad(
            "log_probabilities",
            must,
            format!("shape {dims:?}"),
            "check the class axis",
        );
    }
    if let Some(weight) = &options.weight {
        if weight.dims() != [classes] {
            let must = format!("have shape [{classes}], one weight for each class");
            return bad(
                "weight",
                must,
                format!("{:?}", weight.dims()),
                "check the number of classes",
            );
        }
        if weight.dtype() != input.dtype() {
            let must = format!(
                "have the dtype of log_probabilities, {}",
                input.dtype().as_str()
            );
            return bad("weight", must, weight.dtype().as_str().to_owned(), convert);
        }
    }
    Ok(classes)
}
