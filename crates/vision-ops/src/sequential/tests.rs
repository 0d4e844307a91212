//! Joined layers against the ops called one after the other, central differences, and the ways a graph can be used.

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Result, Tensor, Var};

use super::{Layer, one_by_one, prepare, sequential};
use crate::Conv2dOptions;
use crate::test_support::{assert_gradients, awkward_layout, gradients, random, values};

const SAME: Conv2dOptions = Conv2dOptions {
    stride: (1, 1),
    padding: (1, 1),
    dilation: (1, 1),
    groups: 1,
};

/// Input and parameters of [`network`] for a batch.
fn inputs(batch: usize, dtype: DType) -> Result<Vec<Tensor>> {
    let shapes: [&[usize]; 9] = [
        &[batch, 2, 7, 9],
        &[3, 2, 3, 2],
        &[3],
        &[4, 3, 3, 3],
        &[5, 4, 2, 4],
        &[5],
        &[6, 5],
        &[6],
        &[1, 6],
    ];
    shapes
        .iter()
        .zip(1..)
        .map(|(shape, seed)| random(seed, shape, dtype))
        .collect()
}

/// A block, a convolution, one that covers its whole image, and two dense layers.
fn network(t: &[Tensor]) -> [Layer<'_>; 6] {
    [
        Layer::Conv2dReluMaxPool2d {
            weight: &t[1],
            bias: &t[2],
            options: Conv2dOptions::default(),
            pool_kernel: (2, 2),
            pool_stride: (2, 2),
        },
        Layer::Conv2d {
            weight: &t[3],
            bias: None,
            options: SAME,
        },
        Layer::Conv2d {
            weight: &t[4],
            bias: Some(&t[5]),
            options: Conv2dOptions::default(),
        },
        Layer::Flatten,
        Layer::Linear {
            weight: &t[6],
            bias: Some(&t[7]),
            relu: true,
        },
        Layer::Linear {
            weight: &t[8],
            bias: None,
            relu: false,
        },
    ]
}

fn joined(t: &[Tensor]) -> Result<Tensor> {
    sequential(&t[0], &network(t))
}

fn separate(t: &[Tensor]) -> Result<Tensor> {
    one_by_one(&t[0], &network(t))
}

/// Asserts the same bits in values and gradients.
fn assert_same(inputs: &[Tensor]) -> Result<()> {
    let (y, grads) = gradients(joined, inputs, 5)?;
    let (expected, expected_grads) = gradients(separate, inputs, 5)?;
    assert_eq!(y.dims(), expected.dims());
    assert_eq!(values(&y)?, values(&expected)?);
    for ((grad, expected), input) in grads.iter().zip(&expected_grads).zip(inputs) {
        assert_eq!(grad.dims(), input.dims());
        assert_eq!(grad.dtype(), input.dtype());
        assert_eq!(values(grad)?, values(expected)?);
    }
    Ok(())
}

#[test]
fn layers_are_joined_on_the_cpu() -> Result<()> {
    let inputs = inputs(2, DType::F32)?;
    assert!(prepare(&inputs[0], &network(&inputs))?.is_some());
    Ok(())
}

#[test]
fn values_and_gradients_have_the_bits_of_the_ops() -> Result<()> {
    for dtype in [DType::F32, DType::F64] {
        for batch in [1, 3, 17] {
            assert_same(&inputs(batch, dtype)?)?;
        }
    }
    Ok(())
}

#[test]
fn an_empty_batch_gives_empty_results_and_zero_gradients() -> Result<()> {
    assert_same(&inputs(0, DType::F32)?)
}

#[test]
fn any_layout_is_taken() -> Result<()> {
    let inputs = inputs(3, DType::F64)?;
    let strided: Vec<Tensor> = inputs.iter().map(awkward_layout).collect::<Result<_>>()?;
    assert_eq!(values(&joined(&strided)?)?, values(&joined(&inputs)?)?);
    assert_same(&strided)
}

#[test]
fn gradients_agree_with_central_differences() -> Result<()> {
    assert_gradients(joined, &inputs(2, DType::F64)?, 1e-7)
}

#[test]
fn a_second_backward_pass_gives_the_same_gradients() -> Result<()> {
    let inputs = inputs(2, DType::F64)?;
    let weight = Var::from_tensor(&inputs[1])?;
    let mut tracked = inputs;
    tracked[1] = weight.as_tensor().clone();
    let loss = joined(&tracked)?.sum_all()?;
    let gradient = || -> Result<Vec<f64>> {
        let grads = loss.backward()?;
        values(grads.get(&weight).expect("the weight is tracked"))
    };
    assert_eq!(gradient()?, gradient()?);
    Ok(())
}

#[test]
fn backward_passes_of_one_graph_may_run_at_once() -> Result<()> {
    let inputs = inputs(4, DType::F64)?;
    let weights: Vec<Var> = inputs.iter().map(Var::from_tensor).collect::<Result<_>>()?;
    let tracked: Vec<Tensor> = weights.iter().map(|w| w.as_tensor().clone()).collect();
    let y = joined(&tracked)?;
    // Each thread scales the result, so that a gradient that went to the wrong pass shows.
    let gradient = |scale: f64| -> Result<Vec<f64>> {
        let grads = (&y * scale)?.sum_all()?.backward()?;
        values(grads.get(&weights[1]).expect("the weight is tracked"))
    };
    let alone: Vec<Vec<f64>> = (1..=4)
        .map(|n| gradient(f64::from(n)))
        .collect::<Result<_>>()?;
    std::thread::scope(|scope| {
        let gradient = &gradient;
        let threads: Vec<_> = (1..=4)
            .map(|n| {
                scope.spawn(move || -> Result<Vec<Vec<f64>>> {
                    (0..200).map(|_| gradient(f64::from(n))).collect()
                })
            })
            .collect();
        for (thread, alone) in threads.into_iter().zip(&alone) {
            let passes = thread.join().expect("no pass panics")?;
            assert!(passes.iter().all(|pass| pass == alone));
        }
        Ok(())
    })
}

