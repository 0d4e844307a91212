//! The vision ops: max pooling of any kernel and stride, convolution with every option, the fused block, dense layers.

use super::inputs::{shape_name, values};
use crate::case::Case;
use candle_core::{DType, Result, Tensor};
use candle_gradcheck::GradCheck;
use candle_vision_ops::{
    Conv2dOptions, Layer, conv2d, conv2d_relu_max_pool2d, linear, max_pool2d, sequential,
};

const DTYPES: [DType; 2] = [DType::F64, DType::F32];

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for dtype in DTYPES {
        for (kernel, stride) in [
            ((2, 2), (2, 2)),
            ((3, 3), (2, 2)),
            ((2, 3), (1, 2)),
            ((1, 1), (1, 1)),
            ((2, 2), (3, 3)),
        ] {
            for shape in [[1, 1, 4, 4], [2, 3, 5, 7], [1, 2, 17, 9]] {
                cases.push(pool(dtype, kernel, stride, shape));
            }
        }
        for (name, x, weight, options) in convolutions() {
            for biased in [true, false] {
                cases.push(convolution(dtype, name, x, weight, options, biased));
            }
        }
        cases.push(block(
            dtype,
            "lenet_conv1",
            [2, 1, 32, 32],
            [6, 1, 5, 5],
            (2, 2),
            (2, 2),
        ));
        cases.push(block(
            dtype,
            "lenet_conv2",
            [2, 6, 14, 14],
            [16, 6, 5, 5],
            (2, 2),
            (2, 2),
        ));
        cases.push(block(
            dtype,
            "awkward",
            [1, 3, 9, 8],
            [4, 3, 3, 2],
            (3, 2),
            (2, 1),
        ));
        cases.push(block(
            dtype,
            "odd_map",
            [3, 2, 8, 10],
            [5, 2, 2, 2],
            (2, 2),
            (2, 2),
        ));
        for (shape, outputs) in [
            (&[1, 1][..], 1),
            (&[17, 5], 3),
            (&[3, 120], 84),
            (&[2, 3, 4], 5),
        ] {
            for relu in [false, true] {
                for biased in [true, false] {
                    cases.push(dense(dtype, shape, outputs, relu, biased));
                }
            }
        }
        cases.push(joined(dtype));
    }
    cases
}

fn convolutions() -> Vec<(&'static str, [usize; 4], [usize; 4], Conv2dOptions)> {
    let plain = Conv2dOptions::default();
    vec![
        ("plain", [2, 3, 6, 7], [4, 3, 3, 2], plain),
        ("one_by_one", [2, 3, 4, 5], [2, 3, 1, 1], plain),
        ("whole_map", [2, 3, 5, 4], [6, 3, 5, 4], plain),
        (
            "stride",
            [1, 2, 9, 8],
            [3, 2, 3, 3],
            Conv2dOptions {
                stride: (2, 3),
                ..plain
            },
        ),
        (
            "padding",
            [1, 2, 5, 4],
            [3, 2, 3, 3],
            Conv2dOptions {
                padding: (1, 2),
                ..plain
            },
        ),
        (
            "dilation",
            [1, 2, 9, 8],
            [3, 2, 3, 2],
            Conv2dOptions {
                dilation: (2, 3),
                ..plain
            },
        ),
        (
            "groups",
            [2, 4, 5, 6],
            [6, 2, 3, 3],
            Conv2dOptions { groups: 2, ..plain },
        ),
        // On the CPU the gradients of these two are taken by pairs of rows.
        (
            "eight_channels",
            [1, 8, 4, 8],
            [8, 8, 3, 3],
            Conv2dOptions {
                padding: (1, 1),
                ..plain
            },
        ),
        (
            "eight_channels_five_rows",
            [1, 8, 5, 8],
            [8, 8, 5, 1],
            Conv2dOptions {
                padding: (2, 0),
                ..plain
            },
        ),
        (
            "everything",
            [2, 4, 9, 8],
            [4, 2, 3, 2],
            Conv2dOptions {
                stride: (2, 1),
                padding: (2, 1),
                dilation: (1, 2),
                groups: 2,
            },
        ),
    ]
}

fn pool(dtype: DType, kernel: (usize, usize), stride: (usize, usize), shape: [usize; 4]) -> Case {
    let name = format!(
        "max_pool2d/kernel_{}x{}_stride_{}x{}/{}/{}",
        kernel.0,
        kernel.1,
        stride.0,
        stride.1,
        shape_name(&shape),
        dtype.as_str()
    );
    Case::new(name, "max_pool2d", dtype, move |device| {
        let x = values(&shape, dtype, 0, device)?;
        let run = |i: &[Tensor]| max_pool2d(&i[0], kernel, stride);
        Ok(GradCheck::new().names(["x"]).check(run, &[x])?.into())
    })
}

