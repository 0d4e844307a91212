//! Cross entropy: option x target kind x reduction x dtype, fused and composed, and the outputs beside the loss.

use super::form::Form;
use super::inputs::{positive, shape_name, targets, values};
use super::{FLOATS, REDUCTIONS};
use crate::case::{Case, Outcome};
use candle_core::{DType, Device, Result, Tensor};
use candle_gradcheck::GradCheck;
use candle_losses::{CrossEntropy, Reduction};

/// A choice of options; `build` gets the class weights.
#[derive(Clone, Copy)]
pub(super) struct Setting {
    pub(super) name: &'static str,
    pub(super) ignored: Option<i64>,
    pub(super) build: fn(CrossEntropy, Tensor) -> CrossEntropy,
}

/// Every option on its own and all of them together.
pub(super) const SETTINGS: [Setting; 10] = [
    Setting {
        name: "plain",
        ignored: None,
        build: |loss, _| loss,
    },
    Setting {
        name: "weight",
        ignored: None,
        build: |loss, weight| loss.weight(weight),
    },
    Setting {
        name: "ignore_negative",
        ignored: Some(-100),
        build: |loss, _| loss,
    },
    Setting {
        name: "ignore_class",
        ignored: Some(2),
        build: |loss, weight| loss.weight(weight),
    },
    Setting {
        name: "smoothing",
        ignored: None,
        build: |loss, _| loss.label_smoothing(0.1),
    },
    Setting {
        name: "smoothing_weight",
        ignored: None,
        build: |loss, weight| loss.label_smoothing(0.3).weight(weight),
    },
    Setting {
        name: "z_loss",
        ignored: None,
        build: |loss, _| loss.z_loss(0.05),
    },
    Setting {
        name: "softcap",
        ignored: None,
        build: |loss, _| loss.softcap(1.3),
    },
    Setting {
        name: "logit_scale",
        ignored: None,
        build: |loss, _| loss.logit_scale(1.7),
    },
    Setting {
        name: "everything",
        ignored: Some(-1),
        build: |loss, weight| {
            loss.weight(weight)
                .label_smoothing(0.2)
                .z_loss(0.02)
                .softcap(2.5)
                .logit_scale(0.8)
        },
    },
];

impl Setting {
    /// The loss with this setting, for logits whose class axis has `classes`.
    pub(super) fn loss(
        &self,
        classes: usize,
        reduction: Reduction,
        device: &Device,
    ) -> Result<CrossEntropy> {
        let weight = positive(&[classes], DType::F64, 3, device)?;
        let loss = (self.build)(CrossEntropy::new().reduction(reduction), weight);
        Ok(self
            .ignored
            .into_iter()
            .fold(loss, CrossEntropy::ignore_index))
    }
}

/// The shape of the targets of logits (C), (N, C) or (N, C, d1, ...).
pub(super) fn target_shape(logits: &[usize]) -> Vec<usize> {
    match logits {
        [_] => vec![],
        [n, _, rest @ ..] => std::iter::once(*n).chain(rest.iter().copied()).collect(),
        [] => vec![],
    }
}

/// The number of classes of logits of that shape.
pub(super) fn classes(logits: &[usize]) -> usize {
    if logits.len() == 1 {
        logits[0]
    } else {
        logits[1]
    }
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for dtype in FLOATS {
        for form in Form::all(dtype) {
            // A difference in second order is a forward and a backward pass for each element.
            let (hard, soft) = match form {
                Form::SecondOrder => ([3, 4], [2, 4]),
                _ => ([4, 7], [3, 5]),
            };
            for setting in SETTINGS {
                for (name, reduction) in REDUCTIONS {
                    cases.push(indices(form, setting, name, reduction, dtype, &hard));
                    if setting.ignored.is_none() {
                        let shape = &soft;
                        cases.push(probabilities(form, setting, name, reduction, dtype, shape));
                    }
                }
            }
        }
    }
    for form in Form::FIRST_ORDER {
        let everything = SETTINGS[SETTINGS.len() - 1];
        for shape in [
            &[6][..],
            &[1, 1],
            &[1, 9],
            &[17, 33],
            &[2, 4, 3],
            &[2, 3, 2, 5],
            &[3, 70],
        ] {
            for (name, reduction) in REDUCTIONS {
                for setting in [SETTINGS[0], everything] {
                    cases.push(indices(form, setting, name, reduction, DType::F64, shape));
                }
                cases.push(indices(
                    form,
                    everything,
                    name,
                    reduction,
                    DType::F32,
                    shape,
                ));
            }
        }
        for shape in [&[6][..], &[2, 4, 3], &[17, 33]] {
            cases.push(probabilities(
                form,
                SETTINGS[5],
                "mean",
                Reduction::Mean,
                DType::F64,
                shape,
            ));
        }
    }
    for dtype in [DType::U8, DType::U32, DType::I64] {
        cases.push(index_dtype(dtype));
    }
    for dtype in FLOATS {
        cases.push(num_items(dtype));
        for form in Form::all(dtype).filter(|form| form.is_fused()) {
            cases.push(output(form, dtype, "lse", |loss, x, y| {
                Ok(loss.forward_with_outputs(x, y)?.lse)
            }));
            cases.push(output(form, dtype, "target_log_prob", |loss, x, y| {
                Ok(loss.forward_with_outputs(x, y)?.target_log_prob)
            }));
            cases.push(output(form, dtype, "loss_of_outputs", |loss, x, y| {
                Ok(loss.forward_with_outputs(x, y)?.loss)
            }));
        }
    }
    cases
}

