//! What `./run` of a `gpu-check` folder does: every part on this machine's GPU, one JSON file at the end.
//!
//! Nothing is left out in silence: a part that cannot run stands in the file with the reason.

use crate::exit::{self, Failure};
use crate::gpu_report;
use serde_json::{Map, Value, json};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Instant;

const HELP: &str = "\
Usage: ./run [--python PATH] [--data DIR] [--out FILE] [--smoke]

Runs on this machine's GPU: the gradient checks, the CUDA tests, the measurements. Prints the measurements and writes
everything into one JSON file. Exit codes: 0 ok, 1 something could not run, 2 usage, 5 a check failed.

  --python PATH  a Python with PyTorch for CUDA, which is then measured beside ours, and Liger-Kernel if it is there
  --data DIR     Fashion-MNIST, on which LeNet-5 is then trained for an epoch
  --out FILE     where to write the JSON [default: gpu-check.json]
  --smoke        tiny sizes, to see that everything runs; nothing to quote
";

#[derive(Default)]
struct Options {
    folder: PathBuf,
    python: Option<OsString>,
    data: Option<OsString>,
    out: Option<PathBuf>,
    /// Libraries that go before all others: the emulated driver.
    driver: Option<PathBuf>,
    smoke: bool,
}

/// How a part ended.
enum Ended {
    Passed,
    /// A check of it failed.
    Failed(String),
    /// It was to run and could not.
    Broke(String),
    /// It was not asked for, or this machine lacks what it needs.
    NotRun(String),
}

/// Everything that goes into the file.
#[derive(Default)]
struct Report {
    parts: Vec<Value>,
    measurements: Vec<Value>,
    missing: Vec<Value>,
    versions: Vec<Value>,
    device: Value,
    verify_grads: Value,
    tests: Vec<Value>,
    training: Value,
    /// Why nothing of ours can run on a GPU here, where that is so.
    unusable: Option<String>,
    failed: bool,
    broke: bool,
}

impl Report {
    /// Runs a part and writes down how it ended.
    fn part(&mut self, name: &str, run: impl FnOnce(&mut Self) -> Ended) {
        exit::note(&format!("== {name}"));
        let start = Instant::now();
        let ended = run(self);
        let (status, reason) = match ended {
            Ended::Passed => ("passed", None),
            Ended::Failed(reason) => ("failed", Some(reason)),
            Ended::Broke(reason) => ("could not run", Some(reason)),
            Ended::NotRun(reason) => ("not run", Some(reason)),
        };
        self.failed |= status == "failed";
        self.broke |= status == "could not run";
        if let Some(reason) = &reason {
            exit::note(&format!("{status}: {reason}"));
        }
        self.parts.push(json!({
            "name": name,
            "status": status,
            "reason": reason,
            "seconds": start.elapsed().as_secs_f64(),
        }));
    }

    /// Takes in the lines of a benchmark; each is one JSON object.
    fn take_lines(&mut self, text: &str) -> Result<(), String> {
        for line in text.lines() {
            let row: Value = serde_json::from_str(line)
                .map_err(|error| format!("it printed '{line}', which is no JSON: {error}"))?;
            if !row["device"].is_null() && row["group"].is_null() {
                self.device = row["device"].clone();
            } else if row.get("missing").is_some() {
                self.missing.push(row);
            } else if let Some(version) = row.get("version") {
                self.versions.push(version.clone());
            } else {
                self.measurements.push(row);
            }
        }
        Ok(())
    }
}