fn convolution(
    dtype: DType,
    name: &str,
    x: [usize; 4],
    weight: [usize; 4],
    options: Conv2dOptions,
    biased: bool,
) -> Case {
    let bias = if biased { "bias" } else { "no_bias" };
    Case::new(
        format!("conv2d/{name}/{bias}/{}", dtype.as_str()),
        "conv2d",
        dtype,
        move |device| {
            let mut inputs = vec![
                values(&x, dtype, 0, device)?,
                values(&weight, dtype, 1, device)?,
            ];
            if biased {
                inputs.push(values(&weight[..1], dtype, 2, device)?);
            }
            let run = |i: &[Tensor]| conv2d(&i[0], &i[1], i.get(2), options);
            Ok(GradCheck::new()
                .names(["x", "weight", "bias"])
                .check(run, &inputs)?
                .into())
        },
    )
}

fn block(
    dtype: DType,
    name: &str,
    x: [usize; 4],
    weight: [usize; 4],
    kernel: (usize, usize),
    stride: (usize, usize),
) -> Case {
    let op = "conv2d_relu_max_pool2d";
    Case::new(
        format!("{op}/{name}/{}", dtype.as_str()),
        op,
        dtype,
        move |device| {
            let inputs = [
                values(&x, dtype, 0, device)?,
                values(&weight, dtype, 1, device)?,
                values(&weight[..1], dtype, 2, device)?,
            ];
            let run = |i: &[Tensor]| -> Result<Tensor> {
                conv2d_relu_max_pool2d(
                    &i[0],
                    &i[1],
                    &i[2],
                    Conv2dOptions::default(),
                    kernel,
                    stride,
                )
            };
            Ok(GradCheck::new()
                .names(["x", "weight", "bias"])
                .check(run, &inputs)?
                .into())
        },
    )
}

fn dense(dtype: DType, shape: &[usize], outputs: usize, relu: bool, biased: bool) -> Case {
    let name = format!(
        "linear/{}to{outputs}{}{}/{}",
        shape_name(shape),
        if relu { "/relu" } else { "" },
        if biased { "/bias" } else { "" },
        dtype.as_str()
    );
    let shape = shape.to_vec();
    Case::new(name, "linear", dtype, move |device| {
        let features = shape.last().copied().unwrap_or(1);
        let mut inputs = vec![
            values(&shape, dtype, 0, device)?,
            values(&[outputs, features], dtype, 1, device)?,
        ];
        if biased {
            inputs.push(values(&[outputs], dtype, 2, device)?);
        }
        let run = |i: &[Tensor]| linear(&i[0], &i[1], i.get(2), relu);
        Ok(GradCheck::new()
            .names(["x", "weight", "bias"])
            .check(run, &inputs)?
            .into())
    })
}

/// A block, a convolution and two dense layers, of awkward sizes, with the activations between them hidden from the graph.
fn joined(dtype: DType) -> Case {
    let op = "sequential";
    let name = format!("{op}/block_conv_dense_dense/{}", dtype.as_str());
    Case::new(name, op, dtype, move |device| {
        let shapes: [&[usize]; 8] = [
            &[2, 2, 7, 9],
            &[3, 2, 3, 2],
            &[3],
            &[4, 3, 2, 3],
            &[5, 8],
            &[5],
            &[3, 5],
            &[3],
        ];
        let inputs = shapes
            .iter()
            .zip(0..)
            .map(|(shape, seed)| values(shape, dtype, seed, device))
            .collect::<Result<Vec<_>>>()?;
        let run = |i: &[Tensor]| {
            let options = Conv2dOptions::default();
            let block = Layer::Conv2dReluMaxPool2d {
                weight: &i[1],
                bias: &i[2],
                options,
                pool_kernel: (2, 2),
                pool_stride: (2, 2),
            };
            let conv = Layer::Conv2d {
                weight: &i[3],
                bias: None,
                options,
            };
            let dense = |weight, bias, relu| Layer::Linear { weight, bias, relu };
            let hidden = dense(&i[4], Some(&i[5]), true);
            let last = dense(&i[6], Some(&i[7]), false);
            sequential(&i[0], &[block, conv, Layer::Flatten, hidden, last])
        };
        Ok(GradCheck::new()
            .names([
                "x", "weight1", "bias1", "weight2", "weight3", "bias3", "weight4", "bias4",
            ])
            .check(run, &inputs)?
            .into())
    })
}
