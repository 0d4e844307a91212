//! Adam on CUDA against its twin on the CPU and its composed form. It needs a CUDA device, or the emulated driver in
//! `tests/emulated-driver`.

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Result, Tensor, Var};
use trainer::errors::Result as TrainerResult;
use trainer::optimizer::{Adam, AdamOptions, AdamState};

const CPU: Device = Device::Cpu;

type Named = Vec<(&'static str, Var)>;

/// Below a vector, at its edges and beside them, and the same around a block of 256 vectors.
const SIZES: [(&str, usize); 12] = [
    ("one", 1),
    ("three", 3),
    ("a vector", 4),
    ("five", 5),
    ("sixteen", 16),
    ("seventeen", 17),
    ("a block in f64, less one", 511),
    ("a block in f64", 512),
    ("a block in f32", 1024),
    ("and one", 1025),
    ("and four", 1028),
    ("many blocks", 5003),
];

/// Numbers in (-1, 1), the same on every device.
fn numbers(n: usize, seed: usize) -> impl Iterator<Item = f64> {
    (0..n).map(move |i| ((i * 7 + seed * 131) as f64 * 0.618_033_988_749_894_9).fract() * 2.0 - 1.0)
}

fn parameters(dtype: DType, device: &Device) -> Result<Named> {
    SIZES
        .iter()
        .enumerate()
        .map(|(seed, &(name, n))| {
            let values: Vec<f64> = numbers(n, seed).collect();
            let values = Tensor::from_vec(values, n, &CPU)?.to_dtype(dtype)?;
            Ok((name, Var::from_tensor(&values.to_device(device)?)?))
        })
        .collect()
}

/// Gradients of many magnitudes, among them zero and numbers whose squares vanish or are subnormal. Each starts `offset` elements
/// into its storage.
fn gradients(parameters: &Named, step: usize, offset: usize) -> Result<GradStore> {
    // Candle makes no empty store.
    let mut store = Var::new(0f32, &CPU)?.backward()?;
    for (seed, (_, var)) in parameters.iter().enumerate() {
        let n = var.elem_count();
        let values: Vec<f64> = numbers(offset + n, seed + 17 * step)
            .enumerate()
            .map(|(i, x)| match i % 7 {
                0 => 0.0,
                1 => x * 1e-30,
                2 => x * 1e-21,
                3 => x * 1e4,
                _ => x,
            })
            .collect();
        let values = Tensor::from_vec(values, offset + n, &CPU)?
            .to_dtype(var.dtype())?
            .to_device(var.device())?;
        store.insert(var, values.narrow(0, offset, n)?);
    }
    Ok(store)
}

fn steps(
    adam: &mut Adam,
    parameters: &Named,
    range: std::ops::RangeInclusive<usize>,
    offset: usize,
) -> TrainerResult<()> {
    for step in range {
        adam.step(parameters, &gradients(parameters, step, offset)?)?;
    }
    Ok(())
}

/// The numbers of a tensor, in f64, which holds those of each dtype exactly.
fn values(tensor: &Tensor) -> Result<Vec<f64>> {
    tensor.to_device(&CPU)?.to_dtype(DType::F64)?.to_vec1()
}

/// What a step changed: weights and both moments of each parameter.
fn outcome(adam: &Adam, parameters: &Named) -> TrainerResult<Vec<(String, Vec<f64>)>> {
    let AdamState { moments, .. } = adam.state(parameters)?;
    let mut outcome = Vec::new();
    for ((name, var), (m, v)) in parameters.iter().zip(&moments) {
        for (what, tensor) in [("weights", var.as_tensor()), ("first", m), ("second", v)] {
            outcome.push((format!("{what} of {name}"), values(tensor)?));
        }
    }
    Ok(outcome)
}

#[track_caller]
fn assert_same_bits(found: &[(String, Vec<f64>)], wanted: &[(String, Vec<f64>)], of: &str) {
    assert_eq!(found.len(), wanted.len());
    for ((what, found), (_, wanted)) in found.iter().zip(wanted) {
        let bits = |values: &[f64]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        let differing = bits(found)
            .iter()
            .zip(&bits(wanted))
            .position(|(a, b)| a != b);
        if let Some(i) = differing {
            panic!(
                "{of}: element {i} of {what} is {:e}, not {:e}",
                found[i], wanted[i]
            );
        }
    }
}

#[test]
fn several_steps_give_the_bits_of_the_cpu_and_the_composed_form_for_aligned_gradients_and_others()
-> TrainerResult<()> {
    let cuda = Device::new_cuda(0)?;
    let options = AdamOptions {
        lr: 0.01,
        ..AdamOptions::default()
    };
    for dtype in [DType::F32, DType::F64] {
        for offset in 0..4 {
            let here = parameters(dtype, &CPU)?;
            let mut adam = Adam::new(options, &here)?;
            steps(&mut adam, &here, 1..=5, offset)?;
            let wanted = outcome(&adam, &here)?;

            let there = parameters(dtype, &cuda)?;
            let mut adam = Adam::new(options, &there)?;
            steps(&mut adam, &there, 1..=5, offset)?;
            let found = outcome(&adam, &there)?;
            assert_same_bits(&found, &wanted, &format!("{dtype:?}, offset {offset}"));

            if offset > 0 {
                continue;
            }
            let oracle = parameters(dtype, &cuda)?;
            let mut adam = Adam::composed(options, &oracle)?;
            steps(&mut adam, &oracle, 1..=5, offset)?;
            // Candle's kernels may round otherwise on a GPU, by a unit in the last place each.
            let tolerance = if dtype == DType::F64 { 1e-14 } else { 1e-6 };
            for ((what, found), (_, wanted)) in found.iter().zip(outcome(&adam, &oracle)?) {
                for (a, b) in found.iter().zip(wanted) {
                    assert!(
                        (a - b).abs() <= tolerance * b.abs() + f64::from(f32::MIN_POSITIVE),
                        "{dtype:?}: {what}: {a:e}, {b:e}"
                    );
                }
            }
        }
    }
    Ok(())
}

#[test]
fn a_step_of_parts_is_the_cpu_s_and_a_state_goes_from_either_device_to_the_other()
-> TrainerResult<()> {
    let cuda = Device::new_cuda(0)?;
    let options = AdamOptions::default();
    let parts = |adam: &mut Adam, parameters: &Named| -> TrainerResult<()> {
        let parts = [
            gradients(parameters, 1, 0)?,
            gradients(parameters, 2, 0)?,
            gradients(parameters, 3, 0)?,
        ];
        adam.step_of_parts(parameters, &parts.each_ref())
    };
    for dtype in [DType::F32, DType::F64] {
        let mut wanted = Vec::new();
        for devices in [[&CPU, &CPU], [&cuda, &CPU], [&CPU, &cuda], [&cuda, &cuda]] {
            let [from, to] = devices;
            let before = parameters(dtype, from)?;
            let mut adam = Adam::new(options, &before)?;
            parts(&mut adam, &before)?;
            let state = adam.state(&before)?;
            let after = parameters(dtype, to)?;
            for ((_, before), (_, after)) in before.iter().zip(&after) {
                after.set(&before.to_device(to)?)?;
            }
            let mut adam = Adam::restore(options, &after, &state)?;
            assert_eq!(adam.steps(), 1);
            steps(&mut adam, &after, 2..=4, 0)?;
            let found = outcome(&adam, &after)?;
            if wanted.is_empty() {
                wanted = found;
            } else {
                assert_same_bits(&found, &wanted, &format!("{dtype:?}, {devices:?}"));
            }
        }
    }
    Ok(())
}

#[test]
fn what_does_not_fit_is_an_error_and_changes_no_weight() -> TrainerResult<()> {
    let cuda = Device::new_cuda(0)?;
    let there = parameters(DType::F32, &cuda)?;
    let before = values(&there[0].1)?;
    let refused = |parameters: &Named, store: &GradStore| -> TrainerResult<String> {
        let mut adam = Adam::new(AdamOptions::default(), &there)?;
        let error = adam.step(parameters, store).expect_err("it does not fit");
        Ok(error.message())
    };

    let mut short = gradients(&there, 1, 0)?;
    short.insert(&there[0].1, Tensor::zeros(2, DType::F32, &cuda)?);
    let message = refused(&there, &short)?;
    assert!(message.contains("same number of elements"), "{message}");

    let mut other = gradients(&there, 1, 0)?;
    other.insert(&there[0].1, Tensor::zeros(1, DType::F64, &cuda)?);
    let message = refused(&there, &other)?;
    assert!(message.contains("F64"), "{message}");

    let here = parameters(DType::F32, &CPU)?;
    let message = refused(&here, &gradients(&here, 1, 0)?)?;
    assert!(message.contains("on a CUDA device"), "{message}");

    let mut more = there.clone();
    more.push(("surplus", Var::zeros(3, DType::F32, &cuda)?));
    let message = refused(&more, &gradients(&more, 1, 0)?)?;
    assert!(message.contains("made for 12 parameters"), "{message}");
    assert_eq!(values(&there[0].1)?, before);
    Ok(())
}