fn indices(
    form: Form,
    setting: Setting,
    name: &str,
    reduction: Reduction,
    dtype: DType,
    shape: &[usize],
) -> Case {
    let name = format!(
        "cross_entropy/{}/{}/{name}/{}/{}",
        form.name(),
        setting.name,
        shape_name(shape),
        dtype.as_str()
    );
    let shape = shape.to_vec();
    form.mark(Case::new(name, "cross_entropy", dtype, move |device| {
        let loss = setting.loss(classes(&shape), reduction, device)?;
        let logits = values(&shape, dtype, 0, device)?;
        let targets = targets(
            &target_shape(&shape),
            classes(&shape),
            setting.ignored,
            device,
        )?;
        let run = |i: &[Tensor]| {
            if form.is_fused() {
                loss.forward(&i[0], &i[1])
            } else {
                loss.composed(&i[0], &i[1])
            }
        };
        form.check(GradCheck::new().names(["logits"]), run, &[logits, targets])
    }))
}

fn probabilities(
    form: Form,
    setting: Setting,
    name: &str,
    reduction: Reduction,
    dtype: DType,
    shape: &[usize],
) -> Case {
    let name = format!(
        "cross_entropy/{}/probabilities/{}/{name}/{}/{}",
        form.name(),
        setting.name,
        shape_name(shape),
        dtype.as_str()
    );
    let shape = shape.to_vec();
    form.mark(Case::new(name, "cross_entropy", dtype, move |device| {
        let loss = setting.loss(classes(&shape), reduction, device)?;
        let logits = values(&shape, dtype, 0, device)?;
        // They need not sum to 1.
        let probabilities = positive(&shape, dtype, 1, device)?;
        let run = |i: &[Tensor]| {
            if form.is_fused() {
                loss.forward_probabilities(&i[0], &i[1])
            } else {
                loss.composed_probabilities(&i[0], &i[1])
            }
        };
        form.check(
            GradCheck::new().names(["logits", "probabilities"]),
            run,
            &[logits, probabilities],
        )
    }))
}

fn index_dtype(dtype: DType) -> Case {
    let name = format!("cross_entropy/fused/targets_{}/f64", dtype.as_str());
    Case::new(name, "cross_entropy", DType::F64, move |device| {
        let logits = values(&[5, 9], DType::F64, 0, device)?;
        let targets = targets(&[5], 9, None, device)?.to_dtype(dtype)?;
        let run = |i: &[Tensor]| candle_losses::cross_entropy(&i[0], &i[1]);
        Form::Fused.check(GradCheck::new().names(["logits"]), run, &[logits, targets])
    })
}

fn num_items(dtype: DType) -> Case {
    let name = format!("cross_entropy/fused/num_items/mean/4x7/{}", dtype.as_str());
    Case::new(name, "cross_entropy", dtype, move |device| {
        let logits = values(&[4, 7], dtype, 0, device)?;
        let targets = targets(&[4], 7, Some(-100), device)?;
        let loss = CrossEntropy::new().ignore_index(-100).num_items(11.0);
        let run = |i: &[Tensor]| loss.forward(&i[0], &i[1]);
        let report = GradCheck::new()
            .names(["logits"])
            .check(run, &[logits.clone(), targets.clone()])?;
        let summed = CrossEntropy::new()
            .ignore_index(-100)
            .reduction(Reduction::Sum)
            .forward(&logits, &targets)?;
        let (divided, summed) = (scalar(&loss.forward(&logits, &targets)?)?, scalar(&summed)?);
        if (divided - summed / 11.0).abs() > 1e-6 {
            let reason = format!("the loss is {divided} for 11 items and their sum is {summed}");
            return Ok(Outcome::Failed {
                max_error: (divided - summed / 11.0).abs(),
                reason,
            });
        }
        Ok(report.into())
    })
}

type Selected = fn(&CrossEntropy, &Tensor, &Tensor) -> Result<Tensor>;

fn output(form: Form, dtype: DType, what: &str, select: Selected) -> Case {
    let name = format!(
        "cross_entropy/{}/outputs/{what}/4x7/{}",
        form.name(),
        dtype.as_str()
    );
    form.mark(Case::new(name, "cross_entropy", dtype, move |device| {
        let logits = values(&[4, 7], dtype, 0, device)?;
        let targets = targets(&[4], 7, Some(-100), device)?;
        let loss = CrossEntropy::new()
            .ignore_index(-100)
            .softcap(2.0)
            .logit_scale(1.2);
        let run = |i: &[Tensor]| select(&loss, &i[0], &i[1]);
        form.check(GradCheck::new().names(["logits"]), run, &[logits, targets])
    }))
}

fn scalar(tensor: &Tensor) -> Result<f64> {
    tensor.to_dtype(DType::F64)?.to_scalar()
}
