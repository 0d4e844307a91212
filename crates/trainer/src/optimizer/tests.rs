//! Tests of Adam: against the formula in scalar code, against its composed form to the bit, and through a saved state.

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_simd::{Isa, with_isa};

use super::{Adam, AdamOptions, Parameters};
use crate::errors::Result as TrainerResult;

const CPU: Device = Device::Cpu;

/// Parameters of awkward sizes, one of them larger than a thread's chunk.
fn parameters(dtype: DType) -> Result<Vec<(&'static str, Var)>> {
    let var = |n: usize, phase: f64| -> Result<Var> {
        let values: Vec<f64> = (0..n).map(|i| (i as f64 * 0.37 + phase).sin()).collect();
        Var::from_tensor(&Tensor::from_vec(values, n, &CPU)?.to_dtype(dtype)?)
    };
    Ok(vec![
        ("one", var(1, 0.1)?),
        ("odd", var(17, 0.2)?),
        ("large", var(30_011, 0.3)?),
    ])
}

/// A loss whose gradients differ from element to element and change as the parameters move.
fn loss(parameters: &Parameters) -> Result<Tensor> {
    let mut sum = Tensor::zeros((), parameters[0].1.dtype(), &CPU)?;
    for (_, var) in parameters {
        sum = (sum + ((var.as_tensor() * 1.7)?.cos()? * var.as_tensor())?.sum_all()?)?;
    }
    Ok(sum)
}

fn values(parameters: &Parameters) -> Result<Vec<Vec<f64>>> {
    parameters
        .iter()
        .map(|(_, var)| var.to_dtype(DType::F64)?.to_vec1::<f64>())
        .collect()
}

fn run(adam: &mut Adam, parameters: &Parameters, steps: usize) -> TrainerResult<()> {
    for _ in 0..steps {
        let grads = loss(parameters)?.backward()?;
        adam.step(parameters, &grads)?;
    }
    Ok(())
}

#[test]
fn steps_follow_the_formula() -> TrainerResult<()> {
    let parameters = parameters(DType::F64)?;
    let options = AdamOptions {
        lr: 0.01,
        ..AdamOptions::default()
    };
    let mut expected = values(&parameters)?;
    let mut moments: Vec<Vec<(f64, f64)>> =
        expected.iter().map(|w| vec![(0.0, 0.0); w.len()]).collect();
    let mut adam = Adam::new(options, &parameters)?;
    for t in 1..=5 {
        run(&mut adam, &parameters, 1)?;
        for (w, moments) in expected
            .iter_mut()
            .flatten()
            .zip(moments.iter_mut().flatten())
        {
            let g = (1.7 * *w).cos() - 1.7 * *w * (1.7 * *w).sin();
            let (m, v) = (0.9 * moments.0 + 0.1 * g, 0.999 * moments.1 + 0.001 * g * g);
            let (m_hat, v_hat) = (m / (1.0 - 0.9f64.powi(t)), v / (1.0 - 0.999f64.powi(t)));
            *w -= 0.01 * m_hat / (v_hat.sqrt() + 1e-8);
            *moments = (m, v);
        }
    }
    let got = values(&parameters)?;
    for (w, expected) in got.iter().flatten().zip(expected.iter().flatten()) {
        assert!((w - expected).abs() < 1e-12, "{w} {expected}");
    }
    Ok(())
}

#[test]
fn fused_and_composed_give_the_same_bits_on_every_instruction_set() -> TrainerResult<()> {
    for dtype in [DType::F32, DType::F64] {
        let oracle = parameters(dtype)?;
        run(
            &mut Adam::composed(AdamOptions::default(), &oracle)?,
            &oracle,
            4,
        )?;
        for isa in Isa::available() {
            let fused = parameters(dtype)?;
            with_isa(isa, || {
                run(&mut Adam::new(AdamOptions::default(), &fused)?, &fused, 4)
            })?;
            assert!(values(&fused)? == values(&oracle)?, "{dtype:?} {isa:?}");
        }
    }
    Ok(())
}

