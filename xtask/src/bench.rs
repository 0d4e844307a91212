//! `cargo xtask bench`: runs the benchmarks, ours and the others' in the same minutes, and sets them in one table.
//!
//! Criterion measures the Rust side and leaves its medians in files; the Python scripts of the crate `bench` measure
//! PyTorch and JAX and print theirs. Both name a measurement by operation, implementation and shape.

use crate::exit::{self, Failure};
use crate::table::{duration, markdown};
use crate::tools;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const HELP: &str = "\
Usage: cargo xtask bench [SUITE...] [OPTIONS]

Measures and prints one table an operation: medians, and how many times slower than ours each other is.

Suites (all of them when none is named):
SUITES
Options:
  --python PATH   a Python with PyTorch or JAX, whose side is then measured too
  --threads N     threads for every side [default: all]
  --rounds N      measure every side N times in turn and take the median of each, where the machine is shared [default: 1]
  --filter TEXT   only benchmarks whose name holds TEXT, on the Rust side
  --keep-memory   freed memory stays with the process, on every side; see `keep_freed_memory` of the loss crate
  --quick         fewer samples, for a first look; not for quoting
  --json          one JSON object on standard output instead of tables
";

/// A benchmark of the crate `bench`, with the script that measures the same in Python.
struct Suite {
    name: &'static str,
    about: &'static str,
    /// Processes that share the contenders, each with settings of its own.
    processes: &'static [&'static [(&'static str, &'static str)]],
}

const SUITES: [Suite; 3] = [
    Suite {
        name: "losses",
        about: "cross entropy: forward, value and gradient",
        processes: &[&[]],
    },
    Suite {
        name: "vision",
        about: "conv2d: forward, forward and backward",
        processes: &[&[]],
    },
    Suite {
        name: "lenet5",
        about: "LeNet-5: a training step, an epoch",
        // Ours starts itself as the trainer does, with settings that stock Candle's users do not have.
        processes: &[&[("BENCH_ONLY", OURS)], &[("BENCH_ONLY", "candle")]],
    },
];

/// The column that the others are compared with.
const OURS: &str = "ours";

#[derive(Debug, Default)]
struct Options {
    suites: Vec<&'static str>,
    python: Option<PathBuf>,
    threads: Option<usize>,
    rounds: Option<usize>,
    filter: Option<String>,
    keep_memory: bool,
    quick: bool,
    json: bool,
}

impl Options {
    /// What every side finds in its environment: what `keep_freed_memory` does, for Python too.
    fn environment(&self) -> Option<(&'static str, &'static str)> {
        const KEEP: &str =
            "glibc.malloc.mmap_threshold=1073741824:glibc.malloc.trim_threshold=2147483647";
        self.keep_memory.then_some(("GLIBC_TUNABLES", KEEP))
    }
}

/// One median.
#[derive(Debug)]
struct Measurement {
    group: String,
    function: String,
    shape: String,
    seconds: f64,
}

pub(crate) fn run(arguments: &[OsString]) -> Result<(), Failure> {
    let Some(options) = parse(arguments)? else {
        let suites: String = SUITES
            .iter()
            .map(|s| format!("  {:<14}{}\n", s.name, s.about))
            .collect();
        return exit::print(&HELP.replace("SUITES\n", &suites));
    };
    let threads = options
        .threads
        .map_or_else(std::thread::available_parallelism, |n| {
            std::num::NonZero::new(n).ok_or_else(|| std::io::Error::other("zero"))
        });
    let threads = threads
        .map_err(|error| Failure::run(format!("cannot count the threads: {error}")))?
        .get();

    let mut notes = vec![format!("{threads} threads; {}", processor())];
    if options.keep_memory {
        notes.push("freed memory is kept (--keep-memory)".to_owned());
    }
    let mut measurements = Vec::new();
    for suite in SUITES.iter().filter(|s| options.suites.contains(&s.name)) {
        for _ in 0..options.rounds.unwrap_or(1) {
            measure_rust(suite, &options, threads, &mut notes, &mut measurements)?;
            if let Some(python) = &options.python {
                measure_python(
                    suite,
                    python,
                    &options,
                    threads,
                    &mut notes,
                    &mut measurements,
                )?;
            }
        }
    }
    let mut seen = std::collections::HashSet::new();
    notes.retain(|note| seen.insert(note.clone()));
    let measurements = medians(measurements);
    if measurements.is_empty() {
        return Err(Failure::usage(
            "no benchmark's name holds the text of --filter",
        ));
    }
    if options.json {
        exit::print(&to_json(&notes, &measurements))
    } else {
        exit::print(&to_tables(&notes, &measurements))
    }
}

