//! The dense layer on CUDA against the CPU in f64.

use candle_core::{Result, Tensor};
use candle_vision_ops::linear;

use crate::support::{DTYPES, assert_agrees, cuda, random, rounding, values};

/// Shape of `x` and outputs; the last has more rows than a block of the bias's sum takes.
const CASES: [(&[usize], usize); 8] = [
    (&[2, 3], 4),
    (&[1, 1], 1),
    (&[5], 3),
    (&[17, 9], 17),
    (&[2, 3, 5], 7),
    (&[9, 33], 50),
    (&[12, 84], 10),
    (&[8200, 1], 2),
];

#[test]
fn every_shape_agrees_with_the_cpu_in_every_dtype_and_layout() {
    for (x, outputs) in CASES {
        let inputs = [
            random(1, x),
            random(2, &[outputs, x[x.len() - 1]]),
            random(3, &[outputs]),
        ];
        for relu in [false, true] {
            for dtype in DTYPES {
                // Half precision may round a sum of thousands, or cross 0 where the wide form does not.
                let half = matches!(dtype, candle_core::DType::F16 | candle_core::DType::BF16);
                if half && (relu || x[0] > 1000) {
                    continue;
                }
                let what = format!("{x:?} {outputs} relu {relu}");
                let with_bias = |t: &[Tensor]| linear(&t[0], &t[1], Some(&t[2]), relu);
                assert_agrees(&what, with_bias, &inputs, dtype, 4.0 * rounding(dtype));
                let without = |t: &[Tensor]| linear(&t[0], &t[1], None, relu);
                assert_agrees(&what, without, &inputs[..2], dtype, 4.0 * rounding(dtype));
            }
        }
    }
}

#[test]
fn relu_has_no_derivative_at_zero_and_lets_nan_through() -> Result<()> {
    let device = cuda();
    for dtype in DTYPES {
        let on = |values: &[f64]| Tensor::new(values, &device)?.to_dtype(dtype);
        let x = candle_core::Var::from_tensor(&on(&[0.0, -1.0, 2.0, f64::NAN])?.reshape((4, 1))?)?;
        let weight = on(&[1.0])?.reshape((1, 1))?;
        let y = linear(&x, &weight, Some(&on(&[0.0])?), true)?;
        let out = values(&y);
        assert_eq!(out[..3], [0.0, 0.0, 2.0], "{dtype:?}");
        assert!(out[3].is_nan());
        let grads = y.sum_all()?.backward()?;
        assert_eq!(
            values(grads.get(&x).unwrap()),
            [0.0, 0.0, 1.0, 1.0],
            "{dtype:?}"
        );
    }
    Ok(())
}
