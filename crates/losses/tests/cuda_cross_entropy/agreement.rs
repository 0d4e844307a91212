//! Shapes that take each kernel to its limits agree with the CPU.

use candle_core::{DType, Result, Tensor};
use candle_losses::{CrossEntropy, Reduction};

use crate::support::{
    ARRANGEMENTS, Arrangement, DTYPES, Problem, close, compare, cuda, indices, moved, numbers,
    tolerances, values,
};

/// Options of the plain kernels and of the general one.
fn both_families() -> [CrossEntropy; 2] {
    let options = CrossEntropy::new().ignore_index(-100);
    [
        options.clone().z_loss(1e-3),
        options.label_smoothing(0.1).softcap(20.0).logit_scale(0.9),
    ]
}

fn problem(options: CrossEntropy, dims: &[usize]) -> Result<Problem> {
    let seed = dims.iter().fold(7, |seed, &dim| seed * 31 + dim as u64);
    let targets = indices(seed + 1, dims, Some(-100))?;
    Ok(Problem::of_indices(options, numbers(seed, dims)?, targets))
}

#[test]
fn rows_of_one_to_two_thousand_classes_agree_in_every_dtype() -> Result<()> {
    for classes in [1, 2, 17, 100, 128, 1000, 1024, 1025, 2048] {
        for options in both_families() {
            let problem = problem(options, &[5, classes])?;
            for dtype in DTYPES {
                problem.agree(dtype, Arrangement::Contiguous, 1)?;
            }
            problem.agree(DType::F32, Arrangement::Window, 1)?;
        }
    }
    Ok(())
}

#[test]
fn rows_of_seventy_thousand_classes_agree() -> Result<()> {
    for (options, dtype) in both_families().into_iter().zip([DType::F32, DType::BF16]) {
        problem(options, &[2, 70_001])?.agree(dtype, Arrangement::Contiguous, 1)?;
    }
    Ok(())
}

#[test]
fn many_rows_are_summed_by_many_blocks() -> Result<()> {
    for options in both_families() {
        problem(options, &[10_007, 3])?.agree(DType::F32, Arrangement::Contiguous, 1)?;
    }
    Ok(())
}

#[test]
fn images_and_volumes_agree_in_every_layout() -> Result<()> {
    for dims in [
        vec![2, 5, 7, 9],
        vec![1, 21, 40],
        vec![2, 3, 2, 3, 4],
        vec![3, 70, 2],
    ] {
        for options in both_families() {
            let problem = problem(options, &dims)?;
            for arrangement in ARRANGEMENTS {
                problem.agree(DType::F32, arrangement, 1)?;
            }
            problem.agree(DType::F16, Arrangement::Window, 1)?;
        }
    }
    Ok(())
}

#[test]
fn logits_that_overlap_in_memory_are_read_where_they_lie() -> Result<()> {
    let device = cuda()?;
    for classes in [3, 1500] {
        let row = numbers(3, &[classes])?;
        let targets = indices(4, &[4, classes], None)?;
        let wanted =
            CrossEntropy::new().value_and_grad(&row.broadcast_as((4, classes))?, &targets)?;
        let row = moved(&row.to_dtype(DType::F32)?, &device)?;
        let found = CrossEntropy::new().value_and_grad(
            &row.broadcast_as((4, classes))?,
            &targets.to_device(&device)?,
        )?;
        compare("loss", &wanted.0, &found.0, 2e-5)?;
        compare("gradient", &wanted.1, &found.1, 2e-5)?;
        let one = indices(5, &[1, classes], None)?;
        let (loss, _) = CrossEntropy::new().value_and_grad(
            &row.broadcast_as((4, classes))?,
            &one.to_device(&device)?.broadcast_as(4)?,
        )?;
        let wanted = CrossEntropy::new().forward(&numbers(3, &[1, classes])?, &one)?;
        compare("a broadcast target", &wanted, &loss, 2e-5)?;
    }
    Ok(())
}

#[test]
fn gradients_go_back_through_views_to_their_variable() -> Result<()> {
    let device = cuda()?;
    let x = numbers(5, &[3, 40])?;
    let targets = indices(6, &[5, 3], None)?;
    let run = |x: Tensor, targets: Tensor| -> Result<Vec<f64>> {
        let x = candle_core::Var::from_tensor(&x)?;
        let window = x.narrow(1, 2, 5)?.t()?;
        let loss = CrossEntropy::new().forward(&window, &targets)?;
        values(loss.backward()?.get(&x).unwrap())
    };
    let wanted = run(x.clone(), targets.clone())?;
    let found = run(x.to_device(&device)?, targets.to_device(&device)?)?;
    assert!(wanted.iter().zip(&found).all(|(a, b)| close(*b, *a, 1e-12)));
    Ok(())
}

