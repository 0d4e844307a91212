//! Tests of the loop on a small made-up data set: resumption, threads, and what stops a run.

use candle_core::Device;
use fashion_mnist::FashionMnist;

use super::*;
use crate::config::{LossKind, Versions};

#[path = "../../tests/shared/small_data.rs"]
mod small_data;

/// Enough images for five batches an epoch.
fn small_data() -> FashionMnist {
    small_data::small_data(75, 30)
}

fn config(epochs: usize, loss: LossKind) -> TrainConfig {
    TrainConfig {
        epochs,
        batch_size: 16,
        lr: 1e-3,
        loss,
        seed: 3,
        limit_batches: None,
        dtype: "f32".into(),
        forward: String::new(),
        device: "cpu".into(),
        threads: 1,
        isa: String::new(),
        data: "made up".into(),
        versions: Versions::current(),
    }
}

fn temporary() -> (tempfile::TempDir, RunDir) {
    let folder = tempfile::tempdir().expect("temporary folder");
    let run = RunDir::open(folder.path()).expect("exists");
    (folder, run)
}

fn weights(run: &RunDir) -> Vec<u8> {
    std::fs::read(run.weights()).expect("final weights")
}

#[test]
fn an_epoch_counts_the_last_smaller_batch_and_every_sample() -> Result<()> {
    let (data, config) = (small_data(), config(1, LossKind::Fused));
    let (_folder, run) = temporary();
    let mut training = Training::start(&config, &data, &run, &Device::Cpu)?;
    let metrics = training.epoch()?;
    assert_eq!(training.progress.steps_done, 5);
    assert_eq!(training.progress.samples, 75);
    assert_eq!(training.adam.steps(), 5);
    assert!((metrics.loss - 10f64.ln()).abs() < 0.2, "{}", metrics.loss);
    let total = metrics.shares.forward + metrics.shares.backward;
    assert!(total + metrics.shares.optimizer + metrics.shares.data <= 1.0);
    Ok(())
}

#[test]
fn the_loss_falls_with_every_implementation_and_all_agree() -> Result<()> {
    let data = small_data();
    let mut first = Vec::new();
    for loss in LossKind::ALL {
        let config = config(6, loss);
        let (_folder, run) = temporary();
        let epochs = Training::start(&config, &data, &run, &Device::Cpu)?.run()?;
        assert_eq!(epochs.len(), 6);
        assert!(
            epochs[5].loss < 0.9 * epochs[0].loss,
            "{loss:?}: {epochs:?}"
        );
        first.push(epochs[0].loss);
    }
    assert!(
        first.iter().all(|loss| (loss - first[0]).abs() < 1e-4),
        "{first:?}"
    );
    Ok(())
}

#[test]
fn a_run_resumed_between_epochs_ends_with_the_same_bits() -> Result<()> {
    let data = small_data();
    let whole = config(3, LossKind::Fused);
    let (_a, straight) = temporary();
    let expected = Training::start(&whole, &data, &straight, &Device::Cpu)?.run()?;
    let (_b, stopped) = temporary();
    let part = config(1, LossKind::Fused);
    Training::start(&part, &data, &stopped, &Device::Cpu)?.run()?;
    let training = Training::resume(&whole, &data, &stopped, &Device::Cpu)?;
    assert_eq!(training.epochs_done(), 1);
    let got = training.run()?;
    assert!(weights(&straight) == weights(&stopped));
    let losses = |epochs: &[EpochMetrics]| epochs.iter().map(|m| m.loss).collect::<Vec<_>>();
    assert_eq!(losses(&got), losses(&expected));
    Ok(())
}

#[test]
fn a_run_stopped_in_the_middle_of_an_epoch_ends_with_the_same_bits() -> Result<()> {
    let data = small_data();
    let whole = config(2, LossKind::Fused);
    let (_a, straight) = temporary();
    let expected = Training::start(&whole, &data, &straight, &Device::Cpu)?.run()?;

    // Two steps of the first epoch, then what an interruption does.
    let (_b, stopped) = temporary();
    let limited = TrainConfig {
        limit_batches: Some(2),
        ..whole.clone()
    };
    let mut training = Training::start(&limited, &data, &stopped, &Device::Cpu)?;
    training.train_epoch(1, &mut Stopwatch::start())?;
    let error = training.interrupted(1);
    assert_eq!(error.exit_code(), 130);
    assert!(error.message().contains("after step 2"), "{error}");
    assert!(error.message().contains("--resume"), "{error}");
    drop(training);

    let got = Training::resume(&whole, &data, &stopped, &Device::Cpu)?.run()?;
    assert!(weights(&straight) == weights(&stopped));
    assert_eq!(got[0].loss, expected[0].loss);
    Ok(())
}

#[test]
fn weights_do_not_depend_on_the_number_of_threads() -> Result<()> {
    let data = small_data();
    for loss in LossKind::ALL {
        // A batch of two parts.
        let config = TrainConfig {
            batch_size: 70,
            ..config(3, loss)
        };
        let mut all = Vec::new();
        for threads in [1, 2, 3] {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .expect("a pool");
            let (_folder, run) = temporary();
            pool.install(|| Training::start(&config, &data, &run, &Device::Cpu)?.run())?;
            all.push(weights(&run));
        }
        assert!(all.iter().all(|bytes| *bytes == all[0]), "{loss:?}");
    }
    Ok(())
}

#[test]
fn a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_good_state() -> Result<()> {
    let data = small_data();
    let good = config(1, LossKind::Fused);
    let (_folder, run) = temporary();
    Training::start(&good, &data, &run, &Device::Cpu)?.run()?;
    let before = std::fs::read(run.checkpoint()).expect("checkpoint");
    let wild = TrainConfig {
        epochs: 3,
        lr: 1e18,
        ..good
    };
    let error = Training::resume(&wild, &data, &run, &Device::Cpu)?
        .run()
        .expect_err("diverges");
    assert_eq!(error.exit_code(), 4, "{error}");
    assert!(error.message().contains("learning rate"), "{error}");
    let after = std::fs::read(run.checkpoint()).expect("checkpoint");
    assert!(before == after);
    Ok(())
}