pub(crate) fn run(arguments: &[OsString]) -> Result<(), Failure> {
    let Some(options) = parse(arguments)? else {
        return exit::print(HELP);
    };
    let mut notes = Vec::new();
    let programs = Programs::new(&options, &mut notes);
    for note in &notes {
        exit::note(&format!("note: {note}"));
    }
    let mut report = Report::default();

    report.part("gradient checks", |report| {
        gradients(&programs, &options, report)
    });
    report.part("tests", |report| tests(&programs, report));
    for suite in ["losses", "training"] {
        report.part(&format!("{suite}, ours"), |report| {
            let mut command = programs.command("bin/gpu-bench");
            command.arg(suite).args(options.smoke.then_some("--smoke"));
            benchmark(command, report)
        });
    }
    report.part("PyTorch and Liger-Kernel", |report| {
        let Some(python) = &options.python else {
            return Ended::NotRun("no --python PATH was given".into());
        };
        // Without our libraries: PyTorch brings its own.
        let mut command = Command::new(python);
        command
            .arg(options.folder.join("python/gpu.py"))
            .args(options.smoke.then_some("--smoke"));
        benchmark(command, report)
    });
    report.part("an epoch on Fashion-MNIST", |report| {
        train(&programs, &options, report)
    });

    gpu_report::add_bandwidth(&mut report.measurements);
    let emulated = report.device["emulated"].as_bool();
    let file = json!({
        "format": "candle-losses gpu-check, 1",
        "emulated": emulated,
        "smoke": options.smoke,
        "device": report.device,
        "nvidia_smi": nvidia_smi(),
        "build": build(&options.folder),
        "versions": report.versions,
        "notes": notes,
        "parts": report.parts,
        "measurements": report.measurements,
        "missing": report.missing,
        "verify_grads": report.verify_grads,
        "tests": report.tests,
        "training": report.training,
    });
    let out = options
        .out
        .unwrap_or_else(|| PathBuf::from("gpu-check.json"));
    fs::write(&out, format!("{file:#}\n"))
        .map_err(|error| Failure::run(format!("cannot write {}: {error}", out.display())))?;
    exit::print(&gpu_report::as_tables(&file))?;
    exit::note(&format!("everything is in {}", out.display()));
    if emulated == Some(true) {
        exit::note("the device was emulated on the CPU: nothing here is evidence of a GPU");
    }
    if report.failed {
        return Err(Failure::check("a check failed; see above"));
    }
    if report.broke {
        return Err(Failure::run("something could not run; see above"));
    }
    Ok(())
}

fn parse(arguments: &[OsString]) -> Result<Option<Options>, Failure> {
    let mut options = Options::default();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let mut value = |name: &str| {
            rest.next()
                .cloned()
                .ok_or_else(|| Failure::usage(format!("{name} needs a value; see ./run --help")))
        };
        match argument.to_string_lossy().as_ref() {
            "-h" | "--help" => return Ok(None),
            "--folder" => options.folder = value("--folder")?.into(),
            "--python" => options.python = Some(value("--python")?),
            "--data" => options.data = Some(value("--data")?),
            "--out" => options.out = Some(value("--out")?.into()),
            "--driver" => options.driver = Some(value("--driver")?.into()),
            "--smoke" => options.smoke = true,
            other => {
                return Err(Failure::usage(format!(
                    "unknown argument '{other}'; see ./run --help"
                )));
            }
        }
    }
    if !options.folder.join("build.json").is_file() {
        return Err(Failure::usage(
            "this runs in a folder that `cargo xtask gpu-check` built: start ./run there",
        ));
    }
    Ok(Some(options))
}

/// The programs of the folder, and the libraries they start with.
struct Programs {
    folder: PathBuf,
    library_path: OsString,
}

impl Programs {
    fn new(options: &Options, notes: &mut Vec<String>) -> Self {
        let mut folders: Vec<PathBuf> = options.driver.iter().cloned().collect();
        // What the machine's owner has set comes before what we brought.
        if let Some(present) = std::env::var_os("LD_LIBRARY_PATH") {
            folders.extend(std::env::split_paths(&present).filter(|f| !f.as_os_str().is_empty()));
        }
        folders.push(options.folder.join("lib"));
        let mut programs = Self {
            folder: options.folder.clone(),
            library_path: join(&folders),
        };
        // Last of all and only where the loader finds no driver: programs then start, and say that there is no GPU.
        if programs.missing_library().as_deref() == Some("libcuda.so.1") {
            notes.push(
                "no libcuda.so.1 is installed here: without NVIDIA's driver nothing runs on a GPU"
                    .into(),
            );
            folders.push(options.folder.join("stubs"));
            programs.library_path = join(&folders);
        }
        if let Some(library) = programs.missing_library() {
            notes.push(format!(
                "{library} is neither installed here nor in this folder's lib: install the libraries of CUDA 13, or build \
                 the folder without --no-libraries"
            ));
        }
        programs
    }

    /// The library that the loader does not find, if there is one.
    fn missing_library(&self) -> Option<String> {
        let output = output(self.command("bin/verify-grads").arg("--help")).ok()?;
        missing_library(&output)
    }

