//! Every form agrees with the oracle over random shapes, layouts, dtypes, options and instruction sets.

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_simd::{Isa, with_isa};
use proptest::prelude::*;

use super::oracle::{Answer, OracleTarget, Problem, close};
use crate::{CrossEntropy, EmptyPolicy, Reduction};

/// How a tensor lies in memory.
#[derive(Clone, Copy, Debug)]
pub(super) enum Arrangement {
    Contiguous,
    /// A window of a larger tensor, at an offset.
    Window,
    /// The class axis last in memory.
    ClassesLast,
    /// The batch axis last in memory.
    BatchLast,
}

#[derive(Clone, Debug)]
struct Case {
    problem: Problem,
    /// (C), (N, C), (N, C, d) or (N, C, d1, d2).
    dims: Vec<usize>,
    dtype: DType,
    index_dtype: DType,
    arrangement: Arrangement,
    upstream: Vec<f64>,
}

/// The same values in another memory layout.
pub(super) fn arrange(x: &Tensor, arrangement: Arrangement) -> Result<Tensor> {
    let last = x.rank() - 1;
    match arrangement {
        Arrangement::Contiguous => Ok(x.clone()),
        Arrangement::Window => {
            let padded = x.pad_with_zeros(0, 1, 2)?.pad_with_zeros(last, 3, 1)?;
            let (first, len) = if last == 0 {
                (4, x.dims()[0])
            } else {
                (1, x.dims()[0])
            };
            let window = padded.narrow(0, first, len)?;
            if last == 0 {
                Ok(window)
            } else {
                window.narrow(last, 3, x.dims()[last])
            }
        }
        Arrangement::ClassesLast if last > 1 => {
            x.transpose(1, last)?.contiguous()?.transpose(1, last)
        }
        Arrangement::BatchLast if last > 0 => {
            x.transpose(0, last)?.contiguous()?.transpose(0, last)
        }
        Arrangement::ClassesLast | Arrangement::BatchLast => Ok(x.clone()),
    }
}

fn row_dims(dims: &[usize]) -> Vec<usize> {
    match dims {
        [_] => vec![],
        _ => dims
            .iter()
            .enumerate()
            .filter(|&(axis, _)| axis != 1)
            .map(|(_, &d)| d)
            .collect(),
    }
}

fn dims() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![
        2 => (1usize..70).prop_map(|c| vec![c]),
        4 => (1usize..40, 1usize..20).prop_map(|(n, c)| vec![n, c]),
        4 => (1usize..9, prop_oneof![Just(47usize), Just(48), Just(49), Just(64), 1usize..300]).prop_map(|(n, c)| vec![n, c]),
        3 => (1usize..5, 1usize..12, 1usize..40).prop_map(|(n, c, d)| vec![n, c, d]),
        2 => (1usize..4, 1usize..60, 1usize..5, 1usize..5).prop_map(|(n, c, d, e)| vec![n, c, d, e]),
    ]
}

#[derive(Clone, Debug)]
struct Options {
    weighted: bool,
    ignore: u8,
    smoothing: f64,
    reduction: Reduction,
    num_items: Option<f64>,
    z_loss: f64,
    softcap: Option<f64>,
    scale: f64,
}

fn options() -> impl Strategy<Value = Options> {
    let reduction = prop_oneof![
        Just(Reduction::Mean),
        Just(Reduction::Sum),
        Just(Reduction::None)
    ];
    (
        any::<bool>(),
        0u8..3,
        prop_oneof![3 => Just(0.0), 1 => Just(0.1), 1 => Just(1.0)],
        reduction,
        proptest::option::weighted(0.2, 1.0..50.0),
        prop_oneof![2 => Just(0.0), 1 => Just(0.01)],
        prop_oneof![3 => Just(None), 1 => Just(Some(5.0))],
        prop_oneof![3 => Just(1.0), 1 => Just(0.7), 1 => Just(-1.3)],
    )
        .prop_map(
            |(weighted, ignore, smoothing, reduction, num_items, z_loss, softcap, scale)| Options {
                weighted,
                ignore,
                smoothing,
                reduction,
                num_items: num_items.filter(|_| reduction != Reduction::None),
                z_loss,
                softcap,
                scale,
            },
        )
}

