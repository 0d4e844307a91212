//! Strides, offsets, broadcasting, thread counts and instruction sets: none may change the result.

use super::*;
use candle_simd::{Isa, with_isa};
use proptest::prelude::*;

/// Views of the same 6 x 5 numbers: the plain one, and ones with other strides and offsets.
fn views(values: &[f64], dtype: DType) -> Vec<(&'static str, Tensor)> {
    let plain = tensor(values, &[6, 5], dtype);
    let transposed = plain.t().unwrap().contiguous().unwrap().t().unwrap();
    let wide = Tensor::cat(&[&plain, &plain.affine(7.0, 1.0).unwrap()], 1).unwrap();
    let tall = Tensor::cat(&[&plain.affine(7.0, 1.0).unwrap(), &plain], 0).unwrap();
    vec![
        ("transposed", transposed),
        ("columns of a wider one", wide.narrow(1, 0, 5).unwrap()),
        ("rows of a taller one", tall.narrow(0, 6, 6).unwrap()),
        ("plain", plain),
    ]
}

#[test]
fn no_layout_changes_a_bit() {
    for case in catalogue() {
        let x: Vec<f64> = numbers(30, 31).into_iter().map(case.to_input).collect();
        let t: Vec<f64> = numbers(30, 32).into_iter().map(case.to_target).collect();
        let w: Vec<f64> = numbers(30, 33).into_iter().map(f64::abs).collect();
        for dtype in [DType::F64, DType::F32, DType::F16, DType::BF16] {
            for reduction in REDUCTIONS {
                let run = |x: &Tensor, t: &Tensor, w: &Tensor| {
                    let setup = Setup {
                        weight: Some(w.clone()),
                        ..Setup::new(reduction)
                    };
                    bits(&(case.run)(&setup, x, t, Form::Fused).unwrap())
                };
                let (xs, ts, ws) = (views(&x, dtype), views(&t, dtype), views(&w, dtype));
                let plain = run(&xs[3].1, &ts[3].1, &ws[3].1);
                for i in 0..xs.len() {
                    let j = (i + 1) % ts.len();
                    let got = run(&xs[i].1, &ts[j].1, &ws[(i + 2) % ws.len()].1);
                    assert_eq!(
                        got, plain,
                        "{} {dtype:?} {reduction:?}: {} and {}",
                        case.name, xs[i].0, ts[j].0
                    );
                }
            }
        }
    }
}

#[test]
fn gradients_of_a_strided_input_go_back_through_the_view() {
    for case in catalogue() {
        let x: Vec<f64> = numbers(12, 34).into_iter().map(case.to_input).collect();
        let t: Vec<f64> = numbers(12, 35).into_iter().map(case.to_target).collect();
        let (x, t) = (var(&x, &[3, 4], DType::F64), var(&t, &[3, 4], DType::F64));
        let up = tensor(&numbers(12, 36), &[4, 3], DType::F64);
        let setup = Setup::new(Reduction::None);
        let run = |x_view: Tensor, t_view: Tensor, up: Tensor| {
            let loss = (case.run)(&setup, &x_view, &t_view, Form::Fused).unwrap();
            let gradients = loss
                .mul(&up)
                .unwrap()
                .sum_all()
                .unwrap()
                .backward()
                .unwrap();
            (
                flat(gradients.get(&x).unwrap()),
                flat(gradients.get(&t).unwrap()),
            )
        };
        let plain = run(
            x.as_tensor().clone(),
            t.as_tensor().clone(),
            up.t().unwrap().contiguous().unwrap(),
        );
        let strided = run(x.t().unwrap(), t.t().unwrap(), up);
        assert_eq!(plain, strided, "{}", case.name);
    }
}

#[test]
fn a_broadcast_operand_reads_like_its_copy() {
    let x = tensor(&numbers(3, 37), &[3, 1], DType::F32)
        .broadcast_as((3, 40))
        .unwrap();
    let t = tensor(&numbers(40, 38), &[40], DType::F32)
        .broadcast_as((3, 40))
        .unwrap();
    let copied = mse(&x.contiguous().unwrap(), &t.contiguous().unwrap()).unwrap();
    assert_eq!(bits(&mse(&x, &t).unwrap()), bits(&copied));
    let one = tensor(&[0.5], &[1, 1], DType::F32)
        .broadcast_as((3, 40))
        .unwrap();
    let copied = mse(&one.contiguous().unwrap(), &t.contiguous().unwrap()).unwrap();
    assert_eq!(bits(&mse(&one, &t).unwrap()), bits(&copied));
}

#[test]
fn threads_and_instruction_sets_do_not_change_a_bit() {
    // Many tasks, the last one short.
    let len = 100_003;
    for case in catalogue() {
        let x: Vec<f64> = numbers(len, 39).into_iter().map(case.to_input).collect();
        let t: Vec<f64> = numbers(len, 40).into_iter().map(case.to_target).collect();
        for reduction in [Reduction::Mean, Reduction::None] {
            let run = |threads: usize, isa: Isa| {
                let pool = rayon::ThreadPoolBuilder::new()
                    .num_threads(threads)
                    .build()
                    .unwrap();
                pool.install(|| {
                    with_isa(isa, || {
                        let (x, t) = (var(&x, &[len], DType::F32), var(&t, &[len], DType::F32));
                        let up = upstream(reduction, &[len], DType::F32);
                        let setup = Setup::new(reduction);
                        let (l, gx, gt) =
                            loss_and_gradients(&case, &setup, &x, &t, &up, Form::Fused);
                        (bits(&l), bits(&gx), bits(&gt))
                    })
                })
            };
            let one = run(1, Isa::best());
            assert!(
                one == run(2, Isa::best()),
                "{} {reduction:?}: two threads",
                case.name
            );
            for isa in Isa::available() {
                assert!(
                    one == run(2, isa),
                    "{} {reduction:?}: {}",
                    case.name,
                    isa.name()
                );
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_shape_permutation_and_window_matches_the_formula(
        dims in prop::collection::vec(1usize..6, 1..4),
        seed in 0u64..1000,
        which in 0usize..15,
        reverse in any::<bool>(),
        offset in 0usize..3,
    ) {
        let case = &catalogue()[which];
        let view = |seed: u64, to: fn(f64) -> f64| {
            // A window into a larger tensor, with its axes reversed if asked.
            let mut larger = dims.clone();
            larger[0] += offset;
            if reverse {
                larger.reverse();
            }
            let values: Vec<f64> = numbers(larger.iter().product(), seed).into_iter().map(to).collect();
            let whole = tensor(&values, &larger, DType::F64);
            let axes: Vec<usize> = (0..dims.len()).rev().collect();
            let whole = if reverse { whole.permute(axes).unwrap() } else { whole };
            whole.narrow(0, offset, dims[0]).unwrap()
        };
        let (x, t) = (view(seed, case.to_input), view(seed + 1, case.to_target));
        let each: Vec<f64> = flat(&x).iter().zip(&flat(&t)).map(|(&x, &t)| (case.oracle)(x, t)).collect();
        let none = (case.run)(&Setup::new(Reduction::None), &x, &t, Form::Fused).unwrap();
        prop_assert_eq!(none.dims(), &dims[..]);
        assert_close(case.name, &flat(&none), &each, 1e-12);
        let mean = (case.run)(&Setup::new(Reduction::Mean), &x, &t, Form::Fused).unwrap();
        assert_close(case.name, &flat(&mean), &[each.iter().sum::<f64>() / each.len() as f64], 1e-12);
    }
}