#[test]
fn what_tracks_no_gradient_gets_none() -> Result<()> {
    let inputs = inputs(2, DType::F64)?;
    let upstream = random(5, &[2, 1], DType::F64)?;
    for tracked in 0..inputs.len() {
        let mut t = inputs.clone();
        let var = Var::from_tensor(&t[tracked])?;
        t[tracked] = var.as_tensor().clone();
        let grads = (joined(&t)? * &upstream)?.sum_all()?.backward()?;
        let expected = (separate(&t)? * &upstream)?.sum_all()?.backward()?;
        let of = |grads: &GradStore| values(grads.get(&var).expect("the variable is tracked"));
        assert_eq!(of(&grads)?, of(&expected)?);
        for (other, tensor) in t.iter().enumerate().filter(|&(n, _)| n != tracked) {
            assert!(
                grads.get(tensor).is_none(),
                "argument {other} got a gradient"
            );
        }
    }
    Ok(())
}

#[test]
fn nothing_is_tracked_without_variables() -> Result<()> {
    assert!(!joined(&inputs(2, DType::F32)?)?.track_op());
    Ok(())
}

#[test]
fn a_weight_may_serve_two_layers() -> Result<()> {
    let inputs = [
        random(1, &[3, 4], DType::F64)?,
        random(2, &[4, 4], DType::F64)?,
    ];
    let network = |t: &[Tensor]| {
        let layer = Layer::Linear {
            weight: &t[1],
            bias: None,
            relu: true,
        };
        sequential(&t[0], &[layer, layer])
    };
    assert_gradients(network, &inputs, 1e-7)
}

#[test]
fn flatten_may_come_first_and_last() -> Result<()> {
    let t = [
        random(1, &[2, 3, 2], DType::F64)?,
        random(2, &[5, 6], DType::F64)?,
        random(3, &[2, 3, 4, 5], DType::F64)?,
        random(4, &[2, 3, 3, 2], DType::F64)?,
    ];
    let first = |t: &[Tensor]| {
        let layer = Layer::Linear {
            weight: &t[1],
            bias: None,
            relu: false,
        };
        sequential(&t[0], &[Layer::Flatten, layer])
    };
    assert_eq!(first(&t[..2])?.dims(), [2, 5]);
    assert_gradients(first, &t[..2], 1e-7)?;
    let last = |t: &[Tensor]| {
        let layer = Layer::Conv2d {
            weight: &t[1],
            bias: None,
            options: Conv2dOptions::default(),
        };
        sequential(&t[0], &[layer, Layer::Flatten])
    };
    assert_eq!(last(&t[2..])?.dims(), [2, 16]);
    assert_gradients(last, &t[2..], 1e-7)
}

#[test]
fn no_layers_change_nothing() -> Result<()> {
    let x = random(1, &[2, 3], DType::F32)?;
    assert_eq!(values(&sequential(&x, &[])?)?, values(&x)?);
    Ok(())
}

#[test]
fn a_layer_without_kernels_makes_all_of_them_ops() -> Result<()> {
    let block = |t: &[Tensor], f: fn(&Tensor, &[Layer<'_>]) -> Result<Tensor>| {
        f(
            &t[0],
            &[
                Layer::Conv2dReluMaxPool2d {
                    weight: &t[1],
                    bias: &t[2],
                    options: Conv2dOptions::default(),
                    pool_kernel: (17, 16),
                    pool_stride: (1, 1),
                },
                Layer::Flatten,
            ],
        )
    };
    let t = [
        random(1, &[1, 1, 18, 18], DType::F64)?,
        random(2, &[2, 1, 1, 1], DType::F64)?,
        random(3, &[2], DType::F64)?,
    ];
    let (y, grads) = gradients(|t| block(t, sequential), &t, 5)?;
    let (expected, expected_grads) = gradients(|t| block(t, one_by_one), &t, 5)?;
    assert_eq!(y.dims(), [1, 12]);
    assert_eq!(values(&y)?, values(&expected)?);
    for (grad, expected) in grads.iter().zip(&expected_grads) {
        assert_eq!(values(grad)?, values(expected)?);
    }
    Ok(())
}

#[test]
fn errors_are_those_of_the_layer_that_does_not_fit() -> Result<()> {
    let mut t = inputs(2, DType::F32)?;
    t[6] = random(6, &[6, 4], DType::F32)?;
    let message = joined(&t)
        .expect_err("the dense layer does not fit")
        .to_string();
    assert!(
        message.contains("linear: `x` must have shape (..., 4), got [2, 5]"),
        "{message}"
    );
    let x = Tensor::zeros(3, DType::F32, &Device::Cpu)?;
    let message = sequential(&x, &[Layer::Flatten])
        .expect_err("a vector cannot be flattened")
        .to_string();
    assert!(
        message.contains("sequential: `the input of Layer::Flatten` must have 2 dimensions (N, ...) or more, got shape [3]"),
        "{message}"
    );
    Ok(())
}