#[test]
fn in_place_touches_nothing_outside_a_window() -> Result<()> {
    let device = cuda()?;
    for (rows, columns, options) in [
        (2, 50, CrossEntropy::new()),
        (2, 1400, CrossEntropy::new()),
        (2, 50, CrossEntropy::new().label_smoothing(0.1)),
    ] {
        let all = Tensor::ones((rows + 2, columns + 10), DType::F32, &device)?;
        let window = all.narrow(0, 1, rows)?.narrow(1, 3, columns)?;
        let targets = Tensor::new(&[0u32, 1], &device)?;
        let (_, gradient) = options.value_and_grad_in_place(window, &targets)?;
        assert_eq!(gradient.stride(), [columns + 10, 1]);
        for (i, row) in all.to_vec2::<f32>()?.iter().enumerate() {
            for (j, &x) in row.iter().enumerate() {
                let inside = (1..=rows).contains(&i) && (3..columns + 3).contains(&j);
                assert_eq!(x == 1.0, !inside, "({i}, {j})");
            }
        }
    }
    Ok(())
}

#[test]
fn a_second_run_and_a_second_backward_give_the_same_bits() -> Result<()> {
    let device = cuda()?;
    for dims in [[5_000, 7], [40, 300], [3, 3000]] {
        for options in both_families() {
            let x = candle_core::Var::from_tensor(
                &(numbers(9, &dims)?
                    .to_dtype(DType::F32)?
                    .to_device(&device)?
                    * 0.37)?,
            )?;
            let t = indices(10, &dims, None)?.to_device(&device)?;
            let bits = |x: &Tensor| -> Result<Vec<u32>> {
                Ok(x.flatten_all()?
                    .to_vec1::<f32>()?
                    .into_iter()
                    .map(f32::to_bits)
                    .collect())
            };
            let loss = options.forward(&x, &t)?;
            let again = options.forward(&x, &t)?;
            assert_eq!(bits(&loss)?, bits(&again)?);
            let first = bits(loss.backward()?.get(&x).unwrap())?;
            assert_eq!(first, bits(loss.backward()?.get(&x).unwrap())?);
            assert_eq!(first, bits(again.backward()?.get(&x).unwrap())?);
        }
    }
    Ok(())
}

#[test]
fn half_precision_sums_in_f32() -> Result<()> {
    // In f16, 4096 terms of 1 would stop growing at 2048.
    let device = cuda()?;
    for dtype in [DType::F16, DType::BF16] {
        let logits = Tensor::zeros((2, 4096), dtype, &device)?;
        let targets = Tensor::new(&[0u32, 1], &device)?;
        let loss = candle_losses::cross_entropy(&logits, &targets)?;
        assert_eq!(loss.dtype(), DType::F32);
        let loss = f64::from(loss.to_scalar::<f32>()?);
        assert!(close(loss, 4096f64.ln(), 1e-6));
    }
    Ok(())
}

#[test]
fn weights_of_another_float_type_are_converted() -> Result<()> {
    let device = cuda()?;
    let (x, t) = (numbers(1, &[6, 9])?, indices(2, &[6, 9], None)?);
    let weight = (numbers(3, &[9])?.abs()? + 0.25)?;
    for dtype in DTYPES {
        for reduction in [Reduction::Mean, Reduction::None] {
            let options = CrossEntropy::new()
                .reduction(reduction)
                .label_smoothing(0.1);
            let wanted = options.clone().weight(weight.clone()).forward(&x, &t)?;
            // Every second element of a longer tensor.
            let spread = weight.unsqueeze(1)?.repeat((1, 2))?.to_dtype(dtype)?;
            let spread = spread.to_device(&device)?.narrow(1, 1, 1)?.squeeze(1)?;
            let found = options.weight(spread).forward(
                &x.to_dtype(DType::F32)?.to_device(&device)?,
                &t.to_device(&device)?,
            )?;
            compare(
                &format!("{dtype:?}"),
                &wanted,
                &found,
                tolerances(DType::F32).0,
            )?;
        }
    }
    Ok(())
}
