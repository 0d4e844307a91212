//! What the tests of all ops share: reproducible data, awkward layouts, and central differences.

use candle_core::{DType, Device, Result, Tensor, Var};

/// Numbers in [-1, 1) from a linear congruential generator.
pub(crate) fn numbers(seed: u64, count: usize) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x1234_5678_9ABC_DEF1;
    (0..count)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
        })
        .collect()
}

/// A tensor of [`numbers`].
pub(crate) fn random(seed: u64, shape: &[usize], dtype: DType) -> Result<Tensor> {
    Tensor::from_vec(numbers(seed, shape.iter().product()), shape, &Device::Cpu)?.to_dtype(dtype)
}

/// The same values in a layout with swapped strides and an offset.
pub(crate) fn awkward_layout(tensor: &Tensor) -> Result<Tensor> {
    let last = tensor.rank() - 1;
    let padded = tensor
        .transpose(0, last)?
        .contiguous()?
        .pad_with_zeros(0, 1, 1)?;
    let strided = padded.narrow(0, 1, tensor.dim(last)?)?.transpose(0, last)?;
    assert_eq!(strided.dims(), tensor.dims());
    Ok(strided)
}

/// The elements as f64, row-major.
pub(crate) fn values(tensor: &Tensor) -> Result<Vec<f64>> {
    tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1()
}

/// The largest absolute difference, infinite where one side is NaN and the other is not.
pub(crate) fn max_difference(a: &Tensor, b: &Tensor) -> Result<f64> {
    assert_eq!(a.dims(), b.dims());
    let pairs = values(a)?.into_iter().zip(values(b)?);
    Ok(pairs.fold(0.0, |worst, (a, b)| {
        let difference = match (a.is_nan(), b.is_nan()) {
            (true, true) => 0.0,
            (false, false) if a == b => 0.0,
            (false, false) => (a - b).abs(),
            _ => f64::INFINITY,
        };
        f64::max(worst, difference)
    }))
}

/// Gradients of `sum(f(inputs) * upstream)` by autograd, one a variable.
pub(crate) fn gradients(
    f: impl Fn(&[Tensor]) -> Result<Tensor>,
    inputs: &[Tensor],
    upstream_seed: u64,
) -> Result<(Tensor, Vec<Tensor>)> {
    let vars: Vec<Var> = inputs.iter().map(Var::from_tensor).collect::<Result<_>>()?;
    let tensors: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
    let output = f(&tensors)?;
    let upstream = random(upstream_seed, output.dims(), output.dtype())?;
    let grads = (&output * upstream)?.sum_all()?.backward()?;
    let grads = tensors
        .iter()
        .map(|tensor| {
            grads
                .get(tensor)
                .cloned()
                .expect("every input has a gradient")
        })
        .collect();
    Ok((output, grads))
}

/// Asserts that autograd agrees with central differences in f64, in every element of every input.
pub(crate) fn assert_gradients(
    f: impl Fn(&[Tensor]) -> Result<Tensor>,
    inputs: &[Tensor],
    tolerance: f64,
) -> Result<()> {
    const STEP: f64 = 1e-6;
    let (output, grads) = gradients(&f, inputs, 77)?;
    let upstream = random(77, output.dims(), DType::F64)?;
    for (argument, (input, grad)) in inputs.iter().zip(&grads).enumerate() {
        assert_eq!(grad.dims(), input.dims());
        let at = values(input)?;
        let grad = values(grad)?;
        for index in 0..at.len() {
            let shifted = |delta: f64| -> Result<f64> {
                let mut moved = at.clone();
                moved[index] += delta;
                let mut inputs = inputs.to_vec();
                inputs[argument] = Tensor::from_vec(moved, input.dims(), &Device::Cpu)?;
                (f(&inputs)? * &upstream)?.sum_all()?.to_scalar()
            };
            let numeric = (shifted(STEP)? - shifted(-STEP)?) / (2.0 * STEP);
            assert!(
                (numeric - grad[index]).abs() <= tolerance,
                "argument {argument}, element {index}: autograd {}, central difference {numeric}",
                grad[index]
            );
        }
    }
    Ok(())
}