fn case(probabilities: bool) -> impl Strategy<Value = Case> {
    let dtype = prop_oneof![
        3 => Just(DType::F64), 3 => Just(DType::F32), 1 => Just(DType::F16), 1 => Just(DType::BF16)
    ];
    let index_dtype = prop_oneof![
        Just(DType::U8),
        Just(DType::U32),
        Just(DType::I16),
        Just(DType::I32),
        Just(DType::I64)
    ];
    let arrangement = prop_oneof![
        Just(Arrangement::Contiguous),
        Just(Arrangement::Window),
        Just(Arrangement::ClassesLast),
        Just(Arrangement::BatchLast)
    ];
    (
        dims(),
        dtype,
        index_dtype,
        arrangement,
        options(),
        any::<u64>(),
    )
        .prop_map(move |(dims, dtype, index_dtype, arrangement, o, seed)| {
            let mut state = seed | 1;
            let mut uniform = move || {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 11) as f64 / (1u64 << 53) as f64
            };
            let (batch, classes) = if dims.len() == 1 {
                (1, dims[0])
            } else {
                (dims[0], dims[1])
            };
            let index_dtype = if classes > 255 && index_dtype == DType::U8 {
                DType::U32
            } else {
                index_dtype
            };
            let inner: usize = dims.iter().skip(2).product();
            // Values that f16 and bf16 hold exactly, so that one oracle serves all types.
            let logits = (0..dims.iter().product())
                .map(|_| (uniform() * 64.0).round() / 4.0 - 8.0)
                .collect();
            let rows = batch * inner;
            let target = if probabilities {
                OracleTarget::Probabilities(
                    (0..batch * classes * inner)
                        .map(|_| (uniform() * 8.0).floor() / 16.0)
                        .collect(),
                )
            } else {
                let ignore = match o.ignore {
                    0 => None,
                    1 => Some((classes / 2) as i64),
                    // Negative only where the type holds it.
                    _ => Some(if matches!(index_dtype, DType::U8 | DType::U32) {
                        255
                    } else {
                        -100
                    }),
                };
                let ignore = ignore.filter(|&i| o.ignore != 2 || i < 0 || classes <= 255);
                let values = (0..rows)
                    .map(|_| match ignore {
                        Some(ignore) if uniform() < 0.25 => ignore,
                        _ => (uniform() * classes as f64) as i64,
                    })
                    .collect();
                OracleTarget::Indices { values, ignore }
            };
            let weight = o.weighted.then(|| {
                (0..classes)
                    .map(|_| (uniform() * 8.0).round() / 4.0)
                    .collect()
            });
            let upstream = (0..if o.reduction == Reduction::None {
                rows
            } else {
                1
            })
                .map(|_| uniform() * 3.0 - 1.0)
                .collect();
            let problem = Problem {
                logits,
                batch,
                classes,
                inner,
                target,
                weight,
                smoothing: o.smoothing,
                reduction: o.reduction,
                num_items: o.num_items,
                z_loss: o.z_loss,
                softcap: o.softcap,
                scale: o.scale,
                on_empty: EmptyPolicy::Zero,
            };
            Case {
                problem,
                dims,
                dtype,
                index_dtype,
                arrangement,
                upstream,
            }
        })
}

impl Case {
    fn options(&self) -> Result<CrossEntropy> {
        let p = &self.problem;
        let mut o = CrossEntropy::new()
            .label_smoothing(p.smoothing)
            .reduction(p.reduction)
            .z_loss(p.z_loss)
            .logit_scale(p.scale)
            .on_empty(p.on_empty);
        if let Some(weight) = &p.weight {
            o = o.weight(Tensor::new(weight.as_slice(), &Device::Cpu)?);
        }
        if let OracleTarget::Indices {
            ignore: Some(ignore),
            ..
        } = p.target
        {
            o = o.ignore_index(ignore);
        }
        if let Some(cap) = p.softcap {
            o = o.softcap(cap);
        }
        if let Some(items) = p.num_items {
            o = o.num_items(items);
        }
        Ok(o)
    }

    fn target(&self) -> Result<Tensor> {
        match &self.problem.target {
            OracleTarget::Indices { values, .. } => {
                Tensor::from_vec(values.clone(), row_dims(&self.dims), &Device::Cpu)?
                    .to_dtype(self.index_dtype)
            }
            OracleTarget::Probabilities(t) => {
                Tensor::from_vec(t.clone(), self.dims.as_slice(), &Device::Cpu)?
                    .to_dtype(self.dtype)
            }
        }
    }

    /// Half precision: rounding to the type, relative to the largest element.
    fn tolerances(&self) -> (f64, f64) {
        match self.dtype {
            DType::F64 => (1e-11, 1e-11),
            DType::F32 => (2e-5, 2e-5),
            DType::F16 => (2e-5, 1e-3),
            _ => (2e-5, 8e-3),
        }
    }

    fn check_values(
        &self,
        what: &str,
        got: &Tensor,
        expected: &[f64],
        tolerance: f64,
    ) -> Result<()> {
        let got = got.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
        assert_eq!(got.len(), expected.len(), "{what}");
        for (i, (&got, &expected)) in got.iter().zip(expected).enumerate() {
            assert!(
                close(got, expected, tolerance),
                "{what}, element {i}: {got:e} for {expected:e}"
            );
        }
        Ok(())
    }

