//! The losses: cross entropy and two pointwise ones, beside candle-nn's, each against a copy of as many bytes.
//!
//! The bytes of a row are the least that any implementation moves: every input read once, every result written once. A mean
//! writes next to nothing, a gradient as much as the logits.

use crate::copy;
use crate::output::{self, first_line};
use crate::timing::{Effort, Timing, measure};
use bench::{label, targets, values};
use candle_core::{DType, Device, Result, Tensor, Var};
use candle_losses::{BinaryCrossEntropyWithLogits, CrossEntropy, Mse};
use serde_json::json;

const SHAPES: [(usize, usize); 5] = [
    (128, 10),
    (65_536, 10),
    (8_192, 1_000),
    (2_048, 32_000),
    (1_024, 128_256),
];
const SMOKE_SHAPES: [(usize, usize); 2] = [(5, 10), (3, 130)];

const POINTWISE_SHAPES: [(usize, usize); 2] = [(256, 1_024), (8_192, 8_192)];
const SMOKE_POINTWISE_SHAPES: [(usize, usize); 1] = [(3, 70)];

/// The rows of one group, shape and dtype.
struct Group<'a> {
    name: String,
    shape: String,
    dtype: DType,
    /// The least that has to be moved.
    bytes: usize,
    device: &'a Device,
    effort: &'a Effort,
}

impl Group<'_> {
    /// Times `call` and prints its row.
    fn row<T>(&self, function: &str, call: impl FnMut() -> Result<T>) {
        self.report(function, measure(self.device, self.effort, call));
    }

    /// Times the copy of as many bytes and prints its row.
    fn copy(&self) {
        self.report(
            "device copy",
            copy::moving(self.bytes, self.device, self.effort),
        );
    }

    fn report(&self, function: &str, timing: Result<Timing>) {
        let dtype = self.dtype.as_str();
        match timing {
            Ok(timing) => output::line(&json!({
                "group": self.name,
                "function": function,
                "shape": self.shape,
                "dtype": dtype,
                "median_seconds": timing.median_seconds,
                "samples": timing.samples,
                "calls_per_sample": timing.calls_per_sample,
                "bytes": self.bytes,
            })),
            Err(error) => output::missing(
                &self.name,
                function,
                &self.shape,
                dtype,
                &first_line(&error),
            ),
        }
    }
}

pub(crate) fn run(device: &Device, effort: &Effort) {
    let shapes: &[_] = if effort.smoke { &SMOKE_SHAPES } else { &SHAPES };
    for &(rows, classes) in shapes {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            if let Err(error) = cross_entropy(device, effort, rows, classes, dtype) {
                let shape = label(&[rows, classes]);
                output::missing(
                    "cross entropy",
                    "all",
                    &shape,
                    dtype.as_str(),
                    &first_line(&error),
                );
            }
        }
    }
    let shapes: &[_] = if effort.smoke {
        &SMOKE_POINTWISE_SHAPES
    } else {
        &POINTWISE_SHAPES
    };
    for &(rows, columns) in shapes {
        for dtype in [DType::F32, DType::BF16] {
            if let Err(error) = pointwise(device, effort, rows, columns, dtype) {
                let shape = label(&[rows, columns]);
                output::missing(
                    "pointwise",
                    "all",
                    &shape,
                    dtype.as_str(),
                    &first_line(&error),
                );
            }
        }
    }
}

/// The gradient that Candle's graph gives.
fn through_the_graph(loss: impl Fn(&Tensor) -> Result<Tensor>, input: &Var) -> Result<Tensor> {
    let gradients = loss(input)?.backward()?;
    gradients
        .get(input)
        .cloned()
        .ok_or_else(|| candle_core::Error::msg("the input has no gradient"))
}

fn cross_entropy(
    device: &Device,
    effort: &Effort,
    rows: usize,
    classes: usize,
    dtype: DType,
) -> Result<()> {
    let logits = values(&[rows, classes])?
        .to_device(device)?
        .to_dtype(dtype)?;
    let labels = targets(rows, classes)?.to_device(device)?;
    let variable = Var::from_tensor(&logits)?;
    let ours = CrossEntropy::new();
    let read = rows * classes * dtype.size_in_bytes() + rows * DType::U32.size_in_bytes();
    let group = |name: &str, bytes: usize| Group {
        name: format!("cross entropy, {name}"),
        shape: label(&[rows, classes]),
        dtype,
        bytes,
        device,
        effort,
    };

    let forward = group("forward", read);
    forward.copy();
    forward.row("ours", || ours.forward(&logits, &labels));
    forward.row("candle-nn", || {
        candle_nn::loss::cross_entropy(&logits, &labels)
    });

    let written = rows * classes * dtype.size_in_bytes();
    let gradient = group("value and gradient", read + written);
    gradient.copy();
    gradient.row("ours", || ours.value_and_grad(&logits, &labels));
    // The gradient lies over the logits, which the next call takes for logits: as fast, whatever the values.
    let mut given_up = Some(logits.copy()?);
    gradient.row("ours in place", || {
        let given = given_up
            .take()
            .ok_or_else(|| candle_core::Error::msg("an earlier call failed and took the logits"))?;
        let (loss, gradient) = ours.value_and_grad_in_place(given, &labels)?;
        given_up = Some(gradient);
        Ok(loss)
    });
    gradient.row("ours backward()", || {
        through_the_graph(|x| ours.forward(x, &labels), &variable)
    });
    gradient.row("candle-nn", || {
        through_the_graph(|x| candle_nn::loss::cross_entropy(x, &labels), &variable)
    });
    Ok(())
}

type Loss = fn(&Tensor, &Tensor) -> Result<Tensor>;

/// A pointwise loss: its name, ours, candle-nn's.
const POINTWISE: [(&str, Loss, Loss); 2] = [
    (
        "mean squared error",
        |x, t| Mse::new().forward(x, t),
        candle_nn::loss::mse,
    ),
    (
        "binary cross entropy with logits",
        |x, t| BinaryCrossEntropyWithLogits::new().forward(x, t),
        candle_nn::loss::binary_cross_entropy_with_logit,
    ),
];

fn pointwise(
    device: &Device,
    effort: &Effort,
    rows: usize,
    columns: usize,
    dtype: DType,
) -> Result<()> {
    let input = values(&[rows, columns])?
        .to_device(device)?
        .to_dtype(dtype)?;
    // From 0 to 1, so that they are probabilities too.
    let target = input.affine(0.25, 0.5)?;
    let variable = Var::from_tensor(&input)?;
    let one = rows * columns * dtype.size_in_bytes();
    for (name, ours, candle) in POINTWISE {
        let group = |what: &str, bytes: usize| Group {
            name: format!("{name}, {what}"),
            shape: label(&[rows, columns]),
            dtype,
            bytes,
            device,
            effort,
        };
        let forward = group("forward", 2 * one);
        forward.copy();
        forward.row("ours", || ours(&input, &target));
        forward.row("candle-nn", || candle(&input, &target));
        let gradient = group("value and gradient", 3 * one);
        gradient.copy();
        gradient.row("ours backward()", || {
            through_the_graph(|x| ours(x, &target), &variable)
        });
        gradient.row("candle-nn", || {
            through_the_graph(|x| candle(x, &target), &variable)
        });
    }
    Ok(())
}
