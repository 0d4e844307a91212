//! The sizes of one convolution, checked once.

use candle_core::{Result, Shape, Tensor};

use super::Conv2dOptions;
use crate::VisionOpError;
use crate::element::dtypes;
use crate::tensor_access::{check_companion, check_dtype, check_positive, dims4};

/// All sizes of one convolution. Pairs are (rows, columns).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Conv2dGeometry {
    pub(crate) batch: usize,
    pub(crate) in_channels: usize,
    pub(crate) out_channels: usize,
    pub(crate) input: (usize, usize),
    pub(crate) kernel: (usize, usize),
    pub(crate) output: (usize, usize),
    pub(crate) options: Conv2dOptions,
}

impl Conv2dGeometry {
    /// Checks every argument of a convolution that `op` names in its errors.
    pub(crate) fn new(
        op: &'static str,
        x: &Tensor,
        weight: &Tensor,
        bias: Option<&Tensor>,
        options: Conv2dOptions,
    ) -> Result<Self> {
        let Conv2dOptions {
            stride,
            padding,
            dilation,
            groups,
        } = options;
        let (batch, in_channels, height, width) = dims4(op, "x", "(N, C_in, H, W)", x)?;
        let (out_channels, group_channels, rows, columns) = dims4(
            op,
            "weight",
            "(C_out, C_in / groups, kernel rows, kernel columns)",
            weight,
        )?;
        check_dtype(op, "x", x, dtypes(x.device()))?;
        check_companion(op, "weight", weight, "x", x)?;
        check_positive(op, "stride", stride)?;
        check_positive(op, "dilation", dilation)?;
        check_positive(op, "weight's kernel size", (rows, columns))?;
        if groups == 0 || in_channels % groups != 0 || out_channels % groups != 0 {
            return Err(VisionOpError::Parameter {
                op,
                argument: "groups",
                expected: format!(
                    "a divisor of the channels, {in_channels} in and {out_channels} out"
                ),
                got: groups.to_string(),
            }
            .into());
        }
        if group_channels * groups != in_channels {
            return Err(VisionOpError::Shape {
                op,
                argument: "weight",
                expected: format!(
                    "({out_channels}, {}, {rows}, {columns})",
                    in_channels / groups
                ),
                got: weight.dims().to_vec(),
                help: "its second dimension is the channels of `x` divided by `groups`",
            }
            .into());
        }
        if let Some(bias) = bias {
            check_companion(op, "bias", bias, "x", x)?;
            if bias.dims() != [out_channels] {
                return Err(VisionOpError::Shape {
                    op,
                    argument: "bias",
                    expected: format!("({out_channels})"),
                    got: bias.dims().to_vec(),
                    help: "it holds one number for each output channel",
                }
                .into());
            }
        }
        let reach = (dilation.0 * (rows - 1) + 1, dilation.1 * (columns - 1) + 1);
        let padded = (height + 2 * padding.0, width + 2 * padding.1);
        if reach.0 > padded.0 || reach.1 > padded.1 {
            return Err(VisionOpError::Parameter {
                op,
                argument: "weight's kernel size",
                expected: format!(
                    "no larger, dilated, than the {} x {} padded image",
                    padded.0, padded.1
                ),
                got: format!("{rows} x {columns}, dilated {} x {}", reach.0, reach.1),
            }
            .into());
        }
        Ok(Self {
            batch,
            in_channels,
            out_channels,
            input: (height, width),
            kernel: (rows, columns),
            output: (
                (padded.0 - reach.0) / stride.0 + 1,
                (padded.1 - reach.1) / stride.1 + 1,
            ),
            options,
        })
    }

    /// Whether the kernel covers the image: one window, which sees every pixel of every channel.
    pub(crate) fn is_dense(&self) -> bool {
        self.kernel == self.input && self.options.padding == (0, 0) && self.options.groups == 1
    }

    /// The result's shape.
    pub(crate) fn result_shape(&self) -> Shape {
        let (rows, columns) = self.output;
        Shape::from((self.batch, self.out_channels, rows, columns))
    }

    /// Elements of one input image.
    pub(crate) fn input_len(&self) -> usize {
        self.in_channels * self.input.0 * self.input.1
    }

    /// Positions of one output channel of one image.
    pub(crate) fn positions(&self) -> usize {
        self.output.0 * self.output.1
    }

    /// Elements of one output image.
    pub(crate) fn output_len(&self) -> usize {
        self.out_channels * self.positions()
    }

    /// Input channels that an output channel sees.
    pub(crate) fn group_inputs(&self) -> usize {
        self.in_channels / self.options.groups
    }

    /// Output channels of a group.
    pub(crate) fn group_outputs(&self) -> usize {
        self.out_channels / self.options.groups
    }

    /// Weights of one output channel.
    pub(crate) fn taps(&self) -> usize {
        self.group_inputs() * self.kernel.0 * self.kernel.1
    }

    /// All weights.
    pub(crate) fn weight_len(&self) -> usize {
        self.out_channels * self.taps()
    }

    /// Images summed into one partial weight gradient. It depends on sizes alone, so that the sum has one order for any
    /// number of threads; at most 16 partial sums, fewer where they would take much memory.
    pub(crate) fn gradient_chunk(&self) -> usize {
        let parts = ((1 << 22) / self.weight_len().max(1)).clamp(2, 16);
        self.batch.div_ceil(parts).max(1)
    }
}