    /// A program by its path in the folder.
    fn command(&self, path: impl AsRef<Path>) -> Command {
        let mut command = Command::new(self.folder.join(path));
        command.env("LD_LIBRARY_PATH", &self.library_path);
        command
    }
}

/// Folders as a search path. One with a colon in its name cannot be part of any.
fn join(folders: &[PathBuf]) -> OsString {
    std::env::join_paths(
        folders
            .iter()
            .filter(|f| !f.to_string_lossy().contains(':')),
    )
    .unwrap_or_default()
}

fn output(command: &mut Command) -> Result<Output, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    command
        .output()
        .map_err(|error| format!("cannot start {program}: {error}"))
}

/// The library for want of which the loader did not start a program.
fn missing_library(output: &Output) -> Option<String> {
    let said = String::from_utf8_lossy(&output.stderr);
    let (_, rest) = said.split_once("error while loading shared libraries: ")?;
    Some(rest.split(':').next()?.to_owned())
}

/// The last lines that a program wrote to standard error.
fn last_words(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<_> = said.lines().collect();
    let tail = &lines[lines.len().saturating_sub(8)..];
    format!("{}: {}", output.status, tail.join("\n"))
}

fn gradients(programs: &Programs, options: &Options, report: &mut Report) -> Ended {
    let mut command = programs.command("bin/verify-grads");
    command.args(["--device", "cuda", "--json"]);
    if options.smoke {
        command.args(["--filter", "worked_example"]);
    }
    let output = match output(&mut command) {
        Ok(output) => output,
        Err(reason) => return Ended::Broke(reason),
    };
    let Ok(summary) = serde_json::from_slice::<Value>(&output.stdout) else {
        let said = last_words(&output);
        // Its first act is to open the device.
        if missing_library(&output).is_some() || said.contains("error: --device") {
            report.unusable = Some(said.clone());
        }
        return Ended::Broke(said);
    };
    report.verify_grads = summary;
    let summary = &report.verify_grads;
    exit::note(&format!(
        "{} passed, {} failed, {} skipped",
        summary["passed"], summary["failed"], summary["skipped"]
    ));
    if output.status.success() {
        return Ended::Passed;
    }
    Ended::Failed(format!("{} gradient checks failed", summary["failed"]))
}

fn tests(programs: &Programs, report: &mut Report) -> Ended {
    // They would fail, which says nothing about what they check.
    if let Some(reason) = &report.unusable {
        return Ended::Broke(reason.clone());
    }
    let folder = programs.folder.join("tests");
    let mut files: Vec<_> = fs::read_dir(&folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    files.sort();
    if files.is_empty() {
        return Ended::NotRun("the folder holds no tests".into());
    }
    let mut failed = Vec::new();
    for file in files {
        let name = file.file_name().unwrap_or(OsStr::new("?")).to_owned();
        let name = name.to_string_lossy().into_owned();
        let mut command = programs.command(&file);
        // Built on another machine, the tests know its path there.
        command.env("TRAINER_PROGRAM", programs.folder.join("bin/trainer"));
        let (passed, said) = match output(&mut command) {
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stdout).into_owned();
                (output.status.success(), said + &last_words(&output))
            }
            Err(reason) => (false, reason),
        };
        exit::note(&format!(
            "{name}: {}",
            if passed { "passed" } else { "FAILED" }
        ));
        if !passed {
            exit::note(&said);
            failed.push(name.clone());
        }
        report
            .tests
            .push(json!({ "name": name, "passed": passed, "output": said }));
    }
    if failed.is_empty() {
        return Ended::Passed;
    }
    Ended::Failed(format!("{} failed", failed.join(", ")))
}

fn benchmark(mut command: Command, report: &mut Report) -> Ended {
    let output = match output(&mut command) {
        Ok(output) => output,
        Err(reason) => return Ended::Broke(reason),
    };
    let missing = report.missing.len();
    let taken = report.take_lines(&String::from_utf8_lossy(&output.stdout));
    for row in &report.missing[missing..] {
        exit::note(&format!("missing: {}", row["missing"]));
    }
    match taken {
        Err(reason) => Ended::Broke(reason),
        Ok(()) if !output.status.success() => Ended::Broke(last_words(&output)),
        Ok(()) => Ended::Passed,
    }
}

