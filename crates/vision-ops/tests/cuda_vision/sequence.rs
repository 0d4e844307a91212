//! Layers one after the other, which on CUDA are the ops themselves.

use candle_core::{DType, Result, Tensor};
use candle_vision_ops::{Conv2dOptions, Layer, sequential};

use crate::support::{assert_agrees, random, rounding};

fn block_and_dense(t: &[Tensor]) -> Result<Tensor> {
    let block = Layer::Conv2dReluMaxPool2d {
        weight: &t[1],
        bias: &t[2],
        options: Conv2dOptions::default(),
        pool_kernel: (2, 2),
        pool_stride: (2, 2),
    };
    let dense = Layer::Linear {
        weight: &t[3],
        bias: Some(&t[4]),
        relu: true,
    };
    sequential(&t[0], &[block, Layer::Flatten, dense])
}

#[test]
fn layers_in_a_sequence_agree_with_the_cpu() {
    let shapes: [&[usize]; 5] = [&[3, 2, 7, 6], &[4, 2, 3, 3], &[4], &[5, 16], &[5]];
    let inputs: Vec<Tensor> = shapes
        .iter()
        .zip(1..)
        .map(|(shape, seed)| random(seed, shape))
        .collect();
    for dtype in [DType::F32, DType::F64] {
        assert_agrees("sequence", block_and_dense, &inputs, dtype, rounding(dtype));
    }
}
