//! Reproducible data, awkward layouts, and one computation on both devices.

use candle_core::{DType, Device, Result, Tensor, Var};

/// The device under test. Made anew by each test, so that nothing outlives it.
pub(crate) fn cuda() -> Device {
    Device::new_cuda(0).unwrap_or_else(|error| panic!("no CUDA device: {error}"))
}

/// Numbers in [-1, 1) from a linear congruential generator.
pub(crate) fn random(seed: u64, shape: &[usize]) -> Tensor {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x1234_5678_9ABC_DEF1;
    let numbers: Vec<f64> = (0..shape.iter().product())
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
        })
        .collect();
    Tensor::from_vec(numbers, shape, &Device::Cpu).unwrap()
}

/// The same values with swapped strides and an offset, surrounded by NaN.
pub(crate) fn awkward_layout(tensor: &Tensor) -> Result<Tensor> {
    let last = tensor.rank() - 1;
    let turned = tensor.transpose(0, last)?.contiguous()?;
    let frame = (turned.narrow(0, 0, 1)?.zeros_like()? + f64::NAN)?;
    let framed = Tensor::cat(&[&frame, &turned, &frame], 0)?;
    framed.narrow(0, 1, tensor.dim(last)?)?.transpose(0, last)
}

/// The elements as f64, row-major.
pub(crate) fn values(tensor: &Tensor) -> Vec<f64> {
    let tensor = tensor.to_device(&Device::Cpu).unwrap();
    let tensor = tensor.to_dtype(DType::F64).unwrap();
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// The largest difference, relative to 1 and the expected value; infinite where one side is NaN and the other is not.
pub(crate) fn difference(got: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(got.dims(), expected.dims());
    let pairs = values(got).into_iter().zip(values(expected));
    pairs.fold(0.0, |worst, (got, expected)| {
        let difference = match (got.is_nan(), expected.is_nan()) {
            (true, true) => 0.0,
            (false, false) if got == expected => 0.0,
            (false, false) => (got - expected).abs() / (1.0 + expected.abs()),
            _ => f64::INFINITY,
        };
        f64::max(worst, difference)
    })
}

/// `f` of the inputs, and the gradients of `sum(f * upstream)`, all on the inputs' device. `view` is applied to each variable
/// inside the graph.
pub(crate) fn run(
    f: impl Fn(&[Tensor]) -> Result<Tensor>,
    inputs: &[Tensor],
    view: impl Fn(&Tensor) -> Result<Tensor>,
) -> Result<Vec<Tensor>> {
    let vars: Vec<Var> = inputs.iter().map(Var::from_tensor).collect::<Result<_>>()?;
    let seen: Vec<Tensor> = vars.iter().map(|var| view(var)).collect::<Result<_>>()?;
    let y = f(&seen)?;
    // Half precision is summed in f32: only the ops are under test.
    let wide = if y.dtype() == DType::F64 {
        DType::F64
    } else {
        DType::F32
    };
    let upstream = random(77, y.dims())
        .to_dtype(y.dtype())?
        .to_dtype(wide)?
        .to_device(y.device())?;
    let grads = (y.to_dtype(wide)? * upstream)?.sum_all()?.backward()?;
    let mut results = vec![y];
    for var in &vars {
        results.push(grads.get(var).expect("every input has a gradient").clone());
    }
    Ok(results)
}

/// Asserts that value and gradients on CUDA, from `inputs` rounded to `dtype`, are within `tolerance` of those on the CPU, which
/// are taken in f64 from the same numbers. On CUDA the inputs lie plain and in an awkward layout.
#[track_caller]
pub(crate) fn assert_agrees(
    what: &str,
    f: impl Fn(&[Tensor]) -> Result<Tensor>,
    inputs: &[Tensor],
    dtype: DType,
    tolerance: f64,
) {
    let device = cuda();
    let check = || -> Result<()> {
        let rounded: Vec<Tensor> = inputs
            .iter()
            .map(|t| t.to_dtype(dtype))
            .collect::<Result<_>>()?;
        let wide: Vec<Tensor> = rounded
            .iter()
            .map(|t| t.to_dtype(DType::F64))
            .collect::<Result<_>>()?;
        let expected = run(&f, &wide, |t| Ok(t.clone()))?;
        let there: Vec<Tensor> = rounded
            .iter()
            .map(|t| t.to_device(&device))
            .collect::<Result<_>>()?;
        for awkward in [false, true] {
            let got = run(&f, &there, |t| {
                if awkward && t.rank() > 1 {
                    awkward_layout(t)
                } else {
                    Ok(t.clone())
                }
            })?;
            for (index, (got, expected)) in got.iter().zip(&expected).enumerate() {
                assert_eq!(got.dtype(), dtype);
                let difference = difference(got, expected);
                assert!(
                    difference <= tolerance,
                    "{what} {dtype:?}, awkward {awkward}: result {index} (0 is the value) differs by {difference}"
                );
            }
        }
        Ok(())
    };
    check().unwrap_or_else(|error| panic!("{what} {dtype:?}: {error}"));
}

pub(crate) const DTYPES: [DType; 4] = [DType::F32, DType::F64, DType::F16, DType::BF16];

/// What rounding of the inputs' products and sums may amount to.
pub(crate) fn rounding(dtype: DType) -> f64 {
    match dtype {
        DType::F64 => 1e-12,
        DType::F32 => 1e-5,
        DType::F16 => 2e-2,
        _ => 1.5e-1,
    }
}