fn train(programs: &Programs, options: &Options, report: &mut Report) -> Ended {
    let Some(data) = &options.data else {
        return Ended::NotRun("no --data DIR was given".into());
    };
    let run = std::env::temp_dir().join(format!("gpu-check-run-{}", std::process::id()));
    let mut command = programs.command("bin/trainer");
    command
        .args([
            "train", "--device", "cuda", "--epochs", "1", "--json", "--data",
        ])
        .arg(data)
        .arg("--run-dir")
        .arg(&run);
    if options.smoke {
        command.args(["--limit-batches", "1"]);
    }
    let output = output(&mut command);
    let _ = fs::remove_dir_all(&run);
    let output = match output {
        Ok(output) => output,
        Err(reason) => return Ended::Broke(reason),
    };
    match serde_json::from_slice::<Value>(&output.stdout) {
        Ok(training) if output.status.success() => {
            report.training = training;
            Ended::Passed
        }
        _ => Ended::Broke(last_words(&output)),
    }
}

/// What the driver's own tool says, or why it says nothing.
fn nvidia_smi() -> Value {
    const FIELDS: &str = "name,driver_version,memory.total,clocks.max.sm,clocks.max.memory,power.limit,vbios_version";
    let mut command = Command::new("nvidia-smi");
    command
        .arg(format!("--query-gpu={FIELDS}"))
        .arg("--format=csv,noheader");
    match output(&mut command) {
        Ok(output) if output.status.success() => {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let values = text.lines().next().unwrap_or_default().split(", ");
            let row: Map<String, Value> = FIELDS
                .split(',')
                .zip(values)
                .map(|(field, value)| (field.to_owned(), value.into()))
                .collect();
            Value::Object(row)
        }
        Ok(output) => json!({ "missing": last_words(&output) }),
        Err(reason) => json!({ "missing": reason }),
    }
}

/// The manifest of the folder.
fn build(folder: &Path) -> Value {
    fs::read_to_string(folder.join("build.json"))
        .ok()
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_sorted_by_what_they_are() {
        let mut report = Report::default();
        let text = "{\"device\": {\"name\": \"x\", \"emulated\": true}}\n{\"version\": \"v 1\"}\n\
                    {\"missing\": \"no such kernel\", \"group\": \"g\"}\n\
                    {\"group\": \"g\", \"device\": \"cuda\", \"median_seconds\": 1.0}\n";
        report.take_lines(text).unwrap();
        assert_eq!(report.device["name"], "x");
        assert_eq!(report.versions, ["v 1"]);
        assert_eq!((report.missing.len(), report.measurements.len()), (1, 1));
        assert!(
            report
                .take_lines("Segmentation fault")
                .unwrap_err()
                .contains("no JSON")
        );
    }

    #[cfg(unix)]
    #[test]
    fn the_library_that_the_loader_misses_is_named() {
        let output = |text: &str| Output {
            status: std::os::unix::process::ExitStatusExt::from_raw(0),
            stdout: Vec::new(),
            stderr: text.as_bytes().to_vec(),
        };
        let said = "bin/x: error while loading shared libraries: libcurand.so.10: cannot open shared object file";
        assert_eq!(
            missing_library(&output(said)).as_deref(),
            Some("libcurand.so.10")
        );
        assert_eq!(missing_library(&output("error: --device")), None);
    }

    #[test]
    fn tests_that_no_gpu_can_run_are_no_failed_check() {
        let options = Options::default();
        let programs = Programs::new(&options, &mut Vec::new());
        let mut report = Report {
            unusable: Some("no driver".into()),
            ..Report::default()
        };
        report.part("tests", |report| tests(&programs, report));
        assert!(report.broke && !report.failed);
        assert_eq!(report.parts[0]["reason"], "no driver");
    }

    #[test]
    fn a_part_that_does_not_run_leaves_its_reason() {
        let mut report = Report::default();
        report.part("one", |_| Ended::NotRun("no Python".into()));
        assert!(!report.failed && !report.broke);
        report.part("two", |_| Ended::Broke("no device".into()));
        report.part("three", |_| Ended::Failed("wrong".into()));
        assert!(report.failed && report.broke);
        let reasons: Vec<_> = report
            .parts
            .iter()
            .map(|part| part["reason"].as_str())
            .collect();
        assert_eq!(
            reasons,
            [Some("no Python"), Some("no device"), Some("wrong")]
        );
    }
}
