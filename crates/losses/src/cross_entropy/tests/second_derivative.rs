//! The gradient op has a backward: its derivatives agree with differences of the gradient itself.

use candle_core::{Device, Result, Tensor, Var};

use super::oracle::close;
use crate::cross_entropy::fused::{CrossEntropyOp, GradientOp};
use crate::cross_entropy::plan::{Plan, TargetKind};
use crate::{CrossEntropy, Reduction};

const ROWS: usize = 3;
const CLASSES: usize = 4;

fn ramp(n: usize, step: usize) -> Vec<f64> {
    (0..n)
        .map(|i| ((i * step % 17) as f64) * 0.13 - 0.9)
        .collect()
}

struct Setting {
    options: CrossEntropy,
    kind: TargetKind,
    outputs: bool,
}

impl Setting {
    /// The gradient as a tensor with a graph, as candle's backward makes it when it keeps graphs.
    fn gradient(&self, logits: &Tensor, target: &Tensor, upstream: &Tensor) -> Result<Tensor> {
        let plan = Plan::new(&self.options, logits, target, self.kind)?;
        let mut forward = CrossEntropyOp::new(plan, logits, target, self.outputs);
        forward.tracked = true;
        logits.apply_op2_no_bwd(target, &forward)?;
        logits.apply_op3(target, upstream, GradientOp { forward })
    }

    fn upstream_len(&self) -> usize {
        let losses = if self.options.reduction == Reduction::None {
            ROWS
        } else {
            1
        };
        losses + if self.outputs { 2 * ROWS } else { 0 }
    }

    fn check(&self, name: &str) -> Result<()> {
        let cpu = &Device::Cpu;
        let logits = Tensor::from_vec(ramp(ROWS * CLASSES, 5), (ROWS, CLASSES), cpu)?;
        let target = match self.kind {
            TargetKind::Indices => Tensor::new(&[1i64, -100, 3], cpu)?,
            TargetKind::Probabilities => {
                Tensor::from_vec(ramp(ROWS * CLASSES, 3), (ROWS, CLASSES), cpu)?.abs()?
            }
        };
        let upstream = Tensor::from_vec(ramp(self.upstream_len(), 7), self.upstream_len(), cpu)?;
        let scalar = self.options.reduction != Reduction::None && !self.outputs;
        let upstream = if scalar {
            upstream.reshape(())?
        } else {
            upstream
        };
        let direction = Tensor::from_vec(ramp(ROWS * CLASSES, 11), (ROWS, CLASSES), cpu)?;

        let (x, g) = (Var::from_tensor(&logits)?, Var::from_tensor(&upstream)?);
        let t = match self.kind {
            TargetKind::Indices => None,
            TargetKind::Probabilities => Some(Var::from_tensor(&target)?),
        };
        let target_used = t.as_ref().map_or(&target, |t| t.as_tensor());
        let value = (self.gradient(&x, target_used, &g)? * &direction)?.sum_all()?;
        let gradients = value.backward()?;

        let along = |logits: &Tensor, target: &Tensor, upstream: &Tensor| -> Result<f64> {
            (self.gradient(logits, target, upstream)? * &direction)?
                .sum_all()?
                .to_scalar::<f64>()
        };
        let differences = |of: &Tensor, f: &dyn Fn(&Tensor) -> Result<f64>| -> Result<Vec<f64>> {
            let h = 1e-5;
            let data = of.flatten_all()?.to_vec1::<f64>()?;
            (0..data.len())
                .map(|i| {
                    let moved = |h: f64| {
                        let mut data = data.clone();
                        data[i] += h;
                        f(&Tensor::from_vec(data, of.shape(), cpu)?)
                    };
                    Ok((moved(h)? - moved(-h)?) / (2.0 * h))
                })
                .collect()
        };
        let agree = |what: &str, got: &Tensor, expected: Vec<f64>| -> Result<()> {
            for (got, expected) in got.flatten_all()?.to_vec1::<f64>()?.iter().zip(expected) {
                assert!(
                    close(*got, expected, 1e-8),
                    "{name}, {what}: {got} for {expected}"
                );
            }
            Ok(())
        };
        agree(
            "logits",
            gradients.get(&x).unwrap(),
            differences(&logits, &|x| along(x, &target, &upstream))?,
        )?;
        agree(
            "upstream",
            gradients.get(&g).unwrap(),
            differences(&upstream, &|g| along(&logits, &target, g))?,
        )?;
        if let Some(t) = &t {
            agree(
                "target",
                gradients.get(t).unwrap(),
                differences(&target, &|t| along(&logits, t, &upstream))?,
            )?;
        }
        Ok(())
    }
}

