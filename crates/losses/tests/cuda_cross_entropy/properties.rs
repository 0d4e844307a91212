//! Every form agrees with the CPU over random shapes, layouts, dtypes and options.

use candle_core::{DType, Device, Tensor};
use candle_losses::{CrossEntropy, EmptyPolicy, Reduction};
use proptest::prelude::*;

use crate::support::{ARRANGEMENTS, Arrangement, DTYPES, Problem, Random, indices, numbers};

#[derive(Clone, Debug)]
struct Case {
    dims: Vec<usize>,
    dtype: DType,
    index_dtype: DType,
    arrangement: Arrangement,
    weighted: bool,
    /// Nothing, a class, or no class.
    ignore: u8,
    smoothing: f64,
    reduction: Reduction,
    num_items: Option<f64>,
    z_loss: f64,
    softcap: Option<f64>,
    scale: f64,
    seed: u64,
}

fn dims() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![
        1 => (1usize..70).prop_map(|c| vec![c]),
        4 => (1usize..40, 1usize..20).prop_map(|(n, c)| vec![n, c]),
        3 => (1usize..7, 1usize..400).prop_map(|(n, c)| vec![n, c]),
        1 => (1usize..3, 1020usize..2300).prop_map(|(n, c)| vec![n, c]),
        3 => (1usize..5, 1usize..12, 1usize..40).prop_map(|(n, c, d)| vec![n, c, d]),
        2 => (1usize..4, 1usize..30, 1usize..5, 1usize..5).prop_map(|(n, c, d, e)| vec![n, c, d, e]),
        1 => (1usize..3, 1usize..5, 1usize..3, 1usize..4, 1usize..4)
            .prop_map(|(n, c, d, e, f)| vec![n, c, d, e, f]),
    ]
}

fn case() -> impl Strategy<Value = Case> {
    let options = (
        any::<bool>(),
        0u8..3,
        prop_oneof![3 => Just(0.0), 1 => Just(0.1), 1 => Just(1.0)],
        prop_oneof![
            Just(Reduction::Mean),
            Just(Reduction::Sum),
            Just(Reduction::None)
        ],
        proptest::option::weighted(0.2, 1.0..50.0),
        prop_oneof![2 => Just(0.0), 1 => Just(0.01)],
        prop_oneof![4 => Just(None), 1 => Just(Some(5.0))],
        prop_oneof![4 => Just(1.0), 1 => Just(0.7), 1 => Just(-1.3)],
    );
    let index_dtypes = [DType::U8, DType::U32, DType::I16, DType::I32, DType::I64];
    (
        dims(),
        proptest::sample::select(DTYPES.to_vec()),
        proptest::sample::select(index_dtypes.to_vec()),
        proptest::sample::select(ARRANGEMENTS.to_vec()),
        options,
        any::<u64>(),
    )
        .prop_map(|(dims, dtype, index_dtype, arrangement, options, seed)| {
            let (weighted, ignore, smoothing, reduction, num_items, z_loss, softcap, scale) =
                options;
            Case {
                dims,
                dtype,
                index_dtype,
                arrangement,
                weighted,
                ignore,
                smoothing,
                reduction,
                num_items: num_items.filter(|_| reduction != Reduction::None),
                z_loss,
                softcap,
                scale,
                seed,
            }
        })
}

fn problem(case: &Case, is_probabilities: bool) -> candle_core::Result<Problem> {
    let dims = &case.dims;
    let classes = dims[dims.len().min(2) - 1];
    let mut options = CrossEntropy::new()
        .label_smoothing(case.smoothing)
        .reduction(case.reduction)
        .z_loss(case.z_loss)
        .logit_scale(case.scale)
        .on_empty(EmptyPolicy::Zero);
    if let Some(cap) = case.softcap {
        options = options.softcap(cap);
    }
    if let Some(items) = case.num_items {
        options = options.num_items(items);
    }
    let target = if is_probabilities {
        // Halves of eighths: exact in every type.
        ((numbers(case.seed + 1, dims)? + 8.0)? * (1.0 / 32.0))?
    } else {
        let index_dtype = match case.index_dtype {
            DType::U8 if classes > 255 => DType::U32,
            other => other,
        };
        let signed = !matches!(index_dtype, DType::U8 | DType::U32);
        let ignore = match case.ignore {
            0 => None,
            1 => Some((classes / 2) as i64),
            _ if signed => Some(-100),
            _ => Some(255).filter(|_| classes <= 255),
        };
        if let Some(ignore) = ignore {
            options = options.ignore_index(ignore);
        }
        indices(case.seed + 1, dims, ignore)?.to_dtype(index_dtype)?
    };
    let mut random = Random::new(case.seed + 2);
    let weight: Vec<f64> = (0..classes)
        .map(|_| (random.uniform() * 8.0).round() / 4.0)
        .collect();
    Ok(Problem {
        options,
        weight: match case.weighted {
            true => Some(Tensor::new(weight, &Device::Cpu)?),
            false => None,
        },
        logits: numbers(case.seed, dims)?,
        target,
        is_probabilities,
    })
}

fn check(case: &Case, is_probabilities: bool) -> candle_core::Result<()> {
    problem(case, is_probabilities)?.agree(case.dtype, case.arrangement, case.seed)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_form_agrees_with_the_cpu_on_indices(case in case()) {
        check(&case, false).unwrap();
    }

    #[test]
    fn every_form_agrees_with_the_cpu_on_probabilities(case in case()) {
        check(&case, true).unwrap();
    }
}
