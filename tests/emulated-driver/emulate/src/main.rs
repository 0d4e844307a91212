//! `emulate`: builds the emulated driver for kernel files, and runs programs on it.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "its output is for whoever runs it"
)]

use emulate::{Checks, Emulator, Error, Kernels};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Output};

const HELP: &str = "\
Usage: emulate COMMAND [--plain] [--order ORDER] [--passes] [FILE.cu...] [-- PROGRAM [ARGUMENTS...]]

  build     build the driver, candle's kernels and FILE.cu, and print the folder for LD_LIBRARY_PATH
  run       the same, then run PROGRAM on it (usable as a cargo runner)
  barriers  list the barriers of each FILE.cu
  mutants   leave out each barrier of each FILE.cu in turn and run PROGRAM, which has to fail each time

  FILE.cu   kernel files; every .cu below crates/ if none is named
  --plain   without checks of races, bounds and arithmetic: several times faster
  --passes  PROGRAM is known to pass with every barrier in place; else `mutants` runs it so first
  --order   forward, reverse or shuffle:SEED: the order of blocks and threads (CUDA_EMU_ORDER)

What is built is kept in target/emulated-driver. Nothing that runs here is evidence of a real GPU.
";

struct Arguments {
    command: String,
    checks: Checks,
    order: Option<String>,
    passes: bool,
    files: Vec<PathBuf>,
    program: Vec<String>,
}

fn main() -> ExitCode {
    match arguments(std::env::args().skip(1)) {
        Ok(None) => {
            print!("{HELP}");
            ExitCode::SUCCESS
        }
        Ok(Some(arguments)) => match run(&arguments) {
            Ok(code) => code,
            Err(error) => {
                eprintln!("error: {error}");
                ExitCode::FAILURE
            }
        },
        Err(message) => {
            eprintln!("error: {message}\n\n{HELP}");
            ExitCode::from(2)
        }
    }
}

fn arguments(mut given: impl Iterator<Item = String>) -> Result<Option<Arguments>, String> {
    let command = given.next().ok_or("a command is missing")?;
    if ["-h", "--help", "help"].contains(&command.as_str()) {
        return Ok(None);
    }
    if !["build", "run", "barriers", "mutants"].contains(&command.as_str()) {
        return Err(format!("unknown command '{command}'"));
    }
    let mut arguments = Arguments {
        command,
        checks: Checks::On,
        order: None,
        passes: false,
        files: Vec::new(),
        program: Vec::new(),
    };
    while let Some(argument) = given.next() {
        match argument.as_str() {
            "-h" | "--help" => return Ok(None),
            "--plain" => arguments.checks = Checks::Off,
            "--passes" => arguments.passes = true,
            "--order" => arguments.order = Some(given.next().ok_or("--order needs a value")?),
            "--" => {
                arguments.program = given.by_ref().collect();
            }
            file if file.ends_with(".cu") => arguments.files.push(file.into()),
            other => {
                return Err(format!(
                    "unexpected '{other}'; kernel files end in .cu, a program follows --"
                ));
            }
        }
    }
    if ["run", "mutants"].contains(&arguments.command.as_str()) && arguments.program.is_empty() {
        return Err(format!("`{}` needs a program after --", arguments.command));
    }
    Ok(Some(arguments))
}

