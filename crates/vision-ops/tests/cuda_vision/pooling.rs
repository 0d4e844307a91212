//! Max pooling: the same winners, so the same bits of values and gradients, as on the CPU.

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_vision_ops::max_pool2d;
use proptest::prelude::*;

use crate::support::{DTYPES, awkward_layout, cuda, difference, random, run, values};

type Pair = (usize, usize);

const CASES: [([usize; 4], Pair, Pair); 8] = [
    ([2, 3, 4, 6], (2, 2), (2, 2)),
    ([1, 1, 1, 1], (1, 1), (1, 1)),
    ([1, 2, 7, 5], (3, 2), (1, 2)),
    ([3, 1, 5, 17], (2, 3), (3, 1)),
    ([1, 17, 9, 4], (3, 3), (2, 2)),
    ([2, 1, 6, 6], (1, 1), (3, 2)),
    // A window of more than 256 elements, whose index takes more than a byte.
    ([1, 1, 17, 20], (17, 18), (1, 1)),
    ([2, 2, 3, 3], (2, 2), (9, 9)),
];

/// Values and gradients of both devices have the same bits.
fn assert_same(x: &Tensor, kernel: Pair, stride: Pair) -> Result<()> {
    let pool = |t: &[Tensor]| max_pool2d(&t[0], kernel, stride);
    let expected = run(pool, std::slice::from_ref(x), |t| Ok(t.clone()))?;
    let there = x.to_device(&cuda())?;
    for awkward in [false, true] {
        let view = |t: &Tensor| {
            if awkward {
                awkward_layout(t)
            } else {
                Ok(t.clone())
            }
        };
        let got = run(pool, std::slice::from_ref(&there), view)?;
        for (got, expected) in got.iter().zip(&expected) {
            let bits = |t: &Tensor| values(t).into_iter().map(f64::to_bits).collect::<Vec<_>>();
            assert_eq!(
                bits(got),
                bits(expected),
                "{:?} {kernel:?} {stride:?} {:?}, awkward {awkward}",
                x.dims(),
                x.dtype()
            );
        }
    }
    Ok(())
}

#[test]
fn values_and_gradients_have_the_bits_of_the_cpu_in_every_dtype_and_layout() -> Result<()> {
    for dtype in DTYPES {
        for (seed, (shape, kernel, stride)) in CASES.into_iter().enumerate() {
            let plain = random(seed as u64, &shape);
            // Few distinct values, so that windows have equal maxima, zeros of both signs among them.
            let tied = (&plain * 3.0)?.round()?;
            for x in [plain, tied] {
                assert_same(&x.to_dtype(dtype)?, kernel, stride)?;
            }
        }
    }
    Ok(())
}

#[test]
fn infinities_and_nan_choose_the_winners_of_the_cpu() -> Result<()> {
    let (nan, inf) = (f64::NAN, f64::INFINITY);
    let x = Tensor::new(
        &[[
            [[9., nan, -inf, -inf], [nan, 1., -inf, -inf]],
            [[inf, inf, -0., 0.], [-inf, nan, 0., -0.]],
        ]],
        &Device::Cpu,
    )?;
    for dtype in DTYPES {
        let x = x.to_dtype(dtype)?;
        // NaN is not equal to itself, so bits are compared where there is none and places elsewhere.
        let pool = |t: &[Tensor]| max_pool2d(&t[0], (2, 2), (2, 2));
        let expected = run(pool, std::slice::from_ref(&x), |t| Ok(t.clone()))?;
        let got = run(pool, &[x.to_device(&cuda())?], |t| Ok(t.clone()))?;
        for (got, expected) in got.iter().zip(&expected) {
            assert_eq!(difference(got, expected), 0.0, "{dtype:?}");
        }
    }
    Ok(())
}

#[test]
fn an_empty_batch_gives_an_empty_result() -> Result<()> {
    let x = random(1, &[2, 3, 4, 4])
        .to_device(&cuda())?
        .narrow(0, 1, 0)?;
    assert_eq!(max_pool2d(&x, (2, 2), (2, 2))?.dims(), [0, 3, 2, 2]);
    Ok(())
}

#[test]
fn without_a_gradient_the_values_are_the_same() -> Result<()> {
    let x = random(3, &[2, 3, 9, 8]).to_device(&cuda())?;
    let tracked = Var::from_tensor(&x)?;
    let (plain, tracked) = (
        max_pool2d(&x, (3, 2), (2, 1))?,
        max_pool2d(&tracked, (3, 2), (2, 1))?,
    );
    assert_eq!(values(&plain), values(&tracked));
    Ok(())
}

#[test]
fn more_than_one_block_is_pooled_as_one() -> Result<()> {
    assert_same(
        &random(8, &[5, 7, 19, 23]).to_dtype(DType::F32)?,
        (3, 3),
        (2, 1),
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_geometry_has_the_bits_of_the_cpu(
        (batch, channels, height, width) in (1usize..4, 1usize..4, 1usize..12, 1usize..12),
        (kernel_rows, kernel_columns) in (1usize..5, 1usize..5),
        (stride_rows, stride_columns) in (1usize..5, 1usize..5),
        dtype in 0usize..4,
        seed in 0u64..1000,
        tied: bool,
    ) {
        let kernel = (kernel_rows.min(height), kernel_columns.min(width));
        let x = random(seed, &[batch, channels, height, width]);
        let x = if tied { (x * 2.0).and_then(|x| x.round()) } else { Ok(x) };
        let x = x.and_then(|x| x.to_dtype(DTYPES[dtype])).unwrap();
        assert_same(&x, kernel, (stride_rows, stride_columns)).unwrap();
    }
}