#[test]
fn derivatives_of_the_gradient_agree_with_differences() -> Result<()> {
    let weight = Tensor::new(&[0.5f64, 1.0, 2.0, 0.25], &Device::Cpu)?;
    let plain = CrossEntropy::new();
    let full = || {
        plain
            .clone()
            .weight(weight.clone())
            .label_smoothing(0.2)
            .z_loss(0.1)
            .softcap(2.0)
            .logit_scale(1.3)
    };
    for reduction in [Reduction::Mean, Reduction::Sum, Reduction::None] {
        for (name, options) in [
            ("plain", plain.clone()),
            ("z-loss", plain.clone().z_loss(0.1)),
            ("full", full()),
        ] {
            let options = options.reduction(reduction);
            let kind = TargetKind::Probabilities;
            Setting {
                options: options.clone(),
                kind,
                outputs: false,
            }
            .check(name)?;
            let options = options.ignore_index(-100);
            for outputs in [false, true] {
                Setting {
                    options: options.clone(),
                    kind: TargetKind::Indices,
                    outputs,
                }
                .check(name)?;
            }
        }
    }
    Ok(())
}

#[test]
fn the_gradient_of_probabilities_is_differentiable() -> Result<()> {
    let cpu = &Device::Cpu;
    let x = Var::from_tensor(&Tensor::from_vec(ramp(12, 5), (3, 4), cpu)?)?;
    let t = Var::from_tensor(&Tensor::from_vec(ramp(12, 3), (3, 4), cpu)?.abs()?)?;
    let plan = Plan::new(&CrossEntropy::new(), &x, &t, TargetKind::Probabilities)?;
    let op = CrossEntropyOp::new(plan, &x, &t, false);
    x.apply_op2_no_bwd(&t, &op)?;
    let upstream = Tensor::new(1f64, cpu)?;
    let of_t =
        crate::cross_entropy::second_derivative::gradient_of_probabilities(&op, &x, &t, &upstream)?;
    // sum of -l_c / rows over all: its derivative with respect to x is (C p - 1) / rows.
    let gradients = of_t.sum_all()?.backward()?;
    let got = gradients.get(&x).unwrap().flatten_all()?.to_vec1::<f64>()?;
    let p = x
        .as_tensor()
        .broadcast_sub(&x.log_sum_exp(1)?.unsqueeze(1)?)?
        .exp()?
        .flatten_all()?
        .to_vec1::<f64>()?;
    for (got, p) in got.iter().zip(p) {
        assert!(close(*got, (4.0 * p - 1.0) / 3.0, 1e-12));
    }
    Ok(())
}

#[test]
fn an_argument_that_tracks_nothing_gets_no_gradient() -> Result<()> {
    let x = Var::from_tensor(&Tensor::from_vec(ramp(12, 5), (3, 4), &Device::Cpu)?)?;
    let t = Tensor::from_vec(ramp(12, 3), (3, 4), &Device::Cpu)?;
    let loss = CrossEntropy::new().forward_probabilities(&x, &t)?;
    let gradients = loss.backward()?;
    assert!(gradients.get(&x).is_some());
    assert!(gradients.get(&t).is_none());
    Ok(())
}