fn run(arguments: &Arguments) -> Result<ExitCode, Error> {
    let emulator = Emulator::new(emulate::default_folder())?;
    let files = if arguments.files.is_empty() {
        emulate::project_kernels()?
    } else {
        arguments.files.clone()
    };
    if arguments.command == "barriers" {
        let kernels: Vec<_> = files.iter().map(Kernels::of).collect();
        for (file, barriers) in files.iter().zip(emulator.barriers_of_each(&kernels)?) {
            for (index, barrier) in barriers.iter().enumerate() {
                println!(
                    "{}:{}: barrier {index}, {:?}",
                    file.display(),
                    barrier.line,
                    barrier.kind
                );
            }
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut sources = emulate::candle_kernels()?;
    if arguments.command == "mutants" {
        // The program launches kernels of other files too, which stay as they are.
        sources.extend(emulate::project_kernels()?);
    }
    for file in &files {
        let file = std::path::absolute(file)
            .map_err(|error| Error::from(format!("{}: {error}", file.display())))?;
        if !sources.contains(&file) {
            sources.push(file);
        }
    }
    let kernels: Vec<_> = sources.into_iter().map(Kernels::of).collect();
    let folder = emulator.build(&kernels, arguments.checks)?;
    if arguments.command == "build" {
        println!("{}", folder.display());
        return Ok(ExitCode::SUCCESS);
    }
    let mut program = Command::new(&arguments.program[0]);
    program.args(&arguments.program[1..]);
    emulate::emulated(&mut program, &folder);
    if let Some(order) = &arguments.order {
        program.env("CUDA_EMU_ORDER", order);
    }
    if arguments.command == "run" {
        let error = program.exec();
        eprintln!("error: cannot start {}: {error}", arguments.program[0]);
        return Ok(ExitCode::FAILURE);
    }
    mutants(&emulator, &files, arguments, &program)
}

/// One barrier left out, and how the program took it.
struct Mutant {
    name: String,
    library: PathBuf,
}

/// Runs the program with every barrier left out in turn, on all processors.
fn mutants(
    emulator: &Emulator,
    files: &[PathBuf],
    arguments: &Arguments,
    program: &Command,
) -> Result<ExitCode, Error> {
    let whole: Vec<_> = files.iter().map(Kernels::of).collect();
    let barriers = emulator.barriers_of_each(&whole)?;
    let (names, kernels): (Vec<_>, Vec<_>) = whole
        .iter()
        .zip(&barriers)
        .flat_map(|(whole, barriers)| {
            let file = whole.file.file_name().unwrap_or_default();
            barriers.iter().enumerate().map(move |(index, barrier)| {
                let name = format!("{}:{} {:?}", file.display(), barrier.line, barrier.kind);
                (name, whole.clone().without_barrier(index))
            })
        })
        .unzip();
    let libraries = emulator.build_libraries(&kernels, arguments.checks)?;
    let mutants: Vec<_> = names
        .into_iter()
        .zip(libraries)
        .map(|(name, library)| Mutant { name, library })
        .collect();
    if mutants.is_empty() {
        println!("no barriers");
        return Ok(ExitCode::SUCCESS);
    }
    // A program that fails anyway would prove nothing.
    if !arguments.passes {
        let whole = start(program, None)?;
        if !whole.status.success() {
            eprintln!("{}", String::from_utf8_lossy(&whole.stderr));
            eprintln!(
                "error: the program fails ({}) with every barrier in place",
                whole.status
            );
            return Ok(ExitCode::FAILURE);
        }
    }
    let caught = emulate::in_parallel(&mutants, |mutant| {
        let output = start(program, Some(&mutant.library))?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        let fault = stderr
            .lines()
            .find(|line| line.starts_with("emulated CUDA: fault:"));
        let how = match fault {
            _ if output.status.success() => "NOT CAUGHT: the program passes without it".to_owned(),
            Some(fault) => format!("caught by the driver: {fault}"),
            None => format!("caught by the program ({})", output.status),
        };
        println!("{}: {how}", mutant.name);
        Ok(!output.status.success())
    })?;
    let missed = caught.iter().filter(|caught| !**caught).count();
    println!(
        "{} barriers caught when left out, {missed} not",
        caught.len() - missed
    );
    Ok(if missed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(5)
    })
}

/// Runs the program as `like` would, with another library of kernels in front.
fn start(like: &Command, library: Option<&PathBuf>) -> Result<Output, Error> {
    let mut program = Command::new(like.get_program());
    program.args(like.get_args());
    for (name, value) in like.get_envs() {
        match value {
            Some(value) => program.env(name, value),
            None => program.env_remove(name),
        };
    }
    match library {
        Some(library) => program.env("CUDA_EMU_KERNELS", library),
        None => program.env_remove("CUDA_EMU_KERNELS"),
    };
    program.output().map_err(|error| {
        Error::from(format!(
            "cannot start {}: {error}",
            like.get_program().to_string_lossy()
        ))
    })
}
