//! Ten steps of a small network on both devices, and devices on several threads.

use candle_core::{Device, Result, Tensor, Var, bail};

/// Losses of ten gradient steps of a two-layer network with a cross entropy made of tensor operations.
fn losses(device: &Device) -> Result<Vec<f32>> {
    let matrix = |rows: usize, columns: usize, scale: f32| {
        let values: Vec<_> = (0..rows * columns)
            .map(|i| ((i * 7919 % 1009) as f32 / 1009.0 - 0.5) * scale)
            .collect();
        Tensor::from_vec(values, (rows, columns), device)
    };
    let inputs = matrix(64, 32, 2.0)?;
    let targets: Vec<_> = (0..64u32).map(|i| i * 7 % 10).collect();
    let targets = Tensor::from_vec(targets, (64, 1), device)?;
    let first = Var::from_tensor(&matrix(32, 48, 1.0)?)?;
    let second = Var::from_tensor(&matrix(48, 10, 1.0)?)?;
    let bias = Var::from_tensor(&matrix(1, 48, 0.1)?)?;
    let mut losses = Vec::new();
    for _ in 0..10 {
        let hidden = inputs.matmul(&first)?.broadcast_add(&bias)?.gelu()?;
        let logits = hidden.matmul(&second)?;
        let maximum = logits.max_keepdim(1)?;
        let log_sum = logits
            .broadcast_sub(&maximum)?
            .exp()?
            .sum_keepdim(1)?
            .log()?;
        let loss = ((log_sum + maximum)? - logits.gather(&targets, 1)?)?.mean_all()?;
        losses.push(loss.to_scalar::<f32>()?);
        let gradients = loss.backward()?;
        for variable in [&first, &second, &bias] {
            let Some(gradient) = gradients.get(variable) else {
                bail!("a variable has no gradient")
            };
            variable.set(&(variable.as_tensor() - (gradient * 0.5)?)?)?;
        }
    }
    Ok(losses)
}

pub(crate) fn run(device: &Device) -> Result<()> {
    let (cpu, cuda) = (losses(&Device::Cpu)?, losses(device)?);
    println!("losses on the CPU  {cpu:?}\nlosses on CUDA     {cuda:?}");
    // NaN is not within any bound.
    if !cpu.iter().zip(&cuda).all(|(a, b)| (a - b).abs() <= 1e-5) {
        bail!("training differs");
    }
    if cpu[9] >= 0.8 * cpu[0] {
        bail!("nothing was learnt");
    }
    let threads: Vec<_> = (0..4)
        .map(|_| {
            std::thread::spawn(|| -> Result<f32> {
                let device = Device::new_cuda(0)?;
                let ones = Tensor::ones((10, 100), candle_core::DType::F32, &device)?;
                ones.affine(2.0, 1.0)?.sum_all()?.to_scalar()
            })
        })
        .collect();
    for thread in threads {
        match thread.join() {
            Ok(Ok(3000.0)) => {}
            other => bail!("a thread with its own device gives {other:?}"),
        }
    }
    Ok(())
}