    /// Runs one form with a weighted sum as what follows, and compares loss and gradients.
    fn check_form(
        &self,
        what: &str,
        answer: &Answer,
        form: impl Fn(&CrossEntropy, &Tensor, &Tensor) -> Result<Tensor>,
    ) -> Result<()> {
        let (loss_tolerance, gradient_tolerance) = self.tolerances();
        let logits = Tensor::from_vec(
            self.problem.logits.clone(),
            self.dims.as_slice(),
            &Device::Cpu,
        )?
        .to_dtype(self.dtype)?;
        let logits = Var::from_tensor(&logits)?;
        let is_probabilities = matches!(self.problem.target, OracleTarget::Probabilities(_));
        let target = self.target()?;
        let target_var = if is_probabilities {
            Some(Var::from_tensor(&target)?)
        } else {
            None
        };
        let target = target_var
            .as_ref()
            .map_or(target, |var| var.as_tensor().clone());
        let arranged = arrange(&target, self.arrangement)
            .or_else(|_| Ok::<_, candle_core::Error>(target.clone()))?;
        let target = if target.rank() == 0 { target } else { arranged };
        let loss = form(
            &self.options()?,
            &arrange(&logits, self.arrangement)?,
            &target,
        )?;
        self.check_values(&format!("{what} loss"), &loss, &answer.loss, loss_tolerance)?;
        let upstream = Tensor::from_vec(self.upstream.clone(), loss.dims(), &Device::Cpu)?
            .to_dtype(loss.dtype())?;
        let gradients = (loss * upstream)?.sum_all()?.backward()?;
        let gradient = gradients.get(&logits).unwrap();
        self.check_values(
            &format!("{what} gradient"),
            gradient,
            &answer.gradient,
            gradient_tolerance,
        )?;
        if let Some(target) = target_var {
            let what = format!("{what} gradient of probabilities");
            match gradients.get(&target) {
                Some(gradient) => {
                    self.check_values(&what, gradient, &answer.target_gradient, gradient_tolerance)?
                }
                // Candle drops what is multiplied by 0 from the graph: with smoothing 1 nothing flows.
                None => assert!(
                    answer.target_gradient.iter().all(|&g| g == 0.0),
                    "{what} is missing"
                ),
            }
        }
        Ok(())
    }
}

fn check(case: &Case) -> Result<()> {
    let answer = case.problem.solve(&case.upstream);
    let is_probabilities = matches!(case.problem.target, OracleTarget::Probabilities(_));
    let composed = if is_probabilities {
        CrossEntropy::composed_probabilities
    } else {
        CrossEntropy::composed
    };
    let fused = if is_probabilities {
        CrossEntropy::forward_probabilities
    } else {
        CrossEntropy::forward
    };
    case.check_form("composed", &answer, composed)?;
    for isa in Isa::available() {
        with_isa(isa, || case.check_form(isa.name(), &answer, fused))?;
    }

    let ones = vec![1.0; case.upstream.len()];
    let answer = case.problem.solve(&ones);
    let (loss_tolerance, gradient_tolerance) = case.tolerances();
    let logits = Tensor::from_vec(
        case.problem.logits.clone(),
        case.dims.as_slice(),
        &Device::Cpu,
    )?
    .to_dtype(case.dtype)?;
    let logits = arrange(&logits, case.arrangement)?;
    let target = case.target()?;
    let options = case.options()?;
    for isa in Isa::available() {
        let name = isa.name();
        let (loss, gradient) = with_isa(isa, || {
            if is_probabilities {
                options.value_and_grad_probabilities(&logits, &target)
            } else {
                options.value_and_grad(&logits, &target)
            }
        })?;
        case.check_values(
            &format!("{name} value"),
            &loss,
            &answer.loss,
            loss_tolerance,
        )?;
        case.check_values(
            &format!("{name} grad"),
            &gradient,
            &answer.gradient,
            gradient_tolerance,
        )?;
        if !is_probabilities {
            let copy = arrange(&logits.copy()?.force_contiguous()?, case.arrangement)?;
            let (loss, gradient) =
                with_isa(isa, || options.value_and_grad_in_place(copy, &target))?;
            case.check_values(
                &format!("{name} value in place"),
                &loss,
                &answer.loss,
                loss_tolerance,
            )?;
            case.check_values(
                &format!("{name} grad in place"),
                &gradient,
                &answer.gradient,
                gradient_tolerance,
            )?;
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_form_agrees_with_the_oracle_on_indices(case in case(false)) {
        check(&case).unwrap();
    }

    #[test]
    fn every_form_agrees_with_the_oracle_on_probabilities(case in case(true)) {
        check(&case).unwrap();
    }
}

#[test]
fn a_broadcast_batch_is_read_without_a_copy_and_its_gradient_is_summed() -> Result<()> {
    for classes in [3, 100] {
        let row = Tensor::arange(0f64, classes as f64, &Device::Cpu)?
            .affine(0.1, 0.0)?
            .sin()?;
        let row = Var::from_tensor(&row)?;
        let targets = Tensor::new(&[0u32, 2, 1], &Device::Cpu)?;
        let broadcast = row.broadcast_as((3, classes))?;
        let repeated = row.unsqueeze(0)?.repeat((3, 1))?;
        let a = CrossEntropy::new().forward(&broadcast, &targets)?;
        let b = CrossEntropy::new().forward(&repeated, &targets)?;
        assert_eq!(a.to_scalar::<f64>()?, b.to_scalar::<f64>()?);
        let a = a.backward()?.get(&row).unwrap().to_vec1::<f64>()?;
        let b = b.backward()?.get(&row).unwrap().to_vec1::<f64>()?;
        for (a, b) in a.iter().zip(b) {
            assert!(close(*a, b, 1e-14));
        }
    }
    Ok(())
}
