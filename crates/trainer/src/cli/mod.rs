//! The command line: one file a command, and here what they share.

mod compare;
mod data;
mod eval;
mod options;
mod output;
mod predict;
mod train;
mod verify_training;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::errors::Result;
use crate::logging;

/// Trains LeNet-5 on Fashion-MNIST, and examines what it learned.
///
/// Exit codes: 0 ok, 1 run error, 2 usage, 3 bad data, 4 diverged, 5 a check failed, 130 interrupted.
#[derive(Parser)]
#[command(name = "trainer", bin_name = "cargo xtask", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Train(train::TrainArgs),
    Eval(eval::EvalArgs),
    Predict(predict::PredictArgs),
    Compare(compare::CompareArgs),
    VerifyTraining(verify_training::VerifyTrainingArgs),
    Data(data::DataArgs),
}

impl Command {
    fn json(&self) -> bool {
        match self {
            Self::Train(args) => args.json,
            Self::Eval(args) => args.json,
            Self::Predict(args) => args.json,
            Self::Compare(args) => args.json,
            Self::VerifyTraining(args) => args.json,
            Self::Data(args) => args.json,
        }
    }

    fn run(self) -> Result<()> {
        match self {
            Self::Train(args) => train::run(&args),
            Self::Eval(args) => eval::run(&args),
            Self::Predict(args) => predict::run(&args),
            Self::Compare(args) => compare::run(&args),
            Self::VerifyTraining(args) => verify_training::run(&args),
            Self::Data(args) => data::run(&args),
        }
    }
}

/// Runs the command that the process's arguments name, and returns its exit code.
pub fn run() -> ExitCode {
    let command = match Cli::try_parse() {
        Ok(cli) => cli.command,
        Err(error) => {
            // Help and version come this way too, with code 0. A closed or full stream leaves nobody to tell.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    logging::init(command.json());
    match command.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {}", error.message());
            ExitCode::from(error.exit_code())
        }
    }
}
