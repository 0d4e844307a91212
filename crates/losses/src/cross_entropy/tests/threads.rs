//! The same bits for any number of threads and from run to run.

use candle_core::{DType, Device, Result, Tensor, Var};

use crate::CrossEntropy;

fn bits(x: &Tensor) -> Result<Vec<u64>> {
    Ok(x.to_dtype(DType::F64)?
        .flatten_all()?
        .to_vec1::<f64>()?
        .into_iter()
        .map(f64::to_bits)
        .collect())
}

#[test]
fn bits_do_not_depend_on_threads_or_runs() -> Result<()> {
    let settings = [
        CrossEntropy::new(),
        CrossEntropy::new().label_smoothing(0.1),
    ];
    for options in settings {
        for (shape, dtype) in [
            (vec![20_000, 10], DType::F32),
            (vec![700, 1000], DType::F32),
            (vec![700, 1000], DType::BF16),
            (vec![3, 20, 5000], DType::F64),
            (vec![3, 70_001], DType::F32),
        ] {
            let n: usize = shape.iter().product();
            let x: Vec<f32> = (0..n)
                .map(|i| ((i * 7919 % 10_007) as f32).sin() * 4.0)
                .collect();
            let x = Tensor::from_vec(x, shape.as_slice(), &Device::Cpu)?.to_dtype(dtype)?;
            let mut rows = shape.clone();
            let classes = rows.remove(1);
            let t: Vec<u32> = (0..n / classes)
                .map(|i| (i * 31 % classes) as u32)
                .collect();
            let t = Tensor::from_vec(t, rows, &Device::Cpu)?;
            let run = |threads: usize| -> Result<Vec<Vec<u64>>> {
                rayon::ThreadPoolBuilder::new()
                    .num_threads(threads)
                    .build()
                    .unwrap()
                    .install(|| {
                        let var = Var::from_tensor(&x)?;
                        let loss = options.forward(&var, &t)?;
                        let first = loss.backward()?;
                        let second = loss.backward()?;
                        let (value, grad) = options.value_and_grad(&x, &t)?;
                        let all = [
                            &loss,
                            first.get(&var).unwrap(),
                            second.get(&var).unwrap(),
                            &value,
                            &grad,
                        ];
                        all.into_iter().map(bits).collect()
                    })
            };
            let one = run(1)?;
            assert_eq!(one[1], one[2], "backward twice");
            assert!(one == run(2)?, "{shape:?}: two threads");
            assert!(one == run(3)?, "{shape:?}: three threads");
            assert!(one == run(1)?, "{shape:?}: again");
        }
    }
    Ok(())
}
