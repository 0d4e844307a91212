//! The program itself with `--device cuda`: it trains, goes on, evaluates and predicts.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Command;

use lenet5::PARAMETERS;
use serde_json::Value;

use crate::small_data::small_images;

const TRAIN_IMAGES: usize = 12;
const TEST_IMAGES: usize = 7;

/// Steps of an epoch in batches of 8.
const STEPS: usize = 2;

/// The program: where the environment says, which is how `gpu-check` takes it to another machine along with this test, else
/// where cargo has built it.
fn program() -> OsString {
    std::env::var_os("TRAINER_PROGRAM").unwrap_or_else(|| env!("CARGO_BIN_EXE_trainer").into())
}

/// Runs a command on the made-up data set to its end, and returns what it printed on both streams.
fn run(folder: &Path, arguments: &[&str]) -> (String, String) {
    let output = Command::new(program())
        .current_dir(folder)
        .args(arguments)
        .env_remove("RUST_LOG")
        .env("CUDA_EMU_LOG", folder.join("driver.log"))
        .output()
        .expect("the program starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(
        output.status.success(),
        "{arguments:?} ended with {}\n{stdout}{stderr}",
        output.status
    );
    (stdout, stderr)
}

fn run_json(folder: &Path, arguments: &[&str]) -> Value {
    let (stdout, _) = run(folder, &[arguments, &["--json"]].concat());
    serde_json::from_str(&stdout).expect("one JSON object and nothing else")
}

/// A command with the made-up data set and a device.
fn on<'a>(device: &'a str, arguments: &[&'a str]) -> Vec<&'a str> {
    let common = ["--device", device, "--data", "data", "--unverified"];
    [arguments, &common].concat()
}

/// Files in Fashion-MNIST's form.
fn write_data(folder: &Path) {
    let idx = |magic: u32, sizes: &[usize], data: &[u8]| {
        let sizes = sizes.iter().map(|&size| size as u32);
        let header = std::iter::once(magic).chain(sizes);
        let mut bytes: Vec<u8> = header.flat_map(u32::to_be_bytes).collect();
        bytes.extend(data);
        bytes
    };
    fs::create_dir(folder).expect("writable");
    for (name, count, salt) in [("train", TRAIN_IMAGES, 1), ("t10k", TEST_IMAGES, 2)] {
        let (images, labels) = small_images(count, salt);
        let images = idx(0x803, &[count, 28, 28], &images);
        let labels = idx(0x801, &[count], &labels);
        let write = |kind: &str, bytes| {
            fs::write(folder.join(format!("{name}-{kind}-ubyte")), bytes).expect("writable");
        };
        write("images-idx3", images);
        write("labels-idx1", labels);
    }
}

/// How often the emulated driver launched Adam's kernel; none on a GPU, whose driver tells nobody.
fn adam_launches(folder: &Path) -> Option<usize> {
    let log = fs::read_to_string(folder.join("driver.log")).ok()?;
    let launches = log
        .lines()
        .filter(|l| l.contains("cuLaunchKernel(adam_f32,"));
    Some(launches.count())
}

#[test]
fn the_program_trains_goes_on_to_the_same_bits_evaluates_and_predicts_on_cuda() {
    let temporary = tempfile::tempdir().expect("temporary folder");
    let folder = temporary.path();
    write_data(&folder.join("data"));
    let train = |device, epochs, run_dir| {
        let recipe = ["train", "--batch-size", "8", "--seed", "3"];
        let run = ["--epochs", epochs, "--run-dir", run_dir];
        run_json(folder, &on(device, &[&recipe[..], &run].concat()))
    };
    let straight = train("cuda", "2", "straight");
    assert_eq!(straight["config"]["device"], "cuda:0");
    if let Some(launches) = adam_launches(folder) {
        assert_eq!(
            launches,
            2 * STEPS * PARAMETERS.len(),
            "launches of adam_f32"
        );
    }
    let losses = |run: &Value| -> Vec<f64> {
        let epochs = run["epochs"].as_array().expect("epochs").iter();
        epochs
            .map(|e| e["loss"].as_f64().expect("a number"))
            .collect()
    };
    let wanted = losses(&train("cpu", "2", "on-cpu"));
    let found = losses(&straight);
    assert_eq!((found.len(), wanted.len()), (2, 2));
    for (found, wanted) in found.iter().zip(&wanted) {
        assert!((found - wanted).abs() < 1e-4, "{found} {wanted}");
    }

    let half = train("auto", "1", "stopped");
    assert_eq!(half["config"]["device"], "cuda:0", "auto takes the GPU");
    let resumed = run_json(
        folder,
        &on("cuda", &["train", "--resume", "stopped", "--epochs", "2"]),
    );
    assert_eq!(losses(&resumed), found);
    let weights = |run: &str| {
        fs::read(folder.join(run).join("weights.safetensors")).expect("the run left it")
    };
    assert!(weights("straight") == weights("stopped"), "resumed");

    let evaluated = run_json(folder, &on("cuda", &["eval", "straight"]));
    assert_eq!(evaluated["samples"], TEST_IMAGES);
    assert_eq!(
        evaluated["accuracy"],
        straight["epochs"][1]["test_accuracy"]
    );
    let here = run_json(folder, &on("cpu", &["eval", "straight"]));
    assert_eq!(evaluated["confusion"], here["confusion"]);

    let image = image::GrayImage::from_fn(28, 28, |x, _| image::Luma([(x * 9) as u8]));
    image.save(folder.join("image.png")).expect("writable");
    let predict = |device| {
        let arguments = ["predict", "straight", "image.png", "--device", device];
        run_json(folder, &arguments)["predictions"][0]["top"][0]["class"].clone()
    };
    assert_eq!(predict("cuda"), predict("cpu"));
}
