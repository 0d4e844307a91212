//! Claims about the dense layer, against the composed form and central differences.

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_simd::{Isa, with_isa};

use super::{composed, linear};
use crate::test_support::{
    assert_gradients, awkward_layout, gradients, max_difference, random, values,
};

/// Shape of `x` and outputs.
const CASES: [(&[usize], usize); 8] = [
    (&[2, 3], 4),
    (&[1, 1], 1),
    (&[5], 3),
    (&[17, 9], 17),
    (&[2, 3, 5], 7),
    (&[9, 33], 50),
    (&[128, 84], 10),
    (&[3, 16], 64),
];

fn arguments(x: &[usize], outputs: usize, dtype: DType) -> Result<Vec<Tensor>> {
    Ok(vec![
        random(1, x, dtype)?,
        random(2, &[outputs, x[x.len() - 1]], dtype)?,
        random(3, &[outputs], dtype)?,
    ])
}

#[test]
fn gradients_of_every_argument_agree_with_central_differences() -> Result<()> {
    for relu in [false, true] {
        for (x, outputs) in &CASES[..5] {
            let arguments = arguments(x, *outputs, DType::F64)?;
            assert_gradients(
                |t| linear(&t[0], &t[1], Some(&t[2]), relu),
                &arguments,
                1e-7,
            )?;
            assert_gradients(|t| linear(&t[0], &t[1], None, relu), &arguments[..2], 1e-7)?;
        }
    }
    Ok(())
}

#[test]
fn every_instruction_set_agrees_with_the_composed_form_in_every_layout() -> Result<()> {
    for (x, outputs) in CASES.into_iter().chain([(&[150usize, 400][..], 120usize)]) {
        for relu in [false, true] {
            let arguments = arguments(x, outputs, DType::F64)?;
            let composed = |t: &[Tensor]| composed::linear(&t[0], &t[1], Some(&t[2]), relu);
            let (y, grads) = gradients(composed, &arguments, 9)?;
            for (dtype, tolerance) in [(DType::F64, 1e-10), (DType::F32, 1e-3)] {
                let plain: Vec<Tensor> = arguments
                    .iter()
                    .map(|t| t.to_dtype(dtype))
                    .collect::<Result<_>>()?;
                let strided = vec![
                    awkward_layout(&plain[0])?,
                    awkward_layout(&plain[1])?,
                    plain[2].clone(),
                ];
                for arguments in [plain, strided] {
                    for isa in Isa::available() {
                        let ours = |t: &[Tensor]| linear(&t[0], &t[1], Some(&t[2]), relu);
                        let (y2, grads2) = with_isa(isa, || gradients(ours, &arguments, 9))?;
                        assert!(
                            max_difference(&y, &y2)? < tolerance,
                            "{isa:?} {x:?} {outputs}"
                        );
                        for (grad, grad2) in grads.iter().zip(&grads2) {
                            assert!(
                                max_difference(grad, grad2)? < tolerance,
                                "{isa:?} {x:?} {outputs}"
                            );
                        }
                    }
                }
            }
        }
    }
    Ok(())
}

#[test]
fn relu_passes_nothing_at_zero_and_keeps_nan() -> Result<()> {
    let x = Var::new(&[[0f32], [-1.], [2.], [f32::NAN]], &Device::Cpu)?;
    let weight = Tensor::new(&[[1f32]], &Device::Cpu)?;
    let y = linear(&x, &weight, None, true)?;
    let out = values(&y)?;
    assert_eq!(out[..3], [0., 0., 2.]);
    assert!(out[3].is_nan());
    let grads = y.backward()?;
    assert_eq!(values(grads.get(&x).unwrap())?, [0., 0., 1., 1.]);
    Ok(())
}

#[test]
fn an_empty_batch_has_zero_weight_gradients() -> Result<()> {
    let x = Var::from_tensor(&Tensor::zeros((0, 3), DType::F32, &Device::Cpu)?)?;
    let weight = Var::from_tensor(&random(1, &[2, 3], DType::F32)?)?;
    let y = linear(&x, &weight, None, true)?;
    assert_eq!(y.dims(), [0, 2]);
    let grads = y.backward()?;
    assert_eq!(grads.get(&x).unwrap().dims(), [0, 3]);
    assert_eq!(values(grads.get(&weight).unwrap())?, [0.; 6]);
    Ok(())
}

#[test]
fn a_weight_too_large_for_the_kernel_gives_the_same_values() -> Result<()> {
    let t = arguments(&[3, 600], 500, DType::F32)?;
    let y = linear(&t[0], &t[1], Some(&t[2]), true)?;
    let wide: Vec<Tensor> = t
        .iter()
        .map(|t| t.to_dtype(DType::F64))
        .collect::<Result<_>>()?;
    let expected = composed::linear(&wide[0], &wide[1], Some(&wide[2]), true)?;
    assert!(max_difference(&y, &expected)? < 1e-4);
    Ok(())
}

#[test]
fn one_thread_and_two_give_the_same_bits() -> Result<()> {
    let t = arguments(&[133, 400], 120, DType::F32)?;
    let run = |threads| -> Result<(Tensor, Vec<Tensor>)> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        let pool = pool.map_err(candle_core::Error::wrap)?;
        pool.install(|| gradients(|t| linear(&t[0], &t[1], Some(&t[2]), true), &t, 4))
    };
    let ((y, grads), (y2, grads2)) = (run(1)?, run(2)?);
    assert_eq!(max_difference(&y, &y2)?, 0.0);
    for (grad, grad2) in grads.iter().zip(&grads2) {
        assert_eq!(max_difference(grad, grad2)?, 0.0);
    }
    Ok(())
}

#[test]
fn bad_arguments_are_named() -> Result<()> {
    let zeros = |shape: &[usize], dtype| Tensor::zeros(shape, dtype, &Device::Cpu);
    let x = zeros(&[2, 3], DType::F32)?;
    let weight = zeros(&[4, 3], DType::F32)?;
    let message = |x: &Tensor, weight: &Tensor, bias: Option<&Tensor>| {
        linear(x, weight, bias, false).unwrap_err().to_string()
    };
    let cases = [
        (
            message(&zeros(&[2, 3], DType::U8)?, &weight, None),
            "linear: `x` must be f32, f64, got U8",
        ),
        (
            message(&x, &zeros(&[4, 3], DType::F64)?, None),
            "linear: `weight` must be f32, got F64",
        ),
        (
            message(&x, &zeros(&[3], DType::F32)?, None),
            "linear: `weight` must have 2 dimensions (outputs, inputs), got shape [3]",
        ),
        (
            message(&zeros(&[2, 4], DType::F32)?, &weight, None),
            "linear: `x` must have shape (..., 3), got [2, 4]",
        ),
        (
            message(&x, &weight, Some(&zeros(&[3], DType::F32)?)),
            "linear: `bias` must have shape (4), got [3]",
        ),
    ];
    for (got, expected) in cases {
        assert!(got.contains(expected), "{got}");
    }
    Ok(())
}