#[test]
fn a_step_of_parts_is_a_step_with_the_sum_of_their_gradients() -> TrainerResult<()> {
    let three_steps = |adam: &mut Adam, parameters: &Parameters| -> TrainerResult<()> {
        for step in 1..=3 {
            let scaled = |scale: f64| -> Result<_> {
                loss(parameters)?
                    .affine(scale * step as f64, 0.0)?
                    .backward()
            };
            let parts = [scaled(0.3)?, scaled(-1.7)?, scaled(0.1)?];
            adam.step_of_parts(parameters, &parts.each_ref())?;
        }
        Ok(())
    };
    let (oracle, fused) = (parameters(DType::F32)?, parameters(DType::F32)?);
    three_steps(
        &mut Adam::composed(AdamOptions::default(), &oracle)?,
        &oracle,
    )?;
    three_steps(&mut Adam::new(AdamOptions::default(), &fused)?, &fused)?;
    assert!(values(&fused)? == values(&oracle)?);
    let error = Adam::new(AdamOptions::default(), &fused)?
        .step_of_parts(&fused, &[])
        .expect_err("no parts");
    assert!(error.message().contains("no parts"));
    Ok(())
}

#[test]
fn a_restored_state_goes_on_to_the_same_bits() -> TrainerResult<()> {
    let straight = parameters(DType::F32)?;
    run(
        &mut Adam::new(AdamOptions::default(), &straight)?,
        &straight,
        6,
    )?;
    let stopped = parameters(DType::F32)?;
    let mut adam = Adam::new(AdamOptions::default(), &stopped)?;
    run(&mut adam, &stopped, 2)?;
    let state = adam.state(&stopped)?;
    drop(adam);
    let mut adam = Adam::restore(AdamOptions::default(), &stopped, &state)?;
    assert_eq!(adam.steps(), 2);
    run(&mut adam, &stopped, 4)?;
    assert!(values(&straight)? == values(&stopped)?);
    Ok(())
}

#[test]
fn a_foreign_state_and_a_missing_gradient_are_errors() -> TrainerResult<()> {
    let parameters = parameters(DType::F32)?;
    let mut adam = Adam::new(AdamOptions::default(), &parameters)?;
    let mut state = adam.state(&parameters)?;
    state.moments.pop();
    assert!(Adam::restore(AdamOptions::default(), &parameters, &state).is_err());
    let grads = parameters[0].1.sum_all()?.backward()?;
    let before = values(&parameters)?;
    let error = adam.step(&parameters, &grads).expect_err("no gradient");
    assert!(error.message().contains("parameter odd has no gradient"));
    assert_eq!(adam.steps(), 0);
    assert_eq!(values(&parameters)?, before, "the others are not updated");
    let error = adam.step(&parameters[..1], &grads).expect_err("too few");
    assert!(error.message().contains("made for"), "{}", error.message());
    Ok(())
}

#[test]
fn moments_without_gradients_decay_to_zero_and_stay_out_of_the_subnormal_numbers()
-> TrainerResult<()> {
    let options = AdamOptions {
        beta2: 0.9,
        ..AdamOptions::default()
    };
    for (dtype, steps) in [(DType::F32, 900), (DType::F64, 7_000)] {
        let var = || Var::from_tensor(&Tensor::new(&[0.5f64, -2.0, 3.0], &CPU)?.to_dtype(dtype)?);
        let (fused, composed) = ([("dead", var()?)], [("dead", var()?)]);
        let mut adams = [
            Adam::new(options, &fused)?,
            Adam::composed(options, &composed)?,
        ];
        for (adam, parameters) in adams.iter_mut().zip([&fused, &composed]) {
            let gradients = |scale: f64| {
                loss(parameters)?
                    .mul(&Tensor::new(scale, &CPU)?.to_dtype(dtype)?)?
                    .backward()
            };
            adam.step(parameters, &gradients(1.0)?)?;
            let none = gradients(0.0)?;
            for _ in 0..steps {
                adam.step(parameters, &none)?;
            }
            for (m, v) in adam.state(parameters)?.moments {
                for moment in [m, v] {
                    assert_eq!(moment.to_dtype(DType::F64)?.to_vec1::<f64>()?, [0.0; 3]);
                }
            }
        }
        assert_eq!(values(&fused)?, values(&composed)?);
    }
    Ok(())
}