fn parse(arguments: &[OsString]) -> Result<Option<Options>, Failure> {
    let mut options = Options::default();
    let mut rest = arguments.iter().map(|a| a.to_string_lossy().into_owned());
    while let Some(argument) = rest.next() {
        let mut value = |name: &str| {
            rest.next().ok_or_else(|| {
                Failure::usage(format!(
                    "{name} needs a value; see `cargo xtask bench --help`"
                ))
            })
        };
        match argument.as_str() {
            "-h" | "--help" => return Ok(None),
            "--python" => options.python = Some(value("--python")?.into()),
            "--filter" => options.filter = Some(value("--filter")?),
            "--keep-memory" => options.keep_memory = true,
            "--quick" => options.quick = true,
            "--json" => options.json = true,
            "--threads" => options.threads = Some(count(&argument, &value("--threads")?)?),
            "--rounds" => options.rounds = Some(count(&argument, &value("--rounds")?)?),
            name => match SUITES.iter().find(|suite| suite.name == name) {
                Some(suite) => options.suites.push(suite.name),
                None => {
                    return Err(Failure::usage(format!(
                        "'{name}' is neither a suite nor an option; see `cargo xtask bench --help`"
                    )));
                }
            },
        }
    }
    if options.suites.is_empty() {
        options.suites = SUITES.iter().map(|suite| suite.name).collect();
    }
    Ok(Some(options))
}

/// The number that an option takes.
fn count(option: &str, text: &str) -> Result<usize, Failure> {
    text.parse().ok().filter(|&n| n > 0).ok_or_else(|| {
        Failure::usage(format!(
            "{option} takes a whole number from 1 up, not '{text}'"
        ))
    })
}

/// One measurement for each that was taken in several rounds: their median, the larger of the two in the middle.
fn medians(rounds: Vec<Measurement>) -> Vec<Measurement> {
    let mut found: Vec<(Measurement, Vec<f64>)> = Vec::new();
    for m in rounds {
        let is_same = |known: &Measurement| {
            (&known.group, &known.function, &known.shape) == (&m.group, &m.function, &m.shape)
        };
        match found.iter_mut().find(|(known, _)| is_same(known)) {
            Some((_, seconds)) => seconds.push(m.seconds),
            None => {
                let seconds = vec![m.seconds];
                found.push((m, seconds));
            }
        }
    }
    let median = |(m, mut seconds): (Measurement, Vec<f64>)| {
        seconds.sort_by(f64::total_cmp);
        let seconds = seconds[seconds.len() / 2];
        Measurement { seconds, ..m }
    };
    found.into_iter().map(median).collect()
}

fn measure_rust(
    suite: &Suite,
    options: &Options,
    threads: usize,
    notes: &mut Vec<String>,
    measurements: &mut Vec<Measurement>,
) -> Result<(), Failure> {
    let build = [
        "bench",
        "--quiet",
        "--package",
        "bench",
        "--bench",
        suite.name,
        "--no-run",
    ];
    let benchmark = tools::build_executables(&build)?
        .into_iter()
        .find(|executable| executable.name == suite.name)
        .map(|executable| executable.path)
        .ok_or_else(|| Failure::run(format!("cargo built no benchmark named {}", suite.name)))?;

    let home =
        std::env::temp_dir().join(format!("xtask-bench-{}-{}", std::process::id(), suite.name));
    exit::note(&format!("measuring {} in Rust ...", suite.name));
    for settings in suite.processes {
        measure_process(suite, options, threads, &benchmark, &home, settings)?;
    }
    if let Ok(text) = std::fs::read_to_string(home.join("environment.json"))
        && let Ok(environment) = serde_json::from_str::<Value>(&text)
    {
        notes.push(format!(
            "{}: instruction set {}, compiled for {}",
            suite.name,
            environment["instruction_set"].as_str().unwrap_or("?"),
            environment["compile_time_features"].as_str().unwrap_or("?"),
        ));
    }
    collect(&home, measurements)?;
    let _ = std::fs::remove_dir_all(&home);
    Ok(())
}

