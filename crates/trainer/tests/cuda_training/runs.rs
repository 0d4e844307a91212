//! Whole runs on CUDA: steps, both accuracies, checkpoints, and the same bits after a resumption.

use candle_core::{Device, Tensor};
use lenet5::LeNet5;
use trainer::checkpoint;
use trainer::config::{LossKind, TrainConfig, Versions};
use trainer::errors::Result;
use trainer::metrics::EpochMetrics;
use trainer::run_dir::RunDir;
use trainer::training::{Training, evaluate};

use crate::small_data::small_data;

fn config(epochs: usize, loss: LossKind) -> TrainConfig {
    TrainConfig {
        epochs,
        batch_size: 8,
        lr: 1e-3,
        loss,
        seed: 3,
        limit_batches: None,
        dtype: "f32".into(),
        forward: String::new(),
        device: String::new(),
        threads: 1,
        isa: String::new(),
        data: "made up".into(),
        versions: Versions::current(),
    }
}

/// Trains in a folder of its own, stopped after the first epoch and resumed where `resumed` says so. Returns the metrics, the
/// file of the final weights and the optimizer's state in the last checkpoint.
fn train(
    loss: LossKind,
    device: &Device,
    resumed: bool,
) -> Result<(Vec<EpochMetrics>, Vec<u8>, Vec<f32>)> {
    let folder = tempfile::tempdir().expect("temporary folder");
    let (data, whole) = (small_data(12, 7), config(2, loss));
    let run = RunDir::open(folder.path())?;
    let epochs = if resumed {
        Training::start(&config(1, loss), &data, &run, device)?.run()?;
        Training::resume(&whole, &data, &run, device)?.run()?
    } else {
        Training::start(&whole, &data, &run, device)?.run()?
    };
    let weights = std::fs::read(run.weights()).expect("the run left it");
    // Not the file's bytes: safetensors writes its metadata in any order.
    let mut moments = Vec::new();
    for (first, second) in checkpoint::load(&run.checkpoint(), &Device::Cpu)?
        .adam
        .moments
    {
        moments.extend(first.flatten_all()?.to_vec1::<f32>()?);
        moments.extend(second.flatten_all()?.to_vec1::<f32>()?);
    }
    Ok((epochs, weights, moments))
}

#[test]
fn a_run_learns_as_on_the_cpu_and_a_resumed_one_ends_with_the_same_bits() -> Result<()> {
    let cuda = Device::new_cuda(0)?;
    for loss in LossKind::ALL {
        let (wanted, ..) = train(loss, &Device::Cpu, false)?;
        let (found, weights, moments) = train(loss, &cuda, false)?;
        for (found, wanted) in found.iter().zip(&wanted) {
            assert!(
                (found.loss - wanted.loss).abs() < 1e-4,
                "{loss:?}: {found:?}, {wanted:?}"
            );
        }
        let (again, same_weights, same_moments) = train(loss, &cuda, true)?;
        assert!(weights == same_weights, "{loss:?}");
        assert!(moments == same_moments, "{loss:?}");
        let losses = |epochs: &[EpochMetrics]| epochs.iter().map(|m| m.loss).collect::<Vec<_>>();
        assert_eq!(losses(&again), losses(&found), "{loss:?}");
    }
    Ok(())
}

#[test]
fn a_checkpoint_of_either_device_is_the_other_s_too_and_classifies_alike() -> Result<()> {
    let cuda = Device::new_cuda(0)?;
    let (data, config) = (small_data(12, 7), config(1, LossKind::default()));
    for (from, to) in [(&cuda, &Device::Cpu), (&Device::Cpu, &cuda)] {
        let folder = tempfile::tempdir().expect("temporary folder");
        let run = RunDir::open(folder.path())?;
        Training::start(&config, &data, &run, from)?.run()?;
        let here = checkpoint::load(&run.checkpoint(), from)?;
        let there = checkpoint::load(&run.checkpoint(), to)?;
        let images = |device: &Device| -> Result<Tensor> {
            let indices: Vec<u32> = (0..7).collect();
            Ok(data
                .test
                .batch(&indices, candle_core::DType::F32, device)?
                .0)
        };
        let logits = |model: &LeNet5| -> Result<Vec<f32>> {
            let logits = model.infer(&images(model.device())?)?;
            Ok(logits.flatten_all()?.to_vec1()?)
        };
        let pairs = logits(&here.model)?.into_iter().zip(logits(&there.model)?);
        for (a, b) in pairs {
            assert!((a - b).abs() < 1e-4, "{a} {b}");
        }
        let accuracy = |model: &LeNet5| -> Result<f64> {
            let confusion = evaluate(model, &data.test, || false)?;
            Ok(confusion.expect("nothing stopped it").accuracy())
        };
        assert_eq!(accuracy(&here.model)?, accuracy(&there.model)?);
    }
    Ok(())
}
