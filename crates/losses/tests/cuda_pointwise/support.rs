//! Every loss, reproducible data, and one computation on both devices.

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_losses::*;

/// The device under test. Made anew by each test, so that nothing outlives it.
pub(crate) fn cuda() -> Device {
    Device::new_cuda(0).unwrap_or_else(|error| panic!("no CUDA device: {error}"))
}

/// The options that every loss has.
#[derive(Clone, Default)]
pub(crate) struct Setup {
    pub(crate) weight: Option<Tensor>,
    pub(crate) reduction: Reduction,
    pub(crate) on_empty: EmptyPolicy,
}

type Run = Box<dyn Fn(&Setup, &Tensor, &Tensor) -> Result<Tensor>>;

pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) run: Run,
    /// Turn numbers around 0 into inputs and targets that the loss is made for.
    pub(crate) to_input: fn(f64) -> f64,
    pub(crate) to_target: fn(f64) -> f64,
}

macro_rules! case {
    ($name:literal, $builder:expr, $to_input:expr, $to_target:expr) => {
        Case {
            name: $name,
            run: Box::new(|setup, input, target| {
                let mut loss = $builder.reduction(setup.reduction).on_empty(setup.on_empty);
                if let Some(weight) = &setup.weight {
                    loss = loss.weight(weight.to_device(input.device())?);
                }
                loss.forward(input, target)
            }),
            to_input: $to_input,
            to_target: $to_target,
        }
    };
}

pub(crate) fn catalogue() -> Vec<Case> {
    let same = |v: f64| v;
    let probability = |v: f64| 1.0 / (1.0 + (-v).exp());
    let log = |v: f64| -(1.0 + (-v).exp()).ln();
    let sign = |v: f64| if v < 0.0 { -1.0 } else { 1.0 };
    let count = |v: f64| (2.0 * v.abs()).ceil();
    vec![
        case!("mse", Mse::new(), same, same),
        case!("l1", L1::new(), same, same),
        case!("smooth_l1", SmoothL1::new().beta(0.7), same, same),
        case!("smooth_l1 beta 0", SmoothL1::new().beta(0.0), same, same),
        case!("huber", Huber::new().delta(0.7), same, same),
        case!(
            "bce",
            BinaryCrossEntropyWithLogits::new(),
            same,
            probability
        ),
        case!("soft_margin", SoftMargin::new(), same, sign),
        case!("kl_div", KlDiv::new(), log, probability),
        case!(
            "kl_div batch mean",
            KlDiv::new().batch_mean(true),
            log,
            probability
        ),
        case!("kl_div of logs", KlDiv::new().log_target(true), log, log),
        case!("poisson_nll", PoissonNll::new(), same, count),
        case!(
            "poisson_nll full",
            PoissonNll::new().full(true),
            same,
            count
        ),
        case!(
            "poisson_nll of rates",
            PoissonNll::new().log_input(false).eps(1e-3),
            f64::abs,
            count
        ),
        case!("focal", Focal::new(), same, probability),
        case!(
            "focal gamma 1.5",
            Focal::new().alpha(0.6).gamma(1.5),
            same,
            probability
        ),
        case!(
            "focal gamma 0",
            Focal::new().no_alpha().gamma(0.0),
            same,
            probability
        ),
    ]
}

/// A fixed stream of numbers in (-3, 3).
pub(crate) fn numbers(len: usize, seed: u64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1);
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            6.0 * ((state >> 11) as f64 / (1u64 << 53) as f64) - 3.0
        })
        .collect()
}

pub(crate) fn tensor(values: Vec<f64>, shape: &[usize], dtype: DType) -> Tensor {
    Tensor::from_vec(values, shape, &Device::Cpu)
        .unwrap()
        .to_dtype(dtype)
        .unwrap()
}

pub(crate) fn flat(t: &Tensor) -> Vec<f64> {
    let t = t
        .to_device(&Device::Cpu)
        .unwrap()
        .to_dtype(DType::F64)
        .unwrap();
    t.flatten_all().unwrap().to_vec1().unwrap()
}

/// Loss and gradients of input and target, of the loss times an upstream gradient, with each variable seen through `view`.
pub(crate) fn run(
    case: &Case,
    setup: &Setup,
    x: &Tensor,
    t: &Tensor,
    view: impl Fn(&Tensor) -> Result<Tensor>,
) -> Result<[Tensor; 3]> {
    let (x, t) = (Var::from_tensor(x)?, Var::from_tensor(t)?);
    let loss = (case.run)(setup, &view(&x)?, &view(&t)?)?;
    let upstream = tensor(numbers(loss.elem_count(), 99), loss.dims(), loss.dtype());
    // Candle's sum of a tensor without axes fails on CUDA: it uploads an empty list of them.
    let total = (&loss * upstream.to_device(loss.device())?)?
        .flatten_all()?
        .sum(0)?;
    let gradients = total.backward()?;
    let of = |v: &Var| {
        gradients
            .get(v)
            .expect("both arguments get a gradient")
            .clone()
    };
    Ok([loss, of(&x), of(&t)])
}

#[track_caller]
pub(crate) fn assert_close(what: &str, got: &Tensor, want: &Tensor, tolerance: f64) {
    assert_eq!(
        (got.dims(), got.dtype()),
        (want.dims(), want.dtype()),
        "{what}"
    );
    for (i, (got, want)) in flat(got).iter().zip(&flat(want)).enumerate() {
        let close = got == want || (got - want).abs() <= tolerance * (1.0 + want.abs());
        assert!(
            close || (got.is_nan() && want.is_nan()),
            "{what}: element {i} is {got}, not {want}"
        );
    }
}

pub(crate) const DTYPES: [DType; 4] = [DType::F32, DType::F64, DType::F16, DType::BF16];
pub(crate) const REDUCTIONS: [Reduction; 3] = [Reduction::Mean, Reduction::Sum, Reduction::None];

/// A unit or two in the last place of the type that the result is stored in.
pub(crate) fn rounding(dtype: DType) -> f64 {
    match dtype {
        DType::F64 => 1e-13,
        DType::F32 => 2e-6,
        DType::F16 => 2e-3,
        _ => 1.6e-2,
    }
}