/// Runs a benchmark with some settings; its results come to lie below `home`.
fn measure_process(
    suite: &Suite,
    options: &Options,
    threads: usize,
    benchmark: &Path,
    home: &Path,
    settings: &[(&str, &str)],
) -> Result<(), Failure> {
    let mut command = Command::new(benchmark);
    command
        .arg("--bench")
        .env("CRITERION_HOME", home)
        .env("RAYON_NUM_THREADS", threads.to_string())
        .envs(settings.iter().copied())
        .envs(options.environment());
    command.args(["--sample-size", if options.quick { "10" } else { "20" }]);
    command.args(["--warm-up-time", if options.quick { "0.2" } else { "0.5" }]);
    command.args([
        "--measurement-time",
        if options.quick { "0.5" } else { "2" },
    ]);
    command.args(options.filter.iter());
    // Criterion reports on standard output, which is for our table.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let status = command
        .status()
        .map_err(|error| Failure::run(format!("cannot start {}: {error}", benchmark.display())))?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::run(format!(
        "the benchmark {} failed ({status})",
        suite.name
    )))
}

/// Reads the medians that Criterion left below `folder`: `benchmark.json` names one, `estimates.json` holds it.
fn collect(folder: &Path, measurements: &mut Vec<Measurement>) -> Result<(), Failure> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Ok(());
    };
    let mut folders: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|p| p.is_dir())
        .collect();
    folders.sort();
    for folder in folders {
        let read = |name: &str| {
            let text = std::fs::read_to_string(folder.join(name)).ok()?;
            serde_json::from_str::<Value>(&text).ok()
        };
        let is_new = folder.file_name().is_some_and(|name| name == "new");
        match (is_new, read("benchmark.json"), read("estimates.json")) {
            (true, Some(name), Some(estimates)) => {
                let field = |key: &str| name[key].as_str().unwrap_or("?").to_owned();
                let nanoseconds =
                    estimates["median"]["point_estimate"]
                        .as_f64()
                        .ok_or_else(|| {
                            Failure::run(format!(
                                "no median in {}",
                                folder.join("estimates.json").display()
                            ))
                        })?;
                measurements.push(Measurement {
                    group: field("group_id"),
                    function: field("function_id"),
                    shape: field("value_str"),
                    seconds: nanoseconds * 1e-9,
                });
            }
            _ => collect(&folder, measurements)?,
        }
    }
    Ok(())
}

fn measure_python(
    suite: &Suite,
    python: &Path,
    options: &Options,
    threads: usize,
    notes: &mut Vec<String>,
    measurements: &mut Vec<Measurement>,
) -> Result<(), Failure> {
    let script = tools::root()
        .join("crates/bench/python")
        .join(format!("{}.py", suite.name));
    exit::note(&format!("measuring {} in Python ...", suite.name));
    let output = Command::new(python)
        .arg(&script)
        .arg(threads.to_string())
        .envs(options.environment())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| Failure::run(format!("cannot start {}: {error}", python.display())))?;
    if !output.status.success() {
        return Err(Failure::run(format!(
            "{} failed ({})",
            script.display(),
            output.status
        )));
    }
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let value: Value = serde_json::from_str(line).map_err(|error| {
            Failure::run(format!("{} printed '{line}': {error}", script.display()))
        })?;
        let field = |key: &str| value[key].as_str().map(str::to_owned);
        if let Some(missing) = field("missing") {
            notes.push(format!("not measured, {missing}"));
        } else if let Some(version) = field("version") {
            notes.push(version);
        } else if let (Some(group), Some(function), Some(shape), Some(seconds)) = (
            field("group"),
            field("function"),
            field("shape"),
            value["median_seconds"].as_f64(),
        ) {
            measurements.push(Measurement {
                group,
                function,
                shape,
                seconds,
            });
        } else {
            return Err(Failure::run(format!(
                "{} printed '{line}', which names no measurement",
                script.display()
            )));
        }
    }
    Ok(())
}

/// The processor's name, where the system tells it.
fn processor() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split(':').nth(1));
    name.map_or_else(
        || std::env::consts::ARCH.to_owned(),
        |name| name.trim().to_owned(),
    )
}

fn to_json(notes: &[String], measurements: &[Measurement]) -> String {
    let rows: Vec<_> = measurements
        .iter()
        .map(|m| json!({"group": m.group, "function": m.function, "shape": m.shape, "median_seconds": m.seconds}))
        .collect();
    format!("{}\n", json!({"notes": notes, "measurements": rows}))
}

