//! What comes beside the loss: values, gradients, argmax and the count.

use candle_core::{D, DType, Device, Result, Tensor, Var};
use candle_simd::{Isa, with_isa};

use super::oracle::close;
use crate::{CrossEntropy, Reduction};

fn logits(rows: usize, classes: usize) -> Result<Tensor> {
    let x: Vec<f64> = (0..rows * classes)
        .map(|i| ((i * 37 % 101) as f64) * 0.07 - 3.0)
        .collect();
    Tensor::from_vec(x, (rows, classes), &Device::Cpu)
}

fn targets(rows: usize, classes: usize) -> Result<Tensor> {
    let t: Vec<i64> = (0..rows)
        .map(|i| {
            if i % 4 == 3 {
                -100
            } else {
                (i * 5 % classes) as i64
            }
        })
        .collect();
    Tensor::from_vec(t, rows, &Device::Cpu)
}

#[test]
fn outputs_agree_with_tensor_operations() -> Result<()> {
    for isa in Isa::available() {
        for classes in [3, 20, 77] {
            for scale in [1.0, 1.5] {
                let x = logits(13, classes)?;
                let t = targets(13, classes)?;
                let o = CrossEntropy::new().ignore_index(-100).logit_scale(scale);
                let out = with_isa(isa, || o.forward_with_outputs(&x, &t))?;
                assert_eq!(
                    out.loss.to_scalar::<f64>()?,
                    with_isa(isa, || o.forward(&x, &t))?.to_scalar::<f64>()?
                );
                let lse = (&x * scale)?.log_sum_exp(D::Minus1)?.to_vec1::<f64>()?;
                let argmax = x.argmax(D::Minus1)?.to_vec1::<u32>()?;
                assert_eq!(out.argmax.to_vec1::<u32>()?, argmax);
                let rows = x.to_vec2::<f64>()?;
                let mut correct = 0;
                for (row, &t) in t.to_vec1::<i64>()?.iter().enumerate() {
                    assert!(close(out.lse.to_vec1::<f64>()?[row], lse[row], 1e-12));
                    let expected = if t == -100 {
                        0.0
                    } else {
                        scale * rows[row][t as usize] - lse[row]
                    };
                    assert!(close(
                        out.target_log_prob.to_vec1::<f64>()?[row],
                        expected,
                        1e-12
                    ));
                    correct += usize::from(i64::from(argmax[row]) == t);
                }
                assert_eq!(out.correct, correct);
            }
        }
    }
    Ok(())
}

#[test]
fn the_first_of_equal_maxima_is_the_argmax() -> Result<()> {
    for classes in [4, 60] {
        let mut x = vec![0f32; 2 * classes];
        x[1] = 2.0;
        x[3] = 2.0;
        let x = Tensor::from_vec(x, (2, classes), &Device::Cpu)?;
        let out = CrossEntropy::new()
            .forward_with_outputs(&x, &Tensor::new(&[1u32, 1], &Device::Cpu)?)?;
        assert_eq!(out.argmax.to_vec1::<u32>()?, [1, 0]);
        assert_eq!(out.correct, 1);
    }
    Ok(())
}

/// The gradient of a weighted sum of loss, lse and target's log-probability, by autograd of tensor operations.
fn reference(x: &Var, t: &Tensor, weights: [f64; 3], o: &CrossEntropy) -> Result<Vec<Vec<f64>>> {
    let scaled = x.as_tensor().clone();
    let lse = scaled.log_sum_exp(D::Minus1)?;
    let counts = t.ne(-100i64)?;
    let safe = counts.where_cond(t, &t.zeros_like()?)?;
    let log_prob = (scaled.gather(&safe.unsqueeze(1)?, 1)?.squeeze(1)? - &lse)?;
    let log_prob = (log_prob * counts.to_dtype(DType::F64)?)?;
    let loss = o.composed(x, t)?.sum_all()?;
    let row_weights = Tensor::arange(1f64, (t.elem_count() + 1) as f64, &Device::Cpu)?;
    let sum = ((loss * weights[0])?
        + (((lse * &row_weights)?.sum_all()? * weights[1])?
            + ((log_prob * row_weights)?.sum_all()? * weights[2])?)?)?;
    sum.backward()?.get(x).unwrap().to_vec2()
}

#[test]
fn lse_and_log_probability_are_differentiable_with_the_loss() -> Result<()> {
    for classes in [3, 60] {
        for reduction in [Reduction::Mean, Reduction::None] {
            for weights in [
                [0.7, 0.0, 0.0],
                [0.0, 1.0, 0.0],
                [0.0, 0.0, 1.0],
                [0.7, -0.3, 0.2],
            ] {
                let x = Var::from_tensor(&logits(9, classes)?)?;
                let t = targets(9, classes)?;
                let o = CrossEntropy::new().ignore_index(-100).reduction(reduction);
                let out = o.forward_with_outputs(&x, &t)?;
                let row_weights = Tensor::arange(1f64, 10f64, &Device::Cpu)?;
                let sum = ((out.loss.sum_all()? * weights[0])?
                    + (((out.lse * &row_weights)?.sum_all()? * weights[1])?
                        + ((out.target_log_prob * row_weights)?.sum_all()? * weights[2])?)?)?;
                let gradients = sum.backward()?;
                let got = gradients.get(&x).unwrap().to_vec2::<f64>()?;
                let expected = reference(&x, &t, weights, &o)?;
                for (got, expected) in got.iter().flatten().zip(expected.iter().flatten()) {
                    assert!(
                        close(*got, *expected, 1e-12),
                        "{weights:?}: {got} for {expected}"
                    );
                }
            }
        }
    }
    Ok(())
}
