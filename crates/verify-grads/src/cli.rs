//! The command line: `verify-grads [--golden FILE]... [--filter NAME] [--device DEVICE] [--json]`.

use crate::case::Case;
use crate::device::Choice;
use crate::golden::{self, GoldenError};
use crate::kept_graphs::{self, KeptGraphsError};
use crate::report::{CaseResult, Summary, Widths};
use crate::{catalogue, device};
use clap::Parser;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// Checks all gradients: every loss and option in first and second order, the vision ops, every parameter of LeNet-5, and
/// PyTorch's golden values.
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
    /// The cases of second order alone, one JSON object a line: what this program starts itself again for
    #[arg(long = kept_graphs::FLAG, hide = true)]
    keeping_graphs: bool,
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
    #[error(transparent)]
    KeptGraphs(#[from] KeptGraphsError),
}

impl Stop {
    fn code(&self) -> u8 {
        match self {
            Self::Golden(_) => 3,
            Self::NothingMatches(_) => 2,
            Self::Device(_) | Self::Output(_) | Self::KeptGraphs(_) => 1,
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
    let mut report = Report::new(arguments, &cases)?;
    let (kept, rest): (Vec<_>, Vec<_>) = cases.iter().partition(|case| case.keeps_graphs);
    if arguments.keeping_graphs {
        for case in kept {
            report.add(CaseResult::of(case, &chosen))?;
        }
    } else {
        for case in rest {
            report.add(CaseResult::of(case, &chosen))?;
        }
        let (filter, device) = (arguments.filter.as_deref(), device::name(&chosen));
        kept_graphs::run(kept.len(), filter, &device, |result| report.add(result))?;
    }
    report.close()
}

/// What has been found so far, and how it is printed.
struct Report {
    summary: Summary,
    output: Output,
    style: Style,
}

enum Style {
    Table(Widths),
    /// One object at the end.
    Json,
    /// One object a case.
    JsonLines,
}

impl Report {
    fn new(arguments: &Arguments, cases: &[Case]) -> io::Result<Self> {
        let style = match arguments {
            _ if arguments.keeping_graphs => Style::JsonLines,
            _ if arguments.json => Style::Json,
            _ => Style::Table(Widths::of(cases)),
        };
        let mut output = Output::default();
        if let Style::Table(widths) = &style {
            output.line(&widths.header())?;
        }
        Ok(Self {
            summary: Summary::default(),
            output,
            style,
        })
    }

    fn add(&mut self, result: CaseResult) -> Result<(), Stop> {
        match &self.style {
            Style::Table(widths) => self.output.line(&widths.line(&result))?,
            Style::Json => {}
            Style::JsonLines => {
                let text = serde_json::to_string(&result).map_err(io::Error::from)?;
                self.output.line(&text)?;
            }
        }
        self.summary.push(result);
        Ok(())
    }

    /// Whether nothing failed.
    fn close(mut self) -> Result<bool, Stop> {
        match self.style {
            Style::Table(_) => self.output.line(&self.summary.to_string())?,
            Style::Json => {
                let text = serde_json::to_string(&self.summary).map_err(io::Error::from)?;
                self.output.line(&text)?;
            }
            Style::JsonLines => {}
        }
        Ok(self.summary.failed == 0)
    }
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
