//! The command line: `verify-grads [--golden FILE]... [--filter NAME] [--device DEVICE] [--json]`.

use crate::case::Case;
use crate::device::Choice;
use crate::golden::{self, GoldenError};
use crate::report::{CaseResult, Summary, Widths};
use crate::{catalogue, device};
use clap::Parser;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// Checks all gradients: every loss and option, the vision ops, every parameter of LeNet-5, and PyTorch's golden values.
///
/// Prints one line a case and closes with `N passed, M failed, K skipped`.
/// Exit codes: 0 ok, 1 run error, 2 usage, 3 bad data, 5 a check failed.
#[derive(Debug, Parser)]
#[command(name = "verify-grads")]
struct Arguments {
    /// Golden values to compare with, in place of those built in; may be given several times
    #[arg(long, value_name = "FILE")]
    golden: Vec<PathBuf>,
    /// Only the cases whose name contains this
    #[arg(long, value_name = "NAME")]
    filter: Option<String>,
    /// Where to check: auto, cpu, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "auto", value_parser = str::parse::<Choice>)]
    device: Choice,
    /// One JSON object on standard output, everything else on standard error
    #[arg(long)]
    json: bool,
}

/// Why the command ended early.
#[derive(Debug, thiserror::Error)]
enum Stop {
    #[error(transparent)]
    Golden(#[from] GoldenError),
    #[error("--filter {0}: no case has that in its name; run without --filter to see all names")]
    NothingMatches(String),
    #[error("--device: {0}")]
    Device(String),
    #[error("standard output: {0}")]
    Output(#[from] io::Error),
}

impl Stop {
    fn code(&self) -> u8 {
        match self {
            Self::Golden(_) => 3,
            Self::NothingMatches(_) => 2,
            Self::Device(_) | Self::Output(_) => 1,
        }
    }
}

/// Runs the command with the arguments of the process.
#[must_use]
pub fn run() -> ExitCode {
    tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(io::stderr)
        .with_env_filter(filter())
        .init();
    match checks(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(5),
        Err(stop) => {
            // A closed standard error leaves nobody to tell.
            let _ = writeln!(io::stderr(), "error: {stop}");
            ExitCode::from(stop.code())
        }
    }
}

fn filter() -> tracing_subscriber::EnvFilter {
    tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"))
}

/// Whether nothing failed.
fn checks(arguments: &Arguments) -> Result<bool, Stop> {
    let chosen = arguments.device.open().map_err(|error| {
        let reason = error.to_string();
        Stop::Device(reason.lines().next().unwrap_or_default().to_string())
    })?;
    let mut cases = catalogue();
    if arguments.golden.is_empty() {
        cases.extend(golden::built_in()?);
    }
    for path in &arguments.golden {
        cases.extend(golden::read(path)?);
    }
    if let Some(part) = &arguments.filter {
        cases.retain(|case| case.name.contains(part.as_str()));
        if cases.is_empty() {
            return Err(Stop::NothingMatches(part.clone()));
        }
    }
    tracing::info!(
        cases = cases.len(),
        device = device::name(&chosen),
        "checking"
    );
    let summary = if arguments.json {
        let summary = Summary::of(&cases, &chosen);
        let text = serde_json::to_string(&summary).map_err(io::Error::from)?;
        Output::default().line(&text)?;
        summary
    } else {
        table(&cases, &chosen)?
    };
    Ok(summary.failed == 0)
}

fn table(cases: &[Case], device: &candle_core::Device) -> Result<Summary, Stop> {
    let (widths, mut summary, mut output) =
        (Widths::of(cases), Summary::default(), Output::default());
    output.line(&widths.header())?;
    for case in cases {
        let result = CaseResult::of(case, device);
        output.line(&widths.line(&result))?;
        summary.push(result);
    }
    output.line(&summary.to_string())?;
    Ok(summary)
}

/// Standard output that may be closed by its reader: the checks then go on for the sake of the exit code.
#[derive(Default)]
struct Output {
    closed: bool,
}

impl Output {
    fn line(&mut self, text: &str) -> io::Result<()> {
        if self.closed {
            return Ok(());
        }
        let mut stdout = io::stdout().lock();
        match writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(())
            }
            written => written,
        }
    }
}