/// The distinct values of `key` among `rows`, in order of first appearance, `first` before all others.
fn distinct<'a>(
    rows: impl Iterator<Item = &'a Measurement>,
    key: impl Fn(&'a Measurement) -> &'a str,
    first: &str,
) -> Vec<&'a str> {
    let mut found: Vec<&str> = Vec::new();
    for value in rows.map(key) {
        if !found.contains(&value) {
            found.push(value);
        }
    }
    found.sort_by_key(|value| *value != first);
    found
}

/// The number of elements that a label such as `8192x1000` stands for, so that rows go from small to large.
fn size_of(label: &str) -> f64 {
    label
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|n| n.parse::<f64>().ok())
        .product()
}

fn to_tables(notes: &[String], measurements: &[Measurement]) -> String {
    let mut text = notes
        .iter()
        .map(|note| format!("# {note}\n"))
        .collect::<String>();
    for group in distinct(measurements.iter(), |m| &m.group, "") {
        let rows = || measurements.iter().filter(|m| m.group == group);
        let columns = distinct(rows(), |m| &m.function, OURS);
        let mut shapes = distinct(rows(), |m| &m.shape, "");
        shapes.sort_by(|a, b| size_of(a).total_cmp(&size_of(b)));
        let find = |shape: &str, column: &str| {
            rows()
                .find(|m| m.shape == shape && m.function == column)
                .map(|m| m.seconds)
        };
        let mut table = vec![
            std::iter::once("shape")
                .chain(columns.iter().copied())
                .map(str::to_owned)
                .collect(),
        ];
        for shape in shapes {
            let ours = find(shape, OURS);
            let cell = |column: &&str| match (find(shape, column), ours) {
                (None, _) => "-".to_owned(),
                (Some(seconds), Some(ours)) if *column != OURS => {
                    format!("{} ({:.1}x)", duration(seconds), seconds / ours)
                }
                (Some(seconds), _) => duration(seconds),
            };
            table.push(
                std::iter::once(shape.to_owned())
                    .chain(columns.iter().map(cell))
                    .collect(),
            );
        }
        text.push_str(&format!("\n{group}\n\n{}", markdown(&table)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measurement(function: &str, shape: &str, seconds: f64) -> Measurement {
        Measurement {
            group: "op".into(),
            function: function.into(),
            shape: shape.into(),
            seconds,
        }
    }

    #[test]
    fn the_table_sets_ours_first_and_the_ratio_beside_the_others() {
        let rows = [
            measurement("candle-nn", "16x10", 4e-3),
            measurement("ours", "16x10", 2e-3),
        ];
        let text = to_tables(&["note".into()], &rows);
        assert!(text.contains("# note"), "{text}");
        assert!(
            text.contains("| shape |    ours |      candle-nn |"),
            "{text}"
        );
        assert!(
            text.contains("| 16x10 | 2.00 ms | 4.00 ms (2.0x) |"),
            "{text}"
        );
    }

    #[test]
    fn rounds_come_down_to_the_median_of_each_measurement() {
        let rounds = [3.0, 9.0, 1.0].map(|seconds| measurement("ours", "2x3", seconds));
        let others = [8.0, 2.0, 4.0].map(|seconds| measurement("candle-nn", "2x3", seconds));
        let rounds = rounds.into_iter().zip(others).flat_map(|(a, b)| [a, b]);
        let found = medians(rounds.collect());
        let found: Vec<_> = found.iter().map(|m| (&*m.function, m.seconds)).collect();
        assert_eq!(found, [("ours", 3.0), ("candle-nn", 4.0)]);
    }

    #[test]
    fn rows_go_from_small_to_large() {
        let rows = [
            measurement("ours", "1024x10", 1.0),
            measurement("ours", "2x3", 1.0),
        ];
        let text = to_tables(&[], &rows);
        assert!(
            text.find("2x3").unwrap() < text.find("1024x10").unwrap(),
            "{text}"
        );
    }

    #[test]
    fn an_unknown_suite_and_a_missing_value_are_usage_errors() {
        assert!(parse(&["nonsense".into()]).is_err());
        assert!(parse(&["--threads".into()]).is_err());
        assert!(parse(&["--threads".into(), "0".into()]).is_err());
    }
}
